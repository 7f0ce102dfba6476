"""What transformers expects of any model, for all classes of all families."""

import copy
from pathlib import Path

import pytest
import torch
from helpers.own_families import HEADS, family_of, inputs_of, labels_of, make, row_of
from helpers.tiny_mra import LAYERS, VOCABULARY, hidden, token_ids
from torch import nn
from transformers.utils import ModelOutput

import mra_plugin

# Loaded weights lie elsewhere in memory, and sums of the last few channels may round otherwise.
ROUNDING = 1e-6
SLOW = pytest.mark.slow
EACH = pytest.mark.parametrize("head", HEADS)
# Those with layers like BERT's.
POST_NORM = pytest.mark.parametrize("head", [head for head in HEADS if "Mega" not in head])
LANGUAGE_MODELS = ("ForMaskedLM", "ForCausalLM")
# Of each family, one class by default, and of the first a head.
FEW = pytest.mark.parametrize(
    "head",
    [
        pytest.param(
            head, marks=[] if head.endswith("Model") or head == "MraForMultipleChoice" else SLOW
        )
        for head in HEADS
    ],
)


def with_positions(kind: str) -> pytest.MarkDecorator:
    """Every class, and once more with relative positions where a family has them."""
    relative = [(head, {"position_embedding_type": kind}) for head in HEADS if "Mra" in head]
    simple = [(head, {"relative_positional_bias": "simple"}) for head in HEADS if "Mega" in head]
    return pytest.mark.parametrize(
        ("head", "extra"), [*((head, {}) for head in HEADS), *relative, *simple], ids=str
    )


def train(model: nn.Module, head: str) -> None:
    """One backward pass, of the loss or of all that there is."""
    out = model.train()(**inputs_of(head), **labels_of(head), return_dict=False)
    (out[0] if out[0].ndim == 0 else sum(x.square().mean() for x in out)).backward()


@torch.no_grad()
def run(model: nn.Module, head: str, **extra: object) -> tuple[object, ...]:
    return model(**inputs_of(head), **extra, return_dict=False)


# A product of PyTorch's may depend in the last bit on where its weights lie in memory.
def assert_same(one: object, other: object, atol: float = 1e-6) -> None:
    if isinstance(one, torch.Tensor):
        torch.testing.assert_close(one, other, atol=atol, rtol=atol)
    else:
        assert len(one) == len(other)
        for a, b in zip(one, other, strict=True):
            assert_same(a, b, atol)


@EACH
def test_save_and_load(head: str, tmp_path: Path) -> None:
    model = make(head)
    model.save_pretrained(tmp_path)
    loaded, report = type(model).from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report.values()), report
    assert not loaded.training
    assert_same(run(loaded, head), run(model, head), ROUNDING)
    expected, found = model.config.to_dict(), loaded.config.to_dict()
    assert expected.pop("_name_or_path") != found.pop("_name_or_path")
    assert found == expected


@EACH
def test_deterministic_and_copies_alike(head: str) -> None:
    model = make(head)
    assert_same(run(model, head), run(model, head))
    assert_same(run(copy.deepcopy(model), head), run(model, head))


@EACH
def test_tuples_hold_what_objects_hold(head: str) -> None:
    model = make(head)
    wanted = {"output_attentions": True, "output_hidden_states": True, **labels_of(head)}
    with torch.no_grad():
        output = model(**inputs_of(head), **wanted)
    assert isinstance(output, ModelOutput)
    assert_same(run(model, head, **wanted), output.to_tuple())
    names = list(output)
    assert ("loss" in names) == bool(labels_of(head))
    assert names[-2:] == ["hidden_states", "attentions"]
    assert len(output.hidden_states) == LAYERS + 1
    assert len(output.attentions) == LAYERS
    rows = 6 if head.endswith("ForMultipleChoice") else 2
    family = row_of(head)
    tokens = inputs_of(head)["input_ids"].shape[-1]
    assert {x.shape for x in output.hidden_states} == {(rows, tokens, family.SIZES["hidden_size"])}
    assert {x.shape for x in output.attentions} == {(rows, family.HEAD_COUNT, tokens, tokens)}

    model.config.output_attentions = model.config.output_hidden_states = True
    model.config.return_dict = False
    with torch.no_grad():
        assert_same(model(**inputs_of(head), **labels_of(head)), output.to_tuple())


@EACH
def test_inputs_embeds_are_input_ids(head: str) -> None:
    model, inputs = make(head), inputs_of(head)
    with torch.no_grad():
        inputs["inputs_embeds"] = model.get_input_embeddings()(inputs.pop("input_ids"))
        assert_same(model(**inputs, return_dict=False), run(model, head))


@POST_NORM
def test_fresh_weights(head: str) -> None:
    model = make(head, initializer_range=0.05)
    for name, parameter in model.named_parameters():
        if "LayerNorm.weight" in name:
            assert parameter.eq(1).all(), name
        elif name.endswith("bias"):
            assert parameter.eq(0).all(), name
        else:
            assert abs(parameter.std().item() - 0.05) < 0.02, name
            assert abs(parameter.mean().item()) < 0.02, name
    assert model.get_input_embeddings().weight[1].eq(0).all()


@with_positions("relative_key_query")
def test_training_reaches_every_parameter(head: str, extra: dict[str, str]) -> None:
    model = make(head, **extra)
    train(model, head)
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        # A bias of the keys shifts all scores of a query alike, and one of the choices all choices.
        if not name.endswith("key.bias") and not (
            head.endswith("ForMultipleChoice") and name == "classifier.bias"
        ):
            assert parameter.grad.abs().max() > 0, name


@EACH
@pytest.mark.parametrize("reentrant", [False, True])
def test_gradient_checkpointing_changes_no_gradient(head: str, reentrant: bool) -> None:
    def gradients(model: nn.Module) -> dict[str, torch.Tensor]:
        train(model, head)
        return {name: x.grad for name, x in model.named_parameters()}

    still = row_of(head).STILL
    expected = gradients(make(head, **still))
    model = make(head, **still)
    assert not model.is_gradient_checkpointing
    model.gradient_checkpointing_enable({"use_reentrant": reentrant})
    assert model.is_gradient_checkpointing
    if reentrant:
        model.enable_input_require_grads()
    for name, grad in gradients(model).items():
        torch.testing.assert_close(grad, expected[name], msg=name)


@EACH
def test_dropout_in_training_alone(head: str) -> None:
    model = make(head, hidden_dropout_prob=0.5).train()
    one, other = run(model, head), run(model, head)
    assert not one[0].equal(other[0])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@with_positions("relative_key")
def test_half_precision(
    head: str, extra: dict[str, str], dtype: torch.dtype, tmp_path: Path
) -> None:
    mild = {"initializer_range": 0.1} if "Mega" in head else {}
    model = make(head, **extra, **mild)
    model.save_pretrained(tmp_path)
    half = type(model).from_pretrained(tmp_path, dtype=dtype)
    outputs = run(half, head, **labels_of(head))
    assert all(x.dtype == dtype or x.ndim == 0 for x in outputs)
    assert_same([x.float() for x in outputs], run(model, head, **labels_of(head)), atol=0.3)
    if dtype == torch.bfloat16:
        train(half, head)
        assert all(x.grad.isfinite().all() for x in half.parameters())


@POST_NORM
def test_feed_forward_in_chunks(head: str) -> None:
    expected = run(make(head), head)
    assert_same(run(make(head, chunk_size_feed_forward=32), head), expected, atol=1e-5)


@EACH
def test_resized_embeddings(head: str, tmp_path: Path) -> None:
    model = make(head)
    before = run(model, head)
    model.resize_token_embeddings(VOCABULARY + 10)
    assert model.config.vocab_size == VOCABULARY + 10
    assert model.get_input_embeddings().num_embeddings == VOCABULARY + 10
    after = run(model, head)
    if head.endswith(LANGUAGE_MODELS):
        assert after[0].shape[-1] == VOCABULARY + 10
        assert model.get_output_embeddings().bias.shape == (VOCABULARY + 10,)
        if hasattr(model, "cls"):
            assert model.cls.predictions.bias.shape == (VOCABULARY + 10,)
        assert_same(after[0][..., :VOCABULARY], before[0], atol=1e-5)
    else:
        assert_same(after, before)
    inputs = inputs_of(head)
    inputs["input_ids"] = inputs["input_ids"] + 10
    out = model.train()(**inputs, **labels_of(head), return_dict=False)[0]
    out.float().mean().backward()

    model.eval().save_pretrained(tmp_path)
    assert_same(run(type(model).from_pretrained(tmp_path), head), after, ROUNDING)
    model.resize_token_embeddings(VOCABULARY)
    assert_same(run(model, head), before, atol=1e-5)


@EACH
def test_input_embeddings_can_be_replaced(head: str) -> None:
    model = make(head)
    table = nn.Embedding(VOCABULARY, row_of(head).SIZES["hidden_size"])
    before = run(model, head)
    model.set_input_embeddings(table)
    assert model.get_input_embeddings() is table
    assert not run(model, head)[0].equal(before[0])


@EACH
@pytest.mark.parametrize("tie", [True, False])
def test_tied_weights(head: str, tie: bool, tmp_path: Path) -> None:
    model = make(head, tie_word_embeddings=tie)
    if head.endswith(LANGUAGE_MODELS):
        decoder = model.get_output_embeddings()
        assert (decoder.weight is model.get_input_embeddings().weight) == tie
        if hasattr(model, "cls"):
            assert (decoder.bias is model.cls.predictions.bias) == tie
        if not tie:
            decoder.weight.data.normal_()
    else:
        assert model.get_output_embeddings() is None
    model.save_pretrained(tmp_path)
    loaded = type(model).from_pretrained(tmp_path)
    assert_same(run(loaded, head), run(model, head), ROUNDING)


@FEW
def test_compiled(head: str) -> None:
    torch._dynamo.reset()
    model = make(head)
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    assert_same(run(compiled, head, **labels_of(head)), run(model, head, **labels_of(head)), 1e-5)


@FEW
def test_exported(head: str) -> None:
    model = make(head)
    exported = torch.export.export(model, (), inputs_of(head), strict=False)
    with torch.no_grad():
        assert_same(list(exported.module()(**inputs_of(head)).values()), run(model, head), 1e-5)


@EACH
def test_problem_with_unknown_arguments(head: str) -> None:
    with pytest.raises(TypeError, match="attention_masks"):
        make(head)(**inputs_of(head), attention_masks=None)


@EACH
def test_modules_that_device_maps_keep_whole(head: str) -> None:
    model = make(head)
    kept = {type(module).__name__ for module in model.modules()} & model._no_split_modules
    assert kept == {f"{family_of(head)}{part}" for part in row_of(head).KEPT_WHOLE}


@EACH
def test_device_map(head: str, tmp_path: Path) -> None:
    pytest.importorskip("accelerate", reason="transformers needs accelerate for device maps")
    model = make(head)
    model.save_pretrained(tmp_path, max_shard_size="20KB")
    loaded = type(model).from_pretrained(tmp_path, device_map="cpu")
    assert_same(run(loaded, head), run(model, head), atol=1e-5)
    prefix = "" if head.endswith("Model") else f"{model.base_model_prefix}."
    layers = row_of(head).LAYER_LIST
    device_map = {f"{prefix}{name}": "cpu" for name, _ in model.base_model.named_children()} | {
        name: "cpu" for name, _ in model.named_children()
    }
    for name in (model.base_model_prefix, f"{prefix}{layers.split('.')[0]}"):
        device_map.pop(name, None)
    device_map |= {f"{prefix}{layers}.0": "cpu", f"{prefix}{layers}.1": "disk"}
    offloaded = type(model).from_pretrained(
        tmp_path, device_map=device_map, offload_folder=tmp_path / "offload"
    )
    assert_same(run(offloaded, head), run(model, head), atol=1e-5)


@EACH
def test_base_model(head: str) -> None:
    model = make(head)
    assert isinstance(model.base_model, getattr(mra_plugin, f"{family_of(head)}Model"))
    if not head.endswith("ForMultipleChoice"):
        out = model(token_ids(), output_hidden_states=True).hidden_states[-1]
        assert hidden(model.base_model, token_ids()).equal(out)
