"""Prediction sets and risk-coverage curves of classifications: tables and sentences."""

from __future__ import annotations

from typing import Any

import pandas as pd

from harness.report.classification_results import ClassificationResults

ANSWERED = (0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 0.98, 1.0)
COLUMNS_SHOWN = 24  # configurations, a column each, of the sheet Risk
COVERAGE_CAPTION = (
    "Prediction sets of the best run. A set contains the true label with the promised coverage. A set with one label "
    'is an answer; for other sets the answer is "don\'t know".'
)
RISK_CAPTION = (
    "Share of wrong labels, out of fold, if only the surest images get an answer. A row is the share of images with an "
    "answer."
)


def coverage_table(classification: ClassificationResults) -> pd.DataFrame:
    """A row for each configuration: promised and realised coverage of its best run, and its kinds of sets."""
    promised, rows = classification.coverage[0], []
    for configuration in classification.configurations:
        calibration = classification.calibration(configuration.best_run)
        row: dict[str, Any] = {
            "configuration": configuration.name,
            "promised_coverage": promised,
            "calibration_images": calibration.images,
            "largest_promise": calibration.largest,
        }
        quality = classification.set_quality(configuration.best_run)
        if quality is not None:
            row |= {
                "realised_coverage": quality.realised,
                "realised_low": quality.low,
                "realised_high": quality.high,
                "labelled_test_images": quality.labelled,
                "test_images": quality.images,
                "answers": quality.single,
                "wrong_answers": quality.single_errors,
                "several_labels": quality.several,
                "no_label": quality.empty,
            }
        rows.append(row)
    frame = pd.DataFrame(rows)
    return frame.drop(columns=[name for name in frame if frame[name].isna().all()])


def risk_table(classification: ClassificationResults) -> pd.DataFrame:
    """A row for each share of images with an answer; a column for each configuration, best first."""
    table: dict[str, Any] = {"answered": ANSWERED}
    for configuration in classification.configurations[:COLUMNS_SHOWN]:
        values = classification.risk(configuration.best_run).at(ANSWERED)
        table[configuration.label] = [value[0] if value else None for value in values]
    return pd.DataFrame(table) if len(table) > 1 else pd.DataFrame()


def coverage_sentences(classification: ClassificationResults) -> list[str]:
    """The prediction sets of the best configuration in words, for each data set."""
    groups = classification.results.configurations.values()
    return [coverage_sentence(classification, group[0].best_run) for group in groups]


def coverage_sentence(classification: ClassificationResults, run_id: str) -> str:
    """The prediction sets of a run in words.

    Args:
        classification: results of a folder.
        run_id: the run.
    """
    promised, calibration = classification.coverage[0], classification.calibration(run_id)
    if not calibration.enough(promised):
        return (
            f"Prediction sets: a coverage of {promised:g} is promised, but {calibration.images} out-of-fold images "
            f"allow at most {calibration.largest:.3g}. So each set has all labels. Lower `coverage`, or train with "
            "more images."
        )
    text = f"Prediction sets: promised coverage {promised:g}, from {calibration.images} out-of-fold images."
    quality = classification.set_quality(run_id)
    if quality is None:
        return f"{text} There are no test images."
    text += f' {quality.single:.0%} of {quality.images} test images get an answer, the others "don\'t know".'
    if quality.realised is None:
        return f"{text} No test image has a label, so the realised coverage is not known."
    return (
        f"{text} The realised coverage is {quality.realised:.3f} on {quality.labelled} labelled images "
        f"(95%: {quality.low:.3f} to {quality.high:.3f})."
    )
