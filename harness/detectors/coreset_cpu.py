"""The greedy k-center selection on the cpu: exact, lazy, compiled.

The plain algorithm looks at all n points after each of m selections. It need not: a point's distance to the centers
can only shrink, so the last one known is an upper bound, and a point whose bound is below the current maximum can't be
chosen. Most points never come near the maximum again after the first few centers. So

- a threshold is put below the current maximum, and only points whose bound reaches it are brought up to date, against
  all centers chosen since they were last looked at, in one sweep over contiguous memory;
- those that stay above the threshold are followed exactly, one center at a time, until none is left; then the
  threshold is lowered.

A distance is first bounded from below in the leading principal axes; the whole row is only read if that bound does
not decide. What is chosen depends on none of this: bounds only decide what is *not* computed.
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

# Sums may be reordered, so that they use vector instructions; NaN and infinity keep their meaning.
FAST = {"reassoc", "contract", "nsz", "arcp"}
BLOCK = 64  # centers that are looked at together
CHUNK = 64  # points that a thread takes at a time
SAMPLE = 4096  # points that the threshold is chosen from
SMALLEST = 1e-300
STEP = 0.98  # the threshold is at most this share of the maximum (squared distances)


Function = TypeVar("Function", bound=Callable[..., Any])


def _compiled(**options: Any) -> Callable[[Function], Function]:
    """numba.njit, kept on disk where there is a place for it: compiling takes some seconds."""

    def decorate(function: Function) -> Function:
        compiled: Function
        try:
            compiled = njit(cache=True, **options)(function)
        except RuntimeError:
            # Neither the package's folder nor the user's own can be written to.
            compiled = njit(**options)(function)
        return compiled

    return decorate


@_compiled(fastmath=FAST)
def _squared(x: Floats, a: int, b: int) -> Any:
    """Squared distance of rows a and b, in double precision: which of two points is farther must not be rounding's."""
    total = 0.0
    for k in range(x.shape[1]):
        difference = np.float64(x[a, k]) - np.float64(x[b, k])
        total += difference * difference
    return total


@_compiled(parallel=True)
def distances_to(x: Floats, row: int, bound: Doubles) -> None:
    """Fill `bound` with the squared distances of all rows to one."""
    for i in prange(x.shape[0]):
        bound[i] = _squared(x, i, row)


@_compiled(fastmath=FAST)
def _look_again(
    i: int,
    x: Floats,
    axes: Floats,
    centers: Floats,
    order: Ints,
    first_axes: int,
    bound: Doubles,
    seen: npt.NDArray[np.int32],
    count: int,
    threshold: Any,
    slack: Any,
    near: Floats,
) -> None:
    """Bring point i up to date with the centers it has not seen; stops as soon as it is below the threshold.

    `centers` holds the centers' coordinates in the leading axes, one axis a row, so that BLOCK of them are compared
    at once.
    """
    best = bound[i]
    reach = (np.sqrt(best) + slack) * (np.sqrt(best) + slack)
    j = seen[i]
    while j < count:
        end = min(j + BLOCK, count)
        for t in range(BLOCK):
            near[t] = np.float32(0)
        for k in range(first_axes):
            own = axes[i, k]
            for t in range(BLOCK):
                difference = centers[k, j + t] - own
                near[t] += difference * difference
        for t in range(end - j):
            if near[t] < reach:
                partial = near[t]
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
    seen[i] = j


@_compiled(parallel=True, fastmath=FAST)
def _look_at(
    ids: Ints,
    number: int,
    x: Floats,
    axes: Floats,
    centers: Floats,
    order: Ints,
    first_axes: int,
    bound: Doubles,
    seen: npt.NDArray[np.int32],
    count: int,
    threshold: Any,
    slack: Any,
) -> None:
    """`_look_again` for many points, on all threads."""
    for chunk in prange((number + CHUNK - 1) // CHUNK):
        near = np.zeros(BLOCK, np.float32)
        for a in range(chunk * CHUNK, min(number, (chunk + 1) * CHUNK)):
            _look_again(
                ids[a], x, axes, centers, order, first_axes, bound, seen, count, threshold, slack, near
            )  # fmt: skip


@_compiled()
def _next_threshold(bound: Doubles, wanted: int) -> Any:
    """A squared distance that about `wanted` bounds reach, below the largest bound; negative when all are 0."""
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
    above = min(size - 1, max(1, wanted * size // n))
    # Never 0: a point that coincides with a center is no candidate.
    return max(min(sample[size - above], STEP * largest), SMALLEST)


@_compiled()
def _above(bound: Doubles, threshold: Any, ids: Ints) -> int:
    """Put the points whose bound reaches the threshold into `ids`, ascending; gives how many."""
    number = 0
    for i in range(bound.shape[0]):
        if bound[i] >= threshold:
            ids[number] = i
            number += 1
    return number


@_compiled()
def _keep(ids: Ints, number: int, bound: Doubles, threshold: Any) -> int:
    """Keep those of `ids` that still reach the threshold, in their order; gives how many."""
    kept = 0
    for a in range(number):
        if bound[ids[a]] >= threshold:
            ids[kept] = ids[a]
            kept += 1
    return kept


@_compiled()
def _farthest(ids: Ints, number: int, bound: Doubles) -> Any:
    """The point with the largest bound, of several the lowest."""
    chosen = ids[0]
    for a in range(1, number):
        if bound[ids[a]] > bound[chosen]:
            chosen = ids[a]
    return chosen


@_compiled(fastmath=FAST)
def _follow(
    ids: Ints, number: int, x: Floats, axes: Floats, first_axes: int, bound: Doubles, chosen: int, slack: Any
) -> None:
    """Compare the points in `ids` with a center just chosen."""
    for a in range(number):
        i = ids[a]
        partial = np.float32(0)
        for k in range(first_axes):
            difference = axes[i, k] - axes[chosen, k]
            partial += difference * difference
        if partial < (np.sqrt(bound[i]) + slack) * (np.sqrt(bound[i]) + slack):
            bound[i] = min(bound[i], _squared(x, i, chosen))


@_compiled(fastmath=FAST)
def extend(
    x: Floats,
    axes: Floats,
    centers: Floats,
    first_axes: int,
    order: Ints,
    radii: Floats,
    bound: Doubles,
    seen: npt.NDArray[np.int32],
    count: int,
    until: int,
    slack: Any,
    wanted: int,
) -> int:
    """Select on, from `count` centers to `until`; gives how many there are, fewer if no other distinct point is left.

    Args:
        x: (n, d) the points.
        axes: (n, q) their coordinates in the leading axes.
        centers: (q, m + BLOCK) the centers' coordinates, filled as they are chosen.
        first_axes: how many axes the first bound uses.
        order, radii: (m,) rows chosen, and their distance to the centers before them.
        bound: (n,) squared distance to the nearest of the first `seen` centers.
        seen: (n,) how many centers each point was compared with.
        count, until: centers chosen, and wanted.
        slack: what rounding can add to a distance in `axes`.
        wanted: about how many points to follow exactly.
    """
    ids = np.empty(axes.shape[0], np.int64)
    while count < until:
        threshold = _next_threshold(bound, wanted)
        if threshold < 0:
            break
        number = _above(bound, threshold, ids)
        _look_at(ids, number, x, axes, centers, order, first_axes, bound, seen, count, threshold, slack)
        followed = _keep(ids, number, bound, threshold)
        while count < until and followed > 0:
            chosen = _farthest(ids, followed, bound)
            order[count] = chosen
            radii[count] = np.sqrt(bound[chosen])
            for k in range(axes.shape[1]):
                centers[k, count] = axes[chosen, k]
            count += 1
            _follow(ids, followed, x, axes, first_axes, bound, chosen, slack)
            for a in range(followed):
                seen[ids[a]] = count
            followed = _keep(ids, followed, bound, threshold)
    return count
