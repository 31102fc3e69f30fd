"""Tables of classifications: configurations, runs, folds, labels, confusions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from harness.backends.latency import BUSY
from harness.config.axes import columns
from harness.data.labelled.base import TEST
from harness.metrics.macro_f1 import too_many_singles
from harness.report.classification_results import ClassificationResults
from harness.report.facts import axis_columns, busy, costs, interval_text, parameter, weights_source
from harness.report.notices import (
    busy_notice,
    damaged_notice,
    left_out_notice,
    random_weights_notice,
    unfinished_notice,
)
from harness.results.record import RunRecord

HEADLINE = ("macro_F1", "accuracy", "tail_F1", "class_F1", "state_F1")
MORE = ("plain_macro_F1", "network_macro_F1", "test_macro_F1", "test_accuracy")
LOW, HIGH = "macro_F1_low", "macro_F1_high"
ENDS = "macro_F1 95%"
# Columns of the sheet Summary that are not folded.
IN_SUMMARY = ("configuration", "recommended", *HEADLINE, ENDS, "vs_best", "ms_per_image_p50")
COLUMNS_SHOWN = 24  # configurations, a column each, of the sheet Labels
PAIRS_OF = 8  # configurations whose confusions are listed


def _axis_values(record: RunRecord, axes: Sequence[str]) -> dict[str, Any]:
    # Classification has neither a choice of layers nor several backends.
    values = {name: value for name, value in columns(record.spec).items() if name not in {"backend", "layers"}}
    return {**values, **{axis: parameter(record, axis) for axis in axes}}


def summary_table(classification: ClassificationResults) -> pd.DataFrame:
    """A row for each configuration, best first: metrics out of fold, averaged over seeds, with interval and mark."""
    axes = axis_columns(classification.results.records)
    described = [_axis_values(configuration.first, axes) for configuration in classification.configurations]
    differs = [name for name in described[0] if len({values[name] for values in described}) > 1] if described else []
    rows = []
    for group in classification.results.configurations.values():
        for place, (configuration, standing) in enumerate(zip(group, classification.standings(group), strict=True)):
            ends = classification.interval(configuration)
            values = _axis_values(configuration.first, axes)
            rows.append({
                "configuration": configuration.name,
                "recommended": None if place else "yes",
                **{name: configuration.metric(name) for name in HEADLINE},
                ENDS: interval_text(ends),
                "vs_best": standing.mark or None,
                **{name: configuration.cost(name) for name in ("ms_per_image_p50", "fit_seconds", "model_MB")},
                LOW: ends[0] if ends else None,
                HIGH: ends[1] if ends else None,
                "p_vs_best": standing.p,
                "may_be_lower_by": standing.upper,
                **{name: configuration.metric(name) for name in MORE},
                "model": values["model"],
                **{name: values[name] for name in differs},
                BUSY: "yes" if configuration.busy else None,
                **{name: value for name, value in values.items() if name not in differs},
                "seeds": len(configuration.records),
                "best_run": configuration.best_run,
            })  # fmt: skip
    return _frame(rows, axes)


def runs_table(classification: ClassificationResults, failed: bool = False) -> pd.DataFrame:
    """A row for each run, the best first.

    Args:
        classification: the results.
        failed: whether to add the runs that failed or were skipped, at the end.
    """
    results = classification.results
    axes = axis_columns(results.records)
    records = results.records if failed else results.ok()
    ranked = sorted(
        records, key=lambda record: (record.status != "ok", [-v for v in record.rank()[1:3]], record.run_id)
    )
    rows = [_run_row(record, axes) for record in ranked]
    return _frame(rows, axes)


def _run_row(record: RunRecord, axes: Sequence[str]) -> dict[str, Any]:
    ends = record.intervals.get("macro_F1", [None, None])
    values = _axis_values(record, axes)
    folds = [fold["macro_F1"] for fold in record.folds]
    return {
        "model": values.pop("model"),
        **{name: record.metrics.get(name) for name in HEADLINE},
        LOW: ends[0],
        HIGH: ends[1],
        "folds_mean": float(np.mean(folds)) if folds else None,
        "folds_sd": float(np.std(folds, ddof=1)) if len(folds) > 1 else None,
        **values,
        "seed": record.spec["seed"],
        **{name: record.metrics.get(name) for name in MORE},
        **{name: value for name, value in costs(record).items() if name not in {"alone_seconds", "spent_seconds"}},
        BUSY: busy(record),
        "folds": len(record.data["folds"]),
        "epochs": max((fold["epochs"] for fold in record.folds), default=None),
        "weights": record.spec["weights"],
        "weights_source": weights_source(record),
        "train_images": record.data["train"],
        "judged_images": record.data["judged"],
        "test_images": record.data["test"],
        "labels": record.data["labels"],
        "data": record.data["fingerprint"],
        "device": record.device,
        "status": record.status,
        "warnings": "; ".join(record.warnings) or None,
        "run": record.run_id,
    }


def _frame(rows: list[dict[str, Any]], axes: Sequence[str]) -> pd.DataFrame:
    frame = pd.DataFrame(rows)
    for axis in axes if rows else ():
        # pandas makes whole numbers floating where some runs lack the parameter; dtype object keeps them.
        frame[axis] = pd.Series([row[axis] for row in rows], dtype=object)
    empty = [str(name) for name in frame if frame[name].isna().all() and name not in HEADLINE]
    return frame.drop(columns=empty)


def folds_table(classification: ClassificationResults) -> pd.DataFrame:
    """A row for each run and fold."""
    rows = [
        {"run": configuration.name, "seed": record.spec["seed"], **fold}
        for configuration in classification.configurations
        for record in configuration.records
        for fold in record.folds
    ]
    return pd.DataFrame(rows)


def labels_table(classification: ClassificationResults) -> pd.DataFrame:
    """F1 by label, a row each, the rarest label first; a column for each configuration, best first."""
    frames = []
    for group in classification.results.configurations.values():
        rows: dict[str, dict[str, Any]] = {}
        for configuration in group[:COLUMNS_SHOWN]:
            for entry in classification.results.details(configuration.best_run).get("labels", []):
                row = rows.setdefault(entry["label"], {"label": entry["label"], "images": entry["images"]})
                row[configuration.label] = entry["f1"]
        frames.append(pd.DataFrame(rows.values()).sort_values(["images", "label"], ignore_index=True) if rows else None)
    present = [frame for frame in frames if frame is not None]
    return pd.concat(present, ignore_index=True) if present else pd.DataFrame()


def distribution_table(classification: ClassificationResults) -> pd.DataFrame:
    """Images by label, a row each, the rarest label first; a column for each subset of the images."""
    frames = []
    for group in classification.results.configurations.values():
        # A blend has no data of its own.
        all_details = (classification.results.details(configuration.best_run) for configuration in group)
        details = next((one for one in all_details if one.get("distribution")), None)
        if details is None:
            continue
        frame = pd.DataFrame({"label": [one["label"] for one in details["labels"]], **details["distribution"]})
        train = frame.drop(columns=["label", TEST]).sum(axis=1)
        frame.insert(1, "train", train)
        frames.append(frame.sort_values(["train", "label"], ignore_index=True))
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()


def groups_table(classification: ClassificationResults) -> pd.DataFrame:
    """F1 by class and by condition, a row each; a column for each configuration, best first."""
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    for configuration in classification.configurations[:COLUMNS_SHOWN]:
        details = classification.results.details(configuration.best_run)
        for kind in ("classes", "states"):
            for entry in details.get(kind, []):
                key = ({"classes": "class", "states": "state"}[kind], entry["name"])
                row = rows.setdefault(key, {"kind": key[0], "name": key[1], "images": entry["images"]})
                row[configuration.label] = entry["f1"]
    return pd.DataFrame(rows.values())


def confusion_table(classification: ClassificationResults) -> pd.DataFrame:
    """The best run's confusion matrix: a row for each true label, a column for each predicted label."""
    if not classification.configurations:
        return pd.DataFrame()
    details = classification.results.details(classification.configurations[0].best_run)
    names = [one["label"] for one in details.get("labels", [])]
    # Blank instead of 0, so that confusions stand out.
    rows = [
        {"true label": name, **{label: count or None for label, count in zip(names, counts, strict=True)}}
        for name, counts in zip(names, details.get("confusion", []), strict=True)
    ]
    frame = pd.DataFrame(rows)
    for name in names:
        frame[name] = pd.Series([row[name] for row in rows], dtype=object)
    return frame


def confused_table(classification: ClassificationResults) -> pd.DataFrame:
    """A row for each pair of labels that a configuration's best run confuses, the most frequent first."""
    rows = [
        {"run": configuration.name, "true label": pair["label"], "said instead": pair["said"], "images": pair["images"],
         "of": pair["of"], "examples": ", ".join(one["name"] for one in pair["examples"])}
        for configuration in classification.configurations[:PAIRS_OF]
        for pair in classification.results.details(configuration.best_run).get("confused", [])
    ]  # fmt: skip
    return pd.DataFrame(rows)


def notices(classification: ClassificationResults) -> list[str]:
    """Warnings that a reader needs before any number, one sentence each."""
    results = classification.results
    ok = results.ok()
    sentences = [*random_weights_notice(ok), *unfinished_notice(results), *damaged_notice(results)]
    sentences += dict.fromkeys(note for record in ok for note in record.data.get("notes", []))
    biased = sum(_selects_on_metrics(record) for record in ok)
    if biased:
        sentences.append(
            f"{biased} of {len(ok)} runs chose epochs, or when to stop or slow down, by the images that they are "
            "scored on (keep, early_stopping, plateau). Their metrics are somewhat too high."
        )
    sentences += dict.fromkeys(filter(None, map(_singles_notice, classification.truths())))
    return [*sentences, *classification.coverage[1], *busy_notice(ok), *left_out_notice(results)]


def _singles_notice(truth: npt.NDArray[np.int64]) -> str:
    counts = too_many_singles(truth)
    if counts is None:
        return ""
    return (
        f"{counts[0]} of {counts[1]} labels have one image. So the interval of macro F1 is unreliable, and there is no "
        "comparison with the best. Add images of these labels."
    )


def _selects_on_metrics(record: RunRecord) -> bool:
    params = record.spec["params"]
    return bool(params.get("keep") == "best" or params.get("early_stopping") or params.get("schedule") == "plateau")
