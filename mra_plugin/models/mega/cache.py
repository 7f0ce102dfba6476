"""What a decoder keeps of the tokens that it has read, as a cache of transformers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache, CacheLayerMixin, EncoderDecoderCache

if TYPE_CHECKING:
    from .configuration import MegaConfig


class MegaCacheLayer(CacheLayerMixin):
    """What one layer keeps.

    Attributes:
        keys: [B, 1, T, S], of all tokens, or with chunks of the last ``window``.
        values: [B, 1, T, E], likewise.
        average: what `moving_average.MegaMultiDimensionDampedEma` goes on from.
        cross_keys: [B, 1, Ls, S] of an encoder's states, if there is cross attention.
        cross_values: [B, 1, Ls, D], likewise.
        cumulative_length: tokens that were read.
    """

    is_sliding = False
    is_croppable = False
    supports_early_init = False

    def __init__(self, window: int | None = None) -> None:
        """Takes how many keys are kept; None means all."""
        super().__init__()  # type: ignore[no-untyped-call]
        self.window = window
        self.average: Tensor | None = None
        self.cross_keys: Tensor | None = None
        self.cross_values: Tensor | None = None
        self.cumulative_length = 0

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Starts with no tokens."""
        self.dtype, self.device = key_states.dtype, key_states.device
        self.keys, self.values = key_states[:, :, :0], value_states[:, :, :0]
        self.is_initialized = True

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Adds tokens.

        Args:
            key_states: [B, 1, L, S].
            value_states: [B, 1, L, E].
            *args: what other caches take.
            **kwargs: likewise.

        Returns:
            Those that were kept before, followed by the new ones.
        """
        keys, values = self.with_new(key_states, value_states)
        self.cumulative_length += key_states.shape[-2]
        kept = keys.shape[-2] if self.window is None else min(self.window, keys.shape[-2])
        first = keys.shape[-2] - kept
        # A copy, as a part of a tensor keeps all of it in memory.
        self.keys = keys[:, :, first:].contiguous() if first else keys
        self.values = values[:, :, first:].contiguous() if first else values
        self.dtype, self.device, self.is_initialized = keys.dtype, keys.device, True
        return keys, values

    def with_new(self, key_states: Tensor, value_states: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values that are kept, followed by new ones; nothing is changed."""
        if self.keys is None or self.values is None:
            return key_states, value_states
        return (
            torch.cat([self.keys, key_states], -2),
            torch.cat([self.values, value_states], -2),
        )

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """How many keys a call with so many tokens sees, and the position of the first."""
        kept = 0 if self.keys is None else self.keys.shape[-2]
        return kept + query_length, self.cumulative_length - kept

    def get_seq_length(self) -> int:
        """Tokens that were read."""
        return self.cumulative_length

    def get_max_length(self) -> int:
        """There is no limit."""
        return -1

    get_max_cache_shape = get_max_length  # its name in older versions

    def reset(self) -> None:
        """Forgets everything."""
        self.keys = self.values = self.average = self.cross_keys = self.cross_values = None
        self.is_initialized = False
        self.cumulative_length = 0

    def crop(self, tokens_to_remove: int) -> None:
        """Refuses to forget tokens.

        Raises:
            ValueError: there is a token to forget; a moving average can't be taken back.
        """
        if tokens_to_remove:
            raise ValueError(
                f"a MEGA cache can't be cropped (tokens_to_remove={tokens_to_remove}): its moving "
                "averages can't be taken back; copy the cache before the tokens are read"
            )

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Takes rows of the batch, as beam search goes on with them."""
        self._each(lambda x: x.index_select(0, beam_idx.to(x.device)))

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Repeats each row of the batch."""
        self._each(lambda x: x.repeat_interleave(repeats, 0))

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keeps rows of the batch."""
        self._each(lambda x: x[indices])

    def offload(self) -> None:
        """Moves everything to the CPU."""
        self._each(lambda x: x.to("cpu", non_blocking=True))

    def prefetch(self) -> None:
        """Moves everything back."""
        if self.is_initialized:
            self._each(lambda x: x.to(self.device, non_blocking=True))

    def _each(self, change: Any) -> None:
        for name in ("keys", "values", "average", "cross_keys", "cross_values"):
            held = getattr(self, name)
            if held is not None:
                setattr(self, name, change(held))


class MegaCache(Cache):
    """What all layers keep, and where padding was.

    With chunks its size does not grow: a layer keeps the keys of one chunk at most.

    Attributes:
        real: bool [B, T], True at a real token, of those whose keys are kept; None if all are.
        leading: int [B], how many tokens of padding stand in front; None if there is no padding.
    """

    layers: list[MegaCacheLayer]  # type: ignore[assignment]

    def __init__(self, config: MegaConfig) -> None:
        """Makes an empty cache for a model of this config."""
        self.window = config.chunk_size - 1 if config.in_chunks else None
        count = config.num_hidden_layers
        super().__init__(layers=[MegaCacheLayer(self.window) for _ in range(count)])
        self.real: Tensor | None = None
        self.leading: Tensor | None = None

    def padding_with(
        self, padding: Tensor | None, batch: int, length: int, device: torch.device
    ) -> tuple[Tensor | None, Tensor | None]:
        """What `real` and `leading` are with new tokens; nothing is changed.

        Args:
            padding: bool [B, L], True = a real token; None if all new ones are.
            batch: B.
            length: L.
            device: of the model.

        Returns:
            bool [B, T + L], and int [B]; None both if there is no padding.
        """
        if padding is None and self.real is None:
            return None, None
        before = self.get_seq_length()
        kept = before if self.window is None else min(before, self.window)
        if padding is None:
            padding = torch.ones(batch, length, dtype=torch.bool, device=device)
        real = self.real
        if real is None:
            real = torch.ones(batch, kept, dtype=torch.bool, device=device)
        leading = self.leading
        if leading is None:
            leading = torch.zeros(batch, dtype=torch.long, device=device)
        in_front = (padding.cumsum(-1) == 0).sum(-1)
        leading = torch.where(leading == before, leading + in_front, leading)
        return torch.cat([real, padding], -1), leading

    def note_padding(self, real: Tensor | None, leading: Tensor | None) -> None:
        """Keeps what `padding_with` gave."""
        if real is not None and self.window is not None:
            real = real[:, max(real.shape[1] - self.window, 0) :].contiguous()
        self.real, self.leading = real, leading

    def reset(self) -> None:
        """Forgets everything."""
        super().reset()  # type: ignore[no-untyped-call]
        self.real = self.leading = None

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Takes rows of the batch, as beam search goes on with them."""
        super().reorder_cache(beam_idx)  # type: ignore[arg-type]
        self._each(lambda x: x.index_select(0, beam_idx.to(x.device)))

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Repeats each row of the batch."""
        super().batch_repeat_interleave(repeats)
        self._each(lambda x: x.repeat_interleave(repeats, 0))

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keeps rows of the batch."""
        super().batch_select_indices(indices)
        self._each(lambda x: x[indices])

    def _each(self, change: Any) -> None:
        for name in ("real", "leading"):
            held = getattr(self, name)
            if held is not None:
                setattr(self, name, change(held))


def cache_for(config: MegaConfig, given: Any) -> MegaCache:
    """The cache that a call goes on from.

    Args:
        config: of the model.
        given: a `MegaCache`; None, or a cache of transformers that nothing was read into, stands
            for a new one.

    Raises:
        TypeError: it is another kind of cache.
        ValueError: it is of a model with other layers or chunks.
    """
    if given is None or (
        isinstance(given, Cache) and not isinstance(given, MegaCache) and not _has_read(given)
    ):
        return MegaCache(config)
    if not isinstance(given, MegaCache):
        raise TypeError(
            "past_key_values must be what a MEGA model gave (a MegaCache), or an empty cache of "
            f"transformers, got {type(given).__name__}"
        )
    expected = MegaCache(config)
    if len(given) != len(expected) or given.window != expected.window:
        raise ValueError(
            f"past_key_values is of a model with {len(given)} layers that keep "
            f"{'all' if given.window is None else given.window} keys; this one has "
            f"{len(expected)} that keep {'all' if expected.window is None else expected.window}"
        )
    return given


def _has_read(cache: Cache) -> bool:
    if isinstance(cache, EncoderDecoderCache):
        return _has_read(cache.self_attention_cache) or _has_read(cache.cross_attention_cache)
    layers = getattr(cache, "layers", [])
    return any(getattr(layer, "keys", None) is not None and layer.keys.numel() for layer in layers)
