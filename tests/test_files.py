"""Whatever happens while a file or a folder is replaced, the old or the new is there."""

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from mra_plugin import files
from mra_plugin.files import check_replaceable, locked, replace_folder, write_whole


def test_a_file_is_made_and_replaced(tmp_path: Path) -> None:
    path = tmp_path / "new.txt"
    usual = tmp_path / "usual"
    usual.touch()
    write_whole(path, "é")
    assert path.read_bytes() == "é".encode()
    assert path.stat().st_mode == usual.stat().st_mode
    path.chmod(0o640)
    write_whole(path, b"\r\n\xff")
    assert path.read_bytes() == b"\r\n\xff"
    assert path.stat().st_mode & 0o777 == 0o640
    assert sorted(tmp_path.iterdir()) == [path, usual]


def test_a_link_stays_and_what_it_leads_to_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "far").mkdir()
    real, link = tmp_path / "far" / "real.md", tmp_path / "link.md"
    real.write_text("old")
    link.symlink_to("far/real.md")
    write_whole(link, "new")
    assert link.is_symlink()
    assert real.read_text() == "new"
    assert list((tmp_path / "far").iterdir()) == [real]


def test_what_is_no_regular_file_is_written_to() -> None:
    write_whole(Path(os.devnull), "nowhere")
    assert not Path(os.devnull).is_file()


@pytest.mark.parametrize("failing", ["fsync", "replace"])
@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left"), KeyboardInterrupt()])
def test_an_old_file_outlives_any_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str, error: BaseException
) -> None:
    path = tmp_path / "file"
    path.write_text("old")

    def fail(*_: Any) -> None:
        raise error

    monkeypatch.setattr(files.os, failing, fail)
    with pytest.raises(type(error)):
        write_whole(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def folders(tmp_path: Path) -> tuple[Path, Path, Path]:
    for name in "place", "new":
        (tmp_path / name).mkdir()
        (tmp_path / name / f"{name}.txt").touch()
    return tmp_path / "place", tmp_path / "new", tmp_path / "old"


def no_swap(*_: Path) -> None:
    raise OSError(errno.ENOSYS, "no such call")


@pytest.mark.parametrize("swaps", [True, False])
def test_a_folder_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, swaps: bool) -> None:
    place, new, old = folders(tmp_path)
    place.chmod(0o750)
    if not swaps:
        monkeypatch.setattr(files, "_swap", no_swap)
    replace_folder(place, new, old)
    assert [path.name for path in place.iterdir()] == ["new.txt"]
    assert [path.name for path in old.iterdir()] == ["place.txt"]
    assert place.stat().st_mode & 0o777 == 0o750
    assert not new.exists()


@pytest.mark.parametrize("error", [OSError("on fire"), KeyboardInterrupt()])
def test_an_old_folder_comes_back_between_two_renames(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    place, new, old = folders(tmp_path)
    rename = Path.rename

    def fail_for_the_new(self: Path, target: Path) -> Path:
        if self == new:
            raise error
        return rename(self, target)

    monkeypatch.setattr(files, "_swap", no_swap)
    monkeypatch.setattr(Path, "rename", fail_for_the_new)
    with pytest.raises(type(error)):
        replace_folder(place, new, old)
    assert [path.name for path in place.iterdir()] == ["place.txt"]
    assert new.exists()


def test_a_folder_is_asked_whether_it_could_be_renamed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = folders(tmp_path)[0]
    check_replaceable(place)
    check_replaceable(tmp_path / "not there")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new", "place"]
    assert (place / "place.txt").exists()

    def busy(*_: Any) -> None:
        raise OSError(errno.EBUSY, "busy")

    monkeypatch.setattr(Path, "rename", busy)
    with pytest.raises(OSError, match="busy"):
        check_replaceable(place)


@pytest.mark.skipif(os.name != "posix", reason="locks of POSIX")
def test_a_lock_ends_with_its_process(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    code = (
        "import pathlib, sys, time\n"
        "from mra_plugin.files import locked\n"
        "with locked(pathlib.Path(sys.argv[1])):\n"
        "    print('locked', flush=True)\n"
        "    time.sleep(60)\n"
    )
    other = subprocess.Popen([sys.executable, "-c", code, path], stdout=subprocess.PIPE, text=True)
    assert other.stdout is not None
    assert other.stdout.readline() == "locked\n"
    with pytest.raises(BlockingIOError), locked(path):
        pass
    other.send_signal(signal.SIGKILL)
    other.wait()
    assert path.exists()
    for _ in range(2):
        with locked(path):
            assert path.exists()
        assert not path.exists()
