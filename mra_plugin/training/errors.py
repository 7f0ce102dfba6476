"""What goes wrong for a reason that the user can mend."""


class TrainingError(ValueError):
    """Settings, data or a folder that training can't work with; the message is for the user."""
