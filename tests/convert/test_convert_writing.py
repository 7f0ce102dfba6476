"""A folder is written whole, or left as it was."""

from pathlib import Path

import pytest

from mra_plugin.convert.writing import check_target, written_whole
from mra_plugin.errors import UserError


def checkpoint(folder: Path) -> Path:
    folder.mkdir()
    (folder / "config.json").write_text("old")
    (folder / "old.txt").write_text("old")
    return folder


@pytest.mark.parametrize("there", ["nothing", "an empty folder", "a checkpoint"])
def test_it_takes_its_place_at_the_end(there: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    if there == "an empty folder":
        out.mkdir()
    elif there == "a checkpoint":
        checkpoint(out)
    before = sorted(out.iterdir()) if out.exists() else None
    with written_whole(out) as folder:
        (folder / "config.json").write_text("new")
        assert (sorted(out.iterdir()) if out.exists() else None) == before
    assert [path.name for path in out.iterdir()] == ["config.json"]
    assert (out / "config.json").read_text() == "new"
    assert list(tmp_path.iterdir()) == [out]
    assert out.stat().st_mode & 0o777 == tmp_path_mode(tmp_path)


def tmp_path_mode(tmp_path: Path) -> int:
    """What any new folder gets."""
    folder = tmp_path / "any"
    folder.mkdir()
    mode = folder.stat().st_mode & 0o777
    folder.rmdir()
    return mode


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_error_leaves_everything_as_it_was(error: type, tmp_path: Path) -> None:
    out = checkpoint(tmp_path / "out")

    def write() -> None:
        with written_whole(out) as folder:
            (folder / "config.json").write_text("new")
            raise error

    with pytest.raises(error):
        write()
    assert list(tmp_path.iterdir()) == [out]
    assert (out / "old.txt").read_text() == "old"


def test_what_was_there_comes_back_if_the_last_step_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = checkpoint(tmp_path / "out")
    rename = Path.rename

    def fail_for_the_new(self: Path, target: Path) -> Path:
        if self.name == "new":
            raise OSError("disk on fire")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fail_for_the_new)
    with pytest.raises(OSError, match="disk on fire"), written_whole(out):
        pass
    assert (out / "old.txt").read_text() == "old"
    assert list(tmp_path.iterdir()) == [out]


def test_targets_that_are_refused(tmp_path: Path) -> None:
    other = tmp_path / "photos"
    other.mkdir()
    (other / "cat.jpg").touch()
    model = checkpoint(tmp_path / "model")
    for out, source, overwrite, message in (
        (tmp_path / "no" / "out", "model", False, "must lie in a folder that exists"),
        (other / "cat.jpg", "model", True, "is a file"),
        (model, "somebody/model", False, "is not empty; --overwrite replaces a checkpoint"),
        (other, "model", True, "holds something else than a checkpoint"),
        (model, str(model), True, "holds MODEL, which it would replace"),
        (tmp_path, str(model), True, "holds MODEL, which it would replace"),
    ):
        with pytest.raises(UserError, match=message):
            check_target(out, source, overwrite)
    check_target(model, "somebody/model", True)
    check_target(tmp_path / "out", str(model), False)
