"""The data of a detection's report.html; its layout lies in page/report.html."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from harness.backends.latency import BUSY
from harness.config.axes import COLUMNS
from harness.registry import SYNTHETIC_AUROC, metric
from harness.report.answer_card import answer_cards, answer_pictures
from harness.report.category_ranks import rank_figures
from harness.report.configurations import Configuration, axis_values
from harness.report.effects import effects, varying_axes
from harness.report.facts import (
    HEADLINE,
    HIGH,
    LOW,
    axis_columns,
    category,
    costs,
    dataset,
    metric_columns,
    short_names,
)
from harness.report.false_alarms import false_alarms
from harness.report.glossary import DETECTION, with_margin
from harness.report.html import as_script, replace_file
from harness.report.learning_curve import curve_figures
from harness.report.model_styles import ModelStyles
from harness.report.more_images import more_images
from harness.report.notices import notices, protocol_sentences
from harness.report.parts import PagePart
from harness.report.recommend import answers
from harness.report.results import Results
from harness.report.run_files import details_text
from harness.report.sheets import run_address
from harness.report.standings import interval
from harness.report.tables import runs_table
from harness.results.record import RunRecord
from harness.results.run_folder import RECORD

SCRIPTS = (
    "common.js",
    "styles.js",
    "pictures.js",
    "table.js",
    "plots.js",
    "effects.js",
    "ranks.js",
    "curve.js",
    "search.js",
    "run.js",
    "side.js",
    "main.js",
)
COSTS = ("ms_per_image_p50", "ms_per_image_p95", "images_per_second", "fit_seconds", "alone_seconds", "peak_memory_MB",
         "model_MB")  # fmt: skip
# Columns of the sheet Runs that the page does not show.
LEFT_OUT = {"status", "warnings", "weights", "weights_sha256", "data"}


def page_part(results: Results) -> PagePart:
    """The template of the page, its scripts and their data."""
    terms = with_margin(DETECTION, results.limits.margin)
    context = {
        "notices": notices(results),
        "answers": answer_cards(results),
        "terms": terms,
        "protocol": " ".join(protocol_sentences(results.ok())),
    }
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
    others = {
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
    # The browser reads the text as data, so nothing in the file of a run from elsewhere is code.
    details = f"JSON.parse({as_script(details_text(results.folder.run_folder(record.run_id)))})"
    script = f"harness.loaded({as_script(record.run_id)}, {{...{details}, ...{as_script(others)}}});\n"
    replace_file(file, script.encode())


def _data(results: Results) -> dict[str, Any]:
    """The data of the tables and plots."""
    ok = results.ok()
    axes = axis_columns(ok)
    points = [configuration for of_dataset in results.configurations.values() for configuration in of_dataset]
    datasets, varying = list(results.configurations), varying_axes(points, axes)
    styles, verdicts = ModelStyles.of(results), _verdicts(results)
    metrics = [name for name in metric_columns(ok) if any(record.metrics.get(name) is not None for record in ok)]
    return {
        "metrics": metrics,
        "counts": [name for name in metrics if metric(name).count],
        "falling": [name for name in metrics if not metric(name).higher_is_better],
        "headline": [name for name in (*HEADLINE, SYNTHETIC_AUROC) if name in metrics],
        "costs": [name for name in COSTS if any(costs(record)[name] is not None for record in ok)],
        "axes": varying,
        "datasets": short_names(datasets),
        "columns": list(COLUMNS),
        "parameters": axes,
        "categories": sorted({category(record) for record in ok}),
        "settings": [
            _configuration(configuration, datasets, axes, effect, metrics)
            | {"style": styles.style(configuration.first), "recommended": verdicts.get(id(configuration))}
            for configuration, effect in zip(points, effects(points, varying, axes), strict=True)
        ],
        "pairs": [name for name, group in results.configurations.items() if len(group) > 1],
        "averages": _averages(results, points),
        "leaders": _leaders(points),
        "runs": _runs(results, points),
        "ranks": rank_figures(results),
        "pictures": answer_pictures(results),
        "curves": curve_figures(results, more_images(results)),
    }


def _leaders(points: Sequence[Configuration]) -> list[str]:
    """The best run of the best configuration of each model on each data set."""
    first: dict[tuple[str, str, str], Configuration] = {}
    for configuration in points:
        first.setdefault((dataset(configuration.first), *configuration.model), configuration)
    return [configuration.best_run for configuration in first.values()]


def _averages(results: Results, points: Sequence[Configuration]) -> list[dict[str, Any]]:
    """The rows of the answers' averages, for each recommended configuration with several runs."""
    rows = []
    for answer in answers(results):
        configuration = answer.configuration
        if configuration is None or len(configuration.records) < 2:
            continue
        position = next(index for index, one in enumerate(points) if one is configuration)
        ends = interval(results, configuration)
        names = metric_columns(configuration.records)
        rows.append(
            {
                **axis_values(configuration.first, axis_columns(results.ok())),
                **{name: _plain(configuration.metric(name)) for name in names if not metric(name).count},
                **{name: _plain(configuration.cost(name)) for name in COSTS},
                **{name: _plain(rate) for name, rate in false_alarms(configuration.records).items()},
                LOW: ends[0] if ends else None,
                HIGH: ends[1] if ends else None,
                BUSY: "yes" if configuration.busy else None,
                "category": f"average of {len(configuration.records)} runs",
                "recommended": answer.verdict,
                "label": configuration.name,
                "run": configuration.best_run,
                "setting": position,
            }
        )
    return rows


def _verdicts(results: Results) -> dict[int, str]:
    """The verdict on each recommended configuration, by its identity in memory."""
    return {id(answer.configuration): answer.verdict for answer in answers(results) if answer.configuration}


def _runs(results: Results, points: Sequence[Configuration]) -> list[dict[str, Any]]:
    frame = runs_table(results)
    if frame.empty:
        return []
    marks, styles = _verdicts(results), ModelStyles.of(results)
    positions = {record.run_id: index for index, configuration in enumerate(points) for record in configuration.records}
    records = {record.run_id: record for record in results.records}
    rows = []
    for row in frame.to_dict("records"):
        values = {str(key): _plain(value) for key, value in row.items() if key not in LEFT_OUT}
        configuration = positions.get(row["run"])
        # A notice explains why a run has no configuration here.
        label = results.configuration_name(records[row["run"]])
        values["recommended"] = None if configuration is None else marks.get(id(points[configuration]))
        address, style = run_address(row["run"]), styles.style(records[row["run"]])
        rows.append({**values, "setting": configuration, "label": label, "folder": address, "style": style})
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
    effect: Mapping[str, Any],
    metrics: Sequence[str],
) -> dict[str, Any]:
    """A configuration for the page: means over seeds of each category, and over all categories."""
    values = {place: _values(configuration, place, metrics) for place in configuration.by_category}
    # The values of all categories; those of a single one are not computed twice.
    values[""] = next(iter(values.values())) if len(values) == 1 else _values(configuration, None, metrics)
    return {
        "label": configuration.label,
        "name": configuration.name,
        "facts": axis_values(configuration.first, axes),
        "effects": effect,
        "dataset": datasets.index(dataset(configuration.first)),
        "values": values,
        "run": configuration.best_run,
        BUSY: "yes" if configuration.busy else None,
        "complete": len(configuration.by_category),
    }


def _values(configuration: Configuration, place: str | None, metrics: Sequence[str]) -> dict[str, Any]:
    """Metrics and costs of a configuration on one category; None for all categories."""
    values = {name: _plain(configuration.metric(name, place)) for name in metrics}
    return values | {name: _plain(configuration.cost(name, place)) for name in COSTS}
