"""How the eager implementation cuts its work changes no result."""

from typing import Any

import pytest
from helpers.agreement import compare
from helpers.attention_calls import padding_mask, random_inputs

from mra_plugin.ops import MRAOptions
from mra_plugin.ops.eager import fine, part
from mra_plugin.ops.problem import Problem


@pytest.mark.parametrize("group_bytes", [1, 40_000, 100_000])
def test_groups_of_heads_do_not_change_the_result(
    group_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(part, "_PART_BYTES_CPU", group_bytes)
    inputs = random_inputs(3, 4, 70)
    problem = Problem(*inputs, None, None, MRAOptions(), 1.0)
    assert len(list(part.cut(problem))) > 1
    compare("eager", inputs, padding_mask([70, 9, 33], 70), block_size=8, block_per_row=2)


def test_small_tiles_do_not_change_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fine, "_TILE_BYTES_CPU", 1)
    compare("eager", random_inputs(2, 2, 200), block_size=8, block_per_row=3)


def test_off_the_cpu_the_same_work_is_done_by_general_products(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Devices without the CPU's fused attention go another way; here it is taken on the CPU."""
    from mra_plugin.ops.eager import tiles

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("the CPU's fused attention was called")

    monkeypatch.setattr(tiles, "_has_flash", lambda _: False)
    monkeypatch.setattr(tiles, "_flash", refuse)
    monkeypatch.setattr(tiles, "_flash_backward", refuse)
    for approx_mode in ("full", "sparse"):
        compare(
            "eager",
            random_inputs(2, 2, 75),
            padding_mask([75, 40], 75),
            block_size=8,
            block_per_row=2,
            approx_mode=approx_mode,
        )
