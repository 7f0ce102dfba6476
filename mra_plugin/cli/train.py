"""`mra train`: masked-LM training, fine-tuning and distillation."""

import inspect
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin

import typer

from mra_plugin.environment import installed_versions
from mra_plugin.errors import UserError
from mra_plugin.training.config import TYPES, TrainingConfig

from .console import printable
from .errors import one_clear_line
from .options import ModelArgument, OutArgument


def _with_settings(command: Callable[..., None]) -> Callable[..., None]:
    """Gives a command an option for each setting of training, in place of its ``**settings``."""
    model, out, config, resume, _ = inspect.signature(command).parameters.values()
    settings = [
        inspect.Parameter(
            setting.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=typer.Option(
                None,  # what was not given must not win over the file
                metavar=setting.metadata["metavar"],
                help=setting.metadata["help"].format(_spelled(setting.default)),
                show_default=False,
            ),
            annotation=_list_for_tuple(TYPES[setting.name]) | None,
        )
        for setting in fields(TrainingConfig)
        if setting.metadata
    ]
    # The command's own options stand behind those that say what is trained for what.
    middle = 1 + [setting.name for setting in settings].index("task")
    parameters = [model, out, *settings[:middle], config, resume, *settings[middle:]]
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return command


def _spelled(default: Any) -> str:
    """A default as one would type it: 3 for 3.0, 5e-5 for 5e-05."""
    return f"{default:g}".replace("e-0", "e-") if isinstance(default, float) else str(default)


def _list_for_tuple(kind: Any) -> Any:
    """The type of an option that may be repeated is a list, as typer has it."""
    return list[get_args(kind)[0]] if get_origin(kind) is tuple else kind  # type: ignore[misc]


@_with_settings
def train(
    model: ModelArgument,
    out: OutArgument,
    *,
    config: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="YAML file of settings; options win over it.", show_default=False
        ),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the last checkpoint in OUT.")
    ] = False,
    **settings: Any,
) -> None:
    """Trains a model on long texts, or fine-tunes it for a task.

    The options can also come from a YAML file; OUT/training.yaml has those of the run. Works the
    same under `torchrun` and `accelerate launch`.

    Example: `mra train long/ trained/ --data texts/ --steps 1000 --eval-share 0.05`
    """
    given = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in settings.items()
        if value not in (None, [], ())
    }
    with one_clear_line():
        _run({"model": model, **given}, out, config, resume)


def _run(options: dict[str, Any], out: Path, file: Path | None, resume: bool) -> None:
    try:
        from mra_plugin.training.run import train as run
        from mra_plugin.training.settings_file import settings_from_yaml
    except ImportError as error:
        raise UserError(f'{error.name} is not installed: pip install "mra-plugin[train]"') from None
    settings = settings_from_yaml(file) if file else {}
    run(
        TrainingConfig(**{"data": (), **settings, **options}),
        out,
        resume,
        lambda line: typer.echo(printable(line)),
        installed_versions(),
    )
