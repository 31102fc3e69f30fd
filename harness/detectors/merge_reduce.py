"""Merge-and-reduce: a coreset from one pass over blocks of points, in memory that does not grow with their number.

Each block is reduced to a coreset by greedy k-center. Two coresets of one level merge to one coreset of the next level,
as in a binary counter. At the end, the coresets of all levels are reduced together.

Bentley & Saxe, Decomposable searching problems, Journal of Algorithms, 1980; Har-Peled & Mazumdar, On coresets for
k-means and k-median clustering, STOC 2004.
"""

from __future__ import annotations

import torch

from harness.detectors.coreset import k_center


def farthest_first(points: torch.Tensor, size: int) -> torch.Tensor:
    """Select points by greedy k-center, from the point farthest from the mean on.

    Args:
        points: (n, d).
        size: number of points; all points if there are no more.

    Returns:
        (min(n, size), d) in the order of the selection; fewer if fewer are distinct.
    """
    if len(points) <= size:
        return points
    start = int(torch.linalg.vector_norm(points - points.mean(dim=0), dim=1).argmax())
    return points[torch.from_numpy(k_center(points, size, start).rows)]


class MergeReduce:
    """A coreset of a stream of blocks.

    Args:
        size: number of points of each reduced block.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._levels: dict[int, torch.Tensor] = {}

    def add(self, block: torch.Tensor) -> None:
        """Add a block of points (n, d)."""
        coreset, level = farthest_first(block, self._size).clone(), 0
        while level in self._levels:
            coreset = farthest_first(torch.cat([self._levels.pop(level), coreset]), self._size)
            level += 1
        self._levels[level] = coreset

    def coreset(self, size: int) -> torch.Tensor:
        """Reduce the coresets of all levels.

        Args:
            size: largest number of points.

        Returns:
            (m, d) in the order of the selection, so that smaller coresets are prefixes.
        """
        return farthest_first(torch.cat([self._levels[level] for level in sorted(self._levels)]), size)
