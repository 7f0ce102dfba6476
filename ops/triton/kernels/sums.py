"""What the backward needs of each query, and of each query block, before anything else."""

import triton
import triton.language as tl

from .parts import LOG2E, SIZES, load_rows, weighing


@triton.jit(do_not_specialize=SIZES)
def sums_kernel(
    out,
    grad_out,
    lse,
    grad_lse,
    coarse_lse,
    delta,
    pulled,
    pulled_delta,
    heads,
    query_length,
    blocks_x,
    grad_stride_b,
    grad_stride_h,
    grad_stride_n,
    VALUE_CHANNELS: tl.constexpr,
    PADDED_VALUE_CHANNELS: tl.constexpr,
    BLOCK_SIZE: tl.constexpr,
    TOKENS_PER_STEP: tl.constexpr,
    HAS_COARSE: tl.constexpr,
    HAS_GRAD_LSE: tl.constexpr,
):
    """One program per query block: delta [G, Nq], and what the coarse scale needs of the block.

    delta_i = dO_i · out_i - dlse_i; with w_i = e^(coarse lse - lse_i), pulled [G, X, V] is the sum
    of w_i dO_i and pulled_delta [G, X] that of w_i delta_i.
    """
    row = tl.program_id(0).to(tl.int64)
    group, x = row // blocks_x, row % blocks_x
    batch, head = group // heads, group % heads
    channels = tl.arange(0, PADDED_VALUE_CHANNELS)
    outs = out + group * query_length * VALUE_CHANNELS
    grads = grad_out + batch * grad_stride_b + head * grad_stride_h

    pulled_sum = tl.zeros([PADDED_VALUE_CHANNELS], tl.float32)
    pulled_delta_sum = 0.0
    for step in tl.static_range(0, BLOCK_SIZE, TOKENS_PER_STEP):
        positions = x * BLOCK_SIZE + step + tl.arange(0, TOKENS_PER_STEP)  # [T]
        inside = positions < query_length
        rows = group * query_length + positions
        level = tl.load(lse + rows, mask=inside, other=float("-inf"))  # [T]
        served = level > float("-inf")
        o = load_rows(outs, positions, channels, VALUE_CHANNELS, served, VALUE_CHANNELS)  # [T, V]
        do = load_rows(grads, positions, channels, grad_stride_n, served, VALUE_CHANNELS)  # [T, V]
        do = do.to(tl.float32)
        deltas = tl.sum(o.to(tl.float32) * do, 1)  # [T]
        if HAS_GRAD_LSE:
            deltas -= tl.load(grad_lse + rows, mask=served, other=0.0)
        tl.store(delta + rows, deltas, mask=inside)
        if HAS_COARSE:
            weights = tl.exp2(tl.load(coarse_lse + row) * LOG2E - weighing(level))  # [T]
            pulled_sum += tl.sum(weights[:, None] * do, 0)
            pulled_delta_sum += tl.sum(weights * deltas, 0)

    if HAS_COARSE:
        kept = channels < VALUE_CHANNELS
        tl.store(pulled + row * VALUE_CHANNELS + channels, pulled_sum, mask=kept)
        tl.store(pulled_delta + row, pulled_delta_sum)
