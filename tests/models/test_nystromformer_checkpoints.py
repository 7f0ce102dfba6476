"""Nyströmformer beside transformers': the same numbers where those run, and files both ways."""

import importlib.util
from pathlib import Path

import pytest
import torch
import transformers as tf
from helpers.tiny_nystromformer import HEADS, config, inputs_of, labels_of, make
from tokenizers import Tokenizer, models
from torch import nn
from transformers.models.nystromformer import modeling_nystromformer as theirs

import mra_plugin

SHARED = Path(__file__).parents[3] / "shared" / "families"
AUTO = {
    "NystromformerModel": [tf.AutoModel, tf.AutoModelForTextEncoding],
    "NystromformerForMaskedLM": [tf.AutoModelForMaskedLM],
    "NystromformerForSequenceClassification": [tf.AutoModelForSequenceClassification],
    "NystromformerForMultipleChoice": [tf.AutoModelForMultipleChoice],
    "NystromformerForTokenClassification": [tf.AutoModelForTokenClassification],
    "NystromformerForQuestionAnswering": [tf.AutoModelForQuestionAnswering],
}
LENGTH = 70
LANDMARKS = {"segment_means_seq_len": LENGTH, "num_landmarks": 7}
EXACT = {"segment_means_seq_len": 16, "num_landmarks": 16}


def their_model(head: str, **extra: object) -> nn.Module:
    torch.manual_seed(1)
    fields = config(**extra).to_dict()
    return getattr(theirs, head)(theirs.NystromformerConfig(**fields)).eval()


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("direction", ["from transformers", "to transformers"])
@torch.no_grad()
def test_files_are_interchangeable(head: str, direction: str, tmp_path: Path) -> None:
    sizes = LANDMARKS if direction == "from transformers" else EXACT
    ours, other = make(head, **sizes), their_model(head, **sizes)
    shapes = {name: x.shape for name, x in ours.state_dict().items()}
    assert shapes == {name: x.shape for name, x in other.state_dict().items()}
    saved, reader = (other, type(ours)) if direction == "from transformers" else (ours, type(other))
    saved.save_pretrained(tmp_path)
    loaded, report = reader.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report.values()), report
    ours, other = (loaded, other) if saved is other else (ours, loaded)

    # One row: in the original, the rows of a batch change each other; and in landmarks no mask.
    inputs = {**inputs_of(head, 1, LENGTH, LENGTH), **labels_of(head, 1, LENGTH)}
    if head.endswith("Choice"):
        inputs = {name: x[:, :1] if x.ndim > 1 else x for name, x in inputs.items()}
    elif sizes is EXACT:
        inputs["attention_mask"][:, -9:] = 0
        if "labels" in inputs and inputs["labels"].ndim > 1:
            inputs["labels"][:, -9:] = -100
        # Padding of zeros, which the original's convolution reads.
        for model in (ours, other):
            for layer in model.base_model.encoder.layer:
                layer.attention.self.conv.weight.zero_()
    own = ours(**inputs, output_hidden_states=True)
    assert len(own) > 1
    for name, expected in other(**inputs, output_hidden_states=True).items():
        torch.testing.assert_close(own[name], expected, atol=2e-5, rtol=2e-5)


@pytest.mark.parametrize("head", HEADS)
def test_auto_classes_give_these_models(head: str, tmp_path: Path) -> None:
    other = their_model(head)
    other.save_pretrained(tmp_path)
    assert type(tf.AutoConfig.from_pretrained(tmp_path)) is mra_plugin.NystromformerConfig
    for auto_class in AUTO[head]:
        model = auto_class.from_pretrained(tmp_path)
        assert type(model) is getattr(mra_plugin, head)
        # Who builds from transformers' own config, or asks for its class, gets its own.
        assert type(auto_class.from_config(other.config)) is type(other)
    assert type(getattr(theirs, head).from_pretrained(tmp_path)) is type(other)


def test_checkpoints_of_the_original_with_positions_and_a_tokenizer(tmp_path: Path) -> None:
    model = make()
    positions = model.embeddings.position_ids
    state = {**model.state_dict(), "embeddings.position_ids": positions}
    model.save_pretrained(tmp_path, state_dict=state)
    _, report = mra_plugin.NystromformerModel.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report.values()), report
    # The tokenizer's class is found by the type of the model.
    Tokenizer(models.WordLevel({"a": 0, "b": 1}, "a")).save(str(tmp_path / "tokenizer.json"))
    assert tf.AutoTokenizer.from_pretrained(tmp_path)("b")["input_ids"] == [1]


@pytest.mark.skipif(not SHARED.is_dir(), reason=f"the original's outputs are not at {SHARED}")
def test_golden(capsys: pytest.CaptureFixture[str]) -> None:
    """Outputs and gradients of transformers 4.

    Cases that are named coupled are left out: they hold what one maximum over the whole batch
    makes of near singular landmarks, so that rows change each other. Here rows are independent.
    """
    spec = importlib.util.spec_from_file_location("check_golden", SHARED / "check_golden.py")
    assert spec is not None
    check = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(check)  # type: ignore[union-attr]
    files = sorted((SHARED / "golden").glob("nystrom_*.npz"))
    files = [str(path) for path in files if "coupled" not in path.name]
    assert len(files) > 4
    assert check.main(["mra_plugin", *files]) == 0, capsys.readouterr().out
