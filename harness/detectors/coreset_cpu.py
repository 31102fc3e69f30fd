"""The greedy k-center selection on the cpu: exact, lazy, compiled.

The plain algorithm compares all n points with each new center. Most of these comparisons are not needed. New centers
only reduce a point's distance to its nearest center, so an old distance is an upper bound. A point with a bound below
the current maximum is not the next center. Most points stay far below the maximum after the first few centers.
The kernel therefore works in two steps:

- The kernel sets a threshold below the current maximum. It compares the points whose bound reaches the threshold with
  all centers since their last comparison, in one sweep over contiguous memory.
- The points that stay above the threshold are compared with each new center until no point is left. Then the kernel
  lowers the threshold.

The leading principal axes give a lower bound of each distance. The kernel reads the whole row only if this bound does
not decide. The bounds only save computations; they do not change the selection.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
from numba import njit, prange

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

# Reordered sums use vector instructions; the flags that ignore NaN and infinity are not set.
FAST = {"reassoc", "contract", "nsz", "arcp"}
BLOCK = 64  # centers that are compared together
CHUNK = 64  # points of one work item of a thread
SAMPLE = 4096  # points from which the threshold is estimated
SMALLEST = 1e-300  # smallest threshold
STEP = 0.98  # the threshold is at most this share of the maximum (squared distances)


Function = TypeVar("Function", bound=Callable[..., Any])


def _compiled(**options: Any) -> Callable[[Function], Function]:
    """numba.njit with a cache on disk where possible: compilation takes several seconds."""

    def decorate(function: Function) -> Function:
        compiled: Function
        try:
            compiled = njit(cache=True, **options)(function)
        except RuntimeError:
            # Neither the folder of the package nor the user's cache folder is writable.
            compiled = njit(**options)(function)
        return compiled

    return decorate


@_compiled(fastmath=FAST)
def _squared(x: Floats, a: int, b: int) -> Any:
    """Squared distance of rows a and b, in double precision: rounding must not decide which point is farther."""
    total = 0.0
    for k in range(x.shape[1]):
        difference = np.float64(x[a, k]) - np.float64(x[b, k])
        total += difference * difference
    return total


@_compiled(parallel=True)
def distances_to(x: Floats, row: int, bound: Doubles) -> None:
    """Compute the squared distances of all rows to one row.

    Args:
        x: (n, d) the points.
        row: number of the row.
        bound: (n,) filled with the distances.
    """
    for i in prange(x.shape[0]):
        bound[i] = _squared(x, i, row)


@_compiled(fastmath=FAST)
def _update_bound(
    i: int,
    x: Floats,
    axes: Floats,
    centers: Floats,
    order: Ints,
    first_axes: int,
    bound: Doubles,
    compared: npt.NDArray[np.int32],
    count: int,
    threshold: Any,
    slack: Any,
    partials: Floats,
) -> None:
    """Compare point i with the centers since its last comparison; stop when its bound is below the threshold.

    `centers` holds the centers' coordinates, one row for each leading axis, so that BLOCK centers are compared at once.
    """
    best = bound[i]
    reach = (np.sqrt(best) + slack) * (np.sqrt(best) + slack)
    j = compared[i]
    while j < count:
        end = min(j + BLOCK, count)
        for t in range(BLOCK):
            partials[t] = np.float32(0)
        for k in range(first_axes):
            coordinate = axes[i, k]
            for t in range(BLOCK):
                difference = centers[k, j + t] - coordinate
                partials[t] += difference * difference
        for t in range(end - j):
            if partials[t] < reach:
                partial = partials[t]
                for k in range(first_axes, axes.shape[1]):
                    difference = centers[k, j + t] - axes[i, k]
                    partial += difference * difference
                if partial < reach:
                    exact = _squared(x, i, order[j + t])
                    if exact < best:
                        best = exact
                        reach = (np.sqrt(best) + slack) * (np.sqrt(best) + slack)
        j = end
        if best < threshold:
            break
    bound[i] = best
    compared[i] = j


@_compiled(parallel=True, fastmath=FAST)
def _update_bounds(
    ids: Ints,
    number: int,
    x: Floats,
    axes: Floats,
    centers: Floats,
    order: Ints,
    first_axes: int,
    bound: Doubles,
    compared: npt.NDArray[np.int32],
    count: int,
    threshold: Any,
    slack: Any,
) -> None:
    """Call `_update_bound` for many points, on all threads."""
    for chunk in prange((number + CHUNK - 1) // CHUNK):
        partials = np.zeros(BLOCK, np.float32)
        for a in range(chunk * CHUNK, min(number, (chunk + 1) * CHUNK)):
            _update_bound(
                ids[a], x, axes, centers, order, first_axes, bound, compared, count, threshold, slack, partials
            )  # fmt: skip


@_compiled()
def _next_threshold(bound: Doubles, target: int) -> Any:
    """A squared distance below the largest bound that about `target` bounds reach; negative if all bounds are 0."""
    n = bound.shape[0]
    largest = 0.0
    for i in range(n):
        largest = max(largest, bound[i])
    if largest <= 0:
        return -1.0
    size = min(SAMPLE, n)
    sample = np.empty(size, np.float64)
    for k in range(size):
        sample[k] = bound[k * (n // size)]
    sample.sort()
    above = min(size - 1, max(1, target * size // n))
    # A threshold of 0 would accept points that coincide with a center.
    return max(min(sample[size - above], STEP * largest), SMALLEST)


@_compiled()
def _above(bound: Doubles, threshold: Any, ids: Ints) -> int:
    """Write the points whose bound reaches the threshold into `ids`, ascending; return their number."""
    number = 0
    for i in range(bound.shape[0]):
        if bound[i] >= threshold:
            ids[number] = i
            number += 1
    return number


@_compiled()
def _filter(ids: Ints, number: int, bound: Doubles, threshold: Any) -> int:
    """Keep the points in `ids` that still reach the threshold, in their order; return their number."""
    remaining = 0
    for a in range(number):
        if bound[ids[a]] >= threshold:
            ids[remaining] = ids[a]
            remaining += 1
    return remaining


@_compiled()
def _farthest(ids: Ints, number: int, bound: Doubles) -> Any:
    """The point with the largest bound; of several, the lowest row."""
    farthest = ids[0]
    for a in range(1, number):
        if bound[ids[a]] > bound[farthest]:
            farthest = ids[a]
    return farthest


@_compiled(fastmath=FAST)
def _follow(
    ids: Ints, number: int, x: Floats, axes: Floats, first_axes: int, bound: Doubles, center: int, slack: Any
) -> None:
    """Compare the points in `ids` with the newest center."""
    for a in range(number):
        i = ids[a]
        partial = np.float32(0)
        for k in range(first_axes):
            difference = axes[i, k] - axes[center, k]
            partial += difference * difference
        if partial < (np.sqrt(bound[i]) + slack) * (np.sqrt(bound[i]) + slack):
            bound[i] = min(bound[i], _squared(x, i, center))


@_compiled(fastmath=FAST)
def extend(
    x: Floats,
    axes: Floats,
    centers: Floats,
    first_axes: int,
    order: Ints,
    radii: Floats,
    bound: Doubles,
    compared: npt.NDArray[np.int32],
    count: int,
    until: int,
    slack: Any,
    target: int,
) -> int:
    """Extend a selection from `count` to `until` centers.

    Args:
        x: (n, d) the points.
        axes: (n, q) their coordinates in the leading axes.
        centers: (q, m + BLOCK) coordinates of the centers, filled with each new center.
        first_axes: number of axes of the first bound.
        order, radii: (m,) rows of the centers, and their distances to the nearest earlier center; filled.
        bound: (n,) squared distance to the nearest of the first `compared` centers.
        compared: (n,) number of centers with which each point was compared.
        count, until: number of centers now, and at the end.
        slack: bound of the rounding error of a distance in `axes`.
        target: approximate number of points that are followed exactly.

    Returns:
        The number of centers; below `until` if no distinct point is left.
    """
    ids = np.empty(axes.shape[0], np.int64)
    while count < until:
        threshold = _next_threshold(bound, target)
        if threshold < 0:
            break
        number = _above(bound, threshold, ids)
        _update_bounds(ids, number, x, axes, centers, order, first_axes, bound, compared, count, threshold, slack)
        followed = _filter(ids, number, bound, threshold)
        while count < until and followed > 0:
            center = _farthest(ids, followed, bound)
            order[count] = center
            radii[count] = np.sqrt(bound[center])
            for k in range(axes.shape[1]):
                centers[k, count] = axes[center, k]
            count += 1
            _follow(ids, followed, x, axes, first_axes, bound, center, slack)
            for a in range(followed):
                compared[ids[a]] = count
            followed = _filter(ids, followed, bound, threshold)
    return count
