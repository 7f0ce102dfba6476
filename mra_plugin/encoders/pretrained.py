"""What all loading from a folder or the hub has in common: quiet, and one line if it fails."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from huggingface_hub.utils import logging as hub_logging
from transformers.utils import logging
from transformers.utils.hub import cached_file

from mra_plugin.errors import UserError, first_line


@contextmanager
def loading(what: str) -> Iterator[None]:
    """Keeps load reports off the terminal, and makes one message of whatever goes wrong.

    Args:
        what: is loaded, for the message, such as ``"the model of 'roberta'"``.

    Raises:
        UserError: it can't be loaded; the message names ``what``.
    """
    try:
        with quiet():
            yield
    except Exception as error:
        raise UserError(f"can't load {what}: {first_line(error)}") from None


def check_folder(name: str, argument: str = "") -> None:
    """Refuses a path without a folder, which transformers would take for an id on the hub.

    Args:
        name: a folder, or the id of a model on the hub.
        argument: names it in the message, as ``"--model"`` does.

    Raises:
        UserError: there is no such folder.
    """
    looks_like_a_path = Path(name).is_absolute() or name.startswith(".") or name.count("/") > 1
    if not Path(name).is_dir() and (looks_like_a_path or Path(name).exists()):
        raise UserError(f"{argument}{': ' * bool(argument)}there is no folder {name!r}")


def is_sentence_transformer(name: str) -> bool:
    """Whether the files of sentence-transformers lie beside a model.

    Args:
        name: a folder, or the id of a model on the hub.
    """
    try:
        with quiet():
            return cached_file(name, "modules.json") is not None
    except OSError:
        return False


@contextmanager
def quiet() -> Iterator[None]:
    """Keeps progress bars, load reports and retries of the hub off the terminal."""
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    hub_verbosity = hub_logging.get_verbosity()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    hub_logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
        hub_logging.set_verbosity(hub_verbosity)
