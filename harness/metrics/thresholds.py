"""Thresholds of F1Score, computed without the labels of the test images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from harness.metrics.ranking import Ranking
from harness.predictions.decision import Thresholds
from harness.predictions.detection import Predictions


def fix_thresholds(
    policy: Mapping[str, Any], held_out: Predictions | None, validation: Predictions | None = None
) -> Thresholds:
    """Compute the thresholds by the config's `threshold:` block.

    Args:
        policy: the fields of `harness.config.threshold.Threshold`.
        held_out: predictions for held-out normal images; None without such images.
        validation: predictions for labelled images taken out of the test set, for `f1_on_val`.
    """
    fixed = _fixed(policy, held_out, validation)
    normal = validation.part(~validation.labels) if validation is not None else held_out
    if normal is None or not len(normal.scores):
        return fixed
    return replace(fixed, image_scale=_scale(fixed.image, normal.scores), pixel_scale=_scale(fixed.pixel, normal.maps))


def _scale(threshold: float | None, normal: npt.NDArray[np.floating] | None) -> float | None:
    if threshold is None or normal is None:
        return None
    scale = threshold - float(np.median(normal))
    return scale if scale > 0 else None


def _fixed(policy: Mapping[str, Any], held_out: Predictions | None, validation: Predictions | None) -> Thresholds:
    method = policy["method"]
    if method == "fixed":
        return Thresholds(policy["image"], policy["pixel"], "fixed in the config")
    if method == "none":
        return Thresholds(None, None, "none: threshold is none")
    if method == "f1_on_val":
        assert validation is not None
        return _best_f1(validation)
    if held_out is None or not len(held_out.scores):
        return Thresholds(None, None, "none: data.val is 0")
    # "higher" gives the score of an image, so with few images the threshold is the highest score.
    image = float(np.quantile(held_out.scores, policy["quantile"], method="higher"))
    pixel = None if held_out.maps is None else float(np.quantile(held_out.maps, policy["pixel_quantile"]))
    images = len(held_out.scores)
    return Thresholds(image, pixel, f"{images} held-out normal image{'s' if images > 1 else ''}")


def _best_f1(validation: Predictions) -> Thresholds:
    labels = validation.labels
    anomalous, normal = int(labels.sum()), int((~labels).sum())
    pixel = None
    if validation.maps is not None and validation.masks is not None:
        pixel = best_f1_threshold(validation.maps, validation.masks)
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
    ranking = Ranking.of(scores, truth)
    best = int(np.argmax(ranking.tp / (ranking.tp + ranking.fp + ranking.positives)))
    upper = np.unique(scores[truth])[::-1][best]
    below = scores[scores < upper]
    if not len(below):
        return float(np.nextafter(upper, -np.inf, dtype=scores.dtype))
    lower = below.max()
    middle = (upper.astype(np.float64) / 2 + lower.astype(np.float64) / 2).astype(scores.dtype)
    # Two neighbouring floating-point numbers have no middle.
    return float(middle if middle < upper else lower)
