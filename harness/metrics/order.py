"""Quantiles of arrays that may be larger than the memory."""

from __future__ import annotations

from math import ceil, floor

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
SIGN = np.uint32(2**31)
HALF = 2**16  # values of one half of the 32 bits


def quantile_of_maps(maps: Floats, share: float) -> float:
    """A quantile of all pixels, as `numpy.quantile` computes it, without a sorted copy of the maps.

    The bits of a float, seen as a whole number, have the order of the floats. One pass counts the upper half of the
    bits, and another pass counts the lower half where the upper half is that of the quantile.

    Args:
        maps: (n, height, width), finite; may lie in a memory-mapped file.
        share: 0 to 1; with 0.5, the median.
    """
    position = share * (maps.size - 1)
    upper = np.zeros(HALF, dtype=np.int64)
    for one in maps:
        upper += np.bincount((_ordered(one) >> 16).ravel(), minlength=HALF)
    low, high = (_order_statistic(maps, upper, rank) for rank in (floor(position), ceil(position)))
    return low + (high - low) * (position - floor(position))


def _order_statistic(maps: Floats, upper: npt.NDArray[np.int64], rank: int) -> float:
    """The value with `rank` values before it in the sorted order."""
    ends = np.cumsum(upper)
    half = int(np.searchsorted(ends, rank, side="right"))
    before = int(ends[half] - upper[half])
    lower = np.zeros(HALF, dtype=np.int64)
    for one in maps:
        bits = _ordered(one).ravel()
        lower += np.bincount(bits[bits >> 16 == half] & (HALF - 1), minlength=HALF)
    rest = int(np.searchsorted(np.cumsum(lower), rank - before, side="right"))
    bits = np.array([half * HALF + rest], dtype=np.uint32)
    return float(np.where(bits >= SIGN, bits ^ SIGN, ~bits).astype(np.uint32).view(np.float32)[0])


def _ordered(values: Floats) -> npt.NDArray[np.uint32]:
    """Whole numbers in the order of the values."""
    bits = np.ascontiguousarray(values, dtype=np.float32).view(np.uint32)
    return np.where(bits >= SIGN, ~bits, bits | SIGN)
