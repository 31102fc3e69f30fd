"""Thresholds of F1Score, computed without the labels of the test images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from harness.metrics.false_alarms import conformal_threshold
from harness.metrics.order import quantile_of_maps
from harness.metrics.pixel_ranking import anomalous_scores, normal_scores
from harness.metrics.ranking import Ranking
from harness.predictions.decision import ESTIMATED, PROMISED, Thresholds
from harness.predictions.detection import Predictions
from harness.predictions.pairs import counted, measurable, resized_maps


def fix_thresholds(
    policy: Mapping[str, Any], calibration: Predictions | None, validation: Predictions | None = None
) -> Thresholds:
    """Compute the thresholds by the config's `threshold:` block.

    Args:
        policy: the fields of `harness.config.threshold.Threshold`.
        calibration: predictions for normal images, each by a model that did not learn from the image: out-of-fold
            predictions for `cross_conformal`, else for held-out images. None without such images.
        validation: predictions for labelled images taken out of the test set, for `f1_on_val`.
    """
    fixed = _fixed(policy, calibration, validation)
    normal = validation.part(~validation.labels) if validation is not None else calibration
    if normal is None or not len(normal.scores):
        return fixed
    pixel_median = None if fixed.pixel is None or normal.maps is None else quantile_of_maps(normal.maps, 0.5)
    return replace(
        fixed,
        image_scale=_scale(fixed.image, float(np.median(normal.scores))),
        pixel_scale=_scale(fixed.pixel, pixel_median),
    )


def _scale(threshold: float | None, median: float | None) -> float | None:
    if threshold is None or median is None:
        return None
    scale = threshold - median
    return scale if scale > 0 else None


def _fixed(policy: Mapping[str, Any], calibration: Predictions | None, validation: Predictions | None) -> Thresholds:
    method = policy["method"]
    if method == "fixed":
        return Thresholds(policy["image"], policy["pixel"], "fixed in the config")
    if method == "none":
        return Thresholds(None, None, "none: threshold is none")
    if method == "f1_on_val":
        assert validation is not None
        return _best_f1(validation)
    if calibration is None or not len(calibration.scores):
        images = "no out-of-fold scores" if method == "cross_conformal" else "data.val is 0"
        return Thresholds(None, None, f"none: {images}")
    pixel = None if calibration.maps is None else quantile_of_maps(calibration.maps, policy["pixel_quantile"])
    if method == "normal_quantile":
        # "higher" gives the score of an image, so with few images the threshold is the highest score.
        image = float(np.quantile(calibration.scores, policy["quantile"], method="higher"))
        return Thresholds(image, pixel, _held_out_images(calibration))
    return _conformal(policy, calibration, pixel)


def _conformal(policy: Mapping[str, Any], calibration: Predictions, pixel: float | None) -> Thresholds:
    image, rate = conformal_threshold(calibration.scores, policy["false_alarms"])
    images = len(calibration.scores)
    if policy["method"] == "cross_conformal":
        fixed_by, guarantee = f"{images} training images in {min(policy['folds'], images)} folds", ESTIMATED
    else:
        fixed_by, guarantee = _held_out_images(calibration), PROMISED
    return Thresholds(
        image,
        pixel,
        fixed_by,
        false_alarms=rate,
        false_alarms_asked=policy["false_alarms"],
        guarantee=guarantee,
    )


def _held_out_images(calibration: Predictions) -> str:
    images = len(calibration.scores)
    return f"{images} held-out normal image{'s' if images > 1 else ''}"


def _best_f1(validation: Predictions) -> Thresholds:
    labels = validation.labels
    anomalous, normal = int(labels.sum()), int((~labels).sum())
    pixel = None
    if measurable(validation):
        pixel = _best_pixel_f1(counted(validation))
    fixed_by = f"best F1 on {normal} normal and {anomalous} anomalous images taken out of the test set"
    return Thresholds(best_f1_threshold(validation.scores, labels), pixel, fixed_by)


def best_f1_threshold(scores: npt.NDArray[np.floating], truth: npt.NDArray[np.bool_]) -> float | None:
    """The threshold with the largest F1, in the middle between two scores. The highest one where several are equal.

    Args:
        scores: any shape.
        truth: same shape, True is anomalous.

    Returns:
        The threshold; None where only one class is in the images.
    """
    if truth.all() or not truth.any():
        return None
    upper = _best_score(scores[truth], Ranking.of(scores, truth))
    return _middle(upper, scores[scores < upper])


def _best_pixel_f1(validation: Predictions) -> float | None:
    """The same for the pixels of all images, one image in memory at a time."""
    positives = anomalous_scores(validation)
    ranking = Ranking.of_classes(positives, normal_scores(validation))
    if not (ranking.positives and ranking.negatives):
        return None
    upper = _best_score(positives, ranking)
    highest = [one.max(initial=-np.inf, where=one < upper) for one in resized_maps(validation)]
    below = np.array(highest, positives.dtype)
    return _middle(upper, below[below > -np.inf])


def _best_score(positives: npt.NDArray[np.floating], ranking: Ranking) -> np.floating[Any]:
    """The score of an anomalous image or pixel at or above which F1 is largest."""
    best = int(np.argmax(ranking.tp / (ranking.tp + ranking.fp + ranking.positives)))
    score: np.floating[Any] = np.unique(positives)[::-1][best]
    return score


def _middle(upper: np.floating[Any], below: npt.NDArray[np.floating]) -> float:
    """The middle between a score and the highest score below it."""
    if not len(below):
        return float(np.nextafter(upper, -np.inf, dtype=upper.dtype))
    lower = below.max()
    middle = (upper.astype(np.float64) / 2 + lower.astype(np.float64) / 2).astype(upper.dtype)
    # Two neighbouring floating-point numbers have no middle.
    return float(middle if middle < upper else lower)
