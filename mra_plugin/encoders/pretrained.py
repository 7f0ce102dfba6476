"""What all loading from a folder or the hub has in common: quiet, and one line if it fails."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from huggingface_hub import is_offline_mode, snapshot_download
from huggingface_hub.errors import (
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
)
from huggingface_hub.utils import logging as hub_logging
from transformers.utils import logging

from mra_plugin.errors import UserError, first_line

# For every call that loads: where it is left out, transformers asks on the terminal whether to run
# the Python that comes with a checkpoint.
OWN_CODE_ONLY: dict[str, Any] = {"trust_remote_code": False}


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
        if "trust_remote_code" in str(error):
            raise UserError(
                f"can't load {what}: it needs Python code of its own, which is never run; if you "
                "trust it, load it yourself in Python and give the model to mra_plugin.patch"
            ) from None
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


def check_spelling(folder: Path) -> None:
    """Refuses a folder for a model whose name is no text: weights can't be written there.

    Raises:
        UserError: there are bytes in its name that are no characters.
    """
    try:
        str(folder).encode()
    except UnicodeEncodeError:
        raise UserError(f"OUT must have a name in UTF-8, got {str(folder)!r}") from None


def folder_with(name: str, file: str, *more: str) -> Path | None:
    """The folder that a file lies in; from the hub it is brought here.

    Args:
        name: a folder, or the id of a model on the hub.
        file: in its top folder.
        *more: patterns of other files to bring along from the hub.

    Returns:
        None if there is no such file, as far as can be known: without the hub, what is not in its
        cache is not there.

    Raises:
        UserError: the hub can't be asked.
    """
    if Path(name).is_dir():
        return Path(name) if (Path(name) / file).is_file() else None
    try:
        with quiet():
            folder = Path(snapshot_download(name, allow_patterns=[file, *more]))
    except (HFValidationError, RepositoryNotFoundError):
        return None  # loading the model says it better
    except (OSError, ValueError) as error:
        # What derives from these knows more: that the file should be there.
        if is_offline_mode() and type(error) in (LocalEntryNotFoundError, OfflineModeIsEnabled):
            return None
        raise UserError(f"can't ask the hub for {file} of {name!r}: {first_line(error)}") from None
    return folder if (folder / file).is_file() else None


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
