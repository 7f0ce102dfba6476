"""What goes wrong between a name and the attention it stands for."""


class AttentionError(ValueError):
    """Base of the registry's errors: a name, its parameters, or this machine do not fit."""


class UnknownAttentionError(AttentionError, LookupError):
    """No backend has this name."""


class AttentionConflictError(AttentionError, LookupError):
    """More than one owner offers this name."""


class AttentionParameterError(AttentionError, TypeError):
    """The backend does not take these parameters."""


class AttentionUnavailableError(AttentionError, RuntimeError):
    """The backend can't run on this machine."""


class AttentionPluginWarning(UserWarning):
    """An installed plugin failed to load; what the others offer is not affected."""
