"""transformers' MRA and Nyströmformer, which compute attention in layers of their own."""

import copy
import pickle
import subprocess
import sys

import pytest
import torch
import transformers as tf
from helpers.layer_families import (
    FAMILIES,
    HEADS,
    POSITIONS,
    attention_layer,
    in_heads,
    make,
    padded_inputs,
)
from helpers.tiny_models import hidden, token_ids
from torch import Tensor, nn

import mra_plugin
from mra_plugin.ops import mra_attention_weights

SMALL = {"block_size": 8, "block_per_row": 1}
INPUTS = padded_inputs()
BOTH = pytest.mark.parametrize("family", FAMILIES)
ATTENTIONS = pytest.mark.parametrize("attention", ["mra", "nystrom", "sdpa"])

# Parameters that leave something to approximate.
FEW: dict[str, dict[str, int]] = {"mra": {"block_per_row": 1}, "nystrom": {}, "sdpa": {}}


def first(output: object) -> Tensor:
    return output.to_tuple()[0]  # type: ignore[attr-defined]


@BOTH
@ATTENTIONS
@pytest.mark.parametrize("tokens", [1, 31, 70, POSITIONS])
def test_any_length_and_padding_changes_no_real_token(
    family: str, attention: str, tokens: int
) -> None:
    model = mra_plugin.patch(make(family), attention=attention, **FEW[attention])
    ids = token_ids(2, POSITIONS)
    mask = (torch.arange(POSITIONS) < tokens).long().repeat(2, 1)
    mask[1] = 1
    alone = hidden(model, input_ids=ids[:1, :tokens])
    beside = hidden(model, input_ids=ids, attention_mask=mask)
    torch.testing.assert_close(beside[:1, :tokens], alone, atol=2e-5, rtol=2e-5)
    torch.testing.assert_close(beside[1:], hidden(model, input_ids=ids[1:]), atol=2e-5, rtol=2e-5)
    if tokens > 1:
        other = ids[:1, :tokens].clone()
        other[0, 0] = 3
        moved = (hidden(model, input_ids=other) - alone).abs().amax(-1)
        assert moved[0, -1] > 1e-5


@BOTH
def test_unpatch_gives_the_same_bits_back(family: str) -> None:
    model = make(family)
    inputs = {"input_ids": token_ids(2, POSITIONS)}
    before, config, keys = hidden(model, **inputs), model.config.to_dict(), list(model.state_dict())
    assert mra_plugin.patch(model, **SMALL) is model
    assert list(model.state_dict()) == keys
    assert not torch.allclose(hidden(model, **inputs), before, atol=1e-3)
    assert mra_plugin.unpatch(model) is model
    assert torch.equal(hidden(model, **inputs), before)
    assert model.config.to_dict() == config
    assert model.config._attn_implementation == "eager"


@BOTH
def test_a_second_patch_replaces_the_first(family: str) -> None:
    once = hidden(mra_plugin.patch(make(family), attention="sdpa"), **INPUTS)
    model = mra_plugin.patch(make(family), **SMALL)
    assert not torch.allclose(hidden(model, **INPUTS), once, atol=1e-3)
    mra_plugin.patch(model, attention="sdpa")
    assert torch.equal(hidden(model, **INPUTS), once)


def head_inputs(head: str) -> dict[str, Tensor]:
    if head != "ForMultipleChoice":
        return INPUTS
    return {name: x[:, None].repeat(1, 2, 1) for name, x in INPUTS.items()}


@BOTH
@pytest.mark.parametrize("head", HEADS)
def test_heads(family: str, head: str) -> None:
    model = make(family, head)
    inputs = head_inputs(head)
    with torch.no_grad():
        before = first(model(**inputs)) if family == "Mra" else None
        mra_plugin.patch(model, **SMALL)
        patched = first(model(**inputs))
        outputs = model(**inputs, output_attentions=True, output_hidden_states=True)
        assert model(**inputs).attentions is None
        plain = model(**inputs, output_attentions=True, return_dict=False)
        model.config.output_attentions = True
        from_config = model(**inputs).attentions
        assert model(**inputs, output_attentions=False).attentions is None
    assert patched.isfinite().all()
    assert before is None or not torch.allclose(patched, before, atol=1e-3)
    torch.testing.assert_close(first(outputs), patched)
    assert len(outputs.attentions) == 2
    assert len(outputs.hidden_states) == 3
    rows = 4 if head == "ForMultipleChoice" else 2
    for attentions in (plain[-1], from_config, outputs.attentions):
        assert [x.shape for x in attentions] == 2 * [(rows, 2, 70, 70)]
        mask = inputs["attention_mask"].reshape(rows, 70)
        seen = (attentions[0] * mask[:, None, None]).sum(-1)[:, 0]
        # Every query is served, and sees real tokens alone.
        torch.testing.assert_close(seen, torch.ones(rows, 70), atol=1e-5, rtol=0)


@BOTH
def test_attention_matrices_are_those_of_the_attention(family: str) -> None:
    model = mra_plugin.patch(make(family), **SMALL, num_blocks=9)
    with torch.no_grad():
        outputs = model(**INPUTS, output_attentions=True, output_hidden_states=True)
        layer = attention_layer(model)
        query, key, value = in_heads(layer, outputs.hidden_states[0])
        mask = INPUTS["attention_mask"].bool()
        expected = mra_attention_weights(query, key, mask, block_size=8, num_blocks=9)
        torch.testing.assert_close(outputs.attentions[0], expected)
        out = (expected @ value).transpose(1, 2).flatten(2)
        if family == "Nystromformer":
            real = value * mask[:, None, :, None]
            out = out + layer.conv(real).transpose(1, 2).flatten(2)
        # The layer by itself attends as well.
        torch.testing.assert_close(layer(outputs.hidden_states[0], mask)[0], out)


@BOTH
def test_output_attentions_of_a_model_that_is_not_patched_is_as_before(family: str) -> None:
    outputs = make(family)(token_ids(2, POSITIONS), output_attentions=True)
    if family == "Mra":
        assert outputs.attentions is None
    else:
        assert outputs.attentions[0].shape == (2, 2, POSITIONS, 16)


@BOTH
def test_attention_without_matrices(family: str) -> None:
    from mra_plugin.registry import register_attention

    name = f"layer-test-{family}"
    register_attention(name, summary="for tests")(lambda: lambda q, k, v, *_, scale=None: v)
    model = mra_plugin.patch(make(family), attention=name)
    model(**INPUTS)
    with pytest.raises(ValueError, match="output_attentions=True"):
        model(**INPUTS, output_attentions=True)


@BOTH
@pytest.mark.parametrize(
    "copied",
    [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model)), lambda model: model.to("cpu")],
    ids=["deepcopy", "pickle", "to"],
)
def test_copies(family: str, copied: object) -> None:
    model = mra_plugin.patch(make(family, "ForMaskedLM"), **SMALL)
    with torch.no_grad():
        expected = model(**INPUTS).logits
        twin = copied(model)
        assert torch.equal(twin(**INPUTS).logits, expected)
        mra_plugin.unpatch(twin)
        assert attention_layer(twin).config._attn_implementation == "eager"
        if twin is not model:
            assert torch.equal(model(**INPUTS).logits, expected)


@BOTH
def test_other_dtypes(family: str) -> None:
    model = mra_plugin.patch(make(family), **SMALL)
    out = hidden(model, **INPUTS)
    double = hidden(mra_plugin.patch(make(family).double(), **SMALL), **INPUTS)
    torch.testing.assert_close(double.float(), out, atol=1e-4, rtol=1e-4)
    half = hidden(model.bfloat16(), **INPUTS)
    assert half.dtype == torch.bfloat16
    assert half.isfinite().all()


@BOTH
@pytest.mark.parametrize("head", ["Model", "ForTokenClassification"])
def test_saving_and_loading(family: str, head: str, tmp_path: object) -> None:
    model = mra_plugin.patch(make(family, head), **SMALL)
    model.save_pretrained(tmp_path)
    loaded, info = type(model).from_pretrained(tmp_path, output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    assert loaded.config.mra == SMALL
    with torch.no_grad():
        assert torch.equal(first(loaded.eval()(**INPUTS)), first(model(**INPUTS)))

    mra_plugin.unpatch(model).save_pretrained(tmp_path)
    plain = type(model).from_pretrained(tmp_path)
    assert plain.config._attn_implementation == "eager"
    flagged = type(model).from_pretrained(tmp_path, attn_implementation="mra", mra=SMALL).eval()
    plain.set_attn_implementation("mra")
    with torch.no_grad():
        expected = first(mra_plugin.patch(model, **SMALL)(**INPUTS))
        assert torch.equal(first(flagged(**INPUTS)), expected)
        assert not torch.equal(first(plain.eval()(**INPUTS)), expected)


@BOTH
@pytest.mark.parametrize("params", [{"block_size": 33}, {"block_per_row": 0}, {"blocks": 3}])
def test_wrong_parameters_are_refused(family: str, params: dict[str, int]) -> None:
    model = make(family)
    with pytest.raises((TypeError, ValueError), match=next(iter(params))):
        mra_plugin.patch(model, **params)
    assert model.config._attn_implementation == "eager"


@BOTH
@pytest.mark.parametrize("dtype", [torch.bool, torch.float32, torch.long])
@pytest.mark.parametrize("shape", [(2, 70, 70), (2, 1, 70, 70), (2, 60), (2, 1, 1, 60)])
def test_masks_that_are_not_padding(
    family: str, dtype: torch.dtype, shape: tuple[int, ...]
) -> None:
    model = mra_plugin.patch(make(family))
    with pytest.raises(ValueError, match="attention_mask"):
        model(token_ids(), attention_mask=torch.ones(shape, dtype=dtype))


@BOTH
def test_padding_masks_of_every_form(family: str) -> None:
    model = mra_plugin.patch(make(family))
    mask = INPUTS["attention_mask"]
    wide = mask[:, None, None, :]
    layer = attention_layer(model)
    states = torch.randn(2, 70, 64)
    expected = layer(states, mask)[0]
    added = torch.zeros(wide.shape).masked_fill(wide == 0, torch.finfo(torch.float32).min)
    for form in (mask.bool(), mask.float(), wide.bool(), wide, added):
        assert torch.equal(layer(states, form)[0], expected)
    assert not torch.equal(layer(states)[0], expected)
    assert torch.equal(layer(states, torch.zeros(1, 1, 1, 70))[0], layer(states)[0])


@BOTH
def test_a_row_of_padding_alone_is_finite(family: str) -> None:
    for attention in ("mra", "nystrom", "sdpa"):
        model = mra_plugin.patch(make(family), attention=attention)
        assert hidden(model, **padded_inputs(real=0)).isfinite().all()


@BOTH
@pytest.mark.parametrize("attention", ["mra", "nystrom"])
@pytest.mark.parametrize("reentrant", [False, True])
def test_gradient_checkpointing(family: str, attention: str, reentrant: bool) -> None:
    gradients = []
    for checkpointing in (False, True):
        model = make(
            family, "ForSequenceClassification",
            hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
        )  # fmt: skip
        mra_plugin.patch(model, attention=attention, **FEW[attention]).train()
        if checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": reentrant})
        outputs = model(**INPUTS, labels=torch.tensor([0, 2]), output_attentions=True)
        # Reentrant checkpointing recomputes what matrices need, but passes no gradient for them.
        (outputs.loss + outputs.attentions[1].square().sum()).backward()
        gradients.append([p.grad for p in model.parameters() if p.grad is not None])
    assert len(gradients[0]) == len(gradients[1]) > 20
    for plain, checkpointed in zip(*gradients, strict=True):
        torch.testing.assert_close(checkpointed, plain)


@pytest.mark.parametrize(
    ("family", "attention", "params"),
    [
        ("Mra", "mra", SMALL),
        ("Nystromformer", "nystrom", {"num_landmarks": 16, "pinv_iterations": 1}),
    ],
)
def test_one_graph_without_breaks_serves_many_lengths(
    family: str, attention: str, params: dict[str, int]
) -> None:
    torch._dynamo.reset()
    model = mra_plugin.patch(make(family, num_hidden_layers=1), attention=attention, **params)
    compiled = torch.compile(model, fullgraph=True, dynamic=True, backend="eager")
    with torch._dynamo.config.patch(error_on_recompile=True):
        for tokens in (150, 131, 100):
            inputs = padded_inputs(tokens, 77)
            torch.testing.assert_close(
                hidden(compiled, **inputs), hidden(model, **inputs), atol=2e-5, rtol=2e-5
            )
    with torch.no_grad():
        compiled = torch.compile(model, fullgraph=True, backend="eager")
        matrices = compiled(**INPUTS, output_attentions=True).attentions
        expected = model(**INPUTS, output_attentions=True).attentions
    torch.testing.assert_close(matrices[0], expected[0], atol=2e-5, rtol=2e-5)


@BOTH
@pytest.mark.parametrize("given", ["input_ids", "inputs_embeds"])
def test_an_input_beyond_the_positions(family: str, given: str) -> None:
    model = make(family)
    long = token_ids(1, POSITIONS + 1)
    inputs = {given: long if given == "input_ids" else torch.randn(1, POSITIONS + 1, 64)}
    with pytest.raises(RuntimeError):
        model(**inputs)  # as ever
    mra_plugin.patch(model)
    with pytest.raises(ValueError, match=f"{POSITIONS + 1} tokens.*{POSITIONS} .*truncation"):
        model(**inputs)


LATE = """
import torch, transformers
ids = torch.arange(40)[None] % 9
before = {}
for family in ("Mra", "Nystromformer"):
    config = getattr(transformers, family + "Config")(
        vocab_size=9, hidden_size=8, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=8, max_position_embeddings=40, initializer_range=1.0,
    )
    for number in range(2):
        model = getattr(transformers, family + "ForMaskedLM")(config).eval()
        before[model] = model(ids).logits
import mra_plugin
patched, flagged = list(before)[::2], list(before)[1::2]
for model in patched:
    mra_plugin.patch(model, block_size=8, block_per_row=1)
    assert model(ids, output_attentions=True).attentions[0].shape == (1, 2, 40, 40)
    assert not torch.equal(model(ids).logits, before[model])
    assert torch.equal(mra_plugin.unpatch(model)(ids).logits, before[model])
for model in flagged:
    model.config.mra = dict(block_size=8, block_per_row=1)
    model.set_attn_implementation("mra")
    assert not torch.equal(model(ids).logits, before[model])
"""


def test_models_that_were_built_before_the_import() -> None:
    done = subprocess.run([sys.executable, "-c", LATE], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_both_families_beside_each_other_in_one_module() -> None:
    both = nn.ModuleDict({family: make(family) for family in FAMILIES})
    mra_plugin.patch(both, attention="sdpa")
    for model in both.values():
        assert isinstance(model, tf.PreTrainedModel)
        assert model.config._attn_implementation == "efficient_attention"
        expected = hidden(mra_plugin.patch(copy.deepcopy(model), attention="sdpa"), **INPUTS)
        assert torch.equal(hidden(model, **INPUTS), expected)
