"""The scripts of examples/, run as they are on small inputs."""

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import numpy
import pytest
import torch
from helpers.letter_data import LETTERS, save_model
from peft import AutoPeftModelForSequenceClassification
from transformers import AutoTokenizer, BertForSequenceClassification, BertModel

EXAMPLES = Path(__file__).parents[1] / "examples"
SCRIPTS = sorted(path.stem for path in EXAMPLES.glob("*.py"))


def script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    folder = tmp_path / "texts"
    folder.mkdir()
    for name, end in {
        "bread": "Knead the dough, let it rise, and bake it in a hot oven.",
        "stars": "A telescope shows the moons of Jupiter.",
        "trains": "The express leaves the station at noon.",
    }.items():
        # What tells them apart lies beyond the 512 tokens of the model.
        (folder / f"{name}.txt").write_text("This is a page. " * 110 + end * 10)
    return folder


def test_search_reads_documents_to_their_end(
    texts: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    question = ["How is bread baked?", "--texts", str(texts)]
    script("semantic_search").main([*question, "--length", "1024"])
    first, *others = capsys.readouterr().out.splitlines()
    assert "bread.txt" in first
    assert len(others) == 2
    tokens = re.search(r"\((\d+) tokens", first)
    assert tokens is not None
    assert int(tokens[1]) > 512


def test_entities_are_found_wherever_they_stand(capsys: pytest.CaptureFixture[str]) -> None:
    example = script("named_entities")
    example.main([])
    found = [line.split(maxsplit=2) for line in capsys.readouterr().out.splitlines()]
    text = example.made_up_text("strings", example.PEOPLE[6:], example.PLACES[6:])
    right = 0
    for start, label, name in found:
        assert text[int(start) :].startswith(name)
        right += {"PER": name in example.PEOPLE, "LOC": name in example.PLACES}[label]
    assert right > 0.7 * len(found)
    named = [word for word in text.split() if word in example.LABELS]
    assert right > 0.5 * len(named)
    assert int(found[-1][0]) > 0.8 * len(text)


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_adapter_loads_onto_the_long_encoder_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = save_model(BertForSequenceClassification, tmp_path / "tiny", hidden_size=16)
    example = script("lora")
    example.main([str(tmp_path / "out"), "--model", str(source), "--length", "96", "--steps", "2"])
    said = capsys.readouterr().out
    assert "loaded with attention='mra'" in said
    assert "of 8 documents right" in said

    base, adapter = tmp_path / "out" / "base", tmp_path / "adapter"
    documents = [" ".join(LETTERS * 3), " ".join(LETTERS)]
    trained = example.train(base, adapter, documents, [0, 1], steps=3)
    loaded = AutoPeftModelForSequenceClassification.from_pretrained(adapter).eval()
    assert loaded.config.mra["block_per_row"] == 14
    batch = AutoTokenizer.from_pretrained(base)(documents, padding=True, return_tensors="pt")
    assert batch["input_ids"].shape[1] > 64
    before = BertForSequenceClassification.from_pretrained(base).eval()
    with torch.no_grad():
        assert torch.equal(loaded(**batch).logits, trained(**batch).logits)
        assert not torch.equal(loaded(**batch).logits, before(**batch).logits)


@pytest.mark.slow  # an export takes half a minute; tests/adapters/test_onnx.py has another
@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
def test_onnx_file_serves_several_lengths(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = save_model(BertModel, tmp_path / "tiny")
    with pytest.warns(UserWarning, match="in ONNX files MRA attention is dense"):
        script("serve_onnx").main(
            [str(tmp_path / "model.onnx"), "--model", str(source), "--lengths", "64", "150"]
        )
    lines = re.findall(r"(\d+) tokens: .* at most (\S+) from", capsys.readouterr().out)
    assert [int(length) for length, _ in lines] == [64, 150]
    assert all(float(away) < 1e-4 for _, away in lines)


def test_exact_steps_keep_a_picture_closer(capsys: pytest.CaptureFixture[str]) -> None:
    script("diffusion").main(["--side", "36", "--steps", "2"])
    moved = re.findall(r"at most (\S+) away", capsys.readouterr().out)
    none, one = map(float, moved)
    assert 0 < one < none


@pytest.mark.slow  # each process imports torch
def test_processes_embed_what_one_would(
    texts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    example = script("embed_collection")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # which the script sets
    files = [tmp_path / f"{processes}.npy" for processes in (1, 2)]
    for processes, file in enumerate(files, start=1):
        options = ["--texts", str(texts), "--length", "1024", "--processes", str(processes)]
        example.main([str(file), *options])
    alone, together = map(numpy.load, files)
    numpy.testing.assert_allclose(together, alone, atol=1e-5)
    assert alone.shape == (3, 384)


def test_table_lists_every_example_with_what_it_needs() -> None:
    table = (EXAMPLES / "README.md").read_text()
    shown = set(re.findall(r"\]\((\w+)[./][^)]*\)", table))
    assert shown == {*SCRIPTS, "own_backend"}


@pytest.mark.parametrize("name", SCRIPTS)
def test_docstring_says_what_it_needs_and_how_to_run_it(name: str) -> None:
    said = script(name).__doc__
    assert said is not None
    assert re.search(r'Needs the extra "\w+"', said)
    assert f"    python examples/{name}.py" in said
