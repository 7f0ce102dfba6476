"""The rows of this package's own model families."""

from pathlib import Path

import pytest
import transformers as tf

import mra_plugin
from mra_plugin.models import families
from mra_plugin.models.families import FAMILIES, model_class


def test_the_class_that_a_checkpoint_names() -> None:
    assert model_class("mra", "MraForMaskedLM") is mra_plugin.MraForMaskedLM
    assert model_class("bert", "BertModel") is tf.BertModel
    # Not transformers' own, which this family stands in for.
    assert model_class("mra", "MraLayer") is None
    assert model_class("mra", "BertModel") is None
    assert model_class("bert", "MraOfNobody") is None


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.model_type)
def test_auto_classes_answer_each_family(family: object) -> None:
    config = tf.AutoConfig.for_model(family.model_type)
    assert type(config).__module__.startswith("mra_plugin.")
    for auto_class, place in family.models.items():
        found = getattr(tf, auto_class)._model_mapping[type(config)]
        assert found is model_class(family.model_type, place.split(":")[1])


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.model_type)
def test_every_public_model_is_in_the_table(family: object) -> None:
    prefix = family.config_class.split(":")[1].removesuffix("Config")
    names = [name for name in mra_plugin.__all__ if name.startswith(prefix)]
    for name in names:
        if name not in (f"{prefix}Config", f"{prefix}PreTrainedModel"):
            assert model_class(family.model_type, name) is getattr(mra_plugin, name)


def test_every_family_is_in_the_table_and_public() -> None:
    folders = {path.parent.name for path in Path(families.__file__).parent.glob("*/__init__.py")}
    assert folders == {family.config_class.split(".")[0] for family in FAMILIES}
    assert sorted(mra_plugin._MODULES) == mra_plugin.__all__
    for name in mra_plugin.__all__:
        assert getattr(mra_plugin, name) is not None
    for family in FAMILIES:
        for place in (family.config_class, *family.models.values()):
            assert place.split(":")[1] in mra_plugin.__all__
