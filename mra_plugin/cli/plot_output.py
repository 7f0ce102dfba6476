"""Where the picture of `mra plot` goes: a window or a file."""

from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

from mra_plugin.errors import UserError
from mra_plugin.files import write_whole

from .options import writable

if TYPE_CHECKING:
    from mra_plugin.picture.head_comparison import HeadComparison

_FORMATS = (".png", ".svg", ".pdf")
_DOTS_PER_INCH = 100


def check_target(save: Path | None) -> None:
    """Refuses, before any work, what could not be drawn to in the end; None is a window."""
    try:
        from matplotlib import get_backend
        from matplotlib.backends.registry import BackendFilter, backend_registry
    except ModuleNotFoundError:
        raise UserError('drawing needs matplotlib: pip install "mra-plugin[report]"') from None
    if save is None:
        windows = backend_registry.list_builtin(BackendFilter.INTERACTIVE)  # type: ignore[no-untyped-call]
        if get_backend().lower() not in windows:
            raise UserError("there is no display to open a window on; use --save FILE")
    elif save.suffix.lower() not in _FORMATS:
        raise UserError(f"--save must end in {', '.join(_FORMATS)}, got {str(save)!r}")
    else:
        writable("--save", save)


def show(comparison: "HeadComparison", name: str) -> None:
    """Opens a window, and comes back once it is closed."""
    from matplotlib import pyplot

    from mra_plugin.picture.drawing import SIZE, draw_head

    draw_head(comparison, name, pyplot.figure(figsize=SIZE))
    pyplot.show()


def write(comparison: "HeadComparison", name: str, path: Path) -> None:
    """Draws into a file, in the format of its ending."""
    from mra_plugin.picture.drawing import draw_head

    figure, drawn, kind = draw_head(comparison, name), BytesIO(), path.suffix.lower()[1:]
    figure.savefig(drawn, format=kind, dpi=_DOTS_PER_INCH)
    try:
        write_whole(path, _small_png(drawn) if kind == "png" else drawn.getvalue())
    except OSError as error:
        raise UserError(f"can't write --save {str(path)!r}: {error.strerror}") from None


def _small_png(drawn: BytesIO) -> bytes:
    """With 256 colours, which nobody sees and which takes a quarter of the bytes."""
    from PIL import Image

    small = BytesIO()
    colours = Image.open(drawn).convert("RGB")
    colours.quantize(256, Image.Quantize.MAXCOVERAGE).save(small, format="PNG", optimize=True)
    return small.getvalue()
