"""What an MRA model attends to, and what its arguments do."""

import pytest
import torch
from helpers.tiny_mra import (
    HEAD_COUNT,
    HEADS,
    LAYERS,
    SIZES,
    hidden,
    inputs_of,
    make,
    padded,
    token_ids,
)
from torch import Tensor, nn
from torch.nn import functional

import mra_plugin
from mra_plugin.ops import mra_attention, mra_attention_weights

TYPES = ["absolute", "relative_key", "relative_key_query"]


def first_layer(model: nn.Module, hidden_states: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    layer = model.encoder.layer[0].attention.self
    split = (2, 70, HEAD_COUNT, -1)
    return tuple(  # type: ignore[return-value]
        projection(hidden_states).view(split).transpose(1, 2)
        for projection in (layer.query, layer.key, layer.value)
    )


@torch.no_grad()
def attended(model: nn.Module, hidden_states: Tensor, mask: Tensor) -> Tensor:
    out = model.encoder.layer[0].attention.self(hidden_states, mask.bool())[0]
    return out.view(2, 70, HEAD_COUNT, -1).transpose(1, 2)


@pytest.mark.parametrize(
    "extra",
    [
        {},
        {"selection": "per_row"},
        {"approx_mode": "sparse"},
        {"initial_prior_first_n_blocks": 1},
        {"initial_prior_diagonal_n_blocks": 1, "block_per_row": 1},
        {"block_size": 32, "block_per_row": 1},
        {"coarse_key_size": 4, "salient_keys": 3, "block_score": "mass"},
        {"exact_up_to": 50},
    ],
    ids=str,
)
@torch.no_grad()
def test_a_layer_computes_mra_attention_as_configured(extra: dict[str, object]) -> None:
    model, mask = make(**extra), padded()
    states = torch.randn(2, 70, SIZES["hidden_size"])
    query, key, value = first_layer(model, states)
    options = {name: extra[name] for name in extra if name != "block_per_row"}
    per_row = extra.get("block_per_row", SIZES["block_per_row"])
    if extra.get("selection") == "per_row":
        options["block_per_row"] = per_row
    else:
        blocks = SIZES["max_position_embeddings"] // extra.get("block_size", 16)
        options["num_blocks"] = blocks * per_row
    options.setdefault("block_size", 16)

    out = attended(model, states, mask)
    torch.testing.assert_close(out, mra_attention(query, key, value, mask.bool(), **options))
    exact = functional.scaled_dot_product_attention(query, key, value, mask[:, None, None].bool())
    assert (out - exact)[mask[:, None, :, None].bool().expand_as(out)].abs().max() > 1e-2


@torch.no_grad()
def test_full_budget_is_exact_attention() -> None:
    model, mask = make(block_per_row=8), padded()
    states = torch.randn(2, 70, SIZES["hidden_size"])
    exact = functional.scaled_dot_product_attention(
        *first_layer(model, states), mask[:, None, None].bool()
    )
    real = mask[:, None, :, None].bool().expand_as(exact)
    torch.testing.assert_close(
        attended(model, states, mask)[real], exact[real], atol=1e-5, rtol=1e-5
    )


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("dtype", [torch.long, torch.bool, torch.float32])
def test_padding_that_follows_changes_no_real_token(kind: str, dtype: torch.dtype) -> None:
    model = make(position_embedding_type=kind, block_per_row=1)
    ids = token_ids(tokens=45)
    # The token under the mask is a real one's id, so that only the mask can hide it.
    longer = torch.cat([ids, torch.full((2, 51), 7)], dim=1)
    mask = padded(tokens=96, real=45).fill_(0)
    mask[:, :45] = 1
    short = hidden(model, ids)
    torch.testing.assert_close(
        hidden(model, longer, mask.to(dtype))[:, :45], short, atol=2e-5, rtol=2e-5
    )


@pytest.mark.parametrize("head", HEADS)
def test_a_row_does_not_depend_on_the_others(head: str) -> None:
    model = make(head)
    inputs = inputs_of(head)
    with torch.no_grad():
        together = model(**inputs, return_dict=False)
        for row in range(2):
            alone = model(**{n: x[row : row + 1] for n, x in inputs.items()}, return_dict=False)
            for one, both in zip(alone, together, strict=True):
                real = slice(45) if row and one.ndim > 1 and one.shape[1] == 70 else slice(None)
                torch.testing.assert_close(
                    one[:, real], both[row : row + 1][:, real], atol=2e-5, rtol=2e-5
                )


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("tokens", [1, 15, 33, 128])
def test_any_length(kind: str, tokens: int) -> None:
    out = hidden(make(position_embedding_type=kind), token_ids(1, tokens))
    assert out.shape == (1, tokens, SIZES["hidden_size"])
    assert out.isfinite().all()


def test_a_row_of_padding_alone_is_finite() -> None:
    for kind in TYPES:
        model = make(position_embedding_type=kind)
        assert hidden(model, token_ids(), padded(real=0)).isfinite().all()


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("shape", [(HEAD_COUNT,), (LAYERS, HEAD_COUNT)])
def test_head_mask(kind: str, shape: tuple[int, ...]) -> None:
    model, ids = make(position_embedding_type=kind), token_ids()
    assert hidden(model, ids, head_mask=torch.ones(shape)).equal(hidden(model, ids))

    head_mask = torch.ones(shape)
    head_mask[..., 0] = 0
    out = model(ids, head_mask=head_mask, output_attentions=True)
    for weights in out.attentions:
        assert weights[:, 0].eq(0).all()
        assert weights[:, 1].gt(0).any()
    # Taking a head out is taking its columns out of what follows.
    size = SIZES["hidden_size"] // HEAD_COUNT
    for layer in model.encoder.layer:
        layer.attention.output.dense.weight.data[:, :size] = 0
    torch.testing.assert_close(hidden(model, ids), out.last_hidden_state)


def test_head_mask_of_one_layer() -> None:
    model, ids = make(), token_ids()
    head_mask = torch.ones(LAYERS, HEAD_COUNT)
    head_mask[1, 1] = 0.25
    plain = model(ids, output_attentions=True).attentions
    masked = model(ids, head_mask=head_mask, output_attentions=True).attentions
    assert masked[0].equal(plain[0])
    torch.testing.assert_close(masked[1][:, 1], plain[1][:, 1] / 4)


@pytest.mark.parametrize("kind", TYPES)
@torch.no_grad()
def test_attentions_are_the_matrices_that_were_used(kind: str) -> None:
    model, ids, mask = make(position_embedding_type=kind), token_ids(), padded()
    head_mask = torch.tensor([0.5, 2.0])
    out = model(ids, mask, head_mask=head_mask, output_attentions=True, output_hidden_states=True)
    plain = hidden(model, ids, mask, head_mask=head_mask)
    torch.testing.assert_close(out.last_hidden_state, plain, atol=1e-4, rtol=1e-4)
    assert len(out.attentions) == LAYERS
    assert len(out.hidden_states) == LAYERS + 1
    assert out.hidden_states[-1].equal(out.last_hidden_state)
    for states, weights, layer in zip(
        out.hidden_states[:-1], out.attentions, model.encoder.layer, strict=True
    ):
        assert weights.shape == (2, HEAD_COUNT, 70, 70)
        torch.testing.assert_close(weights[0].sum(-1), head_mask[:, None].expand(-1, 70))
        value = layer.attention.self.value(states).view(2, 70, HEAD_COUNT, -1).transpose(1, 2)
        attended = layer.attention.self(states, mask.bool(), head_mask=head_mask)[0]
        torch.testing.assert_close(
            (weights @ value).transpose(1, 2).flatten(2), attended, atol=1e-5, rtol=1e-4
        )
    if kind == "absolute":
        query, key, _ = first_layer(model, out.hidden_states[0])
        expected = mra_attention_weights(query, key, mask.bool(), block_size=16, num_blocks=16)
        torch.testing.assert_close(out.attentions[0], expected * head_mask[:, None, None])


@pytest.mark.parametrize("kind", TYPES)
def test_attentions_have_gradients(kind: str) -> None:
    model = make(position_embedding_type=kind)
    out = model(token_ids(), padded(), output_attentions=True)
    for weights in out.attentions:
        weights.retain_grad()
    out.last_hidden_state.square().sum().backward()
    assert all(weights.grad.abs().sum() > 0 for weights in out.attentions)


@torch.no_grad()
def test_positions_and_types_are_looked_up() -> None:
    model = make(type_vocab_size=2)
    ids = token_ids()
    positions = torch.arange(70) + 2
    assert hidden(model, ids, position_ids=positions).equal(hidden(model, ids))
    assert hidden(model, ids, token_type_ids=torch.zeros_like(ids)).equal(hidden(model, ids))
    moved = model.embeddings(ids, torch.ones_like(ids), positions.flip(0)[None])
    expected = (
        model.embeddings.word_embeddings(ids)
        + model.embeddings.position_embeddings.weight[2:72].flip(0)
        + model.embeddings.token_type_embeddings.weight[1]
    )
    torch.testing.assert_close(moved, model.embeddings.LayerNorm(expected))
    assert not hidden(model, ids, position_ids=positions.flip(0)).equal(hidden(model, ids))


@pytest.mark.parametrize("head", HEADS)
def test_inputs_are_checked(head: str) -> None:
    model, inputs = make(head), inputs_of(head)
    embeds = model.get_input_embeddings()(inputs["input_ids"])
    with pytest.raises(ValueError, match="either input_ids or inputs_embeds, got both"):
        model(**inputs, inputs_embeds=embeds)
    with pytest.raises(ValueError, match="either input_ids or inputs_embeds, got none"):
        model(attention_mask=inputs["attention_mask"])
    with pytest.raises(ValueError, match="input_ids must have shape"):
        model(inputs["input_ids"][0, 0])
    with pytest.raises(ValueError, match="inputs_embeds must have shape"):
        model(inputs_embeds=embeds[0, 0])
    with pytest.raises(ValueError, match=r"129 tokens.*128.*max_position_embeddings"):
        model(**inputs_of(head, tokens=129))
    with pytest.raises(ValueError, match="attention_mask must have shape"):
        model(inputs["input_ids"], inputs["attention_mask"][..., 1:])
    with pytest.raises(ValueError, match=r"head_mask must have shape \(2,\) or \(2, 2\)"):
        model(**inputs, head_mask=torch.ones(3))


def test_the_table_of_distances_has_an_end() -> None:
    model = make(position_embedding_type="relative_key")
    with pytest.raises(ValueError, match=r"129 tokens.*distances.*128"):
        model(token_ids(1, 129), position_ids=torch.arange(129) % 128)


@pytest.mark.parametrize("name", [None, "eager", "mra"])
def test_attn_implementation_names_mra_alone(name: str | None, tmp_path: object) -> None:
    model, ids = make(), token_ids()
    model.save_pretrained(tmp_path)
    loaded = mra_plugin.MraModel.from_pretrained(tmp_path, attn_implementation=name).eval()
    assert hidden(loaded, ids).equal(hidden(model, ids))

    with pytest.raises(ValueError, match=r"MraModel has MRA attention.*sdpa.*mra_plugin.patch"):
        mra_plugin.MraModel.from_pretrained(tmp_path, attn_implementation="sdpa")
    with pytest.raises(ValueError, match="sdpa"):
        model.set_attn_implementation("sdpa")


@torch.no_grad()
def test_patch_overrides_the_fields_and_takes_other_attention() -> None:
    model, ids, mask = make(), token_ids(), padded()
    before = hidden(model, ids, mask)
    mra_plugin.patch(model, attention="mra", block_per_row=8)
    assert hidden(model, ids, mask).equal(hidden(make(block_per_row=8), ids, mask))
    assert model(ids, output_attentions=True).attentions[0].shape == (2, HEAD_COUNT, 70, 70)

    mra_plugin.patch(model, attention="sdpa")
    exact = hidden(model, ids, mask)
    full = hidden(make(block_per_row=64), ids, mask)
    torch.testing.assert_close(exact[mask.bool()], full[mask.bool()], atol=1e-5, rtol=1e-5)
    assert (exact - before)[mask.bool()].abs().max() > 1e-2

    assert hidden(mra_plugin.unpatch(model), ids, mask).equal(before)


def test_patch_and_relative_positions() -> None:
    model, ids = make(position_embedding_type="relative_key"), token_ids()
    before = hidden(model, ids)
    mra_plugin.patch(model, attention="mra", block_per_row=1)
    patched = hidden(model, ids)
    assert not patched.equal(before)
    for refused in ({"attention": "sdpa"}, {"impl": "eager"}, {"impl": "reference"}):
        with pytest.raises(ValueError, match=rf"{next(iter(refused.values()))}.*relative_key"):
            mra_plugin.patch(model, **refused)
    # The config may ask for it by itself.
    model.config._attn_implementation = "efficient_attention"
    model.config.efficient_attention = {"name": "sdpa"}
    with pytest.raises(ValueError, match="relative_key"):
        model(ids)
    mra_plugin.patch(model, attention="mra", block_per_row=1)
    assert hidden(model, ids).equal(patched)
    assert hidden(mra_plugin.unpatch(model), ids).equal(before)


def test_parameters_that_do_not_go_with_the_fields(tmp_path: object) -> None:
    model, ids = make(selection="per_row"), token_ids()
    before = hidden(model, ids)
    with pytest.raises(ValueError, match=r"num_blocks=9 .*selection"):
        mra_plugin.patch(model, num_blocks=9)
    assert hidden(model, ids).equal(before)
    assert model.config._attn_implementation == "eager"
    assert hidden(mra_plugin.patch(model, num_blocks=9, selection="global"), ids).isfinite().all()

    make(selection="per_row").save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"num_blocks=9 .*selection"):
        mra_plugin.MraModel.from_pretrained(tmp_path, mra={"num_blocks": 9})


def test_parameters_can_be_given_on_loading(tmp_path: object) -> None:
    make().save_pretrained(tmp_path)
    ids = token_ids()
    loaded = mra_plugin.MraModel.from_pretrained(tmp_path, mra={"block_per_row": 8}).eval()
    assert hidden(loaded, ids).equal(hidden(make(block_per_row=8), ids))
    with pytest.raises(TypeError, match="blocks"):
        mra_plugin.MraModel.from_pretrained(tmp_path, mra={"blocks": 8})
