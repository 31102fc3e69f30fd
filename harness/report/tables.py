"""Tables of single runs: one row a run, a failure, a type of defect, a fact of the environment."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from harness.backends.base import TEST_IMAGES
from harness.config.axes import COLUMNS, columns
from harness.report.configurations import described
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

# Of the traceback in the sheet.
TRACEBACK_LINES = 16
# Settings that pivots and types of defect are shown of, the best ones: more are no table that somebody reads.
WIDEST = 200
DAMAGED_SHOWN = 5
STATUS_ORDER = ("ok", "skipped", "failed")


def runs_table(results: Results, failed: bool = False) -> pd.DataFrame:
    """One row a run that ended well, the best of each category first; with `failed` the others too, at the end.

    Columns: what was run (category, model, backend, backbone, layers, image_size, the grid's parameters, seed), the
    metrics, how the run stands to the best on the same images, cost, thresholds, weights, data, status and warnings.
    A value that a run does not have is missing.
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
        # Whole numbers stay whole beside runs that have no such parameter.
        frame[axis] = pd.Series([row[axis] for row in rows], dtype=object)
    frame = frame.drop(columns=[name for name in costs(records[0]) if frame[name].isna().all()])
    frame = frame.assign(place=frame["status"].map(STATUS_ORDER.index))
    order = ["place", "category", "image_AUROC", "pixel_AUROC", "run"]
    ascending = [True, True, False, False, True]
    ordered = frame.sort_values(order, ascending=ascending, ignore_index=True, na_position="last")
    return ordered.drop(columns="place")


def _row(record: RunRecord, axes: Sequence[str], metrics: Sequence[str], standing: Standing) -> dict[str, Any]:
    spec, ends = record.spec, record.intervals.get(INTERVAL, [None, None])
    what = described(record, axes)
    source = what.pop("weights_source")
    return {
        "category": category(record),
        **what,
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
    """What says what the weights were trained with; records of version 0.1 do not know it."""
    source = record.weights.get("normalization_from")
    return f"{source} (assumed)" if source and record.weights.get("assumed") else source


def defects_table(results: Results) -> pd.DataFrame:
    """One row a run of the best settings and type of defect, which is set against all normal images."""
    records = [
        run
        for found in results.configurations.values()
        for configuration in found[:WIDEST]
        for run in configuration.records
    ]
    axes = axis_columns(records)
    rows = [
        {
            "category": category(record),
            "defect_type": one["defect"],
            "images": one["images"],
            "missed": one.get("missed"),
            "image_AUROC": one.get("image_AUROC"),
            "image_AP": one.get("image_AP"),
            **{key: value for key, value in described(record, axes).items() if key != "weights_source"},
            "seed": record.spec["seed"],
            "run": record.run_id,
        }
        for record in records
        for one in record.defects
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
    """What the results were made with: each fact, its value, and of how many runs it is true."""
    counted: dict[tuple[str, str], int] = {}
    for record in results.records:
        for fact in _environment(record):
            counted[fact] = counted.get(fact, 0) + 1
    order = {name: index for index, name in enumerate(dict.fromkeys(name for name, _ in counted))}
    rows = sorted(((name, value, runs) for (name, value), runs in counted.items()), key=lambda row: order[row[0]])
    return pd.DataFrame(rows, columns=["fact", "value", "runs"])


def _environment(record: RunRecord) -> list[tuple[str, str]]:
    made = record.provenance
    facts = [(name, made.get(name)) for name in ("harness", "git", "python")]
    facts += list(made.get("packages", {}).items())
    facts += [(name, made.get(name)) for name in ("system", "cpu", "cores")]
    facts += [("device", record.device), ("began on", str(made.get("began", ""))[:10])]
    facts += [(f"data {category(record)}", f"{record.data['root']} (fingerprint {record.data['fingerprint']})")]
    for weights in (record.weights, *record.weights.get("others", [])):
        backbone = weights.get("backbone") or record.spec["backbone"]
        if weights.get("sha256"):
            facts += [(f"weights {backbone}", f"{weights.get('source')}, sha256 {weights['sha256']}")]
        elif backbone:
            facts += [(f"weights {backbone}", weights_source(record))]
    return [(name, str(value)) for name, value in facts if value not in (None, "")]


def failures_table(results: Results) -> pd.DataFrame:
    """One row a failed run."""
    rows = [
        {
            "category": category(record),
            **columns(record.spec),
            "seed": record.spec["seed"],
            "error": (record.error or {}).get("type"),
            "message": (record.error or {}).get("message"),
            "run": record.run_id,
            "traceback": _end_of((record.error or {}).get("traceback", "")),
        }
        for record in results.failed()
    ]
    shown = ["category", *COLUMNS, "seed", "error", "message", "run", "traceback"]
    return pd.DataFrame(rows, columns=shown)


def _end_of(traceback: str) -> str:
    """The last lines, which say most and fit into a row; record.json has it whole."""
    lines = traceback.rstrip().split("\n")
    if len(lines) <= TRACEBACK_LINES:
        return "\n".join(lines)
    return "\n".join([f"... ({len(lines) - TRACEBACK_LINES} more lines in record.json)", *lines[-TRACEBACK_LINES:]])


def notices(results: Results) -> list[str]:
    """What a reader must know before any number, one sentence each."""
    ok = results.ok()
    found = [*random_weights_notice(ok), *unfinished_notice(results), *damaged_notice(results)]
    found += data_notices(ok)
    on_test = sum(record.data.get("validation") == TEST_IMAGES for record in ok)
    if on_test:
        found.append(
            f"VALIDATED ON TEST IMAGES in {on_test} of {len(ok)} runs: with data.val 0 anomalib takes the test images "
            "for validation. Its own figures (anomalib_*), and whatever a model chooses by validation, know them."
        )
    return [*found, *_thresholds(ok), *left_out_notice(results)]


def random_weights_notice(ok: Sequence[RunRecord]) -> list[str]:
    """A sentence where runs have random weights."""
    random = [record for record in ok if record.weights.get("source") == "random"]
    if not random:
        return []
    fallen = any(record.weights.get("fallback") for record in random)
    why = "version 0.1 found no pretrained weights for toy data" if fallen else "as the config asks"
    return [
        f"RANDOM WEIGHTS in {len(random)} of {len(ok)} runs: {why}. The numbers say that the harness works, not "
        "which model to trust. Put weights in weights/ and run again."
    ]


def unfinished_notice(results: Results) -> list[str]:
    """A sentence where runs were skipped, and one where runs failed."""
    failed, skipped, total = len(results.failed()), results.skipped(), len(results.records)
    found = [_skipped_notice(skipped, total)] if skipped else []
    return [*found, f"{failed} of {total} runs failed: see Failures."] if failed else found


def data_notices(ok: Sequence[RunRecord]) -> list[str]:
    """What the runs' data is to be doubted for, each sentence once."""
    several = len({record.spec["category"] for record in ok}) > 1
    notes = [(record, note) for record in ok for note in record.data.get("notes") or []]
    return list(dict.fromkeys(f"{category(record)}: {note}" if several else note for record, note in notes))


def damaged_notice(results: Results) -> list[str]:
    """A sentence for each of the first files that can't be used, and one for the others."""
    found = [f"LEFT OUT: {sentence}" for sentence in results.damaged[:DAMAGED_SHOWN]]
    more = len(results.damaged) - len(found)
    return [*found, f"LEFT OUT: {more} more files that can't be used."] if more > 0 else found


def _skipped_notice(skipped: Sequence[RunRecord], total: int) -> str:
    backbones = list(dict.fromkeys(str(record.spec["backbone"]) for record in skipped))
    reasons = dict.fromkeys((record.error or {}).get("reason", "") for record in skipped)
    file = backbones[0] if len(backbones) == 1 else "<backbone>"
    return (
        f"SKIPPED {len(skipped)} of {total} runs: no weights for {', '.join(backbones)} "
        f"({', '.join(filter(None, reasons))}). Put them at weights/{file}.safetensors and call the same command again."
    )


def left_out_notice(results: Results) -> list[str]:
    """A sentence where runs can't be compared with the others."""
    ok = results.ok()
    left_out = len(ok) - sum(
        len(configuration.records) for found in results.configurations.values() for configuration in found
    )
    if not left_out:
        return []
    return [
        f"{left_out} of {len(ok)} runs are shown in Runs only: their test images were changed since, or the same "
        "setting was run again later, or with real weights."
    ]


def _thresholds(records: Sequence[RunRecord]) -> list[str]:
    """Where there is no threshold, or one that rests on few images."""
    policies = [(record.spec["threshold"], record.data["val"]) for record in records]
    by_quantile = [(policy["quantile"], val) for policy, val in policies if policy.get("method") == "normal_quantile"]
    none = sum(not val for _, val in by_quantile)
    few = [val for quantile, val in by_quantile if val and val * (1 - quantile) < 1]
    found = []
    if none:
        found.append(
            f"NO THRESHOLD in {none} of {len(records)} runs: data.val is 0, so no normal images are held out to fix "
            "one, and F1Score, precision and recall are blank."
        )
    if few:
        images = min(few)
        found.append(
            f"The thresholds of {len(few)} of {len(records)} runs are the highest of {images} held-out normal "
            f"image{'s' if images > 1 else ''}: expect false alarms on about 1 in {images + 1} normal parts."
        )
    return found


def thresholds(results: Results) -> list[str]:
    """What is said above a table that shows the best settings only."""
    most = max((len(found) for found in results.configurations.values()), default=0)
    return [f"The {WIDEST} best of {most} settings; Runs has all."] if most > WIDEST else []
