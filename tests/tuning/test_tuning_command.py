"""`mra tune` from end to end."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from helpers.letter_models import save_model, save_tokenizer
from transformers import AutoModel, AutoTokenizer, BertForSequenceClassification, GPT2Config
from transformers import GPT2Model as Causal
from typer.testing import CliRunner, Result

from mra_plugin.cli import app
from mra_plugin.convert import stretch
from mra_plugin.ops import PRESETS
from mra_plugin.tuning.documents import documents_of

Run = Callable[..., Result]


@pytest.fixture
def text(tmp_path: Path, letters: Callable[[int], str]) -> Path:
    path = tmp_path / "letters.txt"
    path.write_text(letters(2000))
    return path


@pytest.fixture
def mra_tune(text: Path) -> Run:
    """Runs the command in this process on the letters: ``mra_tune(model, ...)``."""

    def run(*arguments: object) -> Result:
        given = [str(argument) for argument in ("--text", text, "--device", "cpu", *arguments)]
        return CliRunner().invoke(app, ["tune", *given])

    return run


def refusal(result: Result) -> str:
    """The one line that a refused command prints."""
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    return line


def test_table_and_checkpoint(mra_tune: Run, text: Path, tmp_path: Path) -> None:
    source = save_model(BertForSequenceClassification, tmp_path / "in", max_position_embeddings=48)
    out = tmp_path / "out"
    result = mra_tune(source, "--target", 0.93, "--lengths", "128,256", "--save", out)
    assert result.exit_code == 0, result.output
    assert result.stderr == ""
    title, *_, after = result.stdout.split("\n\n")
    assert "mra beside exact attention, on held-out documents" in title
    assert "3 documents to search with and 3 held out" in result.stdout
    assert "the model's 48 position embeddings are repeated up to 256" in result.stdout
    assert "inputs of up to 127 tokens get exact attention" in result.stdout
    assert "128" in after  # the summary of what was written

    # What was measured is what a plain load gives.
    loaded = AutoModel.from_pretrained(out).eval()
    options = loaded.config.mra
    assert loaded.config._attn_implementation == "mra"
    assert options.keys() == PRESETS["close"].__dataclass_fields__.keys()
    assert options["exact_up_to"] == 127
    tokenizer = AutoTokenizer.from_pretrained(out)
    assert tokenizer.model_max_length == 256
    exact = stretch(AutoModel.from_pretrained(source).eval(), None, 256)
    halves = documents_of(tokenizer, [text.read_text()], [128, 256], "sentence")
    least = 1.0
    for tokens in (128, 256):
        means = []
        for model in (exact, loaded):
            ids = torch.tensor([halves.cut(one, tokens) for one in halves.held_out])
            with torch.no_grad():
                means.append(model(ids).last_hidden_state.mean(1))
        least = min(least, torch.cosine_similarity(*means, dim=-1).mean().item())
    assert f"and sentence at least {least:.4f}: mra_plugin.patch(model, " in result.stdout

    # A second time there is something in OUT.
    line = refusal(mra_tune(source, "--target", 0.93, "--lengths", 256, "--save", out))
    assert "is not empty; --overwrite replaces a checkpoint" in line
    again = mra_tune(source, "--target", 0.93, "--lengths", 256, "--save", out, "--overwrite")
    assert again.exit_code == 0, again.output


def test_a_terminal_shows_what_is_going_on(
    mra_tune: Run, tiny_bert: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    result = mra_tune(tiny_bert, "--target", 0.93, "--lengths", 256)
    assert result.exit_code == 0, result.output
    assert "settings around it" in result.stderr
    assert "mra beside" not in result.stderr


@pytest.mark.parametrize("save", [True, False])
def test_none_is_close_enough(save: bool, mra_tune: Run, tiny_bert: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    more = ["--save", out] if save else []
    result = mra_tune(tiny_bert, "--target", 0.9999, "--lengths", "128,256", *more)
    assert result.exit_code == 1
    assert "none: no settings gain time and reach 0.9999 in the metric sentence" in result.stdout
    assert "use exact attention" in result.stdout
    assert "x" in result.stdout.split("\n\n")[0]  # what was measured all the same
    assert [path.name for path in tmp_path.iterdir()] == ["letters.txt"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--target", "0"], "--target must be a number above 0 and up to 1, got '0'"),
        (["--target", "99%"], "--target must be a number above 0 and up to 1, got '99%'"),
        (["--lengths", "256,x"], "--lengths takes positive whole numbers, got 'x'"),
        (["--lengths", "2"], "lengths must be more than the 2 special tokens"),
        (["--metric", "mean"], "--metric must be sentence or token or ranking, got 'mean'"),
        (["--device", "gpu"], "--device 'gpu' can't be used here"),
        (["--text", "no-such-file"], "can't read --text 'no-such-file'"),
        (["--lengths", "4096"], "which are 8188 tokens of text, and there are 2000"),
        (["--metric", "ranking", "--lengths", "256"], "needs 16 documents of 256 tokens"),
        (["--save", "no/such/folder"], "OUT must lie in a folder that exists"),
    ],
)
def test_refused(arguments: list[str], message: str, mra_tune: Run, tiny_bert: Path) -> None:
    assert message in refusal(mra_tune(tiny_bert, *arguments))


@pytest.mark.parametrize("save", [True, False])
def test_a_causal_model_is_refused(save: bool, mra_tune: Run, tmp_path: Path) -> None:
    folder = tmp_path / "causal"
    Causal(GPT2Config(vocab_size=30, n_embd=16, n_layer=1, n_head=2)).save_pretrained(folder)
    save_tokenizer(folder)
    more = ["--save", tmp_path / "out"] if save else []
    assert "GPT2Model can't take another attention" in refusal(mra_tune(folder, *more))


def test_no_such_folder(mra_tune: Run) -> None:
    assert "MODEL: there is no folder './nothing'" in refusal(mra_tune("./nothing"))
