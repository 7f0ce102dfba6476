"""Folders that appear whole or not at all."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mra_plugin.errors import UserError


def check_target(out: Path, source: str, overwrite: bool) -> None:
    """Refuses a folder that could not, or should not, be written.

    Args:
        out: where the checkpoint is to be.
        source: folder or hub id that it is made of.
        overwrite: whether a checkpoint that is there may go.

    Raises:
        UserError: says why.
    """
    if not out.absolute().parent.is_dir():
        raise UserError(f"OUT must lie in a folder that exists, got {str(out)!r}")
    if not out.exists():
        return
    if not out.is_dir():
        raise UserError(f"OUT must be a folder, {str(out)!r} is a file")
    if not any(out.iterdir()):
        return
    if Path(source).is_dir() and Path(source).resolve().is_relative_to(out.resolve()):
        raise UserError(f"OUT {str(out)!r} holds MODEL, which it would replace")
    if not overwrite:
        raise UserError(f"OUT {str(out)!r} is not empty; --overwrite replaces a checkpoint")
    if not (out / "config.json").is_file():
        raise UserError(
            f"OUT {str(out)!r} holds something else than a checkpoint; --overwrite does not "
            "replace it"
        )


@contextmanager
def written_whole(out: Path) -> Iterator[Path]:
    """Gives a folder to write to, which takes its place once all is well.

    Args:
        out: the place. A folder that is there is replaced.

    Yields:
        A new folder beside it. After an error it is gone, and ``out`` as it was.
    """
    out = out.absolute()
    with tempfile.TemporaryDirectory(prefix=f".{out.name}-", dir=out.parent) as scratch:
        # Not the scratch folder itself, which none but its owner may read.
        new = Path(scratch) / "new"
        new.mkdir()
        yield new
        if not out.exists():
            new.rename(out)
            return
        old = Path(scratch) / "old"
        out.rename(old)
        try:
            new.rename(out)
        except OSError:
            old.rename(out)
            raise


def size_of(folder: Path) -> int:
    """Bytes of the weights in a folder."""
    return sum(path.stat().st_size for path in folder.glob("*.safetensors"))
