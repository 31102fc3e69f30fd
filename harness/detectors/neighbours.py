"""Nearest neighbours in a bank and in its prefixes, in one pass.

The nearest neighbour in the first m rows is a running minimum. One pass over the whole bank therefore also gives the
nearest neighbours in every smaller bank that is a prefix.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch

QUERIES = 1024  # rows of a block of the distance matrix
BANK = 512  # columns of a block


@dataclass(frozen=True)
class Nearest:
    """The nearest neighbours of n queries.

    Attributes:
        distances: (n,) Euclidean distance to the nearest row of the bank.
        rows: (n,) number of the nearest row.
    """

    distances: torch.Tensor
    rows: torch.Tensor


def nearest_in_prefixes(
    queries: torch.Tensor,
    bank: torch.Tensor,
    sizes: Sequence[int],
    on_result: Callable[[int, Nearest], None] | None = None,
) -> list[Nearest]:
    """Find the nearest row of `bank[:size]` for each size.

    Matrix products in blocks of one shape find the nearest row. The distance is then computed from the difference,
    which avoids cancellation.

    Args:
        queries: (n, d).
        bank: (m, d).
        sizes: lengths of the prefixes, ascending, up to m.
        on_result: called with each size and its result.

    Returns:
        One result for each size.
    """
    n = len(queries)
    smallest = torch.full((n,), torch.inf, device=bank.device)
    rows = torch.zeros(n, dtype=torch.int64, device=bank.device)
    # One array for all blocks: new memory for each block takes time.
    scratch = torch.empty(min(n, QUERIES), BANK, device=bank.device)
    results = []
    begin = 0
    for size in sizes:
        for first, end, left in _parts(begin, size):
            columns = _block(bank, left)
            offsets = torch.linalg.vecdot(columns, columns, dim=0).mul_(0.5)
            for top in range(0, n, QUERIES):
                block = queries[top : top + QUERIES].to(bank.device)
                # Half of the squared distances, without the norm of the query: it does not change the order.
                # `addmm` would take longer: it copies the offsets first, and a product that adds to them is slower.
                products = torch.mm(block, columns, out=scratch[: len(block)])
                torch.sub(offsets, products, out=products)
                products = products[:, first - left : end - left]
                # A minimum without its place takes a fraction of the time, and few queries need the place.
                minima = products.amin(dim=1)
                closer = (minima < smallest[top : top + QUERIES]).nonzero()[:, 0]
                smallest[top + closer] = minima[closer]
                rows[top + closer] = products[closer].min(dim=1).indices + first  # `argmin` takes twice as long
        begin = size
        results.append(Nearest(distances_to(queries, bank, rows), rows.clone()))
        if on_result is not None:
            on_result(size, results[-1])
    return results


def _parts(begin: int, size: int) -> Iterator[tuple[int, int, int]]:
    """The rows from `begin` up to `size`, in parts of one block each: first row, end, and first row of the block."""
    while begin < size:
        left = begin // BANK * BANK
        end = min(left + BANK, size)
        yield begin, end, left
        begin = end


def _block(bank: torch.Tensor, left: int) -> torch.Tensor:
    """The rows of the bank from `left` on as BANK columns (d, BANK); zeros beyond the bank's end.

    All blocks have the same shape, because the last bits of a product may depend on the shape. A row that is nearest
    in a large bank must also be nearest in a prefix of the bank.
    """
    block = bank[left : left + BANK]
    if len(block) < BANK:
        block = torch.cat([block, block.new_zeros(BANK - len(block), block.shape[1])])
    return block.T


def distances_to(queries: torch.Tensor, bank: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    """Compute the distance of each query to one row of the bank.

    Args:
        queries: (n, d).
        bank: (m, d).
        rows: (n,) row of the bank for each query.

    Returns:
        (n,) Euclidean distances.
    """
    distances = [
        torch.linalg.vector_norm(queries[i : i + QUERIES].to(bank.device) - bank[rows[i : i + QUERIES]], dim=1)
        for i in range(0, len(queries), QUERIES)
    ]
    return torch.cat(distances)


def k_nearest(queries: torch.Tensor, bank: torch.Tensor, k: int, first: torch.Tensor | None = None) -> torch.Tensor:
    """Find the k nearest rows of the bank; for few queries, because the distance matrix has no blocks.

    Args:
        queries: (n, d).
        bank: (m, d).
        k: number of neighbours; the result has at most m.
        first: (n,) the nearest rows, if the caller has them; they come first in spite of rounding errors.

    Returns:
        (n, min(k, m)) row numbers, nearest first.
    """
    half_norms = bank.square().sum(1).mul_(0.5)
    products = torch.addmm(half_norms, queries.to(bank.device), bank.T, alpha=-1)
    if first is not None:
        products[torch.arange(len(queries), device=bank.device), first] = -torch.inf
    return products.topk(min(k, len(bank)), dim=1, largest=False, sorted=True).indices


def largest_products_in_prefixes(
    queries: torch.Tensor, bank: torch.Tensor, sizes: Sequence[int], k: int
) -> list[torch.Tensor]:
    """Find the k largest inner products with the rows of `bank[:size]`, for each size.

    The result of a size does not depend on the other sizes, because all blocks have the same shape.

    Args:
        queries: (n, d).
        bank: (m, d).
        sizes: lengths of the prefixes, ascending, up to m.
        k: number of products; a result has at most `size`.

    Returns:
        (n, min(k, size)) products for each size, largest first.
    """
    n = len(queries)
    largest = torch.full((n, k), -torch.inf, device=bank.device)
    results = []
    begin = 0
    for size in sizes:
        for first, end, left in _parts(begin, size):
            columns = _block(bank, left)
            for top in range(0, n, QUERIES):
                products = (queries[top : top + QUERIES].to(bank.device) @ columns)[:, first - left : end - left]
                best = largest[top : top + QUERIES]
                if k == 1:
                    torch.maximum(best[:, 0], products.amax(dim=1), out=best[:, 0])
                else:
                    best.copy_(torch.cat([best, products], dim=1).topk(k, dim=1).values)
        begin = size
        results.append(largest[:, : min(k, size)].clone())
    return results
