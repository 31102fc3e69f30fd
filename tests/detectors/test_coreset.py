"""The greedy selection is exact: the same as the plain O(n m d) loop, whatever the data."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.common.errors import PredictionsError
from harness.detectors import coreset
from harness.detectors.coreset import KCenter, Order, k_center, start_row

Floats = npt.NDArray[np.float32]


def plain(x: Floats, size: int, start: int) -> Order:
    """Each point in turn that is farthest from those chosen, in double precision."""
    points = x.astype(np.float64)
    nearest = np.square(points - points[start]).sum(1)
    rows, radii = [start], [np.inf]
    while len(rows) < size and nearest.max() > 0:
        rows.append(int(nearest.argmax()))
        radii.append(float(np.sqrt(nearest.max())))
        nearest = np.minimum(nearest, np.square(points - points[rows[-1]]).sum(1))
    return Order(np.array(rows), np.array(radii, np.float32))


def make(kind: str, n: int, d: int, seed: int) -> Floats:
    rng = np.random.default_rng(seed)
    points = {
        "random": lambda: rng.standard_normal((n, d)),
        "clustered": lambda: 0.01 * rng.standard_normal((n, d)) + 5 * rng.integers(0, 4, (n, 1)),
        "duplicates": lambda: rng.integers(0, 3, (n, d)),
        "far from the origin": lambda: rng.standard_normal((n, d)) + 100,
        "one direction": lambda: rng.standard_normal((n, 1)) * np.linspace(1, 2, d),
        "one outlier": lambda: np.where(np.arange(n)[:, None] == n // 2, 1e4, rng.standard_normal((n, d))),
        "all equal": lambda: np.full((n, d), 3.0),
    }[kind]()
    return np.asarray(points, np.float32)


KINDS = ["random", "clustered", "duplicates", "far from the origin", "one direction", "one outlier", "all equal"]


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=15, deadline=None)
@given(n=st.integers(1, 1500), d=st.integers(1, 70), share=st.floats(0.01, 1), seed=st.integers(0, 99))
def test_same_covering_radius_at_every_prefix_as_the_plain_loop(
    kind: str, n: int, d: int, share: float, seed: int
) -> None:
    x = make(kind, n, d, seed)
    size, start = max(1, int(n * share) // 2), seed % n
    ours, theirs = k_center(x, size, start), plain(x, size, start)
    assert ours.rows[0] == start
    assert len(set(ours.rows.tolist())) == len(ours.rows)
    assert len(ours.rows) == len(theirs.rows)
    np.testing.assert_allclose(ours.radii, theirs.radii, rtol=1e-5)
    # What it says of itself is true: each chosen point is that far from those before it.
    points = x.astype(np.float64)
    for position in range(1, len(ours.rows), max(1, len(ours.rows) // 10)):
        distances = np.linalg.norm(points[ours.rows[:position]] - points[ours.rows[position]], axis=1)
        np.testing.assert_allclose(ours.radii[position], distances.min(), rtol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_the_accelerators_algorithm_chooses_alike(kind: str) -> None:
    x = make(kind, 600, 24, seed=3)
    engine = coreset._Torch(torch.from_numpy(x), 7)
    engine.extend(60)
    ours = k_center(x, 60, 7)
    np.testing.assert_allclose(engine.radii, ours.radii, rtol=1e-5)


def test_the_start_is_a_point_not_a_place() -> None:
    x = make("random", 500, 8, seed=0)
    shuffled = np.random.default_rng(1).permutation(500)
    starts = set()
    for seed in range(5):
        start = start_row(torch.from_numpy(x), seed)
        assert shuffled[start_row(torch.from_numpy(x[shuffled]), seed)] == start
        starts.add(start)
    assert len(starts) > 2


def test_ties_go_to_the_lowest_row() -> None:
    x = np.array([[0.0], [1.0], [-1.0], [1.0], [-1.0]], np.float32)
    assert k_center(x, 5, 0).rows.tolist() == [0, 1, 2]
    engine = coreset._Torch(torch.from_numpy(x), 0)
    engine.extend(5)
    assert engine.rows.tolist() == [0, 1, 2]


def test_a_small_coreset_is_the_first_part_of_a_large_one() -> None:
    x = make("random", 2000, 30, seed=0)
    large = k_center(x, 400, 5)
    assert k_center(x, 50, 5).rows.tolist() == large.rows[:50].tolist()


def test_going_on_from_an_earlier_selection_changes_nothing() -> None:
    x = torch.from_numpy(make("clustered", 2000, 30, seed=0))
    whole = KCenter(x, 5).extend(300)
    in_steps = KCenter(x, 5)
    in_steps.extend(7)
    assert in_steps.extend(300).rows.tolist() == whole.rows.tolist()
    first = Order(whole.rows[:100], whole.radii[:100])
    resumed = KCenter(x, 5, initial=first).extend(300)
    assert resumed.rows.tolist() == whole.rows.tolist()
    assert resumed.radii.tolist() == whole.radii.tolist()
    engine = coreset._Torch(x, 5)
    engine.adopt(first)
    engine.extend(300)
    assert engine.rows.tolist() == whole.rows.tolist()


def test_the_number_of_threads_does_not_matter() -> None:
    x = make("random", 5000, 40, seed=1)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        standalone_seconds = k_center(x, 500, 0)
        torch.set_num_threads(2)
        together = k_center(x, 500, 0)
    finally:
        torch.set_num_threads(before)
    assert standalone_seconds.rows.tolist() == together.rows.tolist()
    assert standalone_seconds.radii.tolist() == together.radii.tolist()


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e30])
def test_what_is_no_number_is_named(value: float) -> None:
    x = make("random", 100, 8, seed=0)
    x[42, 3] = value
    with pytest.raises(PredictionsError, match="patch 42"):
        k_center(x, 10, 0)
    with pytest.raises(PredictionsError, match="patch 42"):
        coreset._Torch(torch.from_numpy(x), 0)


def test_progress_is_told_and_may_interrupt() -> None:
    counts: list[int] = []
    KCenter(torch.from_numpy(make("random", 6000, 4, seed=0)), 0).extend(5000, counts.append)
    assert len(counts) == 3
    assert counts[-1] == 5000


@pytest.mark.slow
def test_the_threads_of_torch_stay_as_they_are() -> None:
    """In a process of its own, where Numba has not started its threads yet."""
    code = (
        "import torch; torch.set_num_threads(1)\n"
        "from harness.detectors.coreset import k_center\n"
        "k_center(torch.rand(99, 8), 9)\n"
        "print(torch.get_num_threads())"
    )
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert process.stdout.strip() == "1"
