"""What a layer stack reads: words, positions and token types, added up."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mra_plugin.models.post_norm import Embeddings

if TYPE_CHECKING:
    from .configuration import MraConfig


class MraEmbeddings(Embeddings):
    """Adds word, position and token type embeddings; checkpoints hold the default positions."""

    def __init__(self, config: MraConfig) -> None:
        super().__init__(config, keep_positions=True)
