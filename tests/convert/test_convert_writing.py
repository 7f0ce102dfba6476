"""A folder is written whole, or left as it was; only a checkpoint is ever replaced."""

import os
import shutil
import stat
from pathlib import Path

import pytest

from mra_plugin import files
from mra_plugin.convert.writing import check_target, written_whole
from mra_plugin.errors import UserError


def checkpoint(folder: Path) -> Path:
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "bert"}')
    (folder / "model-00001-of-00002.safetensors").write_text("old")
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text("{}")
    return folder


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("there", ["nothing", "an empty folder", "a checkpoint"])
def test_it_takes_its_place_at_the_end(there: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    if there == "an empty folder":
        out.mkdir()
    elif there == "a checkpoint":
        checkpoint(out)
    before = names(out) if out.exists() else None
    with written_whole(out, overwrite=there == "a checkpoint") as folder:
        (folder / "config.json").write_text("new")
        assert (names(out) if out.exists() else None) == before
    assert names(out) == ["config.json"]
    assert (out / "config.json").read_text() == "new"
    assert list(tmp_path.iterdir()) == [out]
    usual = tmp_path / "usual"
    usual.mkdir()
    assert stat.S_IMODE(out.stat().st_mode) == stat.S_IMODE(usual.stat().st_mode)


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_error_leaves_everything_as_it_was(error: type, tmp_path: Path) -> None:
    out = checkpoint(tmp_path / "out")

    def write() -> None:
        with written_whole(out, overwrite=True) as folder:
            (folder / "config.json").write_text("new")
            raise error

    before = names(out)
    with pytest.raises(error):
        write()
    assert list(tmp_path.iterdir()) == [out]
    assert names(out) == before


@pytest.mark.parametrize("moment", ["before", "between", "after"])
def test_an_interrupt_at_the_last_step_leaves_one_of_them_whole(
    moment: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = checkpoint(tmp_path / "out")
    before = names(out)
    rename = Path.rename

    def interrupted(self: Path, target: Path) -> Path:
        if (moment, self.name) in (("before", "out"), ("between", "new")):
            raise KeyboardInterrupt
        result = rename(self, target)
        if (moment, self.name) == ("after", "new"):
            raise KeyboardInterrupt
        return result

    def no_swap(*_: Path) -> None:
        raise OSError(files.errno.ENOSYS, "no such call")

    monkeypatch.setattr(files, "_swap", no_swap)
    monkeypatch.setattr(files, "_flush", lambda path: None)

    def write() -> None:
        with written_whole(out, overwrite=True) as folder:
            (folder / "config.json").write_text("new")
            monkeypatch.setattr(Path, "rename", interrupted)

    with pytest.raises(KeyboardInterrupt):
        write()
    assert list(tmp_path.iterdir()) == [out]
    assert names(out) == (["config.json"] if moment == "after" else before)


@pytest.mark.parametrize("overwrite", [True, False])
def test_what_appears_meanwhile_stays(overwrite: bool, tmp_path: Path) -> None:
    out = tmp_path / "out"

    def write() -> None:
        with written_whole(out, overwrite) as folder:
            (folder / "config.json").write_text("new")
            checkpoint(out)
            if overwrite:
                (out / "notes.txt").touch()

    with pytest.raises(UserError, match="'notes.txt'" if overwrite else "is not empty"):
        write()
    assert list(tmp_path.iterdir()) == [out]
    assert "model-00001-of-00002.safetensors" in names(out)


@pytest.mark.parametrize(
    "file",
    ["data.sqlite", "training.yaml", "README.md", "src/config.json", "checkpoint-5/config.json"],
)
def test_a_checkpoint_with_other_files_beside_it_is_not_replaced(file: str, tmp_path: Path) -> None:
    out = checkpoint(tmp_path / "out")
    check_target(out, "somebody/model", True)
    (out / file).parent.mkdir(exist_ok=True)
    (out / file).write_text("dear to somebody")
    with pytest.raises(UserError, match=rf"holds '{file}', which is no part of a checkpoint"):
        check_target(out, "somebody/model", True)
    shutil.rmtree(out / file, ignore_errors=True)
    assert (out / file).read_text() == "dear to somebody"


def test_a_config_of_something_else_is_no_checkpoint(tmp_path: Path) -> None:
    out = tmp_path / "app"
    out.mkdir()
    for content in ('{"name": "my-app"}', "[]", "not JSON", "[" * 10**5):
        (out / "config.json").write_text(content)
        with pytest.raises(UserError, match="holds something else than a checkpoint"):
            check_target(out, "somebody/model", True)


def test_a_link_stays_and_its_folder_is_filled(tmp_path: Path) -> None:
    real, link, dangling = (tmp_path / name for name in ("real", "link", "dangling"))
    checkpoint(real)
    link.symlink_to("real")
    dangling.symlink_to("later")
    for out in link, dangling:
        check_target(out, "somebody/model", True)
        with written_whole(out, overwrite=True) as folder:
            (folder / "config.json").write_text("new")
        assert out.is_symlink()
        assert names(out) == ["config.json"]
    assert names(tmp_path) == ["dangling", "later", "link", "real"]


def test_targets_that_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = tmp_path / "photos"
    other.mkdir()
    (other / "cat.jpg").touch()
    model = checkpoint(tmp_path / "model")
    (tmp_path / "loop").symlink_to("loop")
    for out, source, overwrite, message in (
        (tmp_path / "loop", "model", False, "is a link that leads to itself"),
        (tmp_path / ("x" * 300), "model", False, "can't be put in place \\(File name too long"),
        (tmp_path / os.fsdecode(b"caf\xe9"), "model", False, "must have a name in UTF-8"),
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
    assert names(tmp_path) == ["loop", "model", "photos"]
    monkeypatch.chdir(model)
    with pytest.raises(UserError, match="in use as the current folder"):
        check_target(Path(), "somebody/model", True)


def test_a_place_that_can_not_be_renamed_is_refused_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def busy(self: Path, target: Path) -> Path:
        raise OSError(files.errno.EBUSY, os.strerror(files.errno.EBUSY))

    monkeypatch.setattr(Path, "rename", busy)
    (tmp_path / "mounted").mkdir()
    with pytest.raises(UserError, match=r"can't be put in place \(Device or resource busy\)"):
        check_target(tmp_path / "mounted", "somebody/model", False)
