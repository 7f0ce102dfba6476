"""The multi-dimensional damped moving average of MEGA: tensors in, tensors out.

A call goes from `api` to the `reference`, or through the operators of `operators` to one of the
implementations that never import each other: `scan` (chunks of tokens and a state between them),
`fft` and `triton`. They share `problem`, a call in one object, `powers`, sums and series over
powers of decays, and `carried`, what states add.
"""

from .api import damped_ema

__all__ = ["damped_ema"]
