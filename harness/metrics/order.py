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
    ends = np.cumsum(upper)
    ranks = (floor(position), ceil(position))
    halves = [int(np.searchsorted(ends, rank, side="right")) for rank in ranks]
    # Both values nearly always have the same upper half of the bits.
    lower = {half: np.cumsum(_lower_halves(maps, half)) for half in set(halves)}
    low, high = (
        _value(half, int(np.searchsorted(lower[half], rank - int(ends[half] - upper[half]), side="right")))
        for half, rank in zip(halves, ranks, strict=True)
    )
    return low + (high - low) * (position - floor(position))


def _lower_halves(maps: Floats, half: int) -> npt.NDArray[np.int64]:
    """How often each lower half of the bits occurs in the values with this upper half."""
    counts = np.zeros(HALF, dtype=np.int64)
    for one in maps:
        bits = _ordered(one).ravel()
        counts += np.bincount(bits[bits >> 16 == half] & (HALF - 1), minlength=HALF)
    return counts


def _value(upper: int, lower: int) -> float:
    """The float of two halves of ordered bits."""
    bits = np.array([upper * HALF + lower], dtype=np.uint32)
    return float(np.where(bits >= SIGN, bits ^ SIGN, ~bits).astype(np.uint32).view(np.float32)[0])


def _ordered(values: Floats) -> npt.NDArray[np.uint32]:
    """Whole numbers in the order of the values."""
    bits = np.ascontiguousarray(values, dtype=np.float32).view(np.uint32)
    return np.where(bits >= SIGN, ~bits, bits | SIGN)
