"""The encoder layers that are compared: each one with its own attention."""

import pytest
import torch
from cases import CannotRunError
from encoder_layers import HIDDEN, METHODS, Layer, build_layer
from torch import Tensor

CPU = torch.device("cpu")


def layer(method: str, tokens: int) -> Layer:
    return build_layer(method, tokens, CPU, torch.float32)


def output(method: str, tokens: int = 768) -> Tensor:
    return layer(method, tokens).run("forward")


@pytest.mark.parametrize("method", METHODS)
def test_every_layer_runs_and_trains(method: str) -> None:
    tokens = 1024 if method == "longformer" else 768  # whole windows and blocks
    one = layer(method, tokens)
    shape = (1, tokens, HIDDEN)
    assert one.args[0].shape == shape
    forward, training = one.run("forward"), one.run("training")
    assert forward.shape == training.shape == shape
    # BigBird takes its random blocks at random only in training.
    if method != "bigbird":
        torch.testing.assert_close(forward, training)


def test_patched_layers_have_the_weights_of_the_exact_one_and_another_attention() -> None:
    exact = output("roberta exact")
    for method in ("mra", "nystrom"):
        other = output(method)
        assert not torch.allclose(exact, other, atol=1e-4)
        assert torch.cosine_similarity(exact, other, dim=-1).mean() > 0.99


def test_longformer_sees_its_window_alone() -> None:
    one = layer("longformer", 1024)
    assert reach(one) == 256


def test_nystromformer_sees_everything_and_is_not_exact() -> None:
    one = layer("nystromformer", 768)
    attention = one.module.attention.self
    assert attention.num_landmarks == 64 != attention.seq_len
    assert reach(one) == 767


def test_big_bird_is_left_out_where_it_attends_fully() -> None:
    with pytest.raises(CannotRunError, match="512 tokens"):
        layer("bigbird", 512)
    assert layer("bigbird", 768).kwargs["band_mask"] is not None


def reach(one: Layer) -> int:
    """How far the first token's change is felt."""
    before = one.run("forward")
    hidden = one.args[0].clone()
    hidden[:, 0] += 1
    changed = Layer(one.module, (hidden, *one.args[1:]), one.kwargs, one.params).run("forward")
    return int((changed != before).any(-1).nonzero()[-1, 1])
