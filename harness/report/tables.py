"""Tables of runs, failures, types of defect and the environment."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from harness.backends.latency import BUSY
from harness.config.axes import COLUMNS, columns
from harness.registry import METRICS, SYNTHETIC_AUROC
from harness.report.configurations import axis_values
from harness.report.facts import (
    HEADLINE,
    HIGH,
    INTERVAL,
    LATENCIES,
    LOW,
    axis_columns,
    busy,
    category,
    costs,
    metric_columns,
    normalization,
    protocol,
    weights_source,
)
from harness.report.false_alarms import false_alarms
from harness.report.results import Results
from harness.report.standings import BEST, Standing, runs_against_best
from harness.results.record import RunRecord

TRACEBACK_LINES = 16  # in the sheet Failures
# Pivots and the sheet Defects show so many configurations, the best ones: a wider table is unreadable.
WIDEST = 200
CHANGED = "changed_threshold"
PROTOCOL = "protocol"
STATUS_ORDER = ("ok", "skipped", "failed")


def runs_table(results: Results, failed: bool = False) -> pd.DataFrame:
    """A row for each finished run, the best of each category first.

    Columns: category, axes and seed, metrics, comparison with the best run on the same images, cost, thresholds,
    weights, data, status and warnings. A value that a run does not have is missing.

    Args:
        results: of the result folder.
        failed: whether to add the runs that failed or were skipped, at the end.
    """
    ok = results.ok()
    records = results.records if failed and len(results.records) > len(ok) else ok
    # Sheets, page and terminal show the same rows.
    frame: pd.DataFrame = results.once(("runs", len(records)), lambda: _table(results, records))
    return frame.copy()


def _table(results: Results, records: Sequence[RunRecord]) -> pd.DataFrame:
    metrics, axes = metric_columns(records), axis_columns(records)
    compared = {record.run_id for record in results.rivals()}
    standings = runs_against_best(results, results.rivals())
    rows = [_row(results, record, axes, metrics, standings.get(record.run_id, Standing())) for record in records]
    frame = pd.DataFrame(rows)
    if frame.empty:
        return frame
    for axis in axes:
        # pandas makes whole numbers floating where some runs lack the parameter; dtype object keeps them.
        frame[axis] = pd.Series([row[axis] for row in rows], dtype=object)
    sometimes = (*costs(records[0]), BUSY, CHANGED, PROTOCOL)
    frame = frame.drop(columns=[name for name in sometimes if frame[name].isna().all()])
    # Of equal metrics, the run that the others are compared with comes first.
    frame = frame.assign(
        place=frame["status"].map(STATUS_ORDER.index),
        other=~frame["run"].isin(compared),
        second=frame["vs_best"] != BEST,
    )
    synthetic = [SYNTHETIC_AUROC] if SYNTHETIC_AUROC in frame else []
    order = ["place", "category", "other", "image_AUROC", "pixel_AUROC", *synthetic, "second", "run"]
    ascending = [True, True, True, False, False, *(False for _ in synthetic), True, True]
    ordered = frame.sort_values(order, ascending=ascending, ignore_index=True, na_position="last")
    return ordered.drop(columns=["place", "other", "second"])


def _row(
    results: Results, record: RunRecord, axes: Sequence[str], metrics: Sequence[str], standing: Standing
) -> dict[str, Any]:
    spec, ends = record.spec, record.intervals.get(INTERVAL, [None, None])
    values = axis_values(record, axes)
    source = values.pop("weights_source")
    return {
        "category": category(record),
        **values,
        "seed": spec["seed"],
        **{metric: record.metrics.get(metric) for metric in HEADLINE},
        LOW: ends[0],
        HIGH: ends[1],
        "vs_best": standing.mark or None,
        "p_vs_best": standing.p,
        "may_be_lower_by": standing.upper,
        **false_alarms([record]),
        **{metric: record.metrics.get(metric) for metric in metrics if metric not in HEADLINE},
        **costs(record),
        BUSY: busy(record),
        PROTOCOL: protocol(record),
        "image_threshold": record.thresholds.get("image"),
        "pixel_threshold": record.thresholds.get("pixel"),
        "threshold_from": record.thresholds.get("fixed_by"),
        CHANGED: results.changed_threshold(record.run_id),
        "backend_validates_on": record.data.get("validation") or None,
        "weights": spec["weights"],
        "weights_source": source,
        "weights_sha256": (record.weights.get("sha256") or "")[:12] or None,
        "normalization": normalization(record),
        "normalization_from": _normalization_from(record),
        "train_images": record.data["train"],
        "held_out_images": record.data["val"],
        "test_images": record.data["test"],
        "data": record.data["fingerprint"],
        "device": record.device,
        "status": record.status,
        "warnings": "; ".join(record.warnings) or None,
        "run": record.run_id,
    }


def busy_cells(frame: pd.DataFrame) -> set[tuple[int, str]]:
    """(row, column) of the times that were taken on a busy machine.

    Args:
        frame: a table of runs or configurations; in *Backends*, the name of a backend precedes these columns.
    """
    cells: set[tuple[int, str]] = set()
    for name in (str(column) for column in frame if str(column).endswith(BUSY)):
        times = {name.replace(BUSY, latency) for latency in LATENCIES}
        cells |= {(int(row), time) for row in frame.index[frame[name] == "yes"] for time in times & set(frame)}
    return cells


def _normalization_from(record: RunRecord) -> str | None:
    """Source of the normalisation that belongs to the weights; unknown in records of version 0.1."""
    source = record.weights.get("normalization_from")
    return f"{source} (assumed)" if source and record.weights.get("assumed") else source


def defects_table(results: Results) -> pd.DataFrame:
    """A row for each type of defect, against all normal images, and each run of the best configurations."""
    records = [
        run
        for group in results.configurations.values()
        for configuration in group[:WIDEST]
        for run in configuration.records
    ]
    axes = axis_columns(records)
    metrics = [
        metric.key
        for metric in METRICS
        if metric.by_defect
        and not (metric.optional and all(entry.get(metric.key) is None for one in records for entry in one.defects))
    ]
    rows = [
        {
            "category": category(record),
            "defect_type": entry["defect"],
            "images": entry["images"],
            "missed": entry.get("missed"),
            **{name: entry.get(name) for name in metrics},
            **{key: value for key, value in axis_values(record, axes).items() if key != "weights_source"},
            "seed": record.spec["seed"],
            "run": record.run_id,
        }
        for record in records
        for entry in record.defects
    ]
    frame = pd.DataFrame(rows)
    if frame.empty:
        return frame
    for column in (*axes, "missed"):
        frame[column] = pd.Series([row[column] for row in rows], dtype=object)
    return frame.sort_values(
        ["category", "defect_type", "image_AUROC"], ascending=[True, True, False], ignore_index=True
    )


def environment_table(results: Results) -> pd.DataFrame:
    """The environment of the runs: each fact, its value, and the number of runs with it."""
    counts: dict[tuple[str, str], int] = {}
    for record in results.records:
        for fact in _environment(record):
            counts[fact] = counts.get(fact, 0) + 1
    order = {name: index for index, name in enumerate(dict.fromkeys(name for name, _ in counts))}
    rows = sorted(((name, value, runs) for (name, value), runs in counts.items()), key=lambda row: order[row[0]])
    return pd.DataFrame(rows, columns=["fact", "value", "runs"])


def _environment(record: RunRecord) -> list[tuple[str, str]]:
    provenance = record.provenance
    facts = [(name, provenance.get(name)) for name in ("harness", "git", "python")]
    facts += list(provenance.get("packages", {}).items())
    facts += [(name, provenance.get(name)) for name in ("system", "cpu", "cores")]
    facts += [("device", record.device), ("began on", str(provenance.get("began", ""))[:10])]
    facts += [(f"data {category(record)}", f"{record.data['root']} (fingerprint {record.data['fingerprint']})")]
    for weights in (record.weights, *record.weights.get("others", [])):
        backbone = weights.get("backbone") or record.spec["backbone"]
        if weights.get("sha256"):
            facts += [(f"weights {backbone}", f"{weights.get('source')}, sha256 {weights['sha256']}")]
        elif backbone:
            facts += [(f"weights {backbone}", weights_source(record))]
    return [(name, str(value)) for name, value in facts if value not in (None, "")]


def failures_table(results: Results) -> pd.DataFrame:
    """A row for each failed run."""
    rows = [
        {
            "category": category(record),
            **columns(record.spec),
            "seed": record.spec["seed"],
            "error": (record.error or {}).get("type"),
            "message": (record.error or {}).get("message"),
            "run": record.run_id,
            "traceback": _last_lines((record.error or {}).get("traceback", "")),
        }
        for record in results.failed()
    ]
    names = ["category", *COLUMNS, "seed", "error", "message", "run", "traceback"]
    return pd.DataFrame(rows, columns=names)


def _last_lines(traceback: str) -> str:
    """The last lines of a traceback, which fit into a row; record.json has all lines."""
    lines = traceback.rstrip().split("\n")
    if len(lines) <= TRACEBACK_LINES:
        return "\n".join(lines)
    return "\n".join([f"... ({len(lines) - TRACEBACK_LINES} more lines in record.json)", *lines[-TRACEBACK_LINES:]])


def limit_note(results: Results) -> list[str]:
    """The sentence above a table that shows the best configurations only."""
    largest = max((len(group) for group in results.configurations.values()), default=0)
    text = f"The {WIDEST} best of {largest} configurations (all axes but category and seed); Runs has all."
    return [text] if largest > WIDEST else []
