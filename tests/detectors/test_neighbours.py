"""Nearest neighbours in a bank and in its prefixes, beside the distances to all rows in double precision."""

from __future__ import annotations

import pytest
import torch

from harness.detectors.neighbours import BANK, CHUNK, QUERIES, nearest_in_prefixes


def drawn(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


@pytest.mark.parametrize("rows", [1, 5, BANK - 1, BANK, BANK + 1, 2 * BANK + 700])
def test_each_prefix_has_its_nearest_row(rows: int) -> None:
    queries, bank = drawn(QUERIES + 30, 9), drawn(rows, 9)
    candidates = {1, 2, CHUNK - 1, CHUNK, CHUNK + 1, BANK - 1, BANK, BANK + 1, BANK + CHUNK, 2 * BANK, rows}
    sizes = sorted(size for size in candidates if size <= rows)
    reported: list[int] = []
    together = nearest_in_prefixes(queries, bank, sizes, lambda size, _: reported.append(size))
    assert reported == sizes
    distances = torch.cdist(queries.double(), bank.double())
    for size, nearest in zip(sizes, together, strict=True):
        smallest = distances[:, :size].min(dim=1)
        torch.testing.assert_close(nearest.distances.double(), smallest.values, rtol=1e-5, atol=1e-5)
        assert torch.equal(nearest.rows, smallest.indices)
        # What one prefix says depends on no other.
        assert torch.equal(nearest.rows, nearest_in_prefixes(queries, bank, [size])[0].rows)


def test_the_first_of_equal_rows_is_the_nearest() -> None:
    bank = drawn(BANK, 6).repeat(2, 1)
    queries = bank[[3, CHUNK + 3, BANK - 1]]
    nearest = nearest_in_prefixes(queries, bank, [len(bank)])[0]
    assert nearest.rows.tolist() == [3, CHUNK + 3, BANK - 1]
    assert nearest.distances.tolist() == [0, 0, 0]


def test_strides_of_the_queries_do_not_matter() -> None:
    columns, bank = drawn(12, 70), drawn(50, 12)
    expected = nearest_in_prefixes(columns.T.contiguous(), bank, [50])[0]
    strided = nearest_in_prefixes(columns.T, bank, [50])[0]
    assert torch.equal(strided.distances, expected.distances)
