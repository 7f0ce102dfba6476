"""`mra plot` on a tiny model."""

import subprocess
import sys
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import matplotlib
import numpy as np
import pytest
import torch
from helpers.letter_models import save_model
from matplotlib import pyplot
from matplotlib.figure import Figure
from PIL import Image
from torch import nn
from transformers import AutoModel, AutoTokenizer, BatchEncoding, BertModel, GPT2Model
from typer.testing import CliRunner, Result

import mra_plugin
from mra_plugin.cli import app
from mra_plugin.picture import drawing as attention_picture

TEXT = "t h e q u i c k b r o w n f o x j u m p " * 10
Mra = Callable[..., Result]


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(BertModel, tmp_path_factory.mktemp("bert"), max_position_embeddings=160)


@pytest.fixture
def plot(bert: Path, tmp_path: Path) -> Mra:
    """Runs `mra plot` on 150 tokens of the text."""
    text = tmp_path / "text.txt"
    text.write_text(TEXT)

    def run(*arguments: object, model: Path = bert, length: int = 150) -> Result:
        given = ["plot", "--model", model, "--text", text, "--length", length, *arguments]
        return CliRunner().invoke(app, [str(argument) for argument in given])

    return run


def model_and_tokens(folder: Path) -> tuple[nn.Module, BatchEncoding]:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokens = tokenizer(TEXT, return_tensors="pt", truncation=True, max_length=150)
    assert tokens["input_ids"].shape == (1, 150)
    return AutoModel.from_pretrained(folder).eval(), tokens


def refused(result: Result) -> str:
    assert result.exit_code == 2, result.output
    (line,) = result.stderr.splitlines()
    return line.removeprefix("mra: ")


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures that are drawn."""
    figures: list[Figure] = []
    draw_head = attention_picture.draw_head

    def keep(*arguments: object) -> Figure:
        figures.append(draw_head(*arguments))
        return figures[-1]

    monkeypatch.setattr(attention_picture, "draw_head", keep)
    return figures


def test_draws_what_the_function_draws(
    plot: Mra, bert: Path, tmp_path: Path, drawn: list[Figure]
) -> None:
    options = ("--block-per-row", 2, "--approx-mode", "sparse", "--selection", "per_row")
    path = tmp_path / "picture.png"
    result = plot("--layer", 1, "--head", 1, *options, "--save", path)
    assert result.exit_code == 0, result.output

    expected = mra_plugin.plot_attention(
        *model_and_tokens(bert),
        layer=1,
        head=1,
        block_per_row=2,
        approx_mode="sparse",
        selection="per_row",
    )
    assert result.stdout.splitlines() == [expected.get_suptitle(), str(path)]
    for mine, other in zip(drawn[0].axes, expected.axes, strict=True):
        for image, target in zip(mine.images, other.images, strict=True):
            np.testing.assert_allclose(image.get_array(), target.get_array(), atol=1e-6)


def test_png_has_the_colours_of_the_figure_but_for_a_trifle(
    plot: Mra, bert: Path, tmp_path: Path
) -> None:
    path = tmp_path / "picture.PNG"
    assert plot("--save", path).exit_code == 0
    whole = BytesIO()
    mra_plugin.plot_attention(*model_and_tokens(bert)).savefig(whole, dpi=100)
    with Image.open(path) as picture, Image.open(whole) as target:
        assert picture.size == target.size == (1000, 860)
        mine, theirs = (np.asarray(one.convert("RGB"), dtype=int) for one in (picture, target))
    assert np.abs(mine - theirs).max() <= 16
    assert path.stat().st_size < len(whole.getvalue()) / 2


@pytest.mark.parametrize(("ending", "start"), [("svg", b"<?xml"), ("pdf", b"%PDF")])
def test_formats(plot: Mra, tmp_path: Path, ending: str, start: bytes) -> None:
    path = tmp_path / f"picture.{ending}"
    assert plot("--save", path).exit_code == 0
    assert path.read_bytes().startswith(start)


def test_says_what_is_repeated(plot: Mra, tmp_path: Path) -> None:
    result = plot("--save", tmp_path / "picture.png", length=300)
    assert result.stdout.splitlines()[1:3] == [
        "the model's 160 position embeddings are repeated up to 300",
        "the text has 202 tokens and is repeated up to 300",
    ]


def test_a_preset_and_what_is_exact_for_being_short(plot: Mra, tmp_path: Path) -> None:
    path = tmp_path / "picture.png"
    short = plot("--preset", "close", "--exact-up-to", 150, "--save", path)
    assert "density 100.0%" in short.stdout
    assert "all is exact, as sequences of up to 150 tokens are (--exact-up-to)" in short.stdout
    options = ("--preset", "close", "--block-per-row", 2, "--exact-up-to", 149, "--salient-keys", 1)
    result = plot(*options, "--save", path)
    assert "density 100.0%" not in result.stdout
    assert "exact-up-to" not in result.stdout


def test_opens_a_window_without_save(plot: Mra, monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[Figure] = []
    monkeypatch.setattr(matplotlib, "get_backend", lambda: "QtAgg")
    monkeypatch.setattr(pyplot, "show", lambda: shown.append(pyplot.gcf()))
    result = plot("--head", 1)
    pyplot.close("all")
    assert result.exit_code == 0, result.output
    assert [figure.get_suptitle() for figure in shown] == result.stdout.splitlines()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "there is no display to open a window on; use --save FILE"),
        (("--save", "a.jpg"), "--save must end in .png, .svg, .pdf, got 'a.jpg'"),
        (("--save", "no/where.png"), "--save must name a file in a folder that exists"),
        (("--save", "a.png", "--layer", 2), "layer must be from 0 to 1, got 2"),
        (("--save", "a.png", "--layer", "-1"), "--layer takes a whole number from 0, got '-1'"),
        (("--save", "a.png", "--head", 2), "head must be from 0 to 1, got 2"),
        (("--save", "a.png", "--head", "x"), "--head takes a whole number from 0, got 'x'"),
        (("--save", "a.png", "--length", 31), "--length must be from 32 to 4096"),
        (("--save", "a.png", "--length", 4097), "--length must be from 32 to 4096"),
        (("--save", "a.png", "--block-per-row", 0), "--block-per-row takes positive whole"),
        (
            ("--save", "a.png", "--approx-mode", "x"),
            "--approx-mode must be full or sparse, got 'x'",
        ),
        (("--save", "a.png", "--selection", "x"), "--selection must be global or per_row, got 'x'"),
        (("--save", "a.png", "--block-size", 9), "block_size must be a power of two"),
        (("--save", "a.png", "--preset", "x"), "--preset must be paper or close, got 'x'"),
        (("--save", "a.png", "--text", "none.txt"), "can't read --text 'none.txt'"),
    ],
)
def test_refusals(
    plot: Mra,
    arguments: tuple[object, ...],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert refused(plot(*arguments)).startswith(message)
    assert [path.name for path in tmp_path.iterdir()] == ["text.txt"]


def test_causal_model_is_refused(plot: Mra, tmp_path: Path) -> None:
    folder = save_model(GPT2Model, tmp_path / "gpt2", n_positions=160, n_embd=16, n_head=2)
    line = refused(plot("--save", tmp_path / "a.png", model=folder))
    assert line.startswith("the model can't be drawn: GPT2Model can't take another attention")


def test_without_matplotlib(tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['matplotlib'] = None\n"
        "from mra_plugin.cli import app\n"
        f"app(['plot', '--save', {str(tmp_path / 'a.png')!r}])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 2, result.stderr
    assert result.stderr == ('mra: drawing needs matplotlib: pip install "mra-plugin[report]"\n')


def test_function_without_matplotlib(bert: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = AutoModel.from_pretrained(bert)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r'pip install "mra-plugin\[report\]"'):
        mra_plugin.plot_attention(model, {"input_ids": torch.arange(5, 25)[None]})
