"""Thresholds behind F1Score, fixed before the labels of the test images are looked at."""

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
    """Apply `threshold:`.

    Args:
        policy: the fields of `harness.config.threshold.Threshold`.
        held_out: predictions for held-out normal images, None where there are none.
        validation: predictions for labelled images taken out of the test set, for `f1_on_val`.
    """
    found = _fix(policy, held_out, validation)
    normal = validation.part(~validation.labels) if validation is not None else held_out
    if normal is None or not len(normal.scores):
        return found
    return replace(found, image_scale=_scale(found.image, normal.scores), pixel_scale=_scale(found.pixel, normal.maps))


def _scale(threshold: float | None, normal: npt.NDArray[np.floating] | None) -> float | None:
    if threshold is None or normal is None:
        return None
    scale = threshold - float(np.median(normal))
    return scale if scale > 0 else None


def _fix(policy: Mapping[str, Any], held_out: Predictions | None, validation: Predictions | None) -> Thresholds:
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
    # "higher" gives a score that was seen, so with few images the threshold is the highest of them.
    image = float(np.quantile(held_out.scores, policy["quantile"], method="higher"))
    pixel = None if held_out.maps is None else float(np.quantile(held_out.maps, policy["pixel_quantile"]))
    images = len(held_out.scores)
    return Thresholds(image, pixel, f"{images} held-out normal image{'s' if images > 1 else ''}")


def _best_f1(validation: Predictions) -> Thresholds:
    labels = validation.labels
    bad, good = int(labels.sum()), int((~labels).sum())
    pixel = None
    if validation.maps is not None and validation.masks is not None:
        pixel = best_f1_threshold(validation.maps, validation.masks)
    fixed_by = f"best F1 on {good} normal and {bad} anomalous images taken out of the test set"
    return Thresholds(best_f1_threshold(validation.scores, labels), pixel, fixed_by)


def best_f1_threshold(scores: npt.NDArray[np.floating], truth: npt.NDArray[np.bool_]) -> float | None:
    """The threshold with the largest F1, half-way to the next lower score; the highest of several. None without both.

    Args:
        scores: any shape.
        truth: of the same shape, True is anomalous.
    """
    if truth.all() or not truth.any():
        return None
    ranking = Ranking.of(scores, truth)
    best = int(np.argmax(ranking.tp / (ranking.tp + ranking.fp + ranking.positives)))
    at = np.unique(scores[truth])[::-1][best]
    lower = scores[scores < at]
    if not len(lower):
        return float(np.nextafter(at, -np.inf, dtype=scores.dtype))
    below = lower.max()
    middle = (at.astype(np.float64) / 2 + below.astype(np.float64) / 2).astype(scores.dtype)
    # Between neighbouring numbers there is none.
    return float(middle if middle < at else below)
