"""The distribution of groups of runs over workers. A group is split only if a worker would have no group."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import TypeVar

T = TypeVar("T")


def spread(groups: Sequence[list[T]], target: int, levels: Callable[[T], tuple[Hashable, ...]]) -> list[list[T]]:
    """Split groups until there are `target` groups, or until no group can be split.

    The largest group is split first, at the first level where its members differ: there they share least.

    Args:
        groups: groups of members that share work.
        target: number of groups.
        levels: returns the keys of a member from coarse to fine; members with equal keys share work.

    Returns:
        The groups in their order; the subsets of one group are neighbours.
    """
    subsets = [list(group) for group in groups]
    indivisible: set[int] = set()
    while len(subsets) < target:
        divisible = [index for index, subset in enumerate(subsets) if id(subset) not in indivisible]
        if not divisible:
            break
        index = max(divisible, key=lambda i: len(subsets[i]))
        pieces = _split(subsets[index], levels, target - len(subsets) + 1)
        if len(pieces) == 1:
            indivisible.add(id(subsets[index]))
            continue
        subsets[index : index + 1] = pieces
    return subsets


def _split(group: list[T], levels: Callable[[T], tuple[Hashable, ...]], limit: int) -> list[list[T]]:
    """Split at the first level where members differ, into at most `limit` pieces of similar size."""
    keys = [levels(member) for member in group]
    for level in range(min(map(len, keys))):
        buckets: dict[Hashable, list[T]] = {}
        for member, key in zip(group, keys, strict=True):
            buckets.setdefault(key[level], []).append(member)
        if len(buckets) > 1:
            pieces: list[list[T]] = [[] for _ in range(min(limit, len(buckets)))]
            for bucket in sorted(buckets.values(), key=len, reverse=True):
                min(pieces, key=len).extend(bucket)
            return pieces
    return [group]
