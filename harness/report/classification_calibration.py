"""Calibration of classifications: the temperature, the calibration error, and the reliability diagram."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pandas as pd

from harness.metrics.reliability import Reliability
from harness.metrics.temperature import cross_calibrated
from harness.report.classification_results import ClassificationResults

CALIBRATION_CAPTION = (
    "Expected calibration error (ECE) of the best run, before and after the temperature. 0 is best. Out of fold, a "
    "temperature from other images calibrates each image. Test images have the temperature of the run."
)


@dataclass(frozen=True)
class BeforeAfter:
    """The reliability before and after calibration.

    Attributes:
        raw: before.
        calibrated: after.
    """

    raw: Reliability
    calibrated: Reliability


def reliability(classification: ClassificationResults, run_id: str) -> BeforeAfter:
    """The reliability of a run's out-of-fold predictions.

    Args:
        classification: results of a folder.
        run_id: the run.
    """
    predictions = classification.predictions(run_id)
    predicted, truth = predictions.predicted, predictions.truth
    return classification.results.once(
        ("reliability", run_id),
        lambda: BeforeAfter(
            Reliability.of(predictions.probabilities, predicted, truth),
            Reliability.of(cross_calibrated(predictions.probabilities, truth), predicted, truth),
        ),
    )


def reliability_on_test(classification: ClassificationResults, run_id: str) -> BeforeAfter:
    """The reliability of a run's test predictions; without bins where no test image has a label.

    Args:
        classification: results of a folder.
        run_id: the run.
    """
    predictions, temperature = classification.predictions(run_id), classification.temperature(run_id)
    raw, predicted, truth = predictions.test_probabilities, predictions.test_predicted, predictions.test_truth
    return BeforeAfter(Reliability.of(raw, predicted, truth), Reliability.of(temperature.apply(raw), predicted, truth))


def calibration_table(classification: ClassificationResults) -> pd.DataFrame:
    """A row for each configuration: temperature and calibration error of its best run."""
    rows: list[dict[str, Any]] = []
    for configuration in classification.configurations:
        run_id = configuration.best_run
        temperature = classification.temperature(run_id)
        own, test = reliability(classification, run_id), reliability_on_test(classification, run_id)
        rows.append({
            "configuration": configuration.name,
            "temperature": temperature.value,
            "calibration_images": temperature.images,
            "ECE_raw": own.raw.error,
            "ECE_calibrated": own.calibrated.error,
            "test_ECE_raw": test.raw.error,
            "test_ECE_calibrated": test.calibrated.error,
            "labelled_test_images": test.raw.images or None,
            "note": temperature.note or None,
        })  # fmt: skip
    frame = pd.DataFrame(rows)
    return frame.drop(columns=[name for name in frame if frame[name].isna().all()])


def calibration_sentence(classification: ClassificationResults, run_id: str) -> str:
    """The calibration of a run in words.

    Args:
        classification: results of a folder.
        run_id: the run.
    """
    sentence = classification.temperature(run_id).sentence
    text = f"{sentence[0].upper()}{sentence[1:]}."
    own, test = reliability(classification, run_id), reliability_on_test(classification, run_id)
    for where, calibration in (("out of fold", own), (f"on {test.raw.images} labelled test images", test)):
        if calibration.raw.error is not None:
            text += (
                f" The expected calibration error {where} is {calibration.raw.error:.3f} for raw probabilities, and "
                f"{calibration.calibrated.error:.3f} after calibration."
            )
    return text


def diagram(classification: ClassificationResults, run_id: str) -> dict[str, list[dict[str, float]]]:
    """The bins of the reliability diagram, out of fold, before and after calibration.

    Args:
        classification: results of a folder.
        run_id: the run.

    Returns:
        The bins under `raw` and `calibrated`, the smallest probability first; see `harness.metrics.reliability`.
    """
    before_after = reliability(classification, run_id)
    return {
        name: [{key: round(value, 5) for key, value in vars(one).items()} for one in side.bins]
        for name, side in (("raw", before_after.raw), ("calibrated", before_after.calibrated))
    }
