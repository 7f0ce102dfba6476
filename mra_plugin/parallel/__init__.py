"""Sequences and parameters that are split among processes.

`UlyssesAttention` is the backend ``"ulysses"`` of the registry, `sequence_parallel` says which
processes share a sequence, and `shard_inputs` and `gather_sequence` take a whole patched encoder
there and back. `shard_parameters` spreads parameters (FSDP2).
"""

from .exchange import gather_sequence
from .group import sequence_parallel
from .parameters import shard_parameters
from .shards import shard_inputs
from .ulysses import UlyssesAttention

__all__ = [
    "UlyssesAttention",
    "gather_sequence",
    "sequence_parallel",
    "shard_inputs",
    "shard_parameters",
]
