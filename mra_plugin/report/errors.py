"""What can be wrong with what a report is asked for."""


class ReportError(ValueError):
    """A result file, or a file to update, that a report can't be made from."""
