"""The options of MRA attention as flags: what they take, and the paper's defaults."""

from typing import Any, get_args, get_type_hints

import pytest
import typer

from mra_plugin.cli import app
from mra_plugin.cli.mra_options import FLAGS, check_together, given_options
from mra_plugin.ops import PRESETS, MRAOptions

WORDS = {"num_blocks": "none", "coarse_key_size": "the block size"}


def test_every_option_is_a_flag_with_its_default() -> None:
    defaults = MRAOptions()
    assert FLAGS.keys() == MRAOptions.__dataclass_fields__.keys()
    for name, flag in FLAGS.items():
        assert flag.default == WORDS.get(name, str(getattr(defaults, name))), name
        known = get_args(get_type_hints(MRAOptions)[name])
        assert flag.choices == tuple(one for one in known if isinstance(one, str)), name
        if not flag.choices:  # the least that it takes, the option takes as well
            MRAOptions(**{name: flag.least} if name != "block_size" else {})


@pytest.mark.parametrize("command", ["compare", "convert", "plot"])
def test_commands_have_the_flags(command: str) -> None:
    commands: Any = typer.main.get_command(app)
    options = {option.name: option for option in commands.commands[command].params}
    assert {"preset", *FLAGS} <= options.keys()
    for name in PRESETS:
        assert name in options["preset"].help


def test_what_is_given_is_read() -> None:
    texts = {"preset": "close", "salient_keys": "0", "block_score": "mean", "num_blocks": None}
    given = given_options(texts)
    assert given == {"preset": "close", "salient_keys": 0, "block_score": "mean"}
    check_together(given)
