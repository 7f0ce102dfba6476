"""What a MEGA decoder gives token by token is what it gives at once."""

import copy

import pytest
import torch
from helpers.tiny_mega import DECODER, config, make, token_ids
from torch import Tensor, nn
from transformers import DynamicCache, EncoderDecoderCache

import mra_plugin

FUNCTIONS = ["softmax", "laplace", "relu2"]
# Lengths of the prompt and of what follows; chunks of 7 are crossed, filled and begun.
CUTS = [(1, 1, 1), (5, 1, 2, 1, 8), (7, 7, 1, 1), (20, 1, 1, 1), (3, 17)]
VARIANTS = {
    "plain": {},
    "simple": {"relative_positional_bias": "simple"},
    "chunks": {"use_chunking": True, "chunk_size": 7},
    "simple-chunks": {
        "use_chunking": True,
        "chunk_size": 7,
        "relative_positional_bias": "simple",
    },
    "chunk-of-one": {"use_chunking": True, "chunk_size": 1},
    "truncation": {"truncation": 4},
    "types": {"add_token_type_embeddings": True, "normalize_before_mega": False},
}


def decoder(**extra: object) -> nn.Module:
    return make("MegaForCausalLM", **extra).double()


@torch.no_grad()
def stepped(model: nn.Module, ids: Tensor, cuts: tuple[int, ...], mask: Tensor | None) -> Tensor:
    """Logits of a prompt and of what follows it, on a cache."""
    logits, cache, read = [], None, 0
    for index, length in enumerate(cuts):
        part = ids[:, read : read + length]
        given = {} if mask is None else {"attention_mask": mask[:, : read + length]}
        if index % 2 and mask is not None and mask[:, read : read + length].all():
            given = {}  # the cache remembers padding by itself
        out = model(part, past_key_values=cache, use_cache=True, **given)
        cache, read = out.past_key_values, read + length
        logits.append(out.logits)
    assert cache.get_seq_length() == read
    return torch.cat(logits, 1)


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("variant", VARIANTS)
@torch.no_grad()
def test_steps_equal_the_whole(function: str, variant: str) -> None:
    model = decoder(attention_activation=function, **VARIANTS[variant])
    ids = token_ids(tokens=23)
    for cuts in CUTS:
        part = ids[:, : sum(cuts)]
        whole = model(part, use_cache=False).logits
        torch.testing.assert_close(stepped(model, part, cuts, None), whole)


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("variant", ["plain", "simple-chunks", "chunks", "truncation"])
@torch.no_grad()
def test_padding_in_front_changes_nothing(function: str, variant: str) -> None:
    model = decoder(attention_activation=function, **VARIANTS[variant])
    ids, lengths = token_ids(3, 20), (20, 14, 9)
    mask = torch.tensor([[0] * (20 - n) + [1] * n for n in lengths])
    together = model(ids, mask, use_cache=False).logits
    on_a_cache = stepped(model, ids, (11, 1, 1, 7), mask)
    for row, n in enumerate(lengths):
        alone = model(ids[row : row + 1, 20 - n :], use_cache=False).logits[0]
        torch.testing.assert_close(together[row, 20 - n :], alone)
        torch.testing.assert_close(on_a_cache[row, 20 - n :], alone)


@torch.no_grad()
def test_padding_behind_and_between_is_remembered() -> None:
    model = decoder()
    ids, mask = token_ids(2, 12), torch.ones(2, 12, dtype=torch.bool)
    mask[0, 3:5] = mask[1, 8] = False
    whole = model(ids, mask, use_cache=False).logits
    steps = stepped(model, ids, (4, 3, 1, 1, 2, 1), mask)
    torch.testing.assert_close(steps[mask], whole[mask])
    changed = ids.masked_fill(~mask, 9)
    torch.testing.assert_close(model(changed, mask).logits[mask], whole[mask])


@torch.no_grad()
def test_a_cache_that_is_not_to_be_changed_is_read_all_the_same() -> None:
    model, ids = decoder(), token_ids(tokens=15)
    whole = model(ids, use_cache=False).logits[:, 10:]
    cache = model(ids[:, :10]).past_key_values
    for _ in range(2):
        out = model(ids[:, 10:], past_key_values=cache, use_cache=False)
        assert out.past_key_values is None
        torch.testing.assert_close(out.logits, whole)
    assert cache.get_seq_length() == 10


@torch.no_grad()
def test_with_chunks_memory_is_constant() -> None:
    model, ids = decoder(**VARIANTS["chunks"]), token_ids(tokens=60)
    mask = torch.ones_like(ids)
    mask[0, :3] = 0
    cache = model(ids[:, :30], mask[:, :30]).past_key_values

    def held() -> int:
        tensors = [cache.real, *(x for layer in cache.layers for x in vars(layer).values())]
        return sum(x.untyped_storage().nbytes() for x in tensors if isinstance(x, torch.Tensor))

    before = held()
    for step in range(30, 60):
        model(ids[:, step : step + 1], past_key_values=cache)
        assert held() == before
    assert cache.layers[0].keys.shape == (2, 1, 6, 16)
    assert cache.layers[0].get_mask_sizes(1) == (7, 54)


@pytest.mark.parametrize("variant", ["plain", "chunks"])
@pytest.mark.parametrize("function", FUNCTIONS)
def test_generation(function: str, variant: str) -> None:
    model = decoder(attention_activation=function, **VARIANTS[variant])
    ids = token_ids(2, 10)
    mask = torch.ones_like(ids)
    mask[1, :4] = 0
    options = {"max_new_tokens": 9, "do_sample": False, "eos_token_id": None, "pad_token_id": 1}
    for beams in (1, 3):
        found = model.generate(ids, attention_mask=mask, num_beams=beams, **options)
        slow = model.generate(ids, attention_mask=mask, num_beams=beams, use_cache=False, **options)
        assert found.equal(slow)
        alone = model.generate(ids[1:, 4:], num_beams=beams, **options)
        assert found[1, 4:].equal(alone[0])
    in_parts = model.generate(ids, attention_mask=mask, prefill_chunk_size=3, **options)
    assert in_parts.equal(model.generate(ids, attention_mask=mask, **options))


def test_generation_goes_on_from_a_cache() -> None:
    model, ids = decoder(), token_ids(1, 12)
    options = {"max_new_tokens": 6, "do_sample": False, "eos_token_id": None}
    expected = model.generate(ids, **options)
    with torch.no_grad():
        cache = model(ids[:, :8]).past_key_values
    found = model.generate(ids, past_key_values=copy.deepcopy(cache), **options)
    assert found.equal(expected)
    output = model.generate(
        ids, past_key_values=DynamicCache(), return_dict_in_generate=True, **options
    )
    assert output.sequences.equal(expected)
    assert output.past_key_values.get_seq_length() == 17
    assert cache.get_seq_length() == 8


def test_sampled_generation_and_generation_from_embeddings() -> None:
    model, ids = decoder(), token_ids(1, 12)
    options = {"max_new_tokens": 4, "eos_token_id": None}
    assert model.generate(ids, do_sample=True, num_return_sequences=3, **options).shape == (3, 16)
    embeds = model.get_input_embeddings()(ids)
    found = model.generate(inputs_embeds=embeds, do_sample=False, **options)
    assert found.equal(model.generate(ids, do_sample=False, **options)[:, 12:])


def test_what_generation_can_not_do() -> None:
    model, ids = decoder(), token_ids(1, 5)
    with pytest.raises(ValueError, match="cache_implementation must be left out for MEGA"):
        model.generate(ids, max_new_tokens=2, cache_implementation="static")
    with pytest.raises(ValueError, match="stateful"):
        model.generate(ids, max_new_tokens=2, assistant_model=decoder(), do_sample=False)


@torch.no_grad()
def test_rows_of_a_cache() -> None:
    model, ids = decoder(), token_ids(3, 12)
    mask = torch.ones_like(ids)
    mask[1, :2] = 0
    whole = model(ids, mask, use_cache=False).logits[:, 8:]

    def after(change: object, rows: Tensor) -> None:
        cache = model(ids[:, :8], mask[:, :8]).past_key_values
        change(cache)
        out = model(ids[rows, 8:], past_key_values=cache).logits
        torch.testing.assert_close(out, whole[rows])

    order = torch.tensor([2, 0, 0])
    after(lambda cache: cache.reorder_cache(order), order)
    after(lambda cache: cache.batch_select_indices(order[:2]), order[:2])
    repeated = torch.tensor([0, 0, 1, 1, 2, 2])
    after(lambda cache: cache.batch_repeat_interleave(2), repeated)

    cache = model(ids[:, :8], mask[:, :8]).past_key_values
    cache.reset()
    assert cache.get_seq_length() == 0
    torch.testing.assert_close(model(ids, mask, past_key_values=cache).logits[:, 8:], whole)


@torch.no_grad()
def test_caches_that_do_not_fit_are_refused() -> None:
    model, ids = decoder(), token_ids(1, 5)
    cache = model(ids).past_key_values
    cache.crop(0)
    with pytest.raises(ValueError, match=r"can't be cropped.*tokens_to_remove=-2"):
        cache.crop(-2)
    with pytest.raises(TypeError, match=r"past_key_values must be what a MEGA model gave.*tuple"):
        model(ids, past_key_values=((1, 2),))
    other = DynamicCache()
    other.update(torch.ones(1, 1, 1, 1), torch.ones(1, 1, 1, 1), 0)
    with pytest.raises(TypeError, match="DynamicCache"):
        model(ids, past_key_values=other)
    for pair in ((other, DynamicCache()), (DynamicCache(), other)):
        with pytest.raises(TypeError, match="EncoderDecoderCache"):
            model(ids, past_key_values=EncoderDecoderCache(*pair))
    empty = EncoderDecoderCache(DynamicCache(), DynamicCache())
    assert model(ids, past_key_values=empty).past_key_values.get_seq_length() == 5
    with pytest.raises(ValueError, match="this one has 2 that keep 6"):
        decoder(**VARIANTS["chunks"])(ids, past_key_values=cache)
    with pytest.raises(ValueError, match="past_key_values are of a decoder"):
        make()(ids, past_key_values=cache)
    with pytest.raises(ValueError, match=r"\(1, 5\) or \(1, 10\), .*got \(1, 7\)"):
        model(ids, torch.ones(1, 7), past_key_values=cache)
    simple = decoder(relative_positional_bias="simple", max_positions=8)
    with pytest.raises(ValueError, match=r"10 tokens.*8 .max_positions"):
        simple(ids, past_key_values=simple(ids).past_key_values)


def test_decoders_alone_have_caches() -> None:
    ids = token_ids(1, 6)
    assert make()(ids, use_cache=True).past_key_values is None
    assert make("MegaModel", **DECODER)(ids).past_key_values.get_seq_length() == 6
    assert make("MegaModel", **DECODER, use_cache=False)(ids).past_key_values is None
    model = decoder()
    assert model(ids, labels=ids).past_key_values is None
    with pytest.raises(ValueError, match=r"MegaForCausalLM needs config\.is_decoder=True"):
        mra_plugin.MegaForCausalLM(config())


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("bias", ["rotary", "simple"])
@torch.no_grad()
def test_cross_attention_on_a_cache(function: str, bias: str) -> None:
    model = decoder(
        add_cross_attention=True, attention_activation=function, relative_positional_bias=bias
    )
    ids, states = token_ids(2, 9), torch.randn(2, 6, 32, dtype=torch.double)
    of_encoder = {"encoder_hidden_states": states, "encoder_attention_mask": torch.ones(2, 6)}
    of_encoder["encoder_attention_mask"][0, 4:] = 0
    mask = torch.ones_like(ids)
    mask[1, :3] = 0
    whole = model(ids, mask, **of_encoder, use_cache=False).logits
    alone = model(ids[1:, 3:], encoder_hidden_states=states[1:], use_cache=False).logits
    torch.testing.assert_close(whole[1:, 3:], alone)

    out = model(ids[:, :4], mask[:, :4], **of_encoder)
    logits = [out.logits]
    # What is made of the encoder's states is in the cache.
    rest = {"encoder_attention_mask": of_encoder["encoder_attention_mask"]}
    for step in range(4, 9):
        out = model(ids[:, step : step + 1], past_key_values=out.past_key_values, **rest)
        logits.append(out.logits)
    real = mask.bool()
    torch.testing.assert_close(torch.cat(logits, 1)[real], whole[real])

    changed = states.clone()
    changed[0, 4:] = 3
    of_encoder["encoder_hidden_states"] = changed
    torch.testing.assert_close(model(ids, mask, **of_encoder, use_cache=False).logits, whole)


@torch.no_grad()
def test_last_logits_alone() -> None:
    model, ids = decoder(), token_ids(2, 9)
    whole = model(ids).logits
    torch.testing.assert_close(model(ids, logits_to_keep=2).logits, whole[:, -2:])
    picked = torch.tensor([1, 4])
    torch.testing.assert_close(model(ids, logits_to_keep=picked).logits, whole[:, picked])
