"""Encoders as ONNX files, run by onnxruntime."""

from pathlib import Path
from typing import Any

import onnxruntime
import pytest
import torch
from helpers.attention_calls import padding_mask, random_inputs
from helpers.tiny_models import make
from torch import Tensor

import mra_plugin
from mra_plugin.ops import mra_attention


def ids(batch: int, tokens: int) -> dict[str, Tensor]:
    """Padded in front, behind, and not at all."""
    generator = torch.Generator().manual_seed(tokens)
    mask = padding_mask([tokens, tokens * 2 // 3, tokens * 2 // 3], tokens)
    mask[2] = mask[2].flip(0)
    return {
        "input_ids": torch.randint(5, 30, (batch, tokens), generator=generator),
        "attention_mask": mask[:batch].long(),
    }


PARAMETERS = [
    pytest.param({"block_size": 8, "block_per_row": 2}, marks=pytest.mark.slow),
    {"preset": "close", "exact_up_to": 20, "block_size": 8, "block_per_row": 2, "salient_keys": 20},
]


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize("params", PARAMETERS, ids=str)
def test_the_file_gives_what_the_model_gives_at_every_length(
    params: dict[str, Any], tmp_path: Path
) -> None:
    model = make("bert", return_dict=False, max_position_embeddings=1100)
    mra_plugin.patch(model, **params)
    axes = {0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC}
    # In the example the budget and salient keys cover all, and no block is short.
    with pytest.warns(UserWarning, match="in ONNX files MRA attention is dense"):
        program = torch.onnx.export(
            model,
            (),
            kwargs=ids(2, 16),
            dynamo=True,
            verbose=False,
            dynamic_shapes={"input_ids": axes, "attention_mask": axes},
        )
    program.save(tmp_path / "model.onnx")
    session = onnxruntime.InferenceSession(str(tmp_path / "model.onnx"))
    names = [one.name for one in session.get_inputs()]
    for batch, tokens in ((1, 9), (2, 16), (3, 75), (1, 1100)):
        given = ids(batch, tokens)
        feed = dict(zip(names, (x.numpy() for x in given.values()), strict=True))
        with torch.no_grad():
            expected = model(**given)[0]
        found = torch.tensor(session.run(None, feed)[0])
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


def test_an_explicit_choice_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.onnx, "is_in_onnx_export", lambda: True)
    with pytest.raises(NotImplementedError, match=r"ONNX.*impl=\"reference\" can"):
        mra_attention(*random_inputs(), impl="eager")
