"""The plugin: offers ``"mra"``, ``"nystrom"`` and ``"ulysses"`` to the registry."""

from mra_plugin.backends.mra import MRAAttention
from mra_plugin.backends.nystrom import NystromAttention
from mra_plugin.parallel import ulysses
from mra_plugin.registry import AttentionBackend, hookimpl


@hookimpl
def efficient_attention_backends() -> list[AttentionBackend]:
    """Offers MRA attention, Nyström attention, and either across processes."""
    return [
        AttentionBackend(
            name="mra",
            build=MRAAttention,
            summary="MRA: exact in the blocks that matter, coarse elsewhere",
            serves=frozenset({"weights", "budget", "exact_keys"}),
        ),
        AttentionBackend(
            name="nystrom",
            build=NystromAttention,
            summary="Nyström: by way of landmarks, the means of segments",
            serves=frozenset({"weights"}),
        ),
        AttentionBackend(
            name=ulysses.NAME,
            build=ulysses.UlyssesAttention,
            summary="any other, on sequences split among processes",
            why_unavailable=ulysses.why_unavailable,
            # No "budget": whether it takes one depends on the attention inside.
            serves=frozenset({"window"}),
        ),
    ]
