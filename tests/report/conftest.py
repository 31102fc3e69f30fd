"""Result folders of made-up runs, for tests of what a report makes of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.results.record import RunRecord
from harness.results.store import ResultFolder
from tests.fake_results import fake_run

LABELS = [0] * 20 + [1] * 20
RNG = np.random.default_rng(0)
NOISE = RNG.standard_normal(40)


def scores(shift: float, noise: float = 0.0) -> list[float]:
    """Scores that are the better the larger the shift; with much noise of another kind than the others' have."""
    values: list[float] = (NOISE + noise * RNG.standard_normal(40) + shift * np.array(LABELS)).tolist()
    return values


GOOD, FAIR, POOR = scores(3.0), scores(2.0), scores(0.2)

Run = Callable[..., RunRecord]


@pytest.fixture
def folder(tmp_path: Path) -> ResultFolder:
    """An empty result folder."""
    results = ResultFolder(tmp_path / "made-up")
    results.create()
    return results


@pytest.fixture
def run(folder: ResultFolder) -> Run:
    """Add a run with these scores, and changes to its record."""
    numbers = iter(range(1000))

    def make(values: list[float], labels: list[int] = LABELS, **changes: Any) -> RunRecord:
        return fake_run(folder, f"run-{next(numbers)}", values, labels, **changes)

    return make
