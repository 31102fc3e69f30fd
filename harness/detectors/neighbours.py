"""Nearest neighbours in a bank, for all its prefixes in one pass.

The nearest in the first m rows is a running minimum over the same distances, so one pass over the whole bank answers
for every smaller bank that is its first part.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

QUERIES = 1024  # rows of the distance matrix at a time
BANK = 512  # columns


@dataclass(frozen=True)
class Nearest:
    """Of n queries.

    Attributes:
        distances: (n,) Euclidean distance to the nearest row.
        rows: (n,) which one.
    """

    distances: torch.Tensor
    rows: torch.Tensor


def nearest_in_prefixes(
    queries: torch.Tensor,
    bank: torch.Tensor,
    sizes: Sequence[int],
    after: Callable[[int, Nearest], None] | None = None,
) -> list[Nearest]:
    """The nearest row of `bank[:size]` for each size.

    Which row is nearest is found by matrix products in blocks of one shape; its distance is then computed from the
    difference, so that it has no cancellation in it.

    Args:
        queries: (n, d).
        bank: (m, d).
        sizes: ascending, up to m.
        after: called with each size and its answer as soon as it is known.
    """
    n = len(queries)
    best = torch.full((n,), torch.inf, device=bank.device)
    row = torch.zeros(n, dtype=torch.int64, device=bank.device)
    answers = []
    begin = 0
    for size in sizes:
        while begin < size:
            left = begin // BANK * BANK
            end = min(left + BANK, size)
            columns, offsets = _block(bank, left)
            for top in range(0, n, QUERIES):
                # Half the squared distances without the query's own part, which does not change the order.
                products = torch.addmm(offsets, queries[top : top + QUERIES].to(bank.device), columns, alpha=-1)
                least, where = products[:, begin - left : end - left].min(dim=1)
                closer = least < best[top : top + QUERIES]
                best[top : top + QUERIES][closer] = least[closer]
                row[top : top + QUERIES][closer] = where[closer] + begin
            begin = end
        answers.append(Nearest(distances_to(queries, bank, row), row.clone()))
        if after is not None:
            after(size, answers[-1])
    return answers


def _block(bank: torch.Tensor, left: int) -> tuple[torch.Tensor, torch.Tensor]:
    """BANK columns from `left` on, and half their squared lengths; zeros beyond the bank's end.

    All blocks have one shape, wherever a bank ends: a product's last bits may depend on the shape, and a row must not
    be nearest in a large bank and second in the small one that is its first part.
    """
    part = bank[left : left + BANK]
    if len(part) < BANK:
        part = torch.cat([part, part.new_zeros(BANK - len(part), part.shape[1])])
    return part.T, part.square().sum(1).mul_(0.5)


def distances_to(queries: torch.Tensor, bank: torch.Tensor, row: torch.Tensor) -> torch.Tensor:
    """(n,) distance of each query to the row of the bank that is named for it."""
    parts = [
        torch.linalg.vector_norm(queries[i : i + QUERIES].to(bank.device) - bank[row[i : i + QUERIES]], dim=1)
        for i in range(0, len(queries), QUERIES)
    ]
    return torch.cat(parts)


def k_nearest(queries: torch.Tensor, bank: torch.Tensor, k: int, first: torch.Tensor | None = None) -> torch.Tensor:
    """(n, k) rows of the bank nearest to each query, nearest first; for few queries.

    Args:
        queries: (n, d).
        bank: (m, d).
        k: at most m are given.
        first: (n,) rows that are known to be nearest; rounding can't put another before them.
    """
    half_norms = bank.square().sum(1).mul_(0.5)
    products = torch.addmm(half_norms, queries.to(bank.device), bank.T, alpha=-1)
    if first is not None:
        products[torch.arange(len(queries), device=bank.device), first] = -torch.inf
    return products.topk(min(k, len(bank)), dim=1, largest=False, sorted=True).indices
