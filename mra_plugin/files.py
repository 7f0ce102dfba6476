"""Files and folders that are replaced as a whole: whatever happens, the old or the new is there."""

import contextlib
import ctypes
import errno
import os
import secrets
import stat
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

# What a system answers that has no way to swap two folders.
_NO_SWAP = {errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP}


def write_whole(path: Path, content: str | bytes) -> None:
    """Writes a file beside its place, and then renames it: no moment leaves it half written.

    A link stays, and what it leads to is replaced; mode and owner are kept. What is no regular
    file, as ``/dev/stdout``, is written to.

    Args:
        path: of the file.
        content: all of it; a str in UTF-8.

    Raises:
        OSError: it can't be written; what was there is as it was.
    """
    data = content.encode() if isinstance(content, str) else content
    place = Path(os.path.realpath(path))
    there = place.stat() if place.exists() else None
    if there is not None and not stat.S_ISREG(there.st_mode):
        place.write_bytes(data)
        return
    if there is not None and not os.access(place, os.W_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
    beside = place.with_name(f".mra-{secrets.token_hex(8)}")
    try:
        # A new file, in the mode that the umask gives to any.
        with open(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666), "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        if there is not None:
            _like(there, beside)
        os.replace(beside, place)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
    _flush(place.parent)


def move_each(source: Path, folder: Path) -> None:
    """Moves the files of one folder to another of the same file system, replacing them one by one.

    Args:
        source: a folder of files; gone in the end.
        folder: where they go.
    """
    flush_folder(source)
    for path in sorted(source.iterdir()):
        os.replace(path, folder / path.name)
    source.rmdir()
    _flush(folder)


def check_replaceable(folder: Path) -> None:
    """Whether a folder could be replaced by another, or made if it isn't there; changes nothing.

    Args:
        folder: without links in its path.

    Raises:
        OSError: its parent can't be written to, or it can't be renamed, as a mount point.
    """
    with tempfile.TemporaryDirectory(
        prefix=".mra-", dir=folder.parent, ignore_cleanup_errors=True
    ) as full:
        # No system puts one folder in the place of another that has something in it: what hinders
        # the renaming in any other way comes first.
        (Path(full) / "something").mkdir()
        if not folder.exists():
            return
        try:
            folder.rename(full)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
        else:
            Path(full).rename(folder)


def replace_folder(folder: Path, new: Path, old: Path) -> None:
    """Puts a new folder in the place of one that is there, in one step where the system can.

    Where it can't, a kill between two renames leaves ``new`` and ``old`` whole, and nothing in the
    place.

    Args:
        folder: the place.
        new: goes there.
        old: where the one that is there goes; all three on one file system.

    Raises:
        OSError: it can't be done; what was there is where it was.
    """
    mode = folder.stat()
    _like(mode, new)
    try:
        _swap(new, folder)
    except OSError as error:
        if error.errno not in _NO_SWAP:
            raise
        try:
            folder.rename(old)
            new.rename(folder)
        except BaseException:
            if old.exists() and not folder.exists():
                old.rename(folder)
            raise
    else:
        new.rename(old)
    _flush(folder.parent)


def flush_folder(folder: Path) -> None:
    """Has the disk hold all files of a folder, at any depth."""
    for path in [*folder.rglob("*"), folder]:
        _flush(path)


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Holds a lock that only one process can have, which the system lets go if that is killed.

    Args:
        path: of a file that is there while the lock is held. Where the file system knows no
            locks, there is none.

    Raises:
        BlockingIOError: another process has it.
    """
    try:
        import fcntl
    except ImportError:  # not on Windows
        yield
        return
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            ours = True
        except BlockingIOError:
            os.close(handle)
            raise
        except OSError:
            ours = False
        # The one who had it may have removed the file in between.
        if not ours or _is_open(path, handle):
            break
        os.close(handle)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(handle)


def _is_open(path: Path, handle: int) -> bool:
    with contextlib.suppress(FileNotFoundError):
        return os.path.samestat(path.stat(), os.fstat(handle))
    return False


def _like(there: os.stat_result, path: Path) -> None:
    """Gives a file or folder the mode of another, and its owner if we may."""
    if hasattr(os, "chown"):
        with contextlib.suppress(OSError):
            os.chown(path, there.st_uid, there.st_gid)
    path.chmod(stat.S_IMODE(there.st_mode))


def _flush(path: Path) -> None:
    # Not every file system lets folders be flushed, and none needs it to be right.
    with contextlib.suppress(OSError):
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _swap(one: Path, other: Path) -> None:
    """Swaps two folders in one step.

    Raises:
        OSError: with an error number of `_NO_SWAP` where there is no such step.
    """
    names = (os.fsencode(one), os.fsencode(other))
    library: Any = ctypes.CDLL(None, use_errno=True) if os.name == "posix" else None
    if sys.platform == "darwin" and hasattr(library, "renamex_np"):
        failed = library.renamex_np(*names, 2)  # RENAME_SWAP
    elif sys.platform == "linux" and hasattr(library, "renameat2"):
        here, exchange = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
        failed = library.renameat2(here, names[0], here, names[1], exchange)
    else:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    if failed:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), str(other))
