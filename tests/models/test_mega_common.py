"""What transformers expects of any model, for all seven classes of the MEGA family."""

import copy
from pathlib import Path

import pytest
import torch
from helpers.tiny_mega import (
    HEADS,
    LAYERS,
    SIZES,
    VOCABULARY,
    hidden,
    inputs_of,
    labels_of,
    make,
    token_ids,
)
from torch import nn
from transformers.utils import ModelOutput

import mra_plugin
from mra_plugin.models.mega.encoder import MegaEmbeddings

LANGUAGE_MODELS = ("MegaForCausalLM", "MegaForMaskedLM")
WITH_POOLER = ("MegaModel", "MegaForMultipleChoice")

pytestmark = pytest.mark.parametrize("head", HEADS)


@torch.no_grad()
def run(model: nn.Module, head: str, **extra: object) -> tuple[object, ...]:
    return model(**whole_inputs(head), **extra, return_dict=False)


def whole_inputs(head: str) -> dict[str, object]:
    """Without a cache, of which `test_mega_decoding` knows more."""
    return {**inputs_of(head), **({"use_cache": False} if head == "MegaForCausalLM" else {})}


def assert_same(one: object, other: object, atol: float = 0.0) -> None:
    if isinstance(one, torch.Tensor):
        torch.testing.assert_close(one, other, atol=atol, rtol=atol)
    else:
        assert len(one) == len(other)
        for a, b in zip(one, other, strict=True):
            assert_same(a, b, atol)


def test_save_and_load(head: str, tmp_path: Path) -> None:
    model = make(head)
    model.save_pretrained(tmp_path)
    loaded, report = type(model).from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report.values()), report
    assert not loaded.training
    assert_same(run(loaded, head), run(model, head), 1e-6)
    expected, found = model.config.to_dict(), loaded.config.to_dict()
    assert expected.pop("_name_or_path") != found.pop("_name_or_path")
    assert found == expected


def test_deterministic_and_copies_alike(head: str) -> None:
    model = make(head)
    assert_same(run(model, head), run(model, head))
    assert_same(run(copy.deepcopy(model), head), run(model, head))


def test_tuples_hold_what_objects_hold(head: str) -> None:
    model = make(head)
    wanted = {"output_attentions": True, "output_hidden_states": True, **labels_of(head)}
    with torch.no_grad():
        output = model(**whole_inputs(head), **wanted)
    assert isinstance(output, ModelOutput)
    assert_same(run(model, head, **wanted), output.to_tuple())
    names = list(output)
    assert ("loss" in names) == bool(labels_of(head))
    assert names[-2:] == ["hidden_states", "attentions"]
    assert len(output.hidden_states) == LAYERS + 1
    assert len(output.attentions) == LAYERS
    rows = 6 if head == "MegaForMultipleChoice" else 2
    assert {x.shape for x in output.hidden_states} == {(rows, 40, SIZES["hidden_size"])}
    assert {x.shape for x in output.attentions} == {(rows, 1, 40, 40)}

    model.config.output_attentions = model.config.output_hidden_states = True
    model.config.return_dict = False
    with torch.no_grad():
        assert_same(model(**whole_inputs(head), **labels_of(head)), output.to_tuple())


def test_inputs_embeds_are_input_ids(head: str) -> None:
    model, inputs = make(head), whole_inputs(head)
    with torch.no_grad():
        inputs["inputs_embeds"] = model.get_input_embeddings()(inputs.pop("input_ids"))
        assert_same(model(**inputs, return_dict=False), run(model, head))


def test_fresh_weights(head: str) -> None:
    spreads = {"ema_delta_alpha_range": 0.3, "ema_beta_range": 0.1, "ema_gamma_omega_range": 2.0}
    for bias in ("rotary", "simple"):
        model = make(head, initializer_range=0.05, relative_positional_bias=bias, **spreads)
        for name, parameter in model.named_parameters():
            mean, spread = 0.0, 0.05
            if name.endswith("norm.scalar"):
                assert parameter.eq(1).all(), name
                continue
            if name.endswith((".bias", "qk_bias")):
                assert parameter.eq(0).all(), name
                continue
            if name.endswith(("damping_factor", "decay_factor")):
                spread = 0.3
            elif name.endswith(("kernel_projection_matrix", "residual_weight")):
                spread = 2.0
            elif name.endswith("ema_expansion_matrix"):
                parameter, spread = parameter * torch.tensor([1, -1, 1, -1])[:, None], 0.1
                mean = 1.0
            # Of so many numbers as there are.
            allowed = 5 * spread / parameter.numel() ** 0.5
            assert abs(parameter.std().item() - spread) < allowed, name
            assert abs(parameter.mean().item() - mean) < allowed, name
        assert model.get_input_embeddings().weight[1].eq(0).all()


@pytest.mark.parametrize("bias", ["rotary", "simple"])
def test_training_reaches_every_parameter(head: str, bias: str) -> None:
    model = make(head, relative_positional_bias=bias, add_token_type_embeddings=True).train()
    out = model(**inputs_of(head), **labels_of(head), return_dict=False)
    loss = out[0] if out[0].ndim == 0 else out[0].square().mean() + out[1].square().mean()
    loss.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        # A bias of the choices shifts all of them alike.
        if (head, name) != ("MegaForMultipleChoice", "classifier.bias"):
            assert parameter.grad.abs().max() > 0, name


@pytest.mark.parametrize("reentrant", [False, True])
def test_gradient_checkpointing_changes_no_gradient(head: str, reentrant: bool) -> None:
    def gradients(model: nn.Module) -> dict[str, torch.Tensor]:
        out = model.train()(**inputs_of(head), **labels_of(head), return_dict=False)
        (out[0] if out[0].ndim == 0 else out[0].square().mean()).backward()
        return {name: x.grad for name, x in model.named_parameters() if x.grad is not None}

    names = ("dropout", "hidden_dropout", "attention_probs_dropout", "nffn_activation_dropout")
    dropout = {f"{name}_prob": 0.0 for name in names}
    expected = gradients(make(head, **dropout))
    model = make(head, **dropout)
    assert not model.is_gradient_checkpointing
    model.gradient_checkpointing_enable({"use_reentrant": reentrant})
    assert model.is_gradient_checkpointing
    if reentrant:
        model.enable_input_require_grads()
    for name, grad in gradients(model).items():
        torch.testing.assert_close(grad, expected[name], msg=name)


def test_dropout_in_training_alone(head: str) -> None:
    model = make(head, hidden_dropout_prob=0.5).train()
    one, other = run(model, head), run(model, head)
    assert not one[0].equal(other[0])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(head: str, dtype: torch.dtype, tmp_path: Path) -> None:
    model = make(head, initializer_range=0.1)
    model.save_pretrained(tmp_path)
    half = type(model).from_pretrained(tmp_path, dtype=dtype)
    outputs = run(half, head, **labels_of(head))
    assert all(x.dtype == dtype or x.ndim == 0 for x in outputs)
    assert_same([x.float() for x in outputs], run(model, head, **labels_of(head)), atol=0.3)
    if dtype == torch.bfloat16:
        out = half.train()(**inputs_of(head), **labels_of(head), return_dict=False)[0]
        out.float().mean().backward()
        assert all(x.grad.isfinite().all() for x in half.parameters() if x.grad is not None)


def test_resized_embeddings(head: str, tmp_path: Path) -> None:
    model = make(head)
    before = run(model, head)
    model.resize_token_embeddings(VOCABULARY + 10)
    assert model.config.vocab_size == VOCABULARY + 10
    assert model.get_input_embeddings().num_embeddings == VOCABULARY + 10
    after = run(model, head)
    if head in LANGUAGE_MODELS:
        assert after[0].shape[-1] == VOCABULARY + 10
        assert model.get_output_embeddings().bias.shape == (VOCABULARY + 10,)
        assert_same(after[0][..., :VOCABULARY], before[0], atol=1e-5)
    else:
        assert_same(after, before)
    inputs = inputs_of(head)
    inputs["input_ids"] = inputs["input_ids"] + 10
    out = model.train()(**inputs, **labels_of(head), return_dict=False)[0]
    out.float().mean().backward()

    model.eval().save_pretrained(tmp_path)
    assert_same(run(type(model).from_pretrained(tmp_path), head), after, 1e-6)
    model.resize_token_embeddings(VOCABULARY)
    assert_same(run(model, head), before, atol=1e-5)


def test_input_embeddings_can_be_replaced(head: str) -> None:
    model = make(head)
    table = nn.Embedding(10, SIZES["hidden_size"])
    model.set_input_embeddings(table)
    assert model.get_input_embeddings() is table
    assert (
        next(m for m in model.modules() if isinstance(m, MegaEmbeddings)).word_embeddings is table
    )


@pytest.mark.parametrize("tie", [True, False])
def test_tied_weights(head: str, tie: bool, tmp_path: Path) -> None:
    model = make(head, tie_word_embeddings=tie)
    if head in LANGUAGE_MODELS:
        decoder = model.get_output_embeddings()
        assert (decoder.weight is model.get_input_embeddings().weight) == tie
        if not tie:
            decoder.weight.data.normal_()
    else:
        assert model.get_output_embeddings() is None
    model.save_pretrained(tmp_path)
    loaded = type(model).from_pretrained(tmp_path)
    assert_same(run(loaded, head), run(model, head), 1e-6)


def test_problem_with_unknown_arguments(head: str) -> None:
    with pytest.raises(TypeError, match="attention_masks"):
        make(head)(**inputs_of(head), attention_masks=None)


def test_modules_that_device_maps_keep_whole(head: str) -> None:
    model = make(head)
    kept = {type(module).__name__ for module in model.modules()} & model._no_split_modules
    assert kept == {"MegaEmbeddings", "MegaBlock"}


def test_device_map(head: str, tmp_path: Path) -> None:
    pytest.importorskip("accelerate", reason="transformers needs accelerate for device maps")
    model = make(head)
    model.save_pretrained(tmp_path, max_shard_size="20KB")
    loaded = type(model).from_pretrained(tmp_path, device_map="cpu")
    assert_same(run(loaded, head), run(model, head), atol=1e-5)
    prefix = "" if head == "MegaModel" else "mega."
    layers = {f"{prefix}layers.0": "cpu", f"{prefix}layers.1": "disk"}
    rest = {
        name: "cpu"
        for name in ("dense", "lm_head", "mlm_head", "classifier", "qa_outputs")
        if hasattr(model, name)
    }
    if head in WITH_POOLER:
        rest[f"{prefix}pooler"] = "cpu"
    device_map = {f"{prefix}embedding_layer": "cpu", **layers, **rest}
    offloaded = type(model).from_pretrained(
        tmp_path, device_map=device_map, offload_folder=tmp_path / "offload"
    )
    assert_same(run(offloaded, head), run(model, head), atol=1e-5)


def test_base_model(head: str) -> None:
    model = make(head)
    assert isinstance(model.base_model, mra_plugin.MegaModel)
    if head != "MegaForMultipleChoice":
        out = model(token_ids(), output_hidden_states=True).hidden_states[-1]
        assert hidden(model.base_model, token_ids()).equal(out)
