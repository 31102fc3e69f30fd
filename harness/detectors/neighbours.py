"""Nearest neighbours in a bank and in its prefixes, in one pass.

The nearest neighbour in the first m rows is a running minimum. One pass over the whole bank therefore also gives the
nearest neighbours in every smaller bank that is a prefix.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch

QUERIES = 1024  # rows of a block of the distance matrix
BANK = 1024  # columns of a block
CHUNK = 128  # columns whose minimum is known before the place of a minimum is searched; BANK has whole chunks


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
    queries = queries.contiguous()  # a no-op for memory-mapped patches; columns of other strides take twice as long
    smallest = torch.full((n,), torch.inf, device=bank.device)
    rows = torch.zeros(n, dtype=torch.int64, device=bank.device)
    # One array for all blocks: new memory for each block takes time.
    scratch = torch.empty(min(n, QUERIES), BANK, device=bank.device)
    results: dict[int, Nearest] = {}
    for left, ends in _blocks(sizes):
        columns = _block(bank, left)
        # Half of the squared distances, without the norm of the query: it does not change the order.
        offsets = torch.linalg.vector_norm(columns, dim=0).square_().mul_(0.5)
        rows_of = {end: rows.clone() for end in ends[1:]}
        for top in range(0, n, QUERIES):
            block = queries[top : top + QUERIES].to(bank.device)
            # `addmm` would take longer: it copies the offsets first, and a product that adds to them is slower.
            products = torch.mm(block, columns, out=scratch[: len(block)])
            torch.sub(offsets, products, out=products)
            before = smallest[top : top + QUERIES]
            closest = [_closer(products, end - left, before) for end in ends]
            for end, (queries_of, _, places) in zip(ends[1:], closest[1:], strict=True):
                rows_of[end][top + queries_of] = places + left
            nearer, minima, places = closest[0]
            smallest[top + nearer], rows[top + nearer] = minima, places + left
        for end in reversed(ends):
            if end in sizes:
                nearest_rows = rows_of.get(end, rows)
                results[end] = Nearest(distances_to(queries, bank, nearest_rows), nearest_rows.clone())
                if on_result is not None:
                    on_result(end, results[end])
    return [results[size] for size in sizes]


def _blocks(sizes: Sequence[int]) -> Iterator[tuple[int, list[int]]]:
    """The blocks up to the largest size: the first row, and the ends of prefixes in the block, the largest first.

    The largest end is that of the block, or the largest size.
    """
    largest = max(sizes, default=0)
    for left in range(0, largest, BANK):
        last = min(left + BANK, largest)
        yield left, sorted({last, *(size for size in sizes if left < size < last)}, reverse=True)


def _closer(products: torch.Tensor, end: int, before: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The queries with a smaller value than before among the first columns, these values, and their columns.

    Args:
        products: (n, BANK); the columns from `end` on become infinite.
        end: number of columns that count, at most the `end` of the call before.
        before: (n,) the smallest values of the blocks before.
    """
    products[:, end:] = torch.inf
    chunks = products.view(len(products), -1, min(CHUNK, BANK))
    # A minimum without its place takes a fraction of the time. The place is searched in one chunk of few queries.
    minima, chunk = chunks.amin(dim=2).min(dim=1)
    closer = (minima < before).nonzero()[:, 0]
    chunk = chunk[closer]
    return closer, minima[closer], chunks[closer, chunk].min(dim=1).indices + chunk * chunks.shape[2]


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
        queries: (n, d), without gradients, as the bank.
        bank: (m, d).
        rows: (n,) row of the bank for each query.

    Returns:
        (n,) Euclidean distances.
    """
    distances = bank.new_empty(len(queries))
    scratch = bank.new_empty(min(len(queries), QUERIES), bank.shape[1])
    for first in range(0, len(queries), QUERIES):
        block = queries[first : first + QUERIES].to(bank.device)
        nearest = torch.index_select(bank, 0, rows[first : first + QUERIES], out=scratch[: len(block)])
        torch.linalg.vector_norm(nearest.sub_(block), dim=1, out=distances[first : first + QUERIES])
    return distances


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
    results: dict[int, torch.Tensor] = {}
    for left, ends in _blocks(sizes):
        columns = _block(bank, left)
        before = largest
        largest_of = [before.clone() for _ in ends]
        for top in range(0, n, QUERIES):
            products = queries[top : top + QUERIES].to(bank.device) @ columns
            for end, best in zip(ends, largest_of, strict=True):
                part = slice(top, top + QUERIES)
                candidates = products[:, : end - left]
                if k == 1:
                    best[part, 0] = torch.maximum(before[part, 0], candidates.amax(dim=1))
                else:
                    best[part] = torch.cat([before[part], candidates], dim=1).topk(k, dim=1).values
        largest = largest_of[0]
        results |= {end: best for end, best in zip(ends, largest_of, strict=True) if end in sizes}
    return [results[size][:, : min(k, size)] for size in sizes]
