"""Another threshold for a finished run, from its stored scores. Nothing is trained, and the record stays."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from harness.common.errors import ConfigError, StoreError
from harness.metrics.false_alarms import conformal_threshold, images_for
from harness.predictions.decision import ESTIMATED, PROMISED, Thresholds
from harness.results.record import RunRecord
from harness.results.run_folder import AGAIN, RECORD
from harness.results.scores import TestScores, read_calibration, read_scores
from harness.results.thresholds import THRESHOLD, delete_thresholds, write_thresholds


def for_false_alarms(run_folder: Path, record: RunRecord, rate: float) -> Thresholds:
    """The threshold for a rate of false alarms, from the run's calibration scores (conformal).

    Args:
        run_folder: of the run.
        record: of the run.
        rate: share of normal images above the threshold, above 0 and below 1.

    Raises:
        ConfigError: the rate is not between 0 and 1.
        StoreError: the run has no calibration scores, or they are damaged.
    """
    if not 0 < rate < 1:
        raise ConfigError(f"--false-alarms: {rate:g} found; expected a share above 0 and below 1, such as 0.02.")
    of_test = _of_test(run_folder, record)
    calibration = read_calibration(run_folder)
    if calibration is None or not len(calibration.scores):
        raise StoreError(
            f"{run_folder}: no calibration.csv found; expected scores of normal images that did not train the model. "
            "Use threshold.method cross_conformal or held_out, and make the run again with --fresh."
        )
    value, holds = conformal_threshold(calibration.scores, rate)
    images = len(calibration.scores)
    out_of_fold = record.spec["threshold"].get("method") == "cross_conformal"
    return replace(
        of_test,
        image=value,
        image_scale=_scale(value, float(np.median(calibration.scores))),
        fixed_by=f"{images} {'training' if out_of_fold else 'held-out normal'} images, changed after the run",
        false_alarms=holds,
        false_alarms_asked=rate,
        guarantee=ESTIMATED if out_of_fold else PROMISED,
    )


def for_misses(run_folder: Path, record: RunRecord, share: float) -> Thresholds:
    """The largest threshold that misses at most a share of the anomalous test images.

    Args:
        run_folder: of the run.
        record: of the run.
        share: of the anomalous test images, from 0 and below 1.

    Raises:
        ConfigError: the share is out of range.
        StoreError: the run has no scores of anomalous test images.
    """
    if not 0 <= share < 1:
        raise ConfigError(f"--miss: {share:g} found; expected a share from 0 and below 1.")
    thresholds = _of_test(run_folder, record)
    test = _test_scores(run_folder)
    anomalous = np.sort(test.scores[test.labels])
    if not len(anomalous):
        raise StoreError(f"{run_folder}: no anomalous test images found; expected some for --miss. Use --false-alarms.")
    missed = int(np.floor(share * len(anomalous) + 1e-9))
    value = float(np.nextafter(anomalous[missed], -np.inf))
    scale = thresholds.image_scale
    median = None if thresholds.image is None or scale is None else thresholds.image - scale
    return replace(
        thresholds,
        image=value,
        image_scale=None if median is None else _scale(value, median),
        fixed_by=f"{len(anomalous)} anomalous test images, {missed} of them may be below it, changed after the run",
        false_alarms=None,
        false_alarms_asked=None,
        guarantee="",
    )


def change(run_folder: Path, thresholds: Thresholds) -> list[str]:
    """Write the new threshold, and describe it.

    Args:
        run_folder: of the run.
        thresholds: result of `for_false_alarms` or `for_misses`.

    Returns:
        What the threshold does on the run's test images, and what holds for new ones; one sentence each.

    Raises:
        StoreError: the run has no scores, or the file can't be written.
    """
    lines = _sentences(run_folder, thresholds)
    write_thresholds(run_folder, thresholds)
    lines.append(f"{run_folder / THRESHOLD} has it: predict, export, demo and load_model use it.")
    if (run_folder / "exported").is_dir():
        lines.append("Exported models of this run keep their threshold. Export again for the new one.")
    return lines


def reset(run_folder: Path) -> str:
    """Go back to the threshold of the test.

    Args:
        run_folder: of the run.

    Returns:
        A sentence on what happened.

    Raises:
        StoreError: the file can't be removed.
    """
    if delete_thresholds(run_folder):
        return f"{run_folder / THRESHOLD} removed: the threshold of the test holds again."
    return f"{run_folder}: the threshold was not changed; that of the test holds."


def _sentences(run_folder: Path, thresholds: Thresholds) -> list[str]:
    assert thresholds.image is not None
    test = _test_scores(run_folder)
    alarms, missed = test.scores[~test.labels] > thresholds.image, test.scores[test.labels] <= thresholds.image
    lines = [
        f"Threshold {thresholds.image:.6g}, from {thresholds.fixed_by}.",
        f"On the test images: false alarms on {alarms.sum()} of {len(alarms)} normal ones, "
        f"{missed.sum()} of {len(missed)} anomalous ones missed.",
    ]
    rate, target = thresholds.false_alarms, thresholds.false_alarms_asked
    if rate is None:
        lines.append("These images chose the threshold, so new images have more errors.")
    elif target is not None:
        lines.append(f"The {thresholds.guarantee} rate of false alarms on new normal images is {rate:.3g}.")
        if rate > target:
            lines.append(f"The rate asked for is {target:g}: it needs {images_for(target)} normal images.")
    return lines


def _of_test(run_folder: Path, record: RunRecord) -> Thresholds:
    if record.task != "detection":
        raise StoreError(
            f"{run_folder}: a run of {record.task} found; expected a detector. Only detectors have a threshold."
        )
    try:
        return Thresholds.from_dict(record.thresholds)
    except ValueError as error:
        raise StoreError(f"{run_folder / RECORD}: damaged ({error}). {AGAIN}") from error


def _test_scores(run_folder: Path) -> TestScores:
    scores = read_scores(run_folder)
    if scores is None:
        raise StoreError(f"{run_folder}: no scores.csv found; expected one. {AGAIN}")
    return scores


def _scale(value: float, median: float) -> float | None:
    """Distance of the threshold from the median of normal scores, for normalised scores."""
    return value - median if value > median else None
