"""Folders that appear whole or not at all."""

import contextlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from mra_plugin.encoders.pretrained import check_spelling
from mra_plugin.errors import UserError
from mra_plugin.files import check_replaceable, flush_folder, replace_folder

# Files that a checkpoint is made of, and nothing else: what else lies in a folder may be dear to
# somebody, so the folder is not replaced.
_WEIGHTS = r"(model|pytorch_model)(-\d+-of-\d+)?\.(safetensors|bin)(\.index\.json)?"
_SETTINGS = (
    r"(config|generation_config|special_tokens_map|added_tokens|tokenizer_config|tokenizer)\.json"
    r"|chat_template\.(json|jinja)"
)
_VOCABULARY = (
    r"(entity_)?vocab\.(txt|json)|merges\.txt|dict\.txt|bpe\.codes|prophetnet\.tokenizer"
    r"|(spiece|spm|tokenizer|sentencepiece\.bpe)\.model"
)
_SENTENCES = (
    r"(modules|sentence_\w+_config|config_sentence_transformers)\.json"
    rf"|\d+_\w+/(config\.json|{_WEIGHTS})"
)
_PART = re.compile(rf"{_WEIGHTS}|{_SETTINGS}|{_VOCABULARY}|{_SENTENCES}")


def check_target(out: Path, source: str, overwrite: bool) -> None:
    """Refuses a folder that could not, or should not, be written.

    Args:
        out: where the checkpoint is to be; a link stands for what it leads to.
        source: folder or hub id that it is made of.
        overwrite: whether a checkpoint that is there may go.

    Raises:
        UserError: says why.
    """
    try:
        _check_place(Path(os.path.realpath(out)), out, source, overwrite)
    except OSError as error:
        raise UserError(
            f"OUT {str(out)!r} can't be put in place ({error.strerror}): name a folder that can be "
            "renamed, in one that can be written to"
        ) from None


def _check_place(place: Path, out: Path, source: str, overwrite: bool) -> None:
    check_spelling(place)
    if place.is_symlink():
        raise UserError(f"OUT {str(out)!r} is a link that leads to itself")
    if not place.parent.is_dir():
        raise UserError(f"OUT must lie in a folder that exists, got {str(out)!r}")
    if place.exists() and not place.is_dir():
        raise UserError(f"OUT must be a folder, {str(out)!r} is a file")
    if place.is_dir():
        if any(place.iterdir()):
            if Path(source).is_dir() and Path(source).resolve().is_relative_to(place):
                raise UserError(f"OUT {str(out)!r} holds MODEL, which it would replace")
            _check_content(place, str(out), overwrite)
        if Path.cwd().is_relative_to(place):
            raise UserError(f"OUT {str(out)!r} is in use as the current folder: name another")
    check_replaceable(place)


@contextlib.contextmanager
def written_whole(out: Path, overwrite: bool = False) -> Iterator[Path]:
    """Gives a folder to write to, which takes its place once all is well.

    Args:
        out: the place; a link stands for what it leads to.
        overwrite: whether a checkpoint that is there then may go.

    Yields:
        A new folder beside it. After an error it is gone, and ``out`` as it was.

    Raises:
        UserError: something appeared in ``out`` meanwhile that is not to be replaced.
    """
    place = Path(os.path.realpath(out))
    # Not the scratch folder itself takes the place, as none but its owner may read that.
    scratch = Path(tempfile.mkdtemp(prefix=f".{place.name[:40]}-", dir=place.parent))
    new, old = scratch / "new", scratch / "old"
    try:
        new.mkdir()
        yield new
        flush_folder(new)
        _put(new, place, old, str(out), overwrite)
    finally:
        if old.exists() and not place.exists():
            old.rename(place)
        _remove_checkpoint(old)
        shutil.rmtree(new, ignore_errors=True)
        with contextlib.suppress(OSError):
            scratch.rmdir()


def size_of(folder: Path) -> int:
    """Bytes of the weights in a folder."""
    return sum(path.stat().st_size for path in folder.glob("*.safetensors"))


def _put(new: Path, place: Path, old: Path, called: str, overwrite: bool) -> None:
    if place.is_dir():
        new.chmod(place.stat().st_mode & 0o7777)
        with contextlib.suppress(OSError):  # if anything came into it meanwhile
            place.rmdir()
    if place.is_dir():
        _check_content(place, called, overwrite)
        replace_folder(place, new, old)
    else:
        new.rename(place)


def _check_content(folder: Path, called: str, overwrite: bool) -> None:
    """Refuses to replace a folder that holds more than a checkpoint."""
    if not overwrite:
        raise UserError(f"OUT {called!r} is not empty; --overwrite replaces a checkpoint")
    if not _names_a_model(folder / "config.json"):
        raise UserError(
            f"OUT {called!r} holds something else than a checkpoint; --overwrite does not "
            "replace it"
        )
    if others := [name for name, path in _content(folder) if not _is_part(name, path)]:
        more = f" and {len(others) - 1} more" if len(others) > 1 else ""
        raise UserError(
            f"OUT {called!r} holds {others[0]!r}{more}, which is no part of a checkpoint and "
            "would be lost; --overwrite does not replace it"
        )


def _names_a_model(config: Path) -> bool:
    try:
        content = json.loads(config.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(content, dict) and isinstance(content.get("model_type"), str)


def _content(folder: Path) -> list[tuple[str, Path]]:
    """All that a folder holds, but for folders in which there is something."""
    found = []
    for path in sorted(folder.rglob("*")):
        if path.is_symlink() or not path.is_dir() or not any(path.iterdir()):
            found.append((path.relative_to(folder).as_posix(), path))
    return found


def _is_part(name: str, path: Path) -> bool:
    return path.is_file() and _PART.fullmatch(name) is not None


def _remove_checkpoint(folder: Path) -> None:
    """Removes a checkpoint; what came to it in the last moment stays."""
    if not folder.exists():
        return
    for name, path in _content(folder):
        if _is_part(name, path):
            path.unlink()
    for path in [*sorted(folder.rglob("*"), reverse=True), folder]:
        if path.is_dir():
            with contextlib.suppress(OSError):
                path.rmdir()
