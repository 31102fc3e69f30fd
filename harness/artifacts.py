"""What a run's folder holds beside its record: scores.csv, details.json, and the pictures of gallery.py."""

from __future__ import annotations

import json
from pathlib import Path

from harness.gallery import draw_gallery
from harness.metrics.evaluate import Evaluation
from harness.scores import SCORES, scores_csv
from harness.store import DETAILS, write_atomic


def write_artifacts(folder: Path, evaluation: Evaluation) -> None:
    """Write everything that a report needs and the record does not hold."""
    write_atomic(folder / SCORES, scores_csv(evaluation))
    gallery = draw_gallery(folder, evaluation.test, evaluation.thresholds)
    details = {"curves": evaluation.curves, "gallery": gallery}
    write_atomic(folder / DETAILS, json.dumps(details, allow_nan=False))
