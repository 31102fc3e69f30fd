"""The way in: what a backend predicted -> thresholds, figures, intervals, figures of each type of defect."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from harness import registry
from harness.metrics import regions
from harness.metrics.curves import curves
from harness.metrics.intervals import intervals
from harness.metrics.ranking import Ranking, measure
from harness.metrics.thresholds import fix_thresholds
from harness.metrics.validation import validation_part
from harness.predictions.decision import Thresholds
from harness.predictions.detection import Predictions

FPR_LIMIT = 0.3


@dataclass(frozen=True)
class Evaluation:
    """All that is said of one run.

    Attributes:
        test: the predictions that the figures are about.
        validation: those taken out of the test set to fix the thresholds; None where none were.
        held_out: those for held-out normal images; None where there are none.
        thresholds: fixed before the labels of `test` were looked at.
        metrics: `<level>_<name>` -> value, None where undefined.
        intervals: 95%, by the name of the metric.
        defects: one entry a type of defect.
        curves: points of each level's curves, for drawing.
    """

    test: Predictions
    validation: Predictions | None
    held_out: Predictions | None
    thresholds: Thresholds
    metrics: dict[str, float | None]
    intervals: dict[str, tuple[float, float]]
    defects: list[dict[str, Any]]
    curves: dict[str, dict[str, list[float]]]


def evaluate_predictions(
    test: Predictions, held_out: Predictions | None, policy: Mapping[str, Any], fpr_limit: float = FPR_LIMIT
) -> Evaluation:
    """Fix the thresholds, then measure.

    Args:
        test: predictions for all test images; `f1_on_val` takes some out of them.
        held_out: predictions for held-out normal images.
        policy: the fields of `harness.config.threshold.Threshold`.
        fpr_limit: largest false positive rate that counts for AUPRO.
    """
    test, validation, thresholds = _fixed(test, held_out, policy)
    levels = rankings(test, thresholds, fpr_limit)
    return Evaluation(
        test=test,
        validation=validation,
        held_out=held_out,
        thresholds=thresholds,
        metrics=_values(levels),
        intervals=intervals(test.scores, test.labels, thresholds.image),
        defects=_defects(test, thresholds),
        curves={level: curves(ranking) for level, ranking in levels.items()},
    )


def metrics_of(
    test: Predictions, held_out: Predictions | None, policy: Mapping[str, Any], fpr_limit: float = FPR_LIMIT
) -> dict[str, float | None]:
    """The metrics of `judge`, and nothing else of it."""
    test, _, thresholds = _fixed(test, held_out, policy)
    return evaluate(test, thresholds, fpr_limit)


def _fixed(
    test: Predictions, held_out: Predictions | None, policy: Mapping[str, Any]
) -> tuple[Predictions, Predictions | None, Thresholds]:
    """The test without what fixes the thresholds, that, and the thresholds."""
    validation = None
    if policy["method"] == "f1_on_val":
        chosen = validation_part(test.samples, policy["share"], policy["seed"])
        validation, test = test.part(chosen), test.part(~chosen)
    return test, validation, fix_thresholds(policy, held_out, validation)


def evaluate(test: Predictions, thresholds: Thresholds, fpr_limit: float = FPR_LIMIT) -> dict[str, float | None]:
    """`image_<name>` and `pixel_<name>` for every metric; None where it is undefined, never 0 by accident."""
    return _values(rankings(test, thresholds, fpr_limit))


def rankings(test: Predictions, thresholds: Thresholds, fpr_limit: float = FPR_LIMIT) -> dict[str, Ranking]:
    """By level: image, and pixel where there are maps and masks."""
    levels = {"image": Ranking.of(test.scores, test.labels, thresholds.image)}
    if test.maps is not None and test.masks is not None:
        weights = regions.weights(test.masks)
        levels["pixel"] = Ranking.of(test.maps, test.masks, thresholds.pixel, weights, fpr_limit)
    return levels


def _values(levels: Mapping[str, Ranking]) -> dict[str, float | None]:
    values: dict[str, float | None] = {}
    for level in dict.fromkeys(metric.level for metric in registry.METRICS):
        blank = {metric.key: np.nan for metric in registry.METRICS if metric.level == level}
        found = measure(level, levels[level]) if level in levels else blank
        values |= {name: None if np.isnan(value) else float(value) for name, value in found.items()}
    return values


def _defects(test: Predictions, thresholds: Thresholds) -> list[dict[str, Any]]:
    """Each type of defect against all normal images: how many images, how many missed, image AUROC."""
    types = np.array([sample.defect for sample in test.samples])
    found = []
    for defect in sorted(set(types[test.labels])):
        chosen = ~test.labels | (types == defect)
        ranking = Ranking.of(test.scores[chosen], test.labels[chosen], thresholds.image)
        values = _values({"image": ranking})
        found.append({
            "defect": str(defect),
            "images": ranking.positives,
            "missed": None if ranking.tp_at is None else int(ranking.positives - ranking.tp_at),
            **{name: values[name] for name in ("image_AUROC", "image_AP")},
        })  # fmt: skip
    return found
