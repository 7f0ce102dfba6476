"""Chunks of tokens one after the other, with a state between them.

Shapes: R channels of a program, A averages, padded to a power of two. A program reads its chunk
token by token, some of them at a time, so that their loads are on the way together.
"""

import triton
import triton.language as tl

# Numbers that change from call to call: a kernel is not compiled anew where one is 1, or a
# multiple of 16.
SIZES = ["length", "chunk", "chunks", "stride_b", "stride_n", "grad_stride_b", "grad_stride_n"]


@triton.jit
def chunk_of(length, chunk, chunks, channels, ROWS: tl.constexpr):
    """This program's batch row, chunk, first token and how many there are, and channels [R]."""
    tiles = tl.cdiv(channels, ROWS)
    program = tl.program_id(0)
    # Divided before they are made long: long divisions are calls.
    batch = (program // tiles // chunks).to(tl.int64)
    number = (program // tiles % chunks).to(tl.int64)
    own = batch * chunks + number
    first = number * chunk
    size = tl.minimum(chunk, length - first).to(tl.int32)
    rows = program % tiles * ROWS + tl.arange(0, ROWS)
    return batch, own, first, size, rows


@triton.jit
def load_table(base, rows, averages, CHANNELS: tl.constexpr, AVERAGES: tl.constexpr):
    """Rows of a [CHANNELS, AVERAGES] table, 0 beyond either: [R, A]."""
    inside = (rows < CHANNELS)[:, None] & (averages < AVERAGES)[None, :]
    pointers = base + rows[:, None] * AVERAGES + averages[None, :]
    return tl.load(pointers, mask=inside, other=0.0)


@triton.jit
def store_table(base, rows, averages, table, CHANNELS: tl.constexpr, AVERAGES: tl.constexpr):
    """What `load_table` reads."""
    inside = (rows < CHANNELS)[:, None] & (averages < AVERAGES)[None, :]
    tl.store(base + rows[:, None] * AVERAGES + averages[None, :], table, mask=inside)


@triton.jit
def place_of(step, size, REVERSED: tl.constexpr):
    """Which of a chunk's tokens comes after ``step`` others."""
    return size - 1 - step if REVERSED else step


@triton.jit
def load_token(base, mask, place, stride, rows, channels, HAS_MASK: tl.constexpr):
    """The first ``channels`` of a token in float32, 0 beyond and at padding: [R]."""
    if HAS_MASK:
        real = tl.load(mask + place, mask=channels > 0, other=0)
        channels = tl.where(real != 0, channels, 0)
    pointers = base + place.to(tl.int64) * stride + rows
    return tl.load(pointers, mask=rows < channels, other=0.0).to(tl.float32)


@triton.jit
def next_token(
    base,
    mask,
    step,
    size,
    stride,
    rows,
    CHANNELS: tl.constexpr,
    REVERSED: tl.constexpr,
    HAS_MASK: tl.constexpr,
):
    """The token of a chunk that comes after ``step`` others, in float32, 0 at padding: [R].

    Returns:
        Whether there is one, its place, how many channels of it there are then, and the token.
    """
    exists = step < size
    place = place_of(step, size, REVERSED)
    channels = tl.where(exists, CHANNELS, 0)
    return exists, place, channels, load_token(base, mask, place, stride, rows, channels, HAS_MASK)


@triton.jit(do_not_specialize=SIZES)
def leave_kernel(
    x,
    mask,
    p,
    q,
    states,
    slope_states,
    length,
    chunk,
    chunks,
    stride_b,
    stride_n,
    CHANNELS: tl.constexpr,
    AVERAGES: tl.constexpr,
    PADDED_AVERAGES: tl.constexpr,
    ROWS: tl.constexpr,
    STEP: tl.constexpr,
    REVERSED: tl.constexpr,
    HAS_MASK: tl.constexpr,
    HAS_ENTRY: tl.constexpr,
    HAS_SLOPES: tl.constexpr,
):
    """One program per R channels of a chunk: what its tokens leave, states [B, chunks, D, N].

    And its derivative by q, if HAS_SLOPES. A token brings in p, or 1 without HAS_ENTRY.
    """
    batch, own, first, size, rows = chunk_of(length, chunk, chunks, CHANNELS, ROWS)
    averages = tl.arange(0, PADDED_AVERAGES)
    decay = load_table(q, rows, averages, CHANNELS, AVERAGES)  # [R, A]
    if HAS_ENTRY:
        entry = load_table(p, rows, averages, CHANNELS, AVERAGES)  # [R, A]
    tokens = x + batch * stride_b + first * stride_n
    flags = mask + batch * length + first if HAS_MASK else None

    state = tl.zeros([ROWS, PADDED_AVERAGES], tl.float32)
    slope = tl.zeros([ROWS, PADDED_AVERAGES], tl.float32)
    for start in range(0, size, STEP):
        for step in tl.static_range(STEP):
            exists, _place, _channels, token = next_token(
                tokens, flags, start + step, size, stride_n, rows, CHANNELS, REVERSED, HAS_MASK
            )
            brought = token[:, None] * entry if HAS_ENTRY else token[:, None]
            if HAS_SLOPES:
                slope = tl.where(exists, decay * slope + state, slope)
            state = tl.where(exists, decay * state + brought, state)

    at = own * (CHANNELS * AVERAGES)
    store_table(states + at, rows, averages, state, CHANNELS, AVERAGES)
    if HAS_SLOPES:
        store_table(slope_states + at, rows, averages, slope, CHANNELS, AVERAGES)


@triton.jit(do_not_specialize=SIZES)
def carry_kernel(
    states,
    slope_states,
    start,
    after,
    decays,
    last_decays,
    decay_slopes,
    last_decay_slopes,
    chunks,
    NUMBERS: tl.constexpr,
    WIDTH: tl.constexpr,
    REVERSED: tl.constexpr,
    HAS_START: tl.constexpr,
    HAS_AFTER: tl.constexpr,
    HAS_SLOPES: tl.constexpr,
):
    """One program per WIDTH of a sequence's D N states: from what chunks leave to what they get.

    In place: states [B, chunks, NUMBERS]. Decays are those of a whole chunk, and of the last one.
    """
    tiles: tl.constexpr = (NUMBERS + WIDTH - 1) // WIDTH
    program = tl.program_id(0)
    batch = (program // tiles).to(tl.int64)
    own = program % tiles * WIDTH + tl.arange(0, WIDTH)  # [WIDTH]
    inside = own < NUMBERS
    decay = tl.load(decays + own, mask=inside, other=0.0)
    last_decay = tl.load(last_decays + own, mask=inside, other=0.0)
    if HAS_SLOPES:
        decay_slope = tl.load(decay_slopes + own, mask=inside, other=0.0)
        last_slope = tl.load(last_decay_slopes + own, mask=inside, other=0.0)
    if HAS_START:
        state = tl.load(start + batch * NUMBERS + own, mask=inside, other=0.0)
    else:
        state = tl.zeros([WIDTH], tl.float32)
    slope = tl.zeros([WIDTH], tl.float32)
    for step in range(chunks):
        number = place_of(step, chunks, REVERSED)
        at = (batch * chunks + number) * NUMBERS + own
        is_last = number == chunks - 1
        left = tl.load(states + at, mask=inside, other=0.0)
        tl.store(states + at, state, mask=inside)
        kept = tl.where(is_last, last_decay, decay)
        if HAS_SLOPES:
            slope_left = tl.load(slope_states + at, mask=inside, other=0.0)
            tl.store(slope_states + at, slope, mask=inside)
            slope = kept * slope + tl.where(is_last, last_slope, decay_slope) * state + slope_left
        state = kept * state + left
    if HAS_AFTER:
        tl.store(after + batch * NUMBERS + own, state, mask=inside)


@triton.jit(do_not_specialize=SIZES)
def output_kernel(
    x,
    mask,
    p,
    q,
    gamma,
    states,
    other,
    out,
    length,
    chunk,
    chunks,
    stride_b,
    stride_n,
    CHANNELS: tl.constexpr,
    AVERAGES: tl.constexpr,
    PADDED_AVERAGES: tl.constexpr,
    ROWS: tl.constexpr,
    STEP: tl.constexpr,
    REVERSED: tl.constexpr,
    HAS_MASK: tl.constexpr,
    HAS_ENTRY: tl.constexpr,
    HAS_OTHER: tl.constexpr,
):
    """One program per R channels of a chunk: its outputs [B, L, D], from the state it is given.

    With HAS_OTHER what the other direction gives, float32 [B, L, D], is added.
    """
    batch, own, first, size, rows = chunk_of(length, chunk, chunks, CHANNELS, ROWS)
    averages = tl.arange(0, PADDED_AVERAGES)
    decay = load_table(q, rows, averages, CHANNELS, AVERAGES)  # [R, A]
    weight = load_table(gamma, rows, averages, CHANNELS, AVERAGES)  # [R, A]
    if HAS_ENTRY:
        entry = load_table(p, rows, averages, CHANNELS, AVERAGES)  # [R, A]
    tokens = x + batch * stride_b + first * stride_n
    flags = mask + batch * length + first if HAS_MASK else None
    results = (batch * length + first) * CHANNELS

    at = own * (CHANNELS * AVERAGES)
    state = load_table(states + at, rows, averages, CHANNELS, AVERAGES)  # [R, A]
    for start in range(0, size, STEP):
        for step in tl.static_range(STEP):
            _exists, place, channels, token = next_token(
                tokens, flags, start + step, size, stride_n, rows, CHANNELS, REVERSED, HAS_MASK
            )
            brought = token[:, None] * entry if HAS_ENTRY else token[:, None]
            state = decay * state + brought
            result = tl.sum(weight * state, 1)  # [R]
            pointers = results + place.to(tl.int64) * CHANNELS + rows
            kept = rows < channels
            if HAS_OTHER:
                result += tl.load(other + pointers, mask=kept, other=0.0)
            tl.store(out + pointers, result.to(out.dtype.element_ty), mask=kept)


@triton.jit(do_not_specialize=SIZES)
def gradient_kernel(
    x,
    mask,
    grad,
    q,
    states,
    slope_states,
    by_weight,
    by_decay,
    length,
    chunk,
    chunks,
    stride_b,
    stride_n,
    grad_stride_b,
    grad_stride_n,
    CHANNELS: tl.constexpr,
    AVERAGES: tl.constexpr,
    PADDED_AVERAGES: tl.constexpr,
    ROWS: tl.constexpr,
    STEP: tl.constexpr,
    REVERSED: tl.constexpr,
    HAS_MASK: tl.constexpr,
):
    """One program per R channels of a chunk: its share of the gradients, [B, chunks, D, N] each.

    Of weights, and of decays for a weight of 1. Tokens bring in 1, so that a state is the
    derivative of the output by the weight, and its slope by the decay.
    """
    batch, own, first, size, rows = chunk_of(length, chunk, chunks, CHANNELS, ROWS)
    averages = tl.arange(0, PADDED_AVERAGES)
    decay = load_table(q, rows, averages, CHANNELS, AVERAGES)  # [R, A]
    tokens = x + batch * stride_b + first * stride_n
    grads = grad + batch * grad_stride_b + first * grad_stride_n
    flags = mask + batch * length + first if HAS_MASK else None

    at = own * (CHANNELS * AVERAGES)
    state = load_table(states + at, rows, averages, CHANNELS, AVERAGES)  # [R, A]
    slope = load_table(slope_states + at, rows, averages, CHANNELS, AVERAGES)  # [R, A]
    weight_sum = tl.zeros([ROWS, PADDED_AVERAGES], tl.float32)
    decay_sum = tl.zeros([ROWS, PADDED_AVERAGES], tl.float32)
    for start in range(0, size, STEP):
        for step in tl.static_range(STEP):
            _exists, place, channels, token = next_token(
                tokens, flags, start + step, size, stride_n, rows, CHANNELS, REVERSED, HAS_MASK
            )
            # Outputs at padding are outputs like others.
            got = load_token(grads, flags, place, grad_stride_n, rows, channels, False)
            slope = decay * slope + state
            state = decay * state + token[:, None]
            weight_sum += got[:, None] * state
            decay_sum += got[:, None] * slope
    store_table(by_weight + at, rows, averages, weight_sum, CHANNELS, AVERAGES)
    store_table(by_decay + at, rows, averages, decay_sum, CHANNELS, AVERAGES)
