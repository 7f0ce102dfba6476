"""Checks and padding rules that the exact backends share."""

import torch
from torch import Tensor


def check_inputs(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    key_padding_mask: Tensor | None,
    query_padding_mask: Tensor | None,
) -> None:
    """Raises if shapes or dtypes break the call convention of `Attention`.

    Raises:
        TypeError: an input is not of a floating dtype, or a mask is not bool.
        ValueError: a rank, a batch, head, length or head dimension, or a mask's shape is off.
    """
    for name, tensor in (("query", query), ("key", key), ("value", value)):
        if tensor.ndim != 4:
            raise ValueError(
                f"{name} must be [batch, heads, length, head dimension], "
                f"got shape {list(tensor.shape)}"
            )
        if not tensor.is_floating_point():
            raise TypeError(f"{name} must have a floating dtype, got {tensor.dtype}")
        if tensor.shape[:2] != query.shape[:2]:
            raise ValueError(
                f"{name} must have the batch and heads of query, {list(query.shape[:2])}, "
                f"got shape {list(tensor.shape)}"
            )
    if key.shape[3] != query.shape[3]:
        raise ValueError(
            f"key must have the head dimension of query, {query.shape[3]}, "
            f"got shape {list(key.shape)}"
        )
    if value.shape[2] != key.shape[2]:
        raise ValueError(
            f"value must have the length of key, {key.shape[2]}, got shape {list(value.shape)}"
        )
    for name, mask, tokens in (
        ("key_padding_mask", key_padding_mask, key),
        ("query_padding_mask", query_padding_mask, query),
    ):
        if mask is None:
            continue
        if mask.dtype != torch.bool:
            raise TypeError(f"{name} must be bool (True = a real token), got {mask.dtype}")
        if mask.shape != (tokens.shape[0], tokens.shape[2]):
            raise ValueError(
                f"{name} must have shape {[tokens.shape[0], tokens.shape[2]]}, "
                f"got {list(mask.shape)}"
            )


def real_queries(
    query: Tensor,
    key: Tensor,
    key_padding_mask: Tensor | None,
    query_padding_mask: Tensor | None,
) -> Tensor | None:
    """The queries that have an output: those to serve, in sequences that have a real key.

    Returns:
        Bool [B, Nq], or None if all have one.
    """
    if key_padding_mask is None:
        return query_padding_mask
    has_keys = key_padding_mask.any(-1, keepdim=True)
    if query_padding_mask is None:
        return has_keys.expand(-1, query.shape[2])
    return query_padding_mask & has_keys
