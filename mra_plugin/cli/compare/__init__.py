"""`mra compare`: the command, its arguments, its work and its tables."""
