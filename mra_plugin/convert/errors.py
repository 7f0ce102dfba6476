"""What can't be converted."""


class ConversionError(ValueError):
    """A checkpoint, or a wish for it, that can't be served; the message is for the user."""
