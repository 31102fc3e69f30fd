"""The data of a detection's report.html; its layout lies in page/report.html."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from harness.backends.latency import BUSY
from harness.config.axes import AXES, COLUMNS, Axis
from harness.registry import SYNTHETIC_AUROC, metric
from harness.report.category_ranks import rank_figures
from harness.report.configurations import Configuration, axis_values, key_without
from harness.report.facts import HEADLINE, axis_columns, category, costs, dataset, metric_columns, short_names
from harness.report.html import as_script, replace_file
from harness.report.learning_curve import curve_figures
from harness.report.more_images import more_images
from harness.report.notices import notices
from harness.report.parts import PagePart
from harness.report.recommend import Recommendation, answers
from harness.report.results import Results
from harness.report.sheets import run_address
from harness.report.synthetic import dataset_ranking
from harness.report.tables import runs_table
from harness.results.record import RunRecord
from harness.results.run_folder import RECORD

SCRIPTS = ("common.js", "table.js", "plots.js", "ranks.js", "curve.js", "search.js", "run.js", "main.js")
COSTS = ("ms_per_image_p50", "ms_per_image_p95", "images_per_second", "fit_seconds", "alone_seconds", "peak_memory_MB",
         "model_MB")  # fmt: skip
OTHERS_SHOWN = 12
# Columns of the sheet Runs that the page does not show.
LEFT_OUT = {"status", "warnings", "weights", "weights_sha256", "data"}


def page_part(results: Results) -> PagePart:
    """The template of the page, its scripts and their data."""
    context = {"notices": notices(results), "answers": _answers(results), "margin": results.limits.margin}
    return PagePart("report.html", SCRIPTS, _data(results), context)


def write_details(results: Results, record: RunRecord, folder: Path) -> None:
    """Write the details of a run, which the page loads when a reader opens the run.

    The file is a script, because a page opened from a disk may load no JSON.

    Args:
        results: of the result folder.
        record: the run.
        folder: for the script.
    """
    file = folder / f"{record.run_id}.js"
    source = results.folder.run_folder(record.run_id) / RECORD
    if file.is_file() and source.is_file() and file.stat().st_mtime_ns > source.stat().st_mtime_ns:
        return
    scores = results.scores(record.run_id)
    details = {
        **results.details(record.run_id),
        "names": list(scores.names) if scores else [],
        "labels": scores.labels.astype(int).tolist() if scores else [],
        "scores": scores.scores.tolist() if scores else [],
        "kinds": list(scores.defects) if scores else [],
        "thresholds": record.thresholds,
        "metrics": record.metrics,
        "intervals": record.intervals,
        "defects": record.defects,
        "warnings": record.warnings,
    }
    replace_file(file, f"harness.loaded({as_script(record.run_id)}, {as_script(details)});\n".encode())


def _data(results: Results) -> dict[str, Any]:
    """The data of the tables and plots."""
    ok = results.ok()
    axes = axis_columns(ok)
    points = [configuration for of_dataset in results.configurations.values() for configuration in of_dataset]
    datasets = list(results.configurations)
    metrics = [name for name in metric_columns(ok) if any(record.metrics.get(name) is not None for record in ok)]
    return {
        "metrics": metrics,
        "counts": [name for name in metrics if metric(name).count],
        "falling": [name for name in metrics if not metric(name).higher_is_better],
        "headline": [name for name in (*HEADLINE, SYNTHETIC_AUROC) if name in metrics],
        "costs": [name for name in COSTS if any(costs(record)[name] is not None for record in ok)],
        "axes": (numeric := _numeric_axes(points, axes)),
        "datasets": short_names(datasets),
        "columns": list(COLUMNS),
        "parameters": axes,
        "categories": sorted({category(record) for record in ok}),
        "settings": [_configuration(configuration, datasets, axes, numeric, metrics) for configuration in points],
        "leaders": _leaders(points),
        "runs": _runs(results, points),
        "ranks": rank_figures(results),
        "curves": curve_figures(results, more_images(results)),
    }


def _leaders(points: Sequence[Configuration]) -> list[str]:
    """The best run of the best configuration of each model on each data set."""
    first: dict[tuple[str, str, str], Configuration] = {}
    for configuration in points:
        first.setdefault((dataset(configuration.first), *configuration.model), configuration)
    return [configuration.best_run for configuration in first.values()]


def _runs(results: Results, points: Sequence[Configuration]) -> list[dict[str, Any]]:
    frame = runs_table(results)
    if frame.empty:
        return []
    marks = {id(answer.configuration): "leading" if answer.doubts else "recommended" for answer in answers(results)}
    positions = {record.run_id: index for index, configuration in enumerate(points) for record in configuration.records}
    records = {record.run_id: record for record in results.records}
    rows = []
    for row in frame.to_dict("records"):
        values = {str(key): _plain(value) for key, value in row.items() if key not in LEFT_OUT}
        configuration = positions.get(row["run"])
        # A notice explains why a run has no configuration here.
        label = results.configuration_name(records[row["run"]])
        values["recommended"] = None if configuration is None else marks.get(id(points[configuration]))
        rows.append({**values, "setting": configuration, "label": label, "folder": run_address(row["run"])})
    return rows


def _plain(value: Any) -> Any:
    """A value for JSON: six digits of a number, None for a missing value."""
    if isinstance(value, float):
        return None if math.isnan(value) else float(f"{value:.6g}")
    return None if value is None or value is pd.NA else value


def _configuration(
    configuration: Configuration,
    datasets: Sequence[str],
    axes: Sequence[str],
    numeric: Sequence[str],
    metrics: Sequence[str],
) -> dict[str, Any]:
    """A configuration for the page: means over seeds of each category, and over all categories."""
    places = [*configuration.by_category, None]
    return {
        "label": configuration.label,
        "name": configuration.name,
        "facts": axis_values(configuration.first, axes),
        "numbers": _numbers(configuration, axes),
        "apart": {axis: key_without(configuration.first, axis) for axis in numeric},
        "dataset": datasets.index(dataset(configuration.first)),
        "values": {
            place or "": {name: _plain(configuration.metric(name, place)) for name in metrics}
            | {name: _plain(configuration.cost(name, place)) for name in COSTS}
            for place in places
        },
        "run": configuration.best_run,
        BUSY: "yes" if configuration.busy else None,
        "complete": len(configuration.by_category),
    }


def _numbers(configuration: Configuration, axes: Sequence[str]) -> dict[str, float]:
    """The axes of a configuration whose values are numbers."""
    spec = configuration.first.spec
    pairs = [(Axis(name), spec["params"].get(name)) for name in axes]
    pairs += [(axis, spec[axis.name]) for axis in AXES if axis.column]
    return {axis.name: number for axis, value in pairs if (number := axis.number(value)) is not None}


def _numeric_axes(points: Sequence[Configuration], axes: Sequence[str]) -> list[str]:
    """Axes with several different numbers."""
    numbers = [_numbers(configuration, axes) for configuration in points]
    names = dict.fromkeys([*axes, *(name for values in numbers for name in values)])
    return [axis for axis in names if len({values[axis] for values in numbers if axis in values}) > 1]


def _answers(results: Results) -> list[dict[str, Any]]:
    recommendations = answers(results)
    names = short_names([answer.dataset for answer in recommendations])
    return [_answer(results, answer, name) for answer, name in zip(recommendations, names, strict=True)]


def _answer(results: Results, answer: Recommendation, name: str) -> dict[str, Any]:
    configuration = answer.configuration
    ranking = dataset_ranking(results, answer.dataset)
    return {
        "dataset": name,
        "doubts": answer.doubts,
        "word": answer.word,
        "ranked": ranking.rows() if ranking else [],
        "chosen": configuration.name if configuration else None,
        "run": configuration.best_run if configuration else None,
        "reasons": answer.reasons,
        "others": [
            {
                "name": configuration.name,
                "run": configuration.best_run,
                "auroc": configuration.metric("image_AUROC"),
                "mark": standing.mark,
                "upper": standing.upper,
                "ms": configuration.latency,
                "busy": configuration.busy,
            }
            for configuration, standing in answer.others[:OTHERS_SHOWN]
        ],
        "more": max(0, len(answer.others) - OTHERS_SHOWN),
    }
