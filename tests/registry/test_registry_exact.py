import functools
import math
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

from mra_plugin.registry import AttentionUnavailableError, build_attention, get_attention

pytestmark = pytest.mark.usefixtures("registry")


def softmax_attention(
    query: Tensor, key: Tensor, value: Tensor, keys: Tensor, queries: Tensor, scale: float
) -> Tensor:
    """The definition, one sequence at a time, without its padding."""
    output = torch.zeros(*query.shape[:3], value.shape[3], dtype=query.dtype)
    for row in range(len(query)):
        real, asked = keys[row], queries[row]
        if real.any():
            logits = scale * query[row][:, asked] @ key[row][:, real].mT
            output[row, :, asked] = logits.softmax(-1) @ value[row][:, real]
    return output


def inputs(nq: int, nk: int, **options: Any) -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(0)
    shape = 4, 2
    return (
        torch.randn(*shape, nq, 8, **options),
        torch.randn(*shape, nk, 8, **options),
        torch.randn(*shape, nk, 5, **options),
    )


def padding(length: int) -> Tensor:
    """Four sequences: nothing padded, padding behind, padding in between, everything padded."""
    mask = torch.ones(4, length, dtype=torch.bool)
    mask[1, 2:] = False
    mask[2, ::2] = False
    mask[3] = False
    return mask


CASES = [
    pytest.param(6, 6, None, None, id="no mask"),
    pytest.param(6, 6, padding(6), None, id="self-attention"),
    pytest.param(6, 6, padding(6), padding(6).flip(0), id="both masks"),
    pytest.param(5, 7, None, None, id="cross"),
    pytest.param(5, 7, padding(7), None, id="cross, keys"),
    pytest.param(5, 7, None, padding(5), id="cross, queries"),
    pytest.param(5, 7, padding(7), padding(5).flip(0), id="cross, both"),
    pytest.param(1, 1, padding(1), None, id="one token"),
    pytest.param(3, 3, torch.zeros(4, 3, dtype=torch.bool), None, id="everything padded"),
]


@pytest.fixture
def xformers_on_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Gives xformers an operator for the CPU, so that its own checks run over what it is handed."""
    xops = pytest.importorskip("xformers.ops")
    common = pytest.importorskip("xformers.ops.fmha.common")

    class CpuOperator(common.AttentionFwOpBase):
        OPERATOR = staticmethod(lambda: None)
        SUPPORTED_DEVICES = frozenset({"cpu"})
        SUPPORTED_DTYPES = frozenset({torch.float32})
        SUPPORTED_MAX_K = math.inf
        SUPPORTED_ATTN_BIAS_TYPES = (type(None), xops.fmha.BlockDiagonalMask)
        SUPPORTS_DROPOUT = False
        SUPPORTS_CUSTOM_SCALE = True
        SUPPORTS_DIFFERENT_VALUE_EMBED = True
        NAME = "cpu"

        @classmethod
        def apply(cls, given: Any, needs_gradient: bool) -> tuple[Tensor, None]:
            assert not needs_gradient
            query, key, value = (x.transpose(1, 2) for x in (given.query, given.key, given.value))
            logits = query @ key.mT * given.scale_float
            if given.attn_bias is not None:
                assert 0 not in given.attn_bias.q_seqinfo.seqstart.diff()
                assert 0 not in given.attn_bias.k_seqinfo.seqstart.diff()
                logits = logits + given.attn_bias.materialize(tuple(logits.shape))
            return (logits.softmax(-1) @ value).transpose(1, 2), None

    attend = functools.partial(xops.memory_efficient_attention, op=(CpuOperator, None))
    monkeypatch.setattr(xops, "memory_efficient_attention", attend)
    exact = get_attention("xformers").build.__module__
    monkeypatch.setattr(f"{exact}._xformers_unsupported", lambda *_: None)


def build(name: str) -> Any:
    # Not build_attention: it would refuse xformers on a machine without a GPU.
    return get_attention(name).build()


@pytest.fixture(params=["sdpa", "xformers"])
def attention(request: pytest.FixtureRequest) -> Any:
    if request.param == "xformers":
        request.getfixturevalue("xformers_on_cpu")
    return build(request.param)


@pytest.mark.parametrize("scale", [None, 0.3])
@pytest.mark.parametrize(("nq", "nk", "keys", "queries"), CASES)
def test_exact(
    attention: Any,
    nq: int,
    nk: int,
    keys: Tensor | None,
    queries: Tensor | None,
    scale: float | None,
):
    query, key, value = inputs(nq, nk)
    output = attention(query, key, value, keys, queries, scale=scale)
    weights = attention.weights(query, key, keys, queries, scale=scale)

    all_keys = torch.ones(4, nk, dtype=torch.bool) if keys is None else keys
    if queries is None:
        queries = torch.ones(4, nq, dtype=torch.bool)
    expected = softmax_attention(
        query, key, value, all_keys, queries, 1 / math.sqrt(8) if scale is None else scale
    )
    torch.testing.assert_close(output, expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(weights @ value, expected, rtol=1e-5, atol=1e-6)
    answered = queries & all_keys.any(-1, keepdim=True)
    assert (output.transpose(1, 2)[~answered] == 0).all()
    assert (weights.transpose(1, 2)[~answered] == 0).all()
    assert (weights.permute(0, 3, 1, 2)[~all_keys] == 0).all()


@pytest.mark.parametrize(("batch", "nq", "nk"), [(0, 3, 3), (2, 0, 3), (2, 3, 0)])
@pytest.mark.parametrize("masked", [False, True])
def test_exact_with_nothing_to_do(attention: Any, batch: int, nq: int, nk: int, masked: bool):
    query, key, value = (torch.randn(batch, 2, n, 4) for n in (nq, nk, nk))
    masks = (torch.ones(batch, n, dtype=torch.bool) for n in (nk, nq)) if masked else ()
    output = attention(query, key, value, *masks)
    assert output.shape == (batch, 2, nq, 4)
    assert (output == 0).all()


def test_exact_everything_padded_is_differentiable(attention: Any):
    query, key, value = (x.requires_grad_() for x in inputs(3, 3))
    mask = torch.zeros(4, 3, dtype=torch.bool)
    # Anomaly detection sees a NaN on the way, even one that is masked later.
    with torch.autograd.set_detect_anomaly(True):
        for output in (attention(query, key, value, mask), attention.weights(query, key, mask)):
            (grad,) = torch.autograd.grad(output.sum(), query)
            assert (grad == 0).all()


def test_sdpa_gradients_ignore_padding():
    query, key, value = (x.requires_grad_() for x in inputs(6, 6, dtype=torch.float64))
    mask = padding(6)
    output = build_attention("sdpa")(query, key, value, mask)
    everyone = torch.ones_like(mask)
    expected = softmax_attention(query, key, value, mask, everyone, 1 / math.sqrt(8))
    grad = torch.randn_like(output)
    wanted = torch.autograd.grad(expected, (query, key, value), grad)
    for actual, want in zip(
        torch.autograd.grad(output, (query, key, value), grad), wanted, strict=True
    ):
        torch.testing.assert_close(actual, want)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_sdpa_keeps_the_dtype(dtype: torch.dtype):
    query, key, value = inputs(6, 6, dtype=dtype)
    attention = get_attention("sdpa").build()
    assert attention(query, key, value, padding(6)).dtype == dtype
    assert attention.weights(query, key, padding(6)).dtype == dtype


def test_sdpa_compiles_whole():
    attention = build_attention("sdpa")
    compiled = torch.compile(attention.__call__, fullgraph=True, dynamic=True, backend="eager")
    for length in (6, 9):
        query, key, value = inputs(length, length)
        mask = padding(length)
        torch.testing.assert_close(
            compiled(query, key, value, mask), attention(query, key, value, mask)
        )


GOOD = {"query": (2, 3, 4, 8), "key": (2, 3, 5, 8), "value": (2, 3, 5, 6)}


@pytest.mark.parametrize("name", ["sdpa", "xformers"])
@pytest.mark.parametrize(
    ("given", "error", "words"),
    [
        ({"query": torch.zeros(2, 4, 8)}, ValueError, r"query must be \[batch.*\[2, 4, 8\]"),
        ({"key": torch.zeros(1, 3, 5, 8)}, ValueError, r"key must have the batch.*\[1, 3, 5, 8\]"),
        ({"value": torch.zeros(2, 1, 5, 6)}, ValueError, r"value must have.*\[2, 1, 5, 6\]"),
        ({"key": torch.zeros(2, 3, 5, 7)}, ValueError, r"key must have the head dimension.*8"),
        ({"value": torch.zeros(2, 3, 4, 6)}, ValueError, r"value must have the length of key, 5"),
        ({"query": torch.zeros(GOOD["query"]).long()}, TypeError, "query must.*torch.int64"),
        ({"key_padding_mask": torch.ones(2, 5)}, TypeError, "key_padding_mask.*torch.float32"),
        (
            {"key_padding_mask": torch.ones(2, 4).bool()},
            ValueError,
            r"key_padding_mask must have shape \[2, 5\], got \[2, 4\]",
        ),
        (
            {"query_padding_mask": torch.ones(2, 5).bool()},
            ValueError,
            r"query_padding_mask must have shape \[2, 4\], got \[2, 5\]",
        ),
    ],
)
def test_bad_inputs(name: str, given: dict[str, Tensor], error: type[Exception], words: str):
    arguments = {field: torch.zeros(shape) for field, shape in GOOD.items()} | given
    with pytest.raises(error, match=words):
        build(name)(**arguments)


def without_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


def with_gpu(monkeypatch: pytest.MonkeyPatch, xops: ModuleType | Exception) -> None:
    """Pretends that there is a GPU, on which xformers would be ``xops``."""
    exact = get_attention("xformers").build.__module__

    def load() -> ModuleType:
        if isinstance(xops, Exception):
            raise xops
        return xops

    zeros = torch.zeros
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "GPU 9000")
    monkeypatch.setattr(torch, "zeros", lambda *shape, dtype, device: zeros(*shape, dtype=dtype))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name)
    monkeypatch.setattr(f"{exact}._xformers_ops", load)


def test_xformers_needs_a_gpu(monkeypatch: pytest.MonkeyPatch):
    without_gpu(monkeypatch)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name)
    with pytest.raises(AttentionUnavailableError, match="CUDA devices only"):
        build_attention("xformers")


def test_xformers_needs_xformers(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(AttentionUnavailableError, match="xformers is not installed"):
        build_attention("xformers")


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (NotImplementedError("No operator found"), "no attention kernel that runs on GPU 9000"),
        (RuntimeError("out of memory"), "RuntimeError: out of memory"),
        (None, None),
    ],
)
def test_xformers_is_tried_before_it_is_offered(
    monkeypatch: pytest.MonkeyPatch, error: Exception | None, words: str | None
):
    def attend(*args: Tensor) -> None:
        if error is not None:
            raise error

    xops = ModuleType("xops")
    xops.memory_efficient_attention = attend
    with_gpu(monkeypatch, xops)
    if words is None:
        assert get_attention("xformers").why_unavailable() is None
        assert callable(build_attention("xformers"))
    else:
        with pytest.raises(AttentionUnavailableError, match=words):
            build_attention("xformers")


def test_xformers_that_does_not_import(monkeypatch: pytest.MonkeyPatch):
    with_gpu(monkeypatch, ImportError("undefined symbol"))
    with pytest.raises(AttentionUnavailableError, match="ImportError: undefined symbol"):
        build_attention("xformers")


def test_xformers_refuses_what_it_has_no_kernel_for():
    backend = get_attention("xformers")
    query, key, value = inputs(6, 6)
    assert "query is on cpu" in backend.why_unsupported(query, key, value)
    with pytest.raises(ValueError, match="CUDA tensors only, query is on cpu"):
        backend.build()(query, key, value)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
@pytest.mark.parametrize("masked", [False, True])
def test_xformers_agrees_with_sdpa_on_gpu(dtype: torch.dtype, masked: bool):
    backend = get_attention("xformers")
    if reason := backend.why_unavailable():
        pytest.skip(reason)
    torch.manual_seed(0)
    tensors = [torch.randn(4, 2, 48, 64, dtype=dtype, device="cuda") for _ in range(4)]
    query, key, value = (tensor.requires_grad_() for tensor in tensors[:3])
    mask = padding(48).cuda() if masked else None
    results = []
    for name in ("xformers", "sdpa"):
        output = build_attention(name)(query, key, value, mask)
        results.append((output, *torch.autograd.grad(output, (query, key, value), tensors[3])))
    for actual, expected in zip(*results, strict=True):
        torch.testing.assert_close(actual, expected, rtol=2e-3, atol=2e-3)
    wide = query.double(), key.double(), value.double()
    assert "torch.float64" in backend.why_unsupported(*wide)
