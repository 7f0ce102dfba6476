"""What a token of a MEGA model sees, with padding, chunks and a future, at any length."""

import pytest
import torch
from helpers.tiny_mega import CHUNKS, DECODER, assert_same, hidden, make, padded, token_ids

from mra_plugin.models.mega import attention

FUNCTIONS = ["softmax", "laplace", "relu2"]
BIASES = ["rotary", "simple"]


# Padding


@pytest.mark.parametrize("dtype", [torch.long, torch.bool, torch.float32])
@pytest.mark.parametrize("extra", [{}, CHUNKS, {**CHUNKS, "chunk_size": 7}], ids=str)
@pytest.mark.parametrize("bias", BIASES)
@pytest.mark.parametrize("function", FUNCTIONS)
def test_padding_around_a_sequence_changes_nothing(
    function: str, bias: str, extra: dict[str, object], dtype: torch.dtype
) -> None:
    fields = {"attention_activation": function, "relative_positional_bias": bias, **extra}
    model, ids = make(**fields).double(), token_ids(3, 37)
    alone = hidden(model, ids[:, 4:29])
    mask = torch.zeros(3, 37, dtype=dtype)
    mask[:, 4:29] = 1
    assert_same(hidden(model, ids, mask)[:, 4:29], alone)
    # Rows of a batch may differ in it.
    mask[0] = 1
    together = hidden(model, ids, mask)
    assert_same(together[1:, 4:29], alone[1:])
    assert_same(together[0], hidden(model, ids)[0])


@pytest.mark.parametrize("extra", [{}, CHUNKS, DECODER], ids=str)
@pytest.mark.parametrize("function", FUNCTIONS)
def test_what_stands_at_padding_changes_no_real_token(
    function: str, extra: dict[str, object]
) -> None:
    model, ids = make(attention_activation=function, **extra).double(), token_ids()
    mask = torch.ones(2, 40, dtype=torch.bool)
    mask[0, :9] = mask[0, 20:22] = mask[1, 17:33] = False
    assert_same(
        hidden(model, ids, mask)[mask], hidden(model, ids.masked_fill(~mask, 5), mask)[mask]
    )


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("extra", [{}, CHUNKS, DECODER], ids=str)
def test_a_row_of_padding_alone_is_finite(function: str, extra: dict[str, object]) -> None:
    model, ids = make(attention_activation=function, **extra), token_ids()
    assert hidden(model, ids, padded(real=0)).isfinite().all()
    matrices = model(ids, padded(real=0), output_attentions=True).attentions
    assert all(x.isfinite().all() for x in matrices)
    out = model.train()(ids, padded(real=0)).last_hidden_state
    out.sum().backward()
    assert all(x.grad.isfinite().all() for x in model.parameters() if x.grad is not None)


# Causality


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("extra", [{}, CHUNKS, {"truncation": 3}], ids=str)
def test_a_decoder_does_not_see_the_future(function: str, extra: dict[str, object]) -> None:
    model = make(attention_activation=function, **DECODER, **extra).double()
    ids = token_ids()
    changed = ids.clone()
    changed[:, 23:] = 6
    for options in ({"use_cache": True}, {"use_cache": False}, {"attention_mask": padded()}):
        assert_same(
            hidden(model, ids, **options)[0, :23], hidden(model, changed, **options)[0, :23]
        )


# Chunks


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("bias", BIASES)
@pytest.mark.parametrize("decoder", [False, True])
@torch.no_grad()
def test_chunks_do_not_see_each_other(function: str, bias: str, decoder: bool) -> None:
    """Attention alone does not: the moving average sees the whole sequence."""
    fields = {"attention_activation": function, "relative_positional_bias": bias}
    fields |= {**DECODER} if decoder else {}
    layer = make(**CHUNKS, **fields).double().layers[0].mega_layer
    attend, seen = layer._attend, []
    layer._attend = lambda inputs, wanted: seen.append(inputs) or attend(inputs, wanted)
    _, weights = layer(torch.randn(2, 40, 32, dtype=torch.double), wants_weights=True)
    assert weights.shape == (2, 3, 16, 16)
    assert weights[:, 2, 8:].eq(0).all()
    assert weights[:, 2, :, 8:].eq(0).all()
    (inputs,) = seen
    expected = torch.cat(
        [
            attend(type(inputs)(*(x if x is None else x[:, a : a + 16] for x in inputs)), False)[0]
            for a in (0, 16, 32)
        ],
        1,
    )
    assert_same(attend(inputs, False)[0], expected)
    values = [weights[:, c, :, : min(16, 40 - 16 * c)] for c in range(3)]
    from_weights = torch.cat(
        [
            (w @ inputs.value[:, 16 * c : 16 * c + 16])[:, : 40 - 16 * c]
            for c, w in enumerate(values)
        ],
        1,
    )
    assert_same(from_weights, expected)


@pytest.mark.parametrize("tokens", [1, 15, 16, 17, 40, 95])
@pytest.mark.parametrize("extra", [{}, DECODER, {"relative_positional_bias": "simple"}], ids=str)
def test_any_length(tokens: int, extra: dict[str, object]) -> None:
    out = hidden(make(**CHUNKS, **extra), token_ids(1, tokens))
    assert out.shape == (1, tokens, 32)
    assert out.isfinite().all()


def test_a_table_of_distances_has_an_end_and_others_have_none() -> None:
    ids = token_ids(1, 97)
    assert hidden(make(), ids).isfinite().all()
    assert hidden(make(relative_positional_bias="simple", **CHUNKS), ids).isfinite().all()
    with pytest.raises(ValueError, match=r"97 tokens.*distances reaches 96 .max_positions"):
        make(relative_positional_bias="simple")(ids)
    # Without chunks their size means nothing.
    model = make(relative_positional_bias="simple", chunk_size=8)
    assert hidden(model, ids[:, :96]).equal(
        hidden(make(relative_positional_bias="simple"), ids[:, :96])
    )
    # Types that are not given need no table of positions.
    assert hidden(make(add_token_type_embeddings=True), ids).isfinite().all()


# Ways to compute the same


@pytest.mark.parametrize("decoder", [False, True])
@torch.no_grad()
def test_long_attention_without_a_matrix(decoder: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Values in parts as wide as queries give the same."""
    fields = {"intermediate_size": 64, **(DECODER if decoder else {})}
    model, ids, mask = make(**fields).double(), token_ids(), padded()
    expected = hidden(model, ids), hidden(model, ids, mask)[mask.bool()]
    monkeypatch.setattr(attention, "_MANY_PAIRS", 1)
    assert_same(hidden(model, ids), expected[0])
    assert_same(hidden(model, ids, mask)[mask.bool()], expected[1])


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("extra", [{}, CHUNKS], ids=str)
def test_queries_of_a_decoder_in_parts(
    function: str, extra: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = make(attention_activation=function, **DECODER, **extra).double()
    ids = token_ids()
    for mask in (None, padded(real=30).flip(1)):
        found = []
        for queries in (256, 7):
            monkeypatch.setattr(attention, "_QUERIES", queries)
            model.zero_grad()
            out = model(ids, mask).last_hidden_state
            out[slice(None) if mask is None else mask.bool()].square().sum().backward()
            grads = [x.grad for x in model.parameters() if x.grad is not None]
            found.append([out if mask is None else out[mask.bool()], *grads])
        for one, other in zip(*found, strict=True):
            assert_same(one, other, 1e-9)
