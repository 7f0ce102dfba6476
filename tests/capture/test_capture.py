"""Attention over the inputs that were noted is what goes into each layer's next projection."""

import copy
import threading
from collections.abc import Callable

import pytest
import torch
import transformers as tf
from helpers import layer_families, tiny_models, tiny_mra, tiny_nystromformer
from helpers.tiny_models import inputs_of, padded, token_ids
from torch import Tensor, nn

import mra_plugin
from mra_plugin.encoders.capture import AttentionInputs, attention_inputs
from mra_plugin.registry import build_attention

SMALL = {"block_size": 8, "block_per_row": 1}
Attend = Callable[[AttentionInputs], Tensor]


def exactly(layer: AttentionInputs) -> Tensor:
    """Softmax attention in plain PyTorch, [B, H, N, Dv]."""
    tokens, channels = layer.query.shape[2:]
    scale = channels**-0.5 if layer.scale is None else layer.scale
    scores = layer.query @ layer.key.transpose(-1, -2) * scale
    if layer.key_padding_mask is not None:
        scores = scores.masked_fill(~layer.key_padding_mask[:, None, None], -torch.inf)
    if layer.reach is not None:
        at = torch.arange(tokens)
        scores = scores.masked_fill((at[:, None] - at).abs() > layer.reach, -torch.inf)
    # A padded query whose window holds no real key has no result; nobody looks at it.
    return scores.softmax(-1).nan_to_num() @ layer.value


def by_backend(name: str, **params: object) -> Attend:
    attention = build_attention(name, **params)

    def attend(layer: AttentionInputs) -> Tensor:
        if layer.reach is not None:
            return exactly(layer)
        mask = layer.key_padding_mask
        return attention(layer.query, layer.key, layer.value, mask, scale=layer.scale)

    return attend


def assert_followed(model: nn.Module, inputs: dict[str, Tensor], attend: Attend) -> None:
    """Each layer's attention, computed anew, is what some projection of the model is given."""
    layers = attention_inputs(model, **inputs)
    handed: list[Tensor] = []
    hooks = [
        module.register_forward_pre_hook(lambda _, args: handed.append(args[0]))
        for module in model.modules()
        if isinstance(module, nn.Linear)
    ]
    with torch.no_grad():
        model(**inputs)
    for hook in hooks:
        hook.remove()

    assert len(layers) == 2
    for layer in layers:
        context = attend(layer).transpose(1, 2).flatten(2)
        real = layer.key_padding_mask
        real = torch.ones(context.shape[:2], dtype=torch.bool) if real is None else real
        distances = [
            (x[real] - context[real]).abs().max().item() for x in handed if x.shape == context.shape
        ]
        assert min(distances) < 2e-5, layer.layer


@pytest.mark.parametrize("family", sorted(tiny_models.MAKE))
@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
def test_exact_attention(family: str, implementation: str) -> None:
    model = tiny_models.make(family, attn_implementation=implementation)
    assert_followed(model, inputs_of(family, padded()), exactly)


@pytest.mark.parametrize("family", sorted(tiny_models.MAKE))
def test_patched_model_runs_with_its_attention(family: str) -> None:
    model = mra_plugin.patch(tiny_models.make(family), **SMALL)
    assert_followed(model, inputs_of(family, padded()), by_backend("mra", **SMALL))


def test_model_patched_with_another_backend() -> None:
    model = mra_plugin.patch(tiny_models.make("roberta"), attention="nystrom", num_landmarks=8)
    assert_followed(model, inputs_of("roberta", padded()), by_backend("nystrom", num_landmarks=8))


def test_transformers_own_mra() -> None:
    inputs = layer_families.padded_inputs()
    model = layer_families.make("Mra")
    exact = attention_inputs(model, **inputs)
    assert_followed(mra_plugin.patch(model, attention="sdpa"), inputs, exactly)
    for again, layer in zip(attention_inputs(model, **inputs), exact, strict=True):
        assert torch.equal(again.query, layer.query)
        assert again.scale == layer.scale == 32**-0.5

    # What is not given comes from their config, where the budget is that of the longest sequence.
    options = {"block_size": 8, "num_blocks": layer_families.POSITIONS // 8}
    mra_plugin.patch(model, block_size=8)
    assert_followed(model, inputs, by_backend("mra", **options))
    assert len(attention_inputs(model, **inputs, output_attentions=True)) == 2


@pytest.mark.parametrize("own", [False, True])
def test_nystromformer(own: bool) -> None:
    inputs = layer_families.padded_inputs()
    model = layer_families.make("Nystromformer")
    if own:
        model = tiny_nystromformer.make(num_landmarks=16)
    for index in range(2):  # what the convolution adds is no attention
        layer_families.attention_layer(model, index).conv_kernel_size = None
    exact = attention_inputs(model, **inputs)
    mra_plugin.patch(model, attention="sdpa")
    assert_followed(model, inputs, exactly)
    assert torch.equal(attention_inputs(model, **inputs)[1].query, exact[1].query)
    mra_plugin.patch(model, attention="nystrom")
    assert_followed(model, inputs, by_backend("nystrom", num_landmarks=16))


def test_mra_model_of_this_package() -> None:
    inputs = tiny_mra.inputs_of("MraModel")
    model = tiny_mra.make()
    exact = attention_inputs(model, **inputs)
    mra_plugin.patch(model, attention="sdpa")
    assert_followed(model, inputs, exactly)
    assert torch.equal(attention_inputs(model, **inputs)[1].query, exact[1].query)
    mra_plugin.patch(model, attention="mra")
    assert_followed(model, inputs, by_backend("mra", block_size=16, num_blocks=16))


def test_layers_in_order_with_their_names() -> None:
    layers = attention_inputs(tiny_models.make("modernbert"), **inputs_of("modernbert", padded()))
    assert [layer.layer for layer in layers] == ["layers.0.attn", "layers.1.attn"]
    assert [layer.reach for layer in layers] == [None, 10]
    albert = attention_inputs(tiny_models.make("albert"), input_ids=token_ids())
    assert albert[0].layer == albert[1].layer
    assert not torch.equal(albert[0].query, albert[1].query)


def test_masks_and_grouped_heads() -> None:
    (layer, _) = attention_inputs(
        tiny_models.make("eurobert"), **inputs_of("eurobert", padded(real=45))
    )
    assert layer.query.shape == layer.key.shape == layer.value.shape == (2, 2, 70, 16)
    assert torch.equal(layer.key[:, 0], layer.key[:, 1])
    four = tiny_models.make("eurobert", num_attention_heads=4, num_key_value_heads=2, head_dim=8)
    assert_followed(four, inputs_of("eurobert", padded()), exactly)
    assert layer.key_padding_mask is not None
    assert torch.equal(layer.key_padding_mask, padded(real=45).bool())
    (layer, _) = attention_inputs(tiny_models.make("bert"), input_ids=token_ids())
    assert layer.key_padding_mask is None


def test_a_head_around_the_encoder_and_parts_with_different_attention() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = mra_plugin.patch(tiny_models.make("bert"), **SMALL)
            self.second = tiny_models.make("roberta")

        def forward(self, input_ids: Tensor) -> Tensor:
            return self.first(input_ids)[0] + self.second(input_ids)[0]

    both = Two()
    found = attention_inputs(both, input_ids=token_ids())
    alone = [
        *attention_inputs(both.first, input_ids=token_ids()),
        *attention_inputs(both.second, input_ids=token_ids()),
    ]
    assert [one.layer.split(".")[0] for one in found] == ["first"] * 2 + ["second"] * 2
    for one, other in zip(found, alone, strict=True):
        assert torch.equal(one.query, other.query)


def state(model: nn.Module) -> tuple[object, ...]:
    configs = [module.config for module in model.modules() if hasattr(module, "config")]
    return (
        [(config, copy.deepcopy(config.__dict__)) for config in configs],
        [(name, id(module), set(module.__dict__)) for name, module in model.named_modules()],
        [len(module._forward_pre_hooks) for module in model.modules()],
        [(name, id(x), x.clone().tolist()) for name, x in model.state_dict(keep_vars=True).items()],
    )


@pytest.mark.parametrize("make", [tiny_models.make, layer_families.make, lambda _: tiny_mra.make()])
@pytest.mark.parametrize("patched", [False, True])
def test_model_stays_as_it_is(make: Callable[[str], nn.Module], patched: bool) -> None:
    model = make({tiny_models.make: "roberta"}.get(make, "Mra"))
    if patched:
        mra_plugin.patch(model, block_size=8, block_per_row=2)
    before, output = state(model), tiny_models.hidden(model, input_ids=token_ids())

    attention_inputs(model, input_ids=token_ids())
    assert state(model) == before
    with pytest.raises((RuntimeError, ValueError, IndexError)):
        attention_inputs(model, input_ids=token_ids(tokens=200))  # beyond the positions
    assert state(model) == before
    assert torch.equal(tiny_models.hidden(model, input_ids=token_ids()), output)


def test_weights_are_not_copied_and_need_no_gradient() -> None:
    model = tiny_models.make("bert")
    layers = attention_inputs(model, input_ids=token_ids())
    assert not any(x.requires_grad for one in layers for x in (one.query, one.key, one.value))
    with torch.no_grad():
        model.encoder.layer[0].attention.self.query.weight.zero_()
        model.encoder.layer[0].attention.self.query.bias.zero_()
    assert not attention_inputs(model, input_ids=token_ids())[0].query.any()


def test_threads_do_not_mix() -> None:
    model = tiny_models.make("roberta")
    batches = [token_ids(tokens=tokens) for tokens in (20, 30, 40, 50)]
    alone = [attention_inputs(model, input_ids=batch) for batch in batches]
    found: dict[int, list[AttentionInputs]] = {}

    def run(index: int) -> None:
        for _ in range(3):
            found[index] = attention_inputs(model, input_ids=batches[index])

    threads = [threading.Thread(target=run, args=(index,)) for index in range(len(batches))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for index, layers in enumerate(alone):
        for one, other in zip(found[index], layers, strict=True):
            torch.testing.assert_close(one.query, other.query)


def test_compiled_model() -> None:
    model = tiny_models.make("bert")
    (one, _), (other, _) = (
        attention_inputs(which, input_ids=token_ids()) for which in (model, torch.compile(model))
    )
    assert torch.equal(one.query, other.query)


def test_refusals() -> None:
    ids = token_ids()
    with pytest.raises(TypeError, match="hold, a transformers PreTrainedModel; str does not"):
        attention_inputs("bert", input_ids=ids)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="hold, a transformers PreTrainedModel; Linear does not"):
        attention_inputs(nn.Linear(2, 2), input_ids=ids)
    sizes = {"n_layer": 1, "n_head": 2, "n_embd": 16, "vocab_size": 64, "n_positions": 80}
    with pytest.raises(ValueError, match="GPT2Model can't take another attention"):
        attention_inputs(tf.GPT2Model(tf.GPT2Config(**sizes)), input_ids=ids)
    relative = tiny_mra.make(position_embedding_type="relative_key")
    with pytest.raises(ValueError, match="relative positions"):
        attention_inputs(relative, input_ids=ids)
    with pytest.raises(ValueError, match="depend on distances"):
        attention_inputs(mra_plugin.patch(relative, attention="mra"), input_ids=ids)
    with pytest.raises(ValueError, match="custom mask"):
        attention_inputs(
            tiny_models.make("bert"), input_ids=ids, attention_mask=torch.ones(2, 1, 70, 70) > 0
        )
    empty = tiny_models.make("bert", num_hidden_layers=0)
    with pytest.raises(ValueError, match="BertModel has no layer that takes"):
        attention_inputs(empty, input_ids=ids)
