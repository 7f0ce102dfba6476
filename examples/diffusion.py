"""A diffusion pipeline with MRA attention in its transformer, beside its own exact attention.

Needs the extra "examples". From the repository's root:

    python examples/diffusion.py

Weights are random, so there is nothing to look at: it shows how a pipeline is patched, the time of
it, and how far the result moves. For yours, `DiffusionPipeline.from_pretrained` takes the place of
`made_up_pipeline`.
"""

import argparse
import time

import torch
from diffusers import AutoencoderKL, DDIMScheduler, DiTPipeline, DiTTransformer2DModel

import mra_plugin


def made_up_pipeline(side: int) -> DiTPipeline:
    """A small DiT that makes pictures of ``side`` x ``side`` latents, each a token."""
    torch.manual_seed(0)
    transformer = DiTTransformer2DModel(
        sample_size=side,
        patch_size=1,
        in_channels=4,
        out_channels=4,
        num_layers=2,
        num_attention_heads=4,
        attention_head_dim=32,
        num_embeds_ada_norm=1000,
    )
    pipe = DiTPipeline(transformer.eval(), AutoencoderKL(norm_num_groups=8), DDIMScheduler())
    pipe.set_progress_bar_config(disable=True)
    return pipe


def picture(pipe: DiTPipeline, steps: int) -> tuple[torch.Tensor, float]:
    """A picture [height, width, 3] from the same noise each time, and the seconds that it took."""
    start = time.perf_counter()
    made = pipe(
        class_labels=[207],
        num_inference_steps=steps,
        generator=torch.Generator().manual_seed(1),
        output_type="np",
    )
    return torch.tensor(made.images[0]), time.perf_counter() - start


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--side", type=int, default=64, help="latents along each side")
    parser.add_argument("--steps", type=int, default=4)
    given = parser.parse_args(arguments)

    pipe = made_up_pipeline(given.side)
    picture(pipe, 1)  # the first call is slower
    exact, took = picture(pipe, given.steps)
    print(f"exact attention: {took:.2f} s for {given.side**2} tokens")
    for exact_steps in (0, 1):
        mra_plugin.patch(pipe, preset="close", exact_steps=exact_steps)
        close, took = picture(pipe, given.steps)
        away = (close - exact).abs().max().item()
        print(f"mra, {exact_steps} exact steps: {took:.2f} s, at most {away:.1e} away")
    mra_plugin.unpatch(pipe)
    assert torch.equal(picture(pipe, given.steps)[0], exact)


if __name__ == "__main__":
    main()
