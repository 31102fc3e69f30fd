"""Tables of runs, failures, types of defect and the environment, and the notices above them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from harness.backends.base import TEST_IMAGES
from harness.config.axes import COLUMNS, columns
from harness.report.configurations import axis_values
from harness.report.facts import (
    HEADLINE,
    HIGH,
    INTERVAL,
    LOW,
    axis_columns,
    category,
    costs,
    metric_columns,
    normalization,
    weights_source,
)
from harness.report.results import Results
from harness.report.ties import Standing, runs_against_best
from harness.results.record import RunRecord

TRACEBACK_LINES = 16  # in the sheet Failures
# Pivots and the sheet Defects show so many configurations, the best ones: a wider table is unreadable.
WIDEST = 200
DAMAGED_SHOWN = 5  # files named in notices
STATUS_ORDER = ("ok", "skipped", "failed")


def runs_table(results: Results, failed: bool = False) -> pd.DataFrame:
    """A row for each finished run, the best of each category first.

    Columns: category, axes and seed, metrics, comparison with the best run on the same images, cost, thresholds,
    weights, data, status and warnings. A value that a run does not have is missing.

    Args:
        results: of the result folder.
        failed: whether to add the runs that failed or were skipped, at the end.
    """
    records = results.records if failed else results.ok()
    metrics, axes = metric_columns(records), axis_columns(records)
    standings = runs_against_best(results, results.ok())
    rows = [_row(record, axes, metrics, standings.get(record.run_id, Standing())) for record in records]
    columns = list(dict.fromkeys(key for row in rows for key in row))
    frame = pd.DataFrame(rows, columns=columns)
    if frame.empty:
        return frame
    for axis in axes:
        # pandas makes whole numbers floating where some runs lack the parameter; dtype object keeps them.
        frame[axis] = pd.Series([row[axis] for row in rows], dtype=object)
    frame = frame.drop(columns=[name for name in costs(records[0]) if frame[name].isna().all()])
    frame = frame.assign(place=frame["status"].map(STATUS_ORDER.index))
    order = ["place", "category", "image_AUROC", "pixel_AUROC", "run"]
    ascending = [True, True, False, False, True]
    ordered = frame.sort_values(order, ascending=ascending, ignore_index=True, na_position="last")
    return ordered.drop(columns="place")


def _row(record: RunRecord, axes: Sequence[str], metrics: Sequence[str], standing: Standing) -> dict[str, Any]:
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
        **{metric: record.metrics.get(metric) for metric in metrics if metric not in HEADLINE},
        **costs(record),
        "image_threshold": record.thresholds.get("image"),
        "pixel_threshold": record.thresholds.get("pixel"),
        "threshold_from": record.thresholds.get("fixed_by"),
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
    rows = [
        {
            "category": category(record),
            "defect_type": entry["defect"],
            "images": entry["images"],
            "missed": entry.get("missed"),
            "image_AUROC": entry.get("image_AUROC"),
            "image_AP": entry.get("image_AP"),
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


def notices(results: Results) -> list[str]:
    """Warnings that a reader needs before any number, one sentence each."""
    ok = results.ok()
    sentences = [*random_weights_notice(ok), *unfinished_notice(results), *damaged_notice(results)]
    sentences += data_notices(ok)
    count = sum(record.data.get("validation") == TEST_IMAGES for record in ok)
    if count:
        sentences.append(
            f"VALIDATED ON TEST IMAGES in {count} of {len(ok)} runs: with data.val 0 anomalib takes the test images "
            "for validation. Its own metrics (anomalib_*), and choices of a model by validation, depend on them."
        )
    return [*sentences, *_threshold_notices(ok), *left_out_notice(results)]


def random_weights_notice(ok: Sequence[RunRecord]) -> list[str]:
    """A sentence if runs have random weights."""
    random = [record for record in ok if record.weights.get("source") == "random"]
    if not random:
        return []
    fallback = any(record.weights.get("fallback") for record in random)
    reason = "version 0.1 found no pretrained weights for toy data" if fallback else "as the config asks"
    return [
        f"RANDOM WEIGHTS in {len(random)} of {len(ok)} runs: {reason}. The numbers show that the harness works, not "
        "which model to trust. Put weights in weights/ and run again."
    ]


def unfinished_notice(results: Results) -> list[str]:
    """A sentence if runs were skipped, and one if runs failed."""
    failed, skipped, total = len(results.failed()), results.skipped(), len(results.records)
    sentences = [_skipped_notice(skipped, total)] if skipped else []
    return [*sentences, f"{failed} of {total} runs failed: see Failures."] if failed else sentences


def data_notices(ok: Sequence[RunRecord]) -> list[str]:
    """Notes on problems in the data of the runs, each sentence once."""
    several = len({record.spec["category"] for record in ok}) > 1
    notes = [(record, note) for record in ok for note in record.data.get("notes") or []]
    return list(dict.fromkeys(f"{category(record)}: {note}" if several else note for record, note in notes))


def damaged_notice(results: Results) -> list[str]:
    """A sentence for each of the first damaged files, and one for the rest."""
    sentences = [f"LEFT OUT: {sentence}" for sentence in results.damaged[:DAMAGED_SHOWN]]
    more = len(results.damaged) - len(sentences)
    return [*sentences, f"LEFT OUT: {more} more files that can't be used."] if more > 0 else sentences


def _skipped_notice(skipped: Sequence[RunRecord], total: int) -> str:
    backbones = list(dict.fromkeys(str(record.spec["backbone"]) for record in skipped))
    reasons = dict.fromkeys((record.error or {}).get("reason", "") for record in skipped)
    file = backbones[0] if len(backbones) == 1 else "<backbone>"
    return (
        f"SKIPPED {len(skipped)} of {total} runs: no weights for {', '.join(backbones)} "
        f"({', '.join(filter(None, reasons))}). Put them at weights/{file}.safetensors and call the same command again."
    )


def left_out_notice(results: Results) -> list[str]:
    """A sentence if runs can't be compared with the others."""
    ok = results.ok()
    left_out = len(ok) - sum(
        len(configuration.records) for group in results.configurations.values() for configuration in group
    )
    if not left_out:
        return []
    return [
        f"{left_out} of {len(ok)} runs are shown in Runs only: their test images were changed since, or the same "
        "configuration (all axes but category and seed) was run again later, or with real weights."
    ]


def _threshold_notices(records: Sequence[RunRecord]) -> list[str]:
    """A sentence if runs have no threshold, and one if few images fixed it."""
    policies = [(record.spec["threshold"], record.data["val"]) for record in records]
    by_quantile = [(policy["quantile"], val) for policy, val in policies if policy.get("method") == "normal_quantile"]
    without = sum(not val for _, val in by_quantile)
    few = [val for quantile, val in by_quantile if val and val * (1 - quantile) < 1]
    sentences = []
    if without:
        sentences.append(
            f"NO THRESHOLD in {without} of {len(records)} runs: data.val is 0, so no normal images are held out to fix "
            "one. F1Score, precision and recall are blank."
        )
    if few:
        images = min(few)
        sentences.append(
            f"The thresholds of {len(few)} of {len(records)} runs are the highest of {images} held-out normal "
            f"image{'s' if images > 1 else ''}: expect false alarms on about 1 in {images + 1} normal images."
        )
    return sentences


def limit_note(results: Results) -> list[str]:
    """The sentence above a table that shows the best configurations only."""
    largest = max((len(group) for group in results.configurations.values()), default=0)
    text = f"The {WIDEST} best of {largest} configurations (all axes but category and seed); Runs has all."
    return [text] if largest > WIDEST else []
