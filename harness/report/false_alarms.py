"""False alarms: the rate that a threshold was fixed for, and the rate on the test images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from harness.metrics.false_alarms import images_for
from harness.results.record import RunRecord

EXPECTED, GUARANTEE, ON_TEST = "false_alarms_expected", "false_alarms_guarantee", "false_alarms_on_test"


def false_alarms(records: Sequence[RunRecord]) -> dict[str, Any]:
    """The rates of false alarms on normal images, by column.

    Args:
        records: one run, or the runs of a configuration. Their rates are averaged.

    Returns:
        The largest expected rate, whether it is promised or estimated, and the rate on the normal test images. A value
        that a run does not have is None.
    """
    guarantees = dict.fromkeys(str(record.thresholds.get("guarantee") or "") for record in records)
    return {
        EXPECTED: _mean([record.thresholds.get("false_alarms") for record in records]),
        GUARANTEE: ", ".join(filter(None, guarantees)) or None,
        ON_TEST: _mean([_on_test(record) for record in records]),
    }


def rate_sentence(records: Sequence[RunRecord]) -> str:
    """The rate of false alarms on new normal images, with its guarantee; empty where it is unknown.

    Args:
        records: the runs of a configuration. Their rates are averaged.
    """
    rates = false_alarms(records)
    if rates[EXPECTED] is None:
        return ""
    return f"On new normal images at most {100 * rates[EXPECTED]:.2g}% false alarms are {rates[GUARANTEE]}."


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known and len(known) == len(values) else None


def _on_test(record: RunRecord) -> float | None:
    alarms = record.metrics.get("image_FalsePositives")
    normal = record.data.get("test", 0) - record.data.get("test_anomalous", 0)
    return None if alarms is None or not normal else float(alarms) / float(normal)


def threshold_notices(records: Sequence[RunRecord]) -> list[str]:
    """A sentence if runs have no threshold, and one for each method if few images fixed it."""
    return [*_without(records), *_few_for_the_rate(records), *_few_for_the_quantile(records)]


def _without(records: Sequence[RunRecord]) -> list[str]:
    policies = [(record.spec["threshold"].get("method"), record.data["val"]) for record in records]
    without = sum(method in {"normal_quantile", "held_out"} and not val for method, val in policies)
    if not without:
        return []
    return [
        f"NO THRESHOLD in {without} of {len(records)} runs: data.val is 0, so no normal images are held out to fix "
        "one. F1Score, precision and recall are blank."
    ]


def _few_for_the_rate(records: Sequence[RunRecord]) -> list[str]:
    fixed = [record.thresholds for record in records if record.thresholds.get("false_alarms") is not None]
    few = [thresholds for thresholds in fixed if thresholds["false_alarms"] > thresholds["false_alarms_asked"]]
    if not few:
        return []
    worst = max(few, key=lambda thresholds: float(thresholds["false_alarms"]))
    images, target = round(1 / worst["false_alarms"]) - 1, worst["false_alarms_asked"]
    return [
        f"MORE FALSE ALARMS than asked in {len(few)} of {len(records)} runs: {images} normal "
        f"image{'s' if images > 1 else ''} can fix a threshold for 1 false alarm on {images + 1} normal images "
        f"({worst['guarantee']}). A rate of {target:.3g} needs {images_for(target)} images."
    ]


def _few_for_the_quantile(records: Sequence[RunRecord]) -> list[str]:
    policies = [(record.spec["threshold"], record.data["val"]) for record in records]
    by_quantile = [(policy["quantile"], val) for policy, val in policies if policy.get("method") == "normal_quantile"]
    few = [val for quantile, val in by_quantile if val and val * (1 - quantile) < 1]
    if not few:
        return []
    images = min(few)
    return [
        f"The thresholds of {len(few)} of {len(records)} runs are the highest of {images} held-out normal "
        f"image{'s' if images > 1 else ''}: expect false alarms on about 1 in {images + 1} normal images."
    ]
