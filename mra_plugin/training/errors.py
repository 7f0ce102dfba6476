"""What goes wrong for a reason that the user can mend."""

from mra_plugin.errors import UserError

TrainingError = UserError
