"""What goes wrong for a reason that the user can mend."""


class UserError(ValueError):
    """Something asked for that can't be done; the message is for the user, and says what can."""


ConversionError = UserError
