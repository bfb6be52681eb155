"""Rounding of pruning rates to numbers of filters."""

from __future__ import annotations

import numpy as np

COUNTINGS = ("exact", "float")


def number(
    size: int,
    rate: float | np.ndarray,
    fraction: float | np.ndarray = 1.0,
    *,
    counting: str = "exact",
) -> np.ndarray:
    """The number of filters to prune, int64 of the shape of `rate` and `fraction`.

    Args:
      size: number of filters C.
      rate: fraction of them to prune, P.
      fraction: fraction of those, for the hard ones of GHFP.
      counting: 'exact' is floor(C * P * fraction + 1e-6), so that 0.1 of 10 filters is 1 whatever
        0.1 is in binary. 'float' is int(C * (1 - kept)) of binary floats, kept = 1 - P to 12
        decimals, which is what soft-filter-pruning's get_filter_codebook computes: 0.1 of 10 is 0.

    Raises:
      ValueError: an unknown `counting`.
    """
    if counting == "exact":
        return np.floor(size * np.asarray(rate) * fraction + 1e-6).astype(np.int64)
    if counting == "float":
        kept_fraction = np.round(1 - np.asarray(rate, np.float64), 12)
        return np.trunc(size * (1 - kept_fraction) * fraction).astype(np.int64)
    raise ValueError(f"counting={counting!r} is unknown; use one of {', '.join(COUNTINGS)}")
