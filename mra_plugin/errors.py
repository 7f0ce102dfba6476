"""What goes wrong for a reason that the user can mend."""


class UserError(ValueError):
    """Something asked for that can't be done; the message is for the user, and says what can."""


def first_line(error: Exception) -> str:
    """What a library says first; the advice that follows is about other programs."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0].strip()
