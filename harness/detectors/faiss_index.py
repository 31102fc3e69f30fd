"""An index of FAISS over a memory bank, for banks whose exact search takes long.

The index answers the nearest row of the bank. The distance to this row is then computed from the difference, as after
an exact search. So only the choice of the row is approximate.

Douze et al., The Faiss library, 2024 (arXiv:2401.08281). HNSW: Malkov & Yashunin, Efficient and robust approximate
nearest neighbor search using Hierarchical Navigable Small World graphs, 2016 (arXiv:1603.09320).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from math import sqrt
from typing import Any

import torch

from harness.common import threads
from harness.common.errors import ConfigError
from harness.detectors.neighbours import Nearest, distances_to, nearest_in_prefixes

EXACT_SEARCH, FLAT, HNSW, IVF = "exact", "faiss_flat", "hnsw", "ivf"
NEIGHBOURS = (EXACT_SEARCH, FLAT, HNSW, IVF)  # ways to search a bank

BLOCK = 16_384  # queries at once
SAMPLE = 1000  # queries that measure the recall
TOLERANCE = 1e-3  # a distance that is at most this share larger than the smallest one counts as the smallest
# With the values below, the recall is at least 97% in benchmarks/neighbours.py.
LINKS, BUILD_CANDIDATES, CANDIDATES = 32, 80, 64  # of HNSW: links of a row, and rows compared at once
ROWS_PER_LIST, PROBED_SHARE, PROBES = 39, 32, 8  # of IVF: FAISS asks for so many rows to train a list
LEAST_ROWS = {IVF: ROWS_PER_LIST * PROBES}  # with fewer rows, a query would read every list


def check_neighbours(value: object) -> None:
    """Check the argument `neighbours` of a detector.

    Args:
        value: of the argument.

    Raises:
        ConfigError: the value is unknown, or FAISS is not installed.
    """
    if value not in NEIGHBOURS:
        raise ConfigError(f"neighbours: found {value!r}, expected {', '.join(NEIGHBOURS)}.")
    if value != EXACT_SEARCH and find_spec("faiss") is None:
        raise ConfigError(
            f"neighbours: {value} found, but FAISS is not installed; run: pip install 'harness[faiss]', or choose "
            f"{EXACT_SEARCH}."
        )


def bank_problems(neighbours: str, size: int) -> list[str]:
    """The sentence about a bank that is too small for its index; empty if there is none.

    Args:
        neighbours: one of `NEIGHBOURS`.
        size: number of patches in the bank.
    """
    least = LEAST_ROWS.get(neighbours, 1)
    if size >= least:
        return []
    return [
        f"neighbours: {neighbours} found with a bank of {size} patches; expected {least} or more. Raise "
        f"coreset_sampling_ratio, or choose {EXACT_SEARCH}."
    ]


class FaissIndex:
    """An index over one bank. Equal banks and numbers of threads have equal indexes.

    Args:
        bank: (m, d), on any device; the index is in the memory of the cpu, with a copy of the bank.
        neighbours: one of `NEIGHBOURS`, but not exact.

    Raises:
        ConfigError: the bank has too few rows.
    """

    def __init__(self, bank: torch.Tensor, neighbours: str) -> None:
        if problems := bank_problems(neighbours, len(bank)):
            raise ConfigError(problems)
        self.bank, self.neighbours = bank, neighbours
        self._index = _BUILDERS[neighbours](_array(bank))

    def nearest(self, queries: torch.Tensor) -> Nearest:
        """Find a near row of the bank, most often the nearest one.

        Args:
            queries: (n, d).

        Returns:
            Rows, and exact distances to these rows, on the bank's device.
        """
        with _threads(threads.count()):
            chunks = [torch.from_numpy(self._index.search(_array(chunk), 1)[1][:, 0]) for chunk in _blocks(queries)]
        # FAISS answers -1 for a query that is no number; an exact search answers the first row.
        rows = torch.cat(chunks).clamp_(min=0).to(self.bank.device)
        return Nearest(distances_to(queries, self.bank, rows), rows)

    def note(self, queries: torch.Tensor) -> str:
        """One sentence: how the bank is searched, and the recall on a sample.

        Args:
            queries: (n, d); `SAMPLE` of them, spread evenly, are also searched exactly.
        """
        chosen = torch.linspace(0, len(queries) - 1, min(SAMPLE, len(queries)), dtype=torch.float64).round().long()
        sample = queries[chosen]
        exact = nearest_in_prefixes(sample, self.bank, [len(self.bank)])[0]
        share = recall(self.nearest(sample), exact)
        kind = "exact up to rounding" if self.neighbours == FLAT else "approximate"
        return (
            f"neighbours: {self.neighbours}: {kind}, on the cpu; {share:.1%} of {len(sample):,} test patches have the "
            "distance of an exact search"
        )


def recall(nearest: Nearest, exact: Nearest) -> float:
    """The share of queries whose distance is the smallest one, up to `TOLERANCE`.

    Args:
        nearest: result of an index.
        exact: result of an exact search for the same queries.
    """
    return float((nearest.distances <= exact.distances * (1 + TOLERANCE)).double().mean())


def _blocks(queries: torch.Tensor) -> Iterator[torch.Tensor]:
    return (queries[first : first + BLOCK] for first in range(0, len(queries), BLOCK))


def _array(tensor: torch.Tensor) -> Any:
    return tensor.detach().cpu().contiguous().numpy()


@contextmanager
def _threads(number: int) -> Iterator[None]:
    import faiss

    before = threads.count()
    faiss.omp_set_num_threads(number)
    try:
        yield
    finally:
        # FAISS and Torch may share one library of threads, and then also its number.
        faiss.omp_set_num_threads(before)


def _flat(vectors: Any) -> Any:
    import faiss

    index = faiss.IndexFlatL2(vectors.shape[1])
    index.add(vectors)
    return index


def _hnsw(vectors: Any) -> Any:
    import faiss

    index = faiss.IndexHNSWFlat(vectors.shape[1], LINKS)
    index.hnsw.efConstruction, index.hnsw.efSearch = BUILD_CANDIDATES, CANDIDATES
    # Several threads would add the rows in another order each time.
    with _threads(1):
        index.add(vectors)
    return index


def _ivf(vectors: Any) -> Any:
    import faiss

    size, width = vectors.shape
    lists = min(int(4 * sqrt(size)), size // ROWS_PER_LIST)
    index = faiss.IndexIVFFlat(faiss.IndexFlatL2(width), width, lists)
    index.cp.seed = 0
    index.nprobe = max(PROBES, lists // PROBED_SHARE)
    with _threads(threads.count()):
        index.train(vectors)
        index.add(vectors)
    return index


_BUILDERS: dict[str, Callable[[Any], Any]] = {FLAT: _flat, HNSW: _hnsw, IVF: _ivf}
