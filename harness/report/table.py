"""Records -> one tidy frame, one row a run; and the best setting of each model."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import PurePath
from typing import Any

import pandas as pd

from harness import registry
from harness.record import RunRecord

# Of the traceback in the sheet.
TRACEBACK_LINES = 16
# What anomalib does where a native detector has a choice.
AS_ANOMALIB = {"center_crop": None, "precision": "fp32", "upsampling": "nearest"}
# The four that people look for, in front everywhere.
HEADLINE = ("image_AUROC", "image_F1Score", "pixel_AUROC", "pixel_F1Score")


def metric_columns(records: Sequence[RunRecord]) -> list[str]:
    """The headline, then the other registered metrics, then the backends' own."""
    registered = [f"{level}_{name}" for level in ("image", "pixel") for name in registry.METRICS]
    ours = [*HEADLINE, *(name for name in registered if name not in HEADLINE)]
    own = sorted({name for record in records for name in record.metrics} - set(ours))
    return [*ours, *own]


def axis_columns(records: Sequence[RunRecord]) -> list[str]:
    """Parameters that the grid of some finished run sets, in the order of their first appearance."""
    named = dict.fromkeys(axis for record in records if record.status == "ok" for axis in record.axes)
    return [axis for axis in named if axis not in {"backbone", "layers", "model", "backend", "image_size"}]


def runs_table(records: Sequence[RunRecord], failed: bool = False) -> pd.DataFrame:
    """One row a run that ended well, the best of each category first; with `failed` the others too, at the end.

    Columns: what was run (category, model, backend, backbone, layers, image_size, the grid's parameters, seed), the
    metrics, seconds, thresholds, weights, data, status and warnings. A value that a run does not have is missing.
    """
    metrics = metric_columns(records)
    axes = axis_columns(records)
    records = [record for record in records if record.status == "ok" or failed]
    rows = [_row(record, axes, metrics) for record in records]
    columns = list(dict.fromkeys(key for row in rows for key in row))
    frame = pd.DataFrame(rows, columns=columns)
    if frame.empty:
        return frame
    for axis in axes:
        # Whole numbers stay whole beside runs that have no such parameter.
        frame[axis] = pd.Series([row[axis] for row in rows], dtype=object)
    order = ["status", "category", "image_AUROC", "pixel_AUROC", "run"]
    ascending = [False, True, False, False, True]
    return frame.sort_values(order, ascending=ascending, ignore_index=True, na_position="last")


def _row(record: RunRecord, axes: Sequence[str], metrics: Sequence[str]) -> dict[str, Any]:
    spec, seconds, weights = record.spec, record.seconds, record.weights
    return {
        "category": _category(record),
        "model": spec["model"],
        "backend": spec["backend"],
        "backbone": spec["backbone"],
        "layers": _join(spec["layers"]),
        "image_size": _join(spec["image_size"], "x") or None,
        **{axis: _cell(spec["params"].get(axis)) for axis in axes},
        "seed": spec["seed"],
        **{metric: record.metrics.get(metric) for metric in metrics},
        "fit_seconds": seconds.get("fit"),
        "test_seconds": seconds.get("test"),
        "alone_seconds": _alone(seconds),
        "total_seconds": seconds.get("total"),
        "image_threshold": record.thresholds.get("image"),
        "pixel_threshold": record.thresholds.get("pixel"),
        "threshold_from": record.thresholds.get("fixed_by"),
        "weights": spec["weights"],
        "weights_source": _source(weights),
        "weights_sha256": (weights.get("sha256") or "")[:12] or None,
        "train_images": record.data["train"],
        "held_out_images": record.data["val"],
        "test_images": record.data["test"],
        "data": record.data["fingerprint"],
        "device": record.device,
        "status": record.status,
        "warnings": "; ".join(record.warnings) or None,
        "run": record.run_id,
    }


def summary_table(records: Sequence[RunRecord]) -> pd.DataFrame:
    """The best setting of each model on each data set, best first.

    A setting is a spec without category and seed. Settings are compared by their mean image AUROC over categories
    and seeds (then pixel AUROC), among those of a model that have the most runs. Where the data was changed between
    calls, only runs on what it was last count.
    """
    records = _on_current_data([record for record in records if record.status == "ok"])
    frame = runs_table(records)
    if frame.empty:
        return frame
    by_run = {record.run_id: record for record in records}
    frame["dataset"] = [_dataset(by_run[run]) for run in frame["run"]]
    frame["setting"] = [_setting(by_run[run]) for run in frame["run"]]
    metrics = metric_columns(records)
    described = ["backend", "backbone", "layers", "image_size", *axis_columns(records), "weights_source"]
    groups = frame.groupby(["dataset", "backend", "model"], sort=False)
    result = pd.DataFrame([_best_setting(rows, metrics, described) for _, rows in groups])
    return result.sort_values(
        ["image_AUROC", "pixel_AUROC", "model"], ascending=[False, False, True], ignore_index=True
    )


def _best_setting(rows: pd.DataFrame, metrics: Sequence[str], described: Sequence[str]) -> dict[str, Any]:
    """One row of the summary from all runs of one model on one data set."""
    grouped = rows.groupby("setting", sort=True)
    means = grouped[[*metrics, "fit_seconds", "test_seconds"]].mean()
    means["runs"] = grouped.size()
    means = means.sort_values(["runs", "image_AUROC", "pixel_AUROC"], ascending=False, kind="stable")
    chosen = rows[rows["setting"] == means.index[0]]
    first, best = chosen.iloc[0], means.iloc[0]
    return {
        "model": first["model"],
        **{metric: best[metric] for metric in HEADLINE},
        **{key: first[key] for key in described},
        **{metric: best[metric] for metric in metrics if metric not in HEADLINE},
        "fit_seconds": best["fit_seconds"],
        "test_seconds": best["test_seconds"],
        "categories": ", ".join(sorted(chosen["category"].unique())),
        "runs": len(chosen),
        "settings_tried": len(means),
        "best_run": first["run"],
    }


def _on_current_data(records: Sequence[RunRecord]) -> list[RunRecord]:
    newest: dict[tuple[str, str, str], tuple[str, str]] = {}
    for record in records:
        key = (record.data["kind"], record.data["root"], record.spec["category"])
        newest[key] = max(newest.get(key, ("", "")), (record.provenance["began"], record.data["fingerprint"]))
    # A run that fell back to random weights gives way to the same run with real ones.
    real = {repr(record.spec) for record in records if not record.weights.get("fallback")}
    return [
        record
        for record in records
        if newest[record.data["kind"], record.data["root"], record.spec["category"]][1] == record.data["fingerprint"]
        and not (record.weights.get("fallback") and repr(record.spec) in real)
    ]


def backends_table(records: Sequence[RunRecord]) -> pd.DataFrame:
    """One row a pair of runs that differ in their backend only: figures of both and their difference.

    Two runs are a pair if data, model, backbone, weights, layers, image size and seed are the same, and every
    parameter that both backends know.
    """
    alike: dict[str, list[RunRecord]] = {}
    for record in sorted(records, key=lambda record: str(record.spec["backend"])):
        if record.status == "ok":
            alike.setdefault(_apart_from_backend(record), []).append(record)
    axes = axis_columns(records)
    rows = []
    for left, right in (pair for group in alike.values() for pair in itertools.combinations(group, 2)):
        if left.spec["backend"] == right.spec["backend"] or not _same_parameters(left, right):
            continue
        spec, names = right.spec, (left.spec["backend"], right.spec["backend"])
        parameters = {**left.spec["params"], **right.spec["params"]}
        row = {
            "category": _category(left),
            "model": spec["model"],
            "backbone": spec["backbone"],
            "layers": _join(spec["layers"]),
            **{axis: _cell(parameters.get(axis)) for axis in axes},
            "seed": spec["seed"],
        }
        for metric in HEADLINE:
            values = (left.metrics.get(metric), right.metrics.get(metric))
            row |= {f"{metric} {name}": value for name, value in zip(names, values, strict=True)}
            row[f"{metric} difference"] = None if values[0] is None or values[1] is None else values[1] - values[0]
        row |= {f"{name} alone_seconds": _alone(one.seconds) for name, one in zip(names, (left, right), strict=True)}
        rows.append(row)
    return pd.DataFrame(rows).dropna(axis="columns", how="all") if rows else pd.DataFrame()


def _apart_from_backend(record: RunRecord) -> str:
    """What two runs must have in common, parameters left out: each backend has some of its own."""
    same = ("model", "backbone", "layers", "image_size", "seed", "data_kind", "category", "threshold")
    return repr([record.data["fingerprint"], record.weights.get("sha256"), *(record.spec[key] for key in same)])


def _same_parameters(left: RunRecord, right: RunRecord) -> bool:
    a, b = ({**AS_ANOMALIB, **_all_parameters(record)} for record in (left, right))
    return all(a[key] == b[key] for key in a.keys() & b.keys())


def _all_parameters(record: RunRecord) -> dict[str, Any]:
    """The model's, and how long it is trained, which anomalib takes from the trainer."""
    epochs = {key: value for key, value in record.spec["trainer"].items() if key == "max_epochs"}
    return {**epochs, **record.spec["params"]}


def _alone(seconds: dict[str, float]) -> float | None:
    """What a run takes by itself, whatever it shared with others."""
    if "alone" in seconds:
        return seconds["alone"]
    return seconds["fit"] + seconds["test"] if "fit" in seconds and "test" in seconds else None


def failures_table(records: Sequence[RunRecord]) -> pd.DataFrame:
    """One row a failed run."""
    rows = [
        {
            "category": _category(record),
            "model": record.spec["model"],
            "backend": record.spec["backend"],
            "backbone": record.spec["backbone"],
            "layers": _join(record.spec["layers"]),
            "seed": record.spec["seed"],
            "error": (record.error or {}).get("type"),
            "message": (record.error or {}).get("message"),
            "run": record.run_id,
            "traceback": _end_of((record.error or {}).get("traceback", "")),
        }
        for record in records
        if record.status == "failed"
    ]
    columns = ["category", "model", "backend", "backbone", "layers", "seed", "error", "message", "run", "traceback"]
    return pd.DataFrame(rows, columns=columns)


def _end_of(traceback: str) -> str:
    """The last lines, which say most and fit into a row; record.json has it whole."""
    lines = traceback.rstrip().split("\n")
    if len(lines) <= TRACEBACK_LINES:
        return "\n".join(lines)
    return "\n".join([f"... ({len(lines) - TRACEBACK_LINES} more lines in record.json)", *lines[-TRACEBACK_LINES:]])


def notices(records: Sequence[RunRecord]) -> list[str]:
    """What a reader must know before any number, one sentence each."""
    ok = [record for record in records if record.status == "ok"]
    fallen = [record for record in ok if record.weights.get("fallback")]
    found = []
    if fallen:
        found.append(
            f"RANDOM WEIGHTS in {len(fallen)} of {len(ok)} runs: no pretrained weights were found, and the data is "
            "toy data. The numbers say that the harness works, not which model to trust. Put weights in weights/ "
            "and run again."
        )
    failed = len(records) - len(ok)
    if failed:
        found.append(f"{failed} of {len(records)} runs failed: see the sheet Failures.")
    return found


def _category(record: RunRecord) -> str:
    """Data without categories goes by the name of its folder."""
    return str(record.spec["category"] or PurePath(record.data["root"]).name or record.data["kind"])


def _dataset(record: RunRecord) -> str:
    """Categories of one root are one data set."""
    root = PurePath(record.data["root"])
    return f"{record.data['kind']} {root.parent if root.name == record.spec['category'] else root}"


def _setting(record: RunRecord) -> str:
    rest = {key: value for key, value in record.spec.items() if key not in {"category", "seed"}}
    # The same policy can find other weights later: those are other settings.
    rest["weights"] = [record.weights.get("source"), record.weights.get("sha256")]
    return repr(sorted(rest.items(), key=lambda item: item[0]))


def _source(weights: dict[str, Any]) -> str | None:
    source = weights.get("source")
    if weights.get("fallback"):
        return "random (fallback)"
    return str(source) if source else None


def _cell(value: Any) -> Any:
    return _join(value) if isinstance(value, list) else value


def _join(values: Sequence[Any] | None, by: str = "+") -> str | None:
    return None if values is None else by.join(str(value) for value in values)
