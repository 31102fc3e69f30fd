"""The best trial of a search on images that no trial saw: held-out test images, or the test set of a classification."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from harness.backends.base import TEST_IMAGES
from harness.common.errors import StoreError
from harness.metrics.macro_f1 import macro_f1_interval
from harness.predictions.classification import ClassPredictions
from harness.report.configurations import Configuration
from harness.report.facts import INTERVAL
from harness.report.results import Results
from harness.report.standings import interval
from harness.results.record import RunRecord
from harness.results.scores import HOLDOUT

ON_TEST = "test_"  # metrics of a classification on its test set
MACRO_F1 = "test_macro_F1"


@dataclass(frozen=True)
class Unseen:
    """A metric on images that no trial saw.

    Attributes:
        metric: its name.
        value: mean over seeds and categories.
        images: number of images, of all categories.
        kind: `held-out` or `test`.
        interval: 95% confidence interval; None where there is none.
        validated: whether the backend used these images for validation, as anomalib did in earlier versions.
    """

    metric: str
    value: float
    images: int
    kind: str
    interval: tuple[float, float] | None = None
    validated: bool = False

    @property
    def place(self) -> str:
        """Where the metric was measured."""
        return f"on the {self.images} {self.kind} images" + ("" if self.validated else " that no trial saw")

    def __str__(self) -> str:
        low_high = f" (95%: {self.interval[0]:.3f} to {self.interval[1]:.3f})" if self.interval else ""
        return f"{self.value:.3f}{low_high} {self.place}"


def unseen(results: Results, runs: Sequence[RunRecord], metric: str) -> Unseen | None:
    """The metric of a trial on images that no trial saw.

    Args:
        results: of the result folder.
        runs: of the trial.
        metric: of the search.

    Returns:
        The metric; None without such images, or where the metric is undefined on them.
    """
    if not runs:
        return None
    if runs[0].task == "classification":
        return _on_test_set(results, runs, metric)
    return _on_held_out_images(results, runs, metric)


def _on_held_out_images(results: Results, runs: Sequence[RunRecord], metric: str) -> Unseen | None:
    details = [results.details(run.run_id).get("holdout") for run in runs]
    tested = [_as_tested(run, one) for run, one in zip(runs, details, strict=True) if one is not None]
    if len(tested) < len(runs):
        return None
    configuration = Configuration("", tuple(tested))
    value = configuration.metric(metric)
    if value is None:
        return None
    ends = interval(results, configuration, HOLDOUT) if metric == INTERVAL else _of_single(tested, metric)
    # All seeds of a category are tested on the same images.
    images = {run.spec["category"]: one["images"] for run, one in zip(runs, details, strict=True) if one is not None}
    # Since TEST_IMAGES_OF_TRIALS exists, no run of a search has TEST_IMAGES.
    validated = any(run.data.get("validation") == TEST_IMAGES for run in runs)
    return Unseen(metric, value, sum(images.values()), "held-out", ends, validated)


def _as_tested(run: RunRecord, holdout: Mapping[str, Any]) -> RunRecord:
    """The run with the metrics of its held-out images."""
    return replace(run, metrics=holdout["metrics"], intervals=holdout.get("intervals", {}))


def _of_single(runs: Sequence[RunRecord], metric: str) -> tuple[float, float] | None:
    ends = runs[0].intervals.get(metric) if len(runs) == 1 else None
    return None if ends is None else (ends[0], ends[1])


def _on_test_set(results: Results, runs: Sequence[RunRecord], metric: str) -> Unseen | None:
    if metric.startswith(ON_TEST):
        # The search improved the metric of the test set itself.
        return None
    name = f"{ON_TEST}{metric}" if f"{ON_TEST}{metric}" in runs[0].metrics else MACRO_F1
    value = Configuration("", tuple(runs)).metric(name)
    try:
        predictions = ClassPredictions.load(results.folder.run_folder(runs[0].run_id))
    except StoreError:
        return None
    labelled = predictions.test_truth >= 0
    if value is None or not labelled.any():
        return None
    ends = None
    if name == MACRO_F1 and len(runs) == 1:
        ends = macro_f1_interval(predictions.test_truth, predictions.test_predicted, len(predictions.labels))
    return Unseen(name, value, int(labelled.sum()), "test", ends)
