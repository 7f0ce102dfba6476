"""`python -m mra_plugin.cli` is `mra`, for launchers that start Python themselves."""

from . import app

if __name__ == "__main__":
    app(prog_name="mra")
