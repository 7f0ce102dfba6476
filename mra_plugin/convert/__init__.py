"""Checkpoints made for longer documents, or turned into the MRA family.

`stretch` and `to_mra` work on live models; `job.convert` is what `mra convert` does, from folder to
folder.
"""

from mra_plugin.encoders.stretching import stretch

from .mra_family import to_mra

__all__ = ["stretch", "to_mra"]
