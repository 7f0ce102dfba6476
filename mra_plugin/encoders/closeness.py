"""How close the outputs of two encoders are, or of one with two attentions."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mra_plugin.errors import UserError, first_line


@dataclass(frozen=True)
class Closeness:
    """The output of an encoder beside its output with exact attention, at one length.

    Attributes:
        tokens: the length.
        token_cosine: mean cosine of corresponding tokens.
        sentence_cosine: cosine of the means of all tokens.
    """

    tokens: int
    token_cosine: float
    sentence_cosine: float


def hidden_states(encoder: nn.Module, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
    """What an encoder makes of a text, without gradients.

    Args:
        encoder: in evaluation mode.
        input_ids: [B, N].
        attention_mask: [B, N], 1 at real tokens.

    Returns:
        Its last hidden states, [B, N, hidden].
    """
    with torch.no_grad():
        out: Tensor = encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
    return out


def cosines(exact: Tensor, other: Tensor, mask: Tensor) -> tuple[float, float]:
    """How close two outputs are.

    Args:
        exact: [B, N, D].
        other: [B, N, D].
        mask: [B, N], 1 at real tokens.

    Returns:
        (mean cosine of corresponding tokens, mean cosine of the sequences' mean vectors).
    """
    exact, other, weight = exact.double(), other.double(), mask[..., None].double()
    tokens = torch.cosine_similarity(exact, other, dim=-1)[mask.bool()].mean()
    exact, other = ((x * weight).sum(1) / weight.sum(1) for x in (exact, other))
    return tokens.item(), torch.cosine_similarity(exact, other, dim=-1).mean().item()


@contextmanager
def reading(tokens: int) -> Iterator[None]:
    """Makes one message of whatever goes wrong while a model reads so many tokens.

    Raises:
        UserError: says what did.
    """
    try:
        yield
    except (LookupError, RuntimeError, TypeError, ValueError) as error:
        raise UserError(f"the model can't read {tokens} tokens: {first_line(error)}") from error
