"""Checkpoints made for longer documents, or turned into the MRA family.

`stretch` and `to_mra` work on live models; `job.convert` is what `mra convert` does, from folder to
folder.
"""

from .errors import ConversionError
from .family import to_mra
from .stretching import stretch

__all__ = ["ConversionError", "stretch", "to_mra"]
