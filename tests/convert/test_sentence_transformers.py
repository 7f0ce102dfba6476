"""`mra convert` of models of sentence-transformers: what their users see stays."""

import json
import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import pytest
import sentence_transformers as st
import torch
from helpers.convert_models import LEARNED, make, save
from sentence_transformers.sentence_transformer import modules
from sentence_transformers.sparse_encoder.modules import SpladePooling
from torch import Tensor, nn
from typer.testing import Result

import mra_plugin
from mra_plugin.convert import job
from mra_plugin.encoders.sentence_transformer import read_sentence_model
from mra_plugin.errors import UserError

Run = Callable[..., Result]
LONG = 200
TEXTS = ["t h e", "q u i c k b r o w n f o x", "j u m p s"]


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.ERROR, "sentence_transformers")


def encoder(folder: Path, name: str = "BertModel", **options: Any) -> modules.Transformer:
    """A tiny encoder as a module."""
    return modules.Transformer(str(save(make(name), folder)), **options)


def dense_model(folder: Path, pooling: str = "mean", name: str = "BertModel") -> Any:
    torch.manual_seed(0)
    dense = modules.Dense(64, 24, activation_function=nn.Tanh())
    return st.SentenceTransformer(
        modules=[
            encoder(folder, name), modules.Pooling(64, pooling_mode=pooling), dense,
            modules.Normalize(),
        ],
        prompts={"query": "a b c ", "document": "x y "},
        default_prompt_name="document",
        similarity_fn_name="dot",
        device="cpu",
    )  # fmt: skip


def reranker(folder: Path, activation: nn.Module | None = None) -> Any:
    source = save(make("RobertaForSequenceClassification", num_labels=1), folder)
    return st.CrossEncoder(str(source), activation_fn=activation, device="cpu")


def splade(folder: Path, name: str = "BertForMaskedLM") -> Any:
    first = encoder(folder, name, transformer_task="fill-mask")
    return st.SparseEncoder(modules=[first, SpladePooling("max")], device="cpu")


def multi_vector(folder: Path) -> Any:
    torch.manual_seed(0)
    dense = modules.Dense(
        64, 16, bias=False, activation_function=nn.Identity(), module_input_name="token_embeddings"
    )
    mask = st.multi_vector_encoder.modules.MultiVectorMask(skiplist_words=["o", "u"])
    normalize = modules.Normalize(module_input_name="token_embeddings")
    first = encoder(folder, query_length=16, document_length=40)
    return st.MultiVectorEncoder(
        modules=[first, dense, mask, normalize],
        prompts={"query": "q ", "document": "d "},
        device="cpu",
    )


def seen(model: Any) -> list[Tensor]:
    """What users get, of texts and pairs of texts."""
    if isinstance(model, st.CrossEncoder):
        pairs = [(one, other) for one in TEXTS for other in TEXTS]
        return [model.predict(pairs, convert_to_tensor=True)]
    options = {
        st.SentenceTransformer: {"convert_to_tensor": True},
        st.SparseEncoder: {"convert_to_sparse_tensor": False},
        st.MultiVectorEncoder: {},
    }[type(model)]
    found = [getattr(model, name)(TEXTS, **options) for name in ("encode", "encode_query")]
    return [one for several in found for one in several]


def summary(result: Result) -> str:
    """What was printed at the end, in a line."""
    assert result.exit_code == 0, result.output
    return " ".join(result.stdout.split())


def saved(model: Any, folder: Path) -> Path:
    model.save_pretrained(str(folder), create_model_card=False)
    return folder


def loaded(kind: type, folder: Path) -> Any:
    return kind(str(folder), device="cpu", local_files_only=True)


def assert_same(old: Any, new: Any) -> None:
    assert new.prompts == old.prompts
    assert new.default_prompt_name == old.default_prompt_name
    for one, other in zip(seen(old), seen(new), strict=True):
        torch.testing.assert_close(other, one, atol=2e-5, rtol=2e-5)
        assert one.abs().max() > 1e-3
    assert new.transformers_model.config._attn_implementation == "mra"


@pytest.mark.parametrize(
    ("pooling", "name"), [("cls", "BertModel"), ("mean", "RobertaModel"), ("max", "BertModel")]
)
def test_embeddings_and_prompts_stay(
    pooling: str, name: str, mra_convert: Run, tmp_path: Path
) -> None:
    old = dense_model(tmp_path / "encoder", pooling, name)
    saved(old, tmp_path / "in")
    result = mra_convert(tmp_path / "in", tmp_path / "out", "--max-length", LONG)
    said = summary(result)
    assert "modules Transformer, Pooling, Dense, Normalize (SentenceTransformer) check" in said
    assert "embeddings with a full budget equal to the old " in said
    assert "for short texts in sentence-transformers" in said
    new = loaded(st.SentenceTransformer, tmp_path / "out")
    assert_same(old, new)
    assert new.max_seq_length == LONG
    assert new.similarity_fn_name == "dot"
    assert new.encode(["j u m p " * 100], output_value="token_embeddings")[0].shape[0] == LONG


@pytest.mark.parametrize("activation", [nn.Identity(), nn.Sigmoid(), None])
def test_scores_stay(activation: nn.Module | None, mra_convert: Run, tmp_path: Path) -> None:
    old = reranker(tmp_path / "encoder", activation)
    saved(old, tmp_path / "in")
    result = mra_convert(tmp_path / "in", tmp_path / "out", "--max-length", LONG)
    assert "scores with a full budget equal to the old" in summary(result)
    new = loaded(st.CrossEncoder, tmp_path / "out")
    assert_same(old, new)
    assert type(new.activation_fn) is type(old.activation_fn)


@pytest.mark.parametrize(
    "field",
    [
        {"sentence_transformers": {"activation_fn": "torch.nn.Identity", "version": "4.1.0"}},
        {"sbert_ce_default_activation_function": "torch.nn.Identity"},
    ],
)
def test_a_reranker_from_before_there_were_modules(
    field: dict[str, object], mra_convert: Run, tmp_path: Path
) -> None:
    save(make("BertForSequenceClassification", num_labels=1), tmp_path / "in")
    change(tmp_path / "in" / "config.json", **field)
    result = mra_convert(tmp_path / "in", tmp_path / "out", "--max-length", LONG)
    assert "scores with a full budget" in summary(result)
    old, new = (loaded(st.CrossEncoder, tmp_path / name) for name in ("in", "out"))
    assert isinstance(new.activation_fn, nn.Identity)
    assert_same(old, new)


@pytest.mark.parametrize("to", [[], ["--to", "mra"]])
def test_splade(to: list[str], mra_convert: Run, tmp_path: Path) -> None:
    old = splade(tmp_path / "encoder")
    saved(old, tmp_path / "in")
    more = ["--max-length", LONG, "--block-per-row", 7, *to]
    result = mra_convert(tmp_path / "in", tmp_path / "out", *more)
    assert result.exit_code == 0, result.output
    new = loaded(st.SparseEncoder, tmp_path / "out")
    if not to:
        assert_same(old, new)
    for one, other in zip(seen(old), seen(new), strict=True):
        torch.testing.assert_close(other, one, atol=2e-5, rtol=2e-5)


def test_multi_vector(mra_convert: Run, tmp_path: Path) -> None:
    old = multi_vector(tmp_path / "encoder")
    saved(old, tmp_path / "in")
    result = mra_convert(tmp_path / "in", tmp_path / "out", "--max-length", LONG)
    assert result.exit_code == 0, result.output
    new = loaded(st.MultiVectorEncoder, tmp_path / "out")
    assert_same(old, new)
    # Documents are what gets longer.
    assert (new[0].document_length, new[0].query_length) == (LONG, 16)
    assert len(new.encode_document("j a m p " * 100)) == LONG


@pytest.mark.parametrize("to", [[], ["--to", "mra", "--drop", "pooler"]])
@pytest.mark.parametrize("strategy", ["fixed", "min"])
def test_query_expansion(strategy: str, to: list[str], mra_convert: Run, tmp_path: Path) -> None:
    """Nobody attends to what fills a query up, and all of it is scored."""
    old = multi_vector(tmp_path / "encoder")
    old[0].query_length = None
    old[0].query_expansion = {"strategy": strategy, "length": 24, "token": "z", "attend": False}
    old.similarity_fn_name = "meanmaxsim"
    saved(old, tmp_path / "in")
    more = ["--max-length", LONG, "--block-per-row", 7, *to]
    result = mra_convert(tmp_path / "in", tmp_path / "out", *more)
    assert result.exit_code == 0, result.output
    new = loaded(st.MultiVectorEncoder, tmp_path / "out")
    assert (new[0].query_expansion, new[0].query_length) == (old[0].query_expansion, None)
    assert new.similarity_fn_name == "meanmaxsim"
    for one, other in zip(old.encode_query(TEXTS), new.encode_query(TEXTS), strict=True):
        assert len(other) == 24
        torch.testing.assert_close(other, one, atol=2e-5, rtol=2e-5)


@pytest.mark.parametrize("expanded", [False, True])
def test_multi_vector_as_pylate_writes_it(expanded: bool, mra_convert: Run, tmp_path: Path) -> None:
    folder = saved(multi_vector(tmp_path / "encoder"), tmp_path / "in")
    listed = json.loads((folder / "modules.json").read_text())[:2]
    listed[1]["type"] = "pylate.models.Dense.Dense"
    (folder / "modules.json").write_text(json.dumps(listed))
    (folder / "sentence_bert_config.json").write_text('{"do_lower_case": false}')
    change(folder / "tokenizer_config.json", mask_token="z")
    settings = {"document_length": 40, "query_length": 20, "do_query_expansion": expanded}
    change(
        folder / "config_sentence_transformers.json",
        **settings,
        model_type="ColBERT",
        query_prefix="q ",
    )
    result = mra_convert(folder, tmp_path / "out", "--max-length", LONG)
    assert "(MultiVectorEncoder)" in summary(result)
    old, new = (loaded(st.MultiVectorEncoder, tmp_path / name) for name in ("in", "out"))
    assert_same(old, new)
    assert (old[0].document_length, new[0].document_length) == (40, LONG)
    assert new[0].query_expansion == old[0].query_expansion
    assert {len(query) == 20 for query in new.encode_query(TEXTS)} == {expanded}


def test_to_mra_without_the_pooler(mra_convert: Run, tmp_path: Path) -> None:
    old = dense_model(tmp_path / "encoder")
    saved(old, tmp_path / "in")
    command = [tmp_path / "in", tmp_path / "out", "--max-length", LONG, "--to", "mra"]
    assert "no place for 2 tensors of BertModel: pooler" in mra_convert(*command).stderr
    result = mra_convert(*command, "--drop", "pooler")
    assert result.exit_code == 0, result.output
    new = loaded(st.SentenceTransformer, tmp_path / "out")
    assert type(new.transformers_model) is mra_plugin.MraModel
    for one, other in zip(seen(old), seen(new), strict=True):
        torch.testing.assert_close(other, one, atol=2e-5, rtol=2e-5)


def test_a_head_that_is_read_stays(mra_convert: Run, tmp_path: Path) -> None:
    saved(reranker(tmp_path / "encoder"), tmp_path / "in")
    command = [tmp_path / "in", tmp_path / "out", "--to", "mra"]
    assert "no place for 4 tensors" in mra_convert(*command).stderr
    line = mra_convert(*command, "--drop", "classifier").stderr
    assert "a CrossEncoder reads the head of its encoder (sequence-classification)" in line
    assert "which MraModel does not have" in line
    assert not (tmp_path / "out").exists()


def test_interpolated_and_converted_again(mra_convert: Run, tmp_path: Path) -> None:
    old = dense_model(tmp_path / "encoder")
    saved(old, tmp_path / "in")
    more = ["--max-length", LONG, "--positions", "interpolate"]
    result = mra_convert(tmp_path / "in", tmp_path / "once", *more)
    assert result.exit_code == 0, result.output
    assert result.stdout.count("the old one with interpolated positions") == 2
    # Exact attention is what it is held against, also where there was another.
    budget = ["--block-per-row", 1, "--set", "block_size=8", "--max-length", 2 * LONG]
    assert mra_convert(tmp_path / "once", tmp_path / "twice", *budget).exit_code == 0
    result = mra_convert(tmp_path / "twice", tmp_path / "thrice", "--attention", "sdpa")
    assert result.exit_code == 0, result.output
    assert "embeddings with exact attention equal to the old" in summary(result)
    assert loaded(st.SentenceTransformer, tmp_path / "twice").max_seq_length == 2 * LONG


def test_limits_stay_where_no_length_is_asked_for(mra_convert: Run, tmp_path: Path) -> None:
    old = dense_model(tmp_path / "encoder")
    old.max_seq_length = 40
    saved(old, tmp_path / "in")
    assert mra_convert(tmp_path / "in", tmp_path / "out").exit_code == 0
    assert loaded(st.SentenceTransformer, tmp_path / "out").max_seq_length == 40


def test_settings_that_would_undo_the_conversion(mra_convert: Run, tmp_path: Path) -> None:
    saved(dense_model(tmp_path / "encoder"), tmp_path / "in")
    change(
        tmp_path / "in" / "sentence_bert_config.json",
        max_seq_length=40,
        model_args={"attn_implementation": "eager"},
        config_kwargs={"max_position_embeddings": LEARNED},
        processor_kwargs={"model_max_length": 40},
    )
    result = mra_convert(tmp_path / "in", tmp_path / "out", "--max-length", LONG)
    assert result.exit_code == 0, result.output
    new = loaded(st.SentenceTransformer, tmp_path / "out")
    assert new.transformers_model.config._attn_implementation == "mra"
    assert new.max_seq_length == LONG


def test_an_encoder_in_a_folder_of_its_own(mra_convert: Run, tmp_path: Path) -> None:
    """As the first versions of sentence-transformers wrote them."""
    old = dense_model(tmp_path / "encoder")
    folder = saved(old, tmp_path / "in")
    inner = folder / "0_Transformer"
    inner.mkdir()
    for path in folder.iterdir():
        if path.is_file() and path.name not in (
            "modules.json",
            "config_sentence_transformers.json",
        ):
            path.rename(inner / path.name)
    (inner / "sentence_bert_config.json").rename(inner / "sentence_roberta_config.json")
    listed = json.loads((folder / "modules.json").read_text())
    listed[0]["path"] = "0_Transformer"
    (folder / "modules.json").write_text(json.dumps(listed))
    result = mra_convert(folder, tmp_path / "out", "--max-length", LONG)
    assert result.exit_code == 0, result.output
    assert (tmp_path / "out" / "sentence_roberta_config.json").is_file()
    assert_same(old, loaded(st.SentenceTransformer, tmp_path / "out"))


def test_without_the_library(
    mra_convert: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files go over all the same, and the summary says what was not checked."""
    old = dense_model(tmp_path / "encoder", "cls")
    saved(old, tmp_path / "in")
    with monkeypatch.context() as without:
        without.setitem(sys.modules, "sentence_transformers", None)
        result = mra_convert(tmp_path / "in", tmp_path / "out", "--max-length", LONG)
    assert result.exit_code == 0, result.output
    assert (
        "embeddings not compared, since no sentence-transformers with SentenceTransformer is "
        "installed: the encoder alone was checked"
    ) in summary(result)
    assert_same(old, loaded(st.SentenceTransformer, tmp_path / "out"))


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("1_Pooling/config.json", {"pooling_mode": "max"}, "short texts differs by"),
        ("config_sentence_transformers.json", {"prompts": {}}, "reads other prompts"),
        ("sentence_bert_config.json", {"query_length": 9}, "reads other query_length"),
        ("sentence_bert_config.json", {"max_seq_length": 9}, "read 9 tokens in place of 200"),
        (
            "sentence_bert_config.json",
            {"model_kwargs": {"attn_implementation": "eager"}},
            "the attention 'eager' in place of 'mra'",
        ),
    ],
)
def test_what_users_see_is_checked(
    file: str,
    content: dict[str, object],
    message: str,
    mra_convert: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    saved(dense_model(tmp_path / "encoder"), tmp_path / "in")
    write = job.write_sentence_model

    def spoil(source: Any, out: Path, max_length: int | None) -> None:
        write(source, out, max_length)
        change(out / file, **content)

    monkeypatch.setattr(job, "write_sentence_model", spoil)
    result = mra_convert(tmp_path / "in", tmp_path / "out", "--max-length", LONG)
    assert result.exit_code == 2, result.output
    (line,) = result.stderr.splitlines()
    assert message in line
    assert "nothing was written" in line
    assert not (tmp_path / "out").exists()


NAMESPACE = "sentence_transformers.models."


@pytest.mark.parametrize(
    ("listed", "message"),
    [
        ([], "has a modules.json without a module"),
        ({"0": "Transformer"}, "has a modules.json that is no list of modules"),
        ([("Router", "")], "begins with the module 'sentence_transformers.models.Router'; only a"),
        ([("custom_st.Transformer", "")], "begins with the module 'custom_st.Transformer'"),
        ([("Transformer", ""), ("Transformer", "1_Transformer")], "second Transformer, in '1_Tran"),
        ([("Transformer", ""), ("Router", "1_Router")], "has the module 'sentence_transformers.mo"),
        ([("Transformer", ""), ("own.Pooling", "1_Pooling")], "has the module 'own.Pooling'"),
        ([("Transformer", ""), ("Pooling", "../1_Pooling")], "outside of its folder, in '../1_P"),
        ([("Transformer", ""), ("Pooling", "/1_Pooling")], "outside of its folder, in '/1_Pool"),
        ([("Transformer", ""), ("Pooling", "1_Pooling")], "has no folder '1_Pooling', which mod"),
    ],
)
def test_what_can_not_go_over_is_named(
    listed: Any, message: str, mra_convert: Run, tmp_path: Path
) -> None:
    save(make("BertModel"), tmp_path / "in")
    if isinstance(listed, list):
        listed = [
            {"idx": n, "name": str(n), "path": path, "type": ("." not in kind) * NAMESPACE + kind}
            for n, (kind, path) in enumerate(listed)
        ]
    (tmp_path / "in" / "modules.json").write_text(json.dumps(listed))
    result = mra_convert(tmp_path / "in", tmp_path / "out")
    assert result.exit_code == 2, result.output
    assert message in result.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("modules.json", "[", "can't read modules.json: Expecting value"),
        ("config_sentence_transformers.json", '{"model_type": "Oracle"}', "type 'Oracle', which"),
        ("config_sentence_transformers.json", "[]", "config_sentence_transformers.json holds no"),
        ("adapter_config.json", "{}", "holds an adapter (adapter_config.json); merge it"),
    ],
)
def test_files_that_can_not_go_over(file: str, text: str, message: str, tmp_path: Path) -> None:
    saved(dense_model(tmp_path / "encoder"), tmp_path / "in")
    (tmp_path / "in" / file).write_text(text)
    with pytest.raises(UserError) as error:
        read_sentence_model(str(tmp_path / "in"))
    assert message in str(error.value)


def test_from_the_cache_of_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    commit = "0123456789abcdef" * 2 + "01234567"
    folder = tmp_path / "models--me--mine"
    saved(dense_model(tmp_path / "encoder"), folder / "snapshots" / commit)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text(commit)
    found = read_sentence_model("me/mine")
    assert found is not None
    assert found.encoder == "me/mine"
    assert found.module_names == ["Transformer", "Pooling", "Dense", "Normalize"]
    assert found.task == "feature-extraction"
    assert read_sentence_model("me/another") is None
    assert read_sentence_model("no model's name!") is None


def change(path: Path, **fields: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))
