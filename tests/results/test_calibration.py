"""calibration.csv: written with a run, read back, and its faults told."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from harness.common.errors import StoreError
from harness.data.samples import Sample
from harness.predictions.detection import Predictions
from harness.results.scores import CALIBRATION, calibration_csv, read_calibration

NAMES = ("train/good/0.png", "train/good/=1.png")


def test_scores_are_read_back_exactly(tmp_path: Path) -> None:
    samples = tuple(Sample(f"/data/{name}", name, 0, "good") for name in NAMES)
    scores = np.array([0.1, 1 / 3])
    (tmp_path / CALIBRATION).write_text(calibration_csv(Predictions(samples, scores, None, None)))
    stored_scores = read_calibration(tmp_path)
    assert stored_scores is not None
    assert stored_scores.names == NAMES
    assert stored_scores.scores.tolist() == scores.tolist()


def test_a_run_without_the_file(tmp_path: Path) -> None:
    assert read_calibration(tmp_path) is None


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("path\na.png\n", "no column score found"),
        ("path,score\na.png,1\nb.png,many\n", "row 3: ValueError"),
        ("path,score\n../b.png,1\n", "row 2: ValueError: image '../b.png' found"),
        ("path,score\nb.png\n", "row 2: IndexError"),
    ],
)
def test_a_damaged_file(tmp_path: Path, text: str, part: str) -> None:
    (tmp_path / CALIBRATION).write_text(text)
    with pytest.raises(StoreError, match=r"calibration\.csv: damaged") as caught:
        read_calibration(tmp_path)
    assert part in str(caught.value)
    assert "Remove the run's folder" in str(caught.value)
