"""Nearest neighbours in a bank and in its prefixes, beside the distances to all rows in double precision."""

from __future__ import annotations

import pytest
import torch

from harness.detectors.neighbours import BANK, CHUNK, QUERIES, largest_products_in_prefixes, nearest_in_prefixes


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


@pytest.mark.parametrize("copies_begin", [40, CHUNK + 9, BANK])
def test_the_first_of_equal_rows_is_the_nearest(copies_begin: int) -> None:
    # Equal rows in one chunk, in two chunks of one block, and in two blocks.
    originals = drawn(20, 6)
    bank = drawn(2 * BANK, 6) + 50
    bank[5:25], bank[copies_begin : copies_begin + 20] = originals, originals
    nearest = nearest_in_prefixes(originals, bank, [len(bank)])[0]
    assert nearest.rows.tolist() == list(range(5, 25))
    assert nearest.distances.tolist() == [0] * 20


def test_columns_as_queries_find_the_same_rows() -> None:
    columns, bank = drawn(12, 70), drawn(50, 12)
    nearest = nearest_in_prefixes(columns.T, bank, [50])[0]
    assert torch.equal(nearest.rows, torch.cdist(columns.T.contiguous(), bank).argmin(dim=1))


def test_no_size_has_no_result() -> None:
    assert nearest_in_prefixes(drawn(3, 4), drawn(9, 4), []) == []
    assert largest_products_in_prefixes(drawn(3, 4), drawn(9, 4), [], k=2) == []


def test_equal_sizes_have_equal_results() -> None:
    one, other = nearest_in_prefixes(drawn(3, 4), drawn(9, 4), [6, 6])
    assert torch.equal(one.distances, other.distances)


def test_a_query_that_is_no_number_has_no_distance() -> None:
    queries = drawn(3, 4)
    queries[1, 2] = torch.nan
    nearest = nearest_in_prefixes(queries, drawn(9, 4), [9])[0]
    assert nearest.distances.isnan().tolist() == [False, True, False]
