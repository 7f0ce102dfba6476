"""What can be wrong with what a report is asked for."""

from mra_plugin.errors import UserError

ReportError = UserError
