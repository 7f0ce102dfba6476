"""Checkpoints go both ways between these classes and transformers', and Auto classes load these."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
import transformers as tf
from helpers import mra_kernels
from helpers.tiny_mra import HEADS, config, inputs_of, labels_of, make
from torch import Tensor, nn
from transformers.models.mra import modeling_mra as theirs

import mra_plugin
from mra_plugin.ops import mra_attention

AUTO = {
    "MraModel": [tf.AutoModel],
    "MraForMaskedLM": [tf.AutoModelForMaskedLM, tf.AutoModelForPreTraining],
    "MraForSequenceClassification": [tf.AutoModelForSequenceClassification],
    "MraForMultipleChoice": [tf.AutoModelForMultipleChoice],
    "MraForTokenClassification": [tf.AutoModelForTokenClassification],
    "MraForQuestionAnswering": [tf.AutoModelForQuestionAnswering],
}
# The original knows no other block size.
SIZES = {"block_size": 32, "block_per_row": 1}


def their_model(head: str, **extra: object) -> nn.Module:
    torch.manual_seed(1)
    fields = config(**SIZES, **extra).to_dict()
    return getattr(theirs, head)(theirs.MraConfig(**fields)).eval()


def load(model_class: type, folder: Path) -> nn.Module:
    model, report = model_class.from_pretrained(folder, output_loading_info=True)
    assert not any(report.values()), report
    return model.eval()


@pytest.mark.parametrize("head", HEADS)
def test_state_dicts_are_interchangeable(head: str) -> None:
    ours, other = make(head, **SIZES), their_model(head)
    shapes = {name: x.shape for name, x in ours.state_dict().items()}
    assert shapes == {name: x.shape for name, x in other.state_dict().items()}
    ours.load_state_dict(other.state_dict(), strict=True)
    other.load_state_dict(ours.state_dict(), strict=True)


def their_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor,
    num_blocks: int,
    approx_mode: str,
    initial_prior_first_n_blocks: int,
    initial_prior_diagonal_n_blocks: int,
) -> Tensor:
    """Stands in for the CUDA kernels that transformers' classes compute zeros without."""
    return mra_attention(
        query,
        key,
        value,
        mask.view(*query.shape[:3])[:, 0].bool(),
        num_blocks=num_blocks,
        approx_mode=approx_mode,
        initial_prior_first_n_blocks=initial_prior_first_n_blocks,
        initial_prior_diagonal_n_blocks=initial_prior_diagonal_n_blocks,
    )


@mra_kernels.reads_masks
@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("direction", ["from transformers", "to transformers"])
@torch.no_grad()
def test_files_are_interchangeable(
    head: str, direction: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(theirs, "mra2_attention", their_attention)
    extra = {"approx_mode": "sparse", "initial_prior_first_n_blocks": 1}
    if direction == "from transformers":
        other = their_model(head, **extra)
        other.save_pretrained(tmp_path)
        ours = load(getattr(mra_plugin, head), tmp_path)
    else:
        ours = make(head, **SIZES, **extra)
        ours.save_pretrained(tmp_path)
        other = load(getattr(theirs, head), tmp_path)

    # One padded sequence: of several, transformers gives some heads another sequence's mask.
    inputs = {**inputs_of(head, 1, 96), **labels_of(head, 1, 96)}
    inputs = {
        name: x[:, :1] if head == "MraForMultipleChoice" and x.ndim > 1 else x
        for name, x in inputs.items()
    }
    own = ours(**inputs, output_hidden_states=True)
    for name, expected in other(**inputs, output_hidden_states=True).items():
        torch.testing.assert_close(own[name], expected, atol=1e-5, rtol=1e-5)


@mra_kernels.reads_masks
@torch.no_grad()
def test_narrow_heads_are_scaled_as_in_the_original(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(theirs, "mra2_attention", their_attention)
    other = their_model("MraModel", hidden_size=32)
    other.save_pretrained(tmp_path)
    inputs = inputs_of("MraModel", 1, 96)
    expected = other(**inputs).last_hidden_state
    own = load(mra_plugin.MraModel, tmp_path)(**inputs).last_hidden_state
    torch.testing.assert_close(own, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("head", HEADS)
def test_auto_classes_give_these_models(head: str, tmp_path: Path) -> None:
    their_model(head).save_pretrained(tmp_path)
    assert type(tf.AutoConfig.from_pretrained(tmp_path)) is mra_plugin.MraConfig
    for auto_class in AUTO[head]:
        model = auto_class.from_pretrained(tmp_path)
        assert type(model) is getattr(mra_plugin, head)
        assert type(auto_class.from_config(model.config)) is type(model)
    # Who asks for transformers' own by name gets it.
    own = their_model(head)
    assert type(getattr(theirs, head).from_pretrained(tmp_path)) is type(own)
    for auto_class in AUTO[head]:
        assert type(auto_class.from_config(own.config)) is type(own)


def test_a_base_model_loads_from_any_head(tmp_path: Path) -> None:
    model = make("MraForMaskedLM")
    model.save_pretrained(tmp_path)
    base = mra_plugin.MraModel.from_pretrained(tmp_path)
    for name, expected in model.mra.state_dict().items():
        assert base.state_dict()[name].equal(expected), name


def test_old_checkpoints_without_positions_load(tmp_path: Path) -> None:
    model = make()
    state = {name: x for name, x in model.state_dict().items() if name != "embeddings.position_ids"}
    model.save_pretrained(tmp_path, state_dict=state)
    loaded = mra_plugin.MraModel.from_pretrained(tmp_path)
    assert loaded.embeddings.position_ids.equal(model.embeddings.position_ids)


IMPORTS = {
    "before": "import mra_plugin\nfrom transformers import AutoModel",
    "before everything": "import mra_plugin\nfrom transformers import pipeline, AutoModel",
    "after": "from transformers import AutoModel\nimport mra_plugin",
    "among models": "import mra_plugin\nfrom transformers import BertModel, AutoModel",
    "by name": "from mra_plugin import MraModel\nfrom transformers import AutoModel",
}
# As if transformers had dropped its own.
WITHOUT_MRA = """
import sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.startswith("transformers.models.mra"):
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Blocker())
from transformers.models.auto import configuration_auto as c
del c.CONFIG_MAPPING_NAMES["mra"]
from transformers.models.auto import modeling_auto as m, tokenization_auto as t
for name, mapping in [*vars(m).items(), *vars(t).items()]:
    if name.endswith("_MAPPING_NAMES") and "mra" in mapping:
        del mapping["mra"]
import mra_plugin
from transformers import AutoModel
"""
LOAD = """
model = AutoModel.from_pretrained(sys.argv[1])
assert type(model) is mra_plugin.MraModel, type(model)
"""


@pytest.mark.parametrize(
    "order",
    [
        *("before", "after", "without transformers' own"),
        *(
            pytest.param(order, marks=pytest.mark.slow)
            for order in ("before everything", "among models", "by name")
        ),
    ],
)
def test_auto_classes_in_any_order_of_imports(order: str, tmp_path: Path) -> None:
    make().save_pretrained(tmp_path)
    code = IMPORTS.get(order, WITHOUT_MRA) + "\nimport sys, mra_plugin" + LOAD
    result = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr


def test_importing_the_package_imports_nothing_heavy() -> None:
    code = (
        "import sys, mra_plugin; assert 'MraModel' in dir(mra_plugin)\n"
        "print([name for name in ('torch', 'transformers') if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout.strip() == "[]", result.stderr
