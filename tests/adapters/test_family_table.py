"""The rows of families: what they name is there, and everybody reads them."""

import importlib
import subprocess
import sys

import pytest
import torch
import transformers as tf
from helpers import layer_families, tiny_mra

from mra_plugin.adapters.transformers.families.class_patches import serves
from mra_plugin.adapters.transformers.families.table import FAMILIES, Family, family_of_layer
from mra_plugin.encoders.exact import APPROXIMATE

ROWS = pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.model_type)


@ROWS
def test_what_a_row_names_is_there(family: Family) -> None:
    module = importlib.import_module(family.module)
    base, model, layer = (
        getattr(module, name)
        for name in (family.base_class, family.model_class, family.layer_class)
    )
    assert issubclass(model, base)
    assert model.config_class.model_type == family.model_type
    assert serves(model)
    assert family_of_layer(layer) is family
    assert callable(family.layers().forward)
    if family.twin is not None:
        twin = getattr(importlib.import_module(family.twin), family.layer_class)
        assert family_of_layer(twin) is family


def test_classes_of_other_families() -> None:
    assert not serves(tf.BertModel)
    assert family_of_layer(torch.nn.Linear) is None
    # A name alone makes no family.
    assert family_of_layer(type("MraSelfAttention", (torch.nn.Module,), {})) is None


@ROWS
def test_a_layers_own_scale_and_projections(family: Family) -> None:
    name = family.model_class.removesuffix("Model")
    layer = layer_families.attention_layer(layer_families.make(name))
    states = torch.randn(2, 30, 64)
    expected = layer_families.in_heads(layer, states)
    for found, one in zip(family.layers().project(layer, states), expected, strict=True):
        torch.testing.assert_close(found, one)
    assert family.scale is None or family.scale(64) == 1 / 8
    assert family.scale is None or family.scale(8) == 32**-0.5


def test_this_packages_layer_projects_and_scales_as_its_row_says() -> None:
    layer = tiny_mra.make().encoder.layer[0].attention.self
    family = family_of_layer(type(layer))
    assert family is not None
    assert family.scale is not None
    assert family.scale(layer.attention_head_size) == layer.scale
    assert [x.shape for x in family.layers().project(layer, torch.randn(2, 30, 64))] == 3 * [
        (2, 2, 30, 32)
    ]


def test_who_is_exact_only_with_another_attention() -> None:
    assert set(APPROXIMATE) == {"mra", "nystromformer"}


def test_a_family_is_imported_with_its_module_only() -> None:
    code = (
        "import sys, mra_plugin\n"
        "from mra_plugin.adapters.transformers.families.table import FAMILIES\n"
        "files = [f'mra_plugin.adapters.transformers.families.{one.file}' for one in FAMILIES]\n"
        "assert not {'transformers', *files} & set(sys.modules)\n"
        "import transformers.models.mra.modeling_mra\n"
        "assert files[0] in sys.modules and files[1] not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
