"""Diffusion transformers: what their layers are given, and what stays exact."""

import copy
import pickle
from typing import Any

import diffusers
import pytest
import torch
from diffusers.models.attention_dispatch import dispatch_attention_fn
from helpers.recording import NAME as RECORDER
from helpers.recording import Recorder
from helpers.tiny_diffusers import TEXT, TINY, inputs_of, make, output, touched
from torch import Tensor
from torch.nn.functional import cosine_similarity

import mra_plugin
from mra_plugin.adapters.built_attention import build
from mra_plugin.adapters.diffusers import dispatch
from mra_plugin.adapters.diffusers.layouts import LAYOUTS
from mra_plugin.adapters.ordered_attention import attend_arranged, in_tiles
from mra_plugin.ops.token_order import grid_coordinates, tile_order
from mra_plugin.registry import build_attention

FEW = {"block_size": 8, "block_per_row": 1}
ALL = {"block_size": 8, "block_per_row": 1000}


def grid_of(name: str) -> tuple[int, int, int]:
    """Sides that no power of two divides, but for models of squares."""
    return (TINY[name].frames, 5, 5 if "DiT" in name else 6)


def recorded(model: Any, inputs: dict[str, Any]) -> Tensor:
    """The first layer's queries [N, channels of all heads], in the order of its blocks."""
    Recorder.seen.clear()
    output(model, inputs)
    return Recorder.first_row()


def test_each_layout_is_tested() -> None:
    assert set(LAYOUTS) == set(TINY)


@pytest.mark.parametrize("name", TINY)
@torch.no_grad()
def test_blocks_are_tiles_of_the_picture_and_text_stands_outside(name: str) -> None:
    grid = grid_of(name)
    inputs = inputs_of(name, grid)
    model = make(name)
    before = output(model, inputs)
    mra_plugin.patch(model, attention=RECORDER)
    plain = recorded(model, inputs)
    order = tile_order(grid_coordinates(grid))
    text = len(plain) - len(order)
    assert (text > 0) == (LAYOUTS[name].text != "none")
    for at in ((0, 0, 0), (grid[0] - 1, 3, 4), (0, 4, 1)):
        token = (at[0] * grid[1] + at[1]) * grid[2] + at[2]
        changed = (recorded(model, touched(name, inputs, at)) != plain).any(1).nonzero()[:, 0]
        assert changed.tolist() == [text + order.tolist().index(token)]
    # And each token's output is back where it was.
    torch.testing.assert_close(output(model, inputs), before)


@pytest.mark.parametrize("name", TINY)
def test_a_full_budget_is_the_models_own_attention(name: str) -> None:
    """In batches for guidance, at two resolutions in turn, and back to the bit."""
    model = make(name)
    frames, height, width = grid_of(name)
    calls = [inputs_of(name, grid, 2) for grid in ((frames, height, width), (frames, 6, 6))]
    with torch.no_grad():
        own = [output(model, inputs) for inputs in calls]
        for order in ("tiles", None):
            mra_plugin.patch(model, **ALL, token_order=order)
            for inputs, expected in zip(2 * calls, 2 * own, strict=True):
                torch.testing.assert_close(output(model, inputs), expected, rtol=1e-5, atol=1e-5)
        mra_plugin.patch(model, **FEW)
        assert not torch.allclose(output(model, calls[0]), own[0], rtol=1e-4, atol=1e-4)
        mra_plugin.unpatch(model)
        for inputs, expected in zip(calls, own, strict=True):
            assert output(model, inputs).equal(expected)


@pytest.mark.parametrize("name", ["FluxTransformer2DModel", "HunyuanVideoTransformer3DModel"])
def test_gradients(name: str) -> None:
    """Through text in front, and behind with padding."""
    model = make(name)
    inputs = inputs_of(name, grid_of(name), 2)

    def gradients() -> list[Tensor]:
        states = inputs["hidden_states"].clone().requires_grad_()
        text = inputs["encoder_hidden_states"].clone().requires_grad_()
        given = {**inputs, "hidden_states": states, "encoder_hidden_states": text}
        parameters = [one for one in model.parameters() if one.requires_grad]
        out = output(model, given)
        cotangent = torch.linspace(-1, 1, out.numel()).view_as(out)
        found = torch.autograd.grad(out, [states, text, *parameters], cotangent, allow_unused=True)
        return [one for one in found if one is not None]

    own = gradients()
    mra_plugin.patch(model, **ALL)
    for found, expected in zip(gradients(), own, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)
    mra_plugin.patch(model, **FEW)
    few = gradients()
    assert all(bool(one.isfinite().all()) for one in few)
    model.train().enable_gradient_checkpointing()
    for found, expected in zip(gradients(), few, strict=True):
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@torch.no_grad()
def test_16_bit_types(dtype: torch.dtype) -> None:
    name = "FluxTransformer2DModel"
    model = make(name).to(dtype)
    inputs = {
        one: value.to(dtype) if value.is_floating_point() else value
        for one, value in inputs_of(name, (1, 9, 7), 2).items()
    }
    own = output(model, inputs)
    out = output(mra_plugin.patch(model, **ALL), inputs)
    assert out.dtype == dtype
    assert cosine_similarity(out.float(), own.float(), dim=-1).min() > 0.999


@pytest.mark.parametrize(
    "name",
    [
        "FluxTransformer2DModel",
        pytest.param("SD3Transformer2DModel", marks=pytest.mark.slow),
        pytest.param("WanTransformer3DModel", marks=pytest.mark.slow),
    ],
)
@torch.no_grad()
def test_compiled(name: str) -> None:
    """Whole, at two resolutions."""
    model = mra_plugin.patch(make(name), **FEW)
    torch._dynamo.reset()
    compiled = torch.compile(model, fullgraph=True, dynamic=True, backend="eager")
    for grid in ((1, 5, 6), (1, 6, 7)):
        inputs = inputs_of(name, grid)
        torch.testing.assert_close(output(compiled, inputs), output(model, inputs))


@torch.no_grad()
def test_what_is_no_self_attention_stays_exact() -> None:
    """Text as long as the picture, and a mask over pairs."""
    name = "WanTransformer3DModel"
    model = make(name)
    inputs = inputs_of(name, (1, 1, TEXT))
    mra_plugin.patch(model, attention=RECORDER)
    Recorder.seen.clear()
    output(model, inputs)
    assert len(Recorder.seen) == 2  # of two blocks with both kinds each

    name = "ChromaTransformer2DModel"
    model = make(name)
    inputs = inputs_of(name, (1, 5, 6))
    mask = torch.arange(TEXT + 30) != 3
    mra_plugin.patch(model, attention=RECORDER)
    Recorder.seen.clear()
    output(model, {**inputs, "attention_mask": mask[None]})
    assert not Recorder.seen


@torch.no_grad()
def test_the_first_layers_stay_exact() -> None:
    name = "SD3Transformer2DModel"
    model = make(name)
    inputs = inputs_of(name, (1, 5, 6))
    mra_plugin.patch(model, attention=RECORDER)
    Recorder.seen.clear()
    output(model, inputs)
    assert len(Recorder.seen) == 3  # the first block has two
    mra_plugin.patch(model, attention=RECORDER, exact_layers=1)
    Recorder.seen.clear()
    output(model, inputs)
    assert len(Recorder.seen) == 1
    with pytest.raises(
        ValueError, match=r"no layer that takes another attention behind its first 2"
    ):
        mra_plugin.patch(model, exact_layers=2)


class Denoiser(diffusers.DiffusionPipeline):
    """The least that a pipeline is: steps of a scheduler, with two calls each."""

    model_cpu_offload_seq = "transformer"

    def __init__(self, transformer: Any, scheduler: Any) -> None:
        super().__init__()
        self.register_modules(transformer=transformer, scheduler=scheduler)

    @torch.no_grad()
    def __call__(self, inputs: dict[str, Any], steps: int) -> Tensor:
        self.scheduler.set_timesteps(steps)
        latents = inputs["hidden_states"]
        for timestep in self.scheduler.timesteps:
            given = {**inputs, "hidden_states": latents, "timestep": timestep.expand(len(latents))}
            guided = output(self.transformer, given) + output(self.transformer, given)
            latents = self.scheduler.step(guided / 2, timestep, latents, return_dict=False)[0]
        return latents


def pipeline() -> Denoiser:
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler()
    return Denoiser(make("WanTransformer3DModel"), scheduler)


@pytest.mark.slow
def test_compiled_by_blocks_with_an_exact_step() -> None:
    pipe = mra_plugin.patch(pipeline(), **FEW, exact_steps=1)
    inputs = inputs_of("WanTransformer3DModel", (2, 5, 6))
    expected = pipe(inputs, 2)
    pipe.transformer.compile_repeated_blocks(fullgraph=True, backend="eager")
    torch.testing.assert_close(pipe(inputs, 2), expected)


def test_the_first_steps_of_a_pipeline_stay_exact() -> None:
    pipe = pipeline()
    inputs = inputs_of("WanTransformer3DModel", (2, 5, 6))
    own = pipe(inputs, 3)
    scheduler = dict(vars(pipe.scheduler))
    assert mra_plugin.patch(pipe, attention=RECORDER, exact_steps=2) is pipe
    for _ in range(2):
        Recorder.seen.clear()
        torch.testing.assert_close(pipe(inputs, 3), own)
        assert len(Recorder.seen) == 4  # one step, two calls, two layers
    mra_plugin.patch(pipe, **FEW, exact_steps=3)
    assert pipe(inputs, 3).equal(own)
    mra_plugin.patch(pipe, **FEW)
    assert not torch.allclose(pipe(inputs, 3), own, atol=1e-4)
    twin = copy.deepcopy(mra_plugin.patch(pipe, attention=RECORDER, exact_steps=2))
    Recorder.seen.clear()
    torch.testing.assert_close(twin(inputs, 3), own)
    assert len(Recorder.seen) == 4
    mra_plugin.unpatch(pipe)
    assert pipe(inputs, 3).equal(own)
    assert vars(pipe.scheduler).keys() == scheduler.keys()

    mra_plugin.patch(pipe, exact_steps=1)
    pipe.scheduler = diffusers.FlowMatchEulerDiscreteScheduler()
    with pytest.raises(RuntimeError, match=r"scheduler was replaced .* patch the pipeline again"):
        pipe(inputs, 3)


@torch.no_grad()
def test_copies_have_a_choice_of_their_own() -> None:
    name = "SD3Transformer2DModel"
    model = mra_plugin.patch(make(name), **FEW)
    inputs, others = inputs_of(name, (1, 5, 6)), inputs_of(name, (1, 6, 4))
    some = output(model, inputs)
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        output(other, others)
        assert output(other, inputs).equal(some)
        mra_plugin.unpatch(other)
        own = output(other, inputs)
        assert not torch.allclose(own, some, atol=1e-4)
        assert output(model, inputs).equal(some)
    assert output(mra_plugin.unpatch(model), inputs).equal(own)


def test_what_is_refused() -> None:
    model = make("FluxTransformer2DModel")
    inputs = inputs_of("FluxTransformer2DModel", (1, 5, 6))
    for params, words in (
        ({"token_order": "rows"}, "token_order must be"),
        ({"exact_layers": -1}, "exact_layers"),
        ({"exact_steps": 1}, "exact_steps=1 needs a pipeline"),
        ({"grid": (4, 0)}, "grid must be"),
        ({"grid": 4}, "grid must be"),
        ({"block_per_rows": 3}, "block_per_rows"),
    ):
        with pytest.raises(ValueError, match=words):
            mra_plugin.patch(model, **params)
    output(model, inputs)  # as it was

    model = mra_plugin.patch(make("WanTransformer3DModel"), **FEW, grid=(3, 5))
    inputs = inputs_of("WanTransformer3DModel", (1, 5, 6))
    with pytest.raises(ValueError, match="attends over 30 tokens, and the grid has 15"):
        output(model, inputs)

    unknown = diffusers.Transformer2DModel(
        num_attention_heads=2, attention_head_dim=16, in_channels=32, norm_num_groups=8
    )
    with pytest.raises(ValueError, match=r"tokens of Transformer2DModel .* give token_order=None"):
        mra_plugin.patch(unknown)
    states = torch.randn(1, 32, 5, 6)
    own = unknown(states).sample
    for params in ({"token_order": None}, {"grid": (5, 6)}):
        mra_plugin.patch(unknown, **ALL, **params)
        torch.testing.assert_close(unknown(states).sample, own)
    with pytest.raises(TypeError, match="a diffusers pipeline or transformer; str does not"):
        mra_plugin.patch("flux")


@torch.no_grad()
def test_diffusers_own_dispatch(monkeypatch: pytest.MonkeyPatch) -> None:
    """By name and as a context; cross-attention and masks stay exact."""
    monkeypatch.setattr(dispatch, "_attention", build_attention(RECORDER))
    for name, calls in (
        ("WanTransformer3DModel", 2),
        ("FluxTransformer2DModel", 2),
        ("HunyuanVideoTransformer3DModel", 0),
        ("QwenImageTransformer2DModel", 0),
    ):
        model = make(name)
        inputs = inputs_of(name, (1, 5, 6), 2)
        own = output(model, inputs)
        Recorder.seen.clear()
        with diffusers.attention_backend("mra"):
            torch.testing.assert_close(output(model, inputs), own)
        assert len(Recorder.seen) == calls
        output(model, inputs)
        assert len(Recorder.seen) == calls
        model.set_attention_backend("mra")
        torch.testing.assert_close(output(model, inputs), own)
        assert len(Recorder.seen) == 2 * calls
        model.set_attention_backend("native")


@pytest.mark.parametrize(
    "given",
    [
        {"is_causal": True},
        {"attn_mask": torch.tensor([[True] * 6 + [False] * 2] * 2)},
        {"attn_mask": torch.linspace(-1, 1, 8).expand(2, 1, 8, 8)},
        {"attn_mask": torch.linspace(-1, 1, 8).expand(8, 8)},
    ],
    ids=["causal", "padding", "bias", "bias-of-all"],
)
def test_the_dispatch_has_all_else_from_the_native_backend(given: dict[str, Any]) -> None:
    torch.manual_seed(0)
    query, key, value = torch.randn(3, 2, 8, 2, 4)
    found = dispatch_attention_fn(query, key, value, **given, backend="mra")
    own = dispatch_attention_fn(query, key, value, **given, backend="native")
    assert found.equal(own)
    grouped = {"enable_gqa": True, **given}
    found, own = (
        dispatch_attention_fn(query, key[:, :, :1], value[:, :, :1], **grouped, backend=backend)
        for backend in ("mra", "native")
    )
    assert found.equal(own)


def test_the_dispatch_gives_no_log_sum_exps() -> None:
    x = torch.randn(1, 8, 2, 4)
    for backend in ("mra", "native"):
        with pytest.raises(ValueError, match="return_lse=True"):
            dispatch_attention_fn(x, x, x, attention_kwargs={"return_lse": True}, backend=backend)


@pytest.mark.parametrize("name", ["DiTTransformer2DModel", "QwenImageTransformer2DModel"])
def test_training_after_inference(name: str) -> None:
    """Nothing of a call is left to the next, which may be of another kind."""
    model, inputs = make(name), inputs_of(name, grid_of(name))
    mra_plugin.patch(model, **FEW)
    with torch.inference_mode():
        some = output(model, inputs)
    out = output(model, inputs)
    torch.testing.assert_close(out, some)
    out.sum().backward()
    assert any(one.grad is not None and one.grad.any() for one in model.parameters())


def test_nothing_at_padding_reaches_tokens_beside_a_grid() -> None:
    torch.manual_seed(0)
    attention = build("mra", FEW)
    arrangement = in_tiles(grid_coordinates((4, 5)))
    query, key, value = torch.randn(3, 3, 2, 26, 8)
    padding = torch.ones(3, 26, dtype=torch.bool)
    padding[0, 2:4] = padding[1, -3:] = False
    padding[2] = False
    own = attend_arranged(attention, query, key, value, padding, arrangement, 4, None)
    assert not own[2].any()
    for x in (key, value):
        x.masked_fill_(~padding[:, None, :, None], torch.nan)
    found = attend_arranged(attention, query, key, value, padding, arrangement, 4, None)
    assert found.equal(own)


@torch.no_grad()
def test_offloaded_in_groups() -> None:
    name = "WanTransformer3DModel"
    model = make(name)
    inputs = inputs_of(name, (2, 5, 6))
    some = output(mra_plugin.patch(model, **FEW), inputs)
    model.enable_group_offload(onload_device=torch.device("cpu"), offload_type="leaf_level")
    assert output(model, inputs).equal(some)
    mra_plugin.unpatch(model)
    assert output(model, inputs).equal(output(make(name), inputs))


@pytest.mark.gpu
def test_offloaded_whole() -> None:
    pipe = pipeline()
    inputs = {k: v.cuda() for k, v in inputs_of("WanTransformer3DModel", (2, 5, 6)).items()}
    pipe.enable_model_cpu_offload()
    own = pipe(inputs, 2)
    torch.testing.assert_close(mra_plugin.patch(pipe, **ALL)(inputs, 2), own, atol=1e-3, rtol=1e-3)
    assert not torch.allclose(mra_plugin.patch(pipe, **FEW)(inputs, 2), own, atol=1e-3)
    assert mra_plugin.unpatch(pipe)(inputs, 2).equal(own)


@torch.no_grad()
def test_processors_that_are_replaced_meanwhile() -> None:
    model = mra_plugin.patch(make("SD3Transformer2DModel"), **FEW)
    inputs = inputs_of("SD3Transformer2DModel", (1, 5, 6))
    model.set_attn_processor(type(model.transformer_blocks[1].attn.processor).__mro__[2]())
    with pytest.raises(RuntimeError, match=r"was replaced .* patch again"):
        output(model, inputs)
    output(mra_plugin.patch(model, **FEW), inputs)
