"""Evaluation of predictions: thresholds, metrics, confidence intervals and metrics of each type of defect."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from harness import registry
from harness.metrics.curves import curves
from harness.metrics.extra import PixelCase, extra_tables, extra_values
from harness.metrics.intervals import intervals
from harness.metrics.pixel_ranking import pixel_ranking
from harness.metrics.ranking import Ranking, measure
from harness.metrics.synthetic import synthetic_metrics, without_synthetic
from harness.metrics.thresholds import fix_thresholds
from harness.metrics.validation import validation_part
from harness.predictions.decision import Thresholds
from harness.predictions.detection import Predictions
from harness.predictions.pairs import counted, measurable

FPR_LIMIT = 0.3


@dataclass(frozen=True)
class Evaluation:
    """The evaluation of one run.

    Attributes:
        test: predictions for the test images; all metrics are computed from these.
        validation: predictions for the images of the test set that fixed the thresholds; None without such images.
        calibration: predictions for normal images that fixed the thresholds; None without such images.
        synthetic: predictions for synthetic defects; None without such images.
        thresholds: computed without the labels of `test`.
        metrics: `<level>_<name>` -> value, None where undefined; without optional metrics that are undefined.
        intervals: 95% confidence intervals, by the name of the metric.
        defects: one entry for each type of defect.
        curves: points of each level's curves, for plots.
        tables: tables of the metrics of `extra_metrics` for the page of the run, by name.
    """

    test: Predictions
    validation: Predictions | None
    calibration: Predictions | None
    synthetic: Predictions | None
    thresholds: Thresholds
    metrics: dict[str, float | None]
    intervals: dict[str, tuple[float, float]]
    defects: list[dict[str, Any]]
    curves: dict[str, dict[str, list[float]]]
    tables: dict[str, list[dict[str, Any]]]


def evaluate_predictions(
    test: Predictions,
    calibration: Predictions | None,
    policy: Mapping[str, Any],
    fpr_limit: float = FPR_LIMIT,
    extra: Sequence[str] = (),
) -> Evaluation:
    """Fix the thresholds, then compute metrics, intervals and curves.

    Args:
        test: predictions for all test images; `f1_on_val` takes its validation set out of these. Synthetic defects
            leave them first.
        calibration: predictions for normal images; see `harness.metrics.thresholds.fix_thresholds`.
        policy: the fields of `harness.config.threshold.Threshold`.
        fpr_limit: upper limit of the false positive rate in AUPRO.
        extra: names of the metrics of `extra_metrics`.
    """
    test, synthetic = without_synthetic(test)
    test, validation, thresholds = _with_thresholds(test, calibration, policy)
    levels = rankings(test, thresholds, fpr_limit)
    case = _case(test, levels, thresholds, calibration)
    return Evaluation(
        test=test,
        validation=validation,
        calibration=calibration,
        synthetic=synthetic,
        thresholds=thresholds,
        metrics=_values(levels) | _extra(extra, case) | synthetic_metrics(synthetic, calibration),
        intervals=intervals(test.scores, test.labels, thresholds.image),
        defects=_defects(test, thresholds),
        curves={level: curves(ranking) for level, ranking in levels.items()},
        tables={} if case is None else extra_tables(extra, case),
    )


def metrics_of(
    test: Predictions,
    calibration: Predictions | None,
    policy: Mapping[str, Any],
    fpr_limit: float = FPR_LIMIT,
    extra: Sequence[str] = (),
) -> dict[str, float | None]:
    """Fix the thresholds, then compute the metrics only, without intervals and curves.

    Args:
        test: predictions for all test images.
        calibration: predictions for normal images; see `harness.metrics.thresholds.fix_thresholds`.
        policy: the fields of `harness.config.threshold.Threshold`.
        fpr_limit: upper limit of the false positive rate in AUPRO.
        extra: names of the metrics of `extra_metrics`.

    Returns:
        The metrics of `evaluate_predictions`.
    """
    test, _, thresholds = _with_thresholds(test, calibration, policy)
    return evaluate(test, thresholds, fpr_limit, extra, calibration)


def _with_thresholds(
    test: Predictions, calibration: Predictions | None, policy: Mapping[str, Any]
) -> tuple[Predictions, Predictions | None, Thresholds]:
    """The predictions for the remaining test set, for the validation set, and the thresholds."""
    validation = None
    if policy["method"] == "f1_on_val":
        selection = validation_part(test.samples, policy["share"], policy["seed"])
        validation, test = test.part(selection), test.part(~selection)
    return test, validation, fix_thresholds(policy, calibration, validation)


def evaluate(
    test: Predictions,
    thresholds: Thresholds,
    fpr_limit: float = FPR_LIMIT,
    extra: Sequence[str] = (),
    calibration: Predictions | None = None,
) -> dict[str, float | None]:
    """Compute all metrics at fixed thresholds.

    Args:
        test: predictions for the test images.
        thresholds: thresholds of F1, precision, recall and the counts.
        fpr_limit: upper limit of the false positive rate in AUPRO.
        extra: names of the metrics of `extra_metrics`.
        calibration: predictions for normal images, for the metrics of `extra_metrics` with an own threshold.

    Returns:
        `image_<name>` and `pixel_<name>` of every metric; None, and never 0, where the metric is undefined. An optional
        metric that is undefined is missing.
    """
    levels = rankings(test, thresholds, fpr_limit)
    return _values(levels) | _extra(extra, _case(test, levels, thresholds, calibration))


def rankings(test: Predictions, thresholds: Thresholds, fpr_limit: float = FPR_LIMIT) -> dict[str, Ranking]:
    """Count positives and negatives at each threshold.

    Args:
        test: predictions for the test images.
        thresholds: thresholds of the run.
        fpr_limit: upper limit of the false positive rate in AUPRO.

    Returns:
        One ranking for each level: image, and pixel where the predictions have maps and masks.
    """
    levels = {"image": Ranking.of(test.scores, test.labels, thresholds.image)}
    if measurable(test):
        levels["pixel"] = pixel_ranking(counted(test), thresholds.pixel, fpr_limit)
    return levels


def _case(
    test: Predictions, levels: Mapping[str, Ranking], thresholds: Thresholds, calibration: Predictions | None
) -> PixelCase | None:
    """The input of the metrics of `extra_metrics`; None without maps or masks."""
    return PixelCase(counted(test), levels["pixel"], thresholds.pixel, calibration) if "pixel" in levels else None


def _extra(names: Sequence[str], case: PixelCase | None) -> dict[str, float | None]:
    """The defined metrics of `extra_metrics`."""
    values = {} if case is None else extra_values(names, case)
    return {name: value for name, value in values.items() if value is not None}


def _values(levels: Mapping[str, Ranking]) -> dict[str, float | None]:
    values: dict[str, float | None] = {}
    metrics = [metric for metric in registry.METRICS if not metric.on_request]
    for level in dict.fromkeys(metric.level for metric in metrics):
        undefined = {metric.key: np.nan for metric in metrics if metric.level == level}
        of_level = measure(level, levels[level]) if level in levels else undefined
        values |= {name: None if np.isnan(value) else float(value) for name, value in of_level.items()}
    optional = {metric.key for metric in registry.METRICS if metric.optional}
    return {name: value for name, value in values.items() if value is not None or name not in optional}


def _defects(test: Predictions, thresholds: Thresholds) -> list[dict[str, Any]]:
    """Number of images, missed images and metrics of each type of defect, against all normal images."""
    types = np.array([sample.defect for sample in test.samples])
    names = [metric.key for metric in registry.METRICS if metric.by_defect]
    # Only these data have a pixel metric of a type of defect, and a ranking of all pixels takes long.
    saturated = any(sample.saturation for sample in test.samples)
    rows = []
    for defect in sorted(set(types[test.labels])):
        images = ~test.labels | (types == defect)
        ranking = Ranking.of(test.scores[images], test.labels[images], thresholds.image)
        values = _values(rankings(test.part(images), thresholds) if saturated else {"image": ranking})
        rows.append({
            "defect": str(defect),
            "images": ranking.positives,
            "missed": None if ranking.tp_at is None else int(ranking.positives - ranking.tp_at),
            **{name: values[name] for name in names if name in values},
        })  # fmt: skip
    return rows
