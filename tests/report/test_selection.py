"""The macro F1 of the best of many, without the bias of the choice."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from harness.predictions.classification import FILE
from harness.report.results import Results
from harness.report.selection import macro_f1_without_bias
from harness.results.store import ResultFolder
from tests.ensemble.written import write_run


def test_the_best_of_many_guesses_is_a_guess() -> None:
    rng = np.random.default_rng(0)
    truth = np.arange(60) % 3
    scores = []
    for k in range(12):
        guesses = np.eye(3)[rng.integers(3, size=60)]
        run = write_run(f"results/guesses/runs/guess-{k}", ["a-x", "b-x", "c-x"], truth.tolist(), guesses, guesses[:1])
        hits = [np.mean(run.predicted[truth == label] == label) for label in range(3)]
        scores.append(float(np.mean(hits)))
    results = Results.of(ResultFolder(Path("results/guesses")))
    members = [[record] for record in results.ok()]
    assert len(members) == 12
    estimate = macro_f1_without_bias(results, members)
    # Chance is a third, and the best of twelve guesses seems to be clearly better.
    assert max(scores) > 0.43
    assert estimate == pytest.approx(1 / 3, abs=0.05)
    (results.folder.run_folder("guess-3") / FILE).unlink()
    assert macro_f1_without_bias(Results.of(results.folder), members) is None
