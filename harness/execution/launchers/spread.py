"""Groups of runs spread over workers: a group is split only where workers would have nothing to do."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import TypeVar

T = TypeVar("T")


def spread(groups: Sequence[list[T]], wanted: int, levels: Callable[[T], tuple[Hashable, ...]]) -> list[list[T]]:
    """As many groups as are wanted, or as many as there are without parting what shares the most.

    The largest group is split first, at the first level where its members differ: there they share least.

    Args:
        groups: of members that share work.
        wanted: how many groups there should be.
        levels: of a member, what it shares with others of its group, coarse to fine.

    Returns:
        The groups in their order, parts of one beside each other.
    """
    parts = [list(group) for group in groups]
    whole: set[int] = set()
    while len(parts) < wanted:
        open_ones = [index for index, part in enumerate(parts) if id(part) not in whole]
        if not open_ones:
            break
        index = max(open_ones, key=lambda i: len(parts[i]))
        pieces = _pieces(parts[index], levels, wanted - len(parts) + 1)
        if len(pieces) == 1:
            whole.add(id(parts[index]))
            continue
        parts[index : index + 1] = pieces
    return parts


def _pieces(group: list[T], levels: Callable[[T], tuple[Hashable, ...]], most: int) -> list[list[T]]:
    """Split at the first level where members differ, into at most so many pieces of about the same size."""
    keys = [levels(member) for member in group]
    for level in range(min(map(len, keys))):
        buckets: dict[Hashable, list[T]] = {}
        for member, key in zip(group, keys, strict=True):
            buckets.setdefault(key[level], []).append(member)
        if len(buckets) > 1:
            pieces: list[list[T]] = [[] for _ in range(min(most, len(buckets)))]
            for bucket in sorted(buckets.values(), key=len, reverse=True):
                min(pieces, key=len).extend(bucket)
            return pieces
    return [group]
