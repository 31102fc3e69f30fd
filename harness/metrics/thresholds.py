"""Thresholds behind F1Score, fixed before the test labels are looked at."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from harness.predictions import Predictions


@dataclass(frozen=True)
class Thresholds:
    """In raw scores; what is above is anomalous.

    Attributes:
        image, pixel: None where none is fixed.
        fixed_by: which samples chose them, for the sheet.
    """

    image: float | None
    pixel: float | None
    fixed_by: str


def fix_thresholds(policy: Mapping[str, Any], val: Predictions | None) -> Thresholds:
    """Apply `threshold:` to the predictions for held-out normal images.

    Args:
        policy: the fields of `harness.config.Threshold`.
        val: predictions for held-out normal images, None where there are none.
    """
    method = policy["method"]
    if method == "fixed":
        return Thresholds(policy["image"], policy["pixel"], "fixed in the config")
    if method == "none":
        return Thresholds(None, None, "none: threshold is none")
    if val is None or not len(val.scores):
        return Thresholds(None, None, "none: data.val is 0")
    # "higher" gives a score that was seen, so with few images the threshold is the highest of them.
    image = float(np.quantile(val.scores, policy["quantile"], method="higher"))
    pixel = None if val.maps is None else float(np.quantile(val.maps, policy["pixel_quantile"]))
    return Thresholds(image, pixel, f"{len(val.scores)} held-out normal images")
