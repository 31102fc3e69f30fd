"""Tables that compare configurations: with each other, on each category, over seeds, and on two backends."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd

from harness.backends.implied import implied_values
from harness.backends.latency import BUSY
from harness.config.axes import COLUMNS, TRAINING_LIMITS, UNIFY, columns
from harness.metrics.delong import paired_test
from harness.report.category_ranks import MEAN_RANK, mean_ranks
from harness.report.configurations import Configuration, axis_values
from harness.report.facts import (
    ENDS,
    HEADLINE,
    HIGH,
    LOW,
    axis_columns,
    busy,
    category,
    cell,
    costs,
    interval_text,
    metric_columns,
    short_names,
)
from harness.report.false_alarms import false_alarms
from harness.report.recommend import Recommendation, answers, configuration_standings
from harness.report.results import Results
from harness.report.standings import Standing, interval
from harness.report.synthetic import dataset_ranking
from harness.report.tables import WIDEST
from harness.results.record import RunRecord

# The fixed behaviour of anomalib in parameters that only native detectors have. So are their implied values.
AS_ANOMALIB = {"center_crop": None, "precision": "fp32", "upsampling": "nearest"}
AVERAGE = "average"
SYNTHETIC_RANK = "synthetic_rank"
SHOWN_COSTS = ("ms_per_image_p50", "fit_seconds", "test_seconds")


def summary_table(results: Results) -> pd.DataFrame:
    """The best configuration of each model on each data set, and the recommended one, best first.

    A configuration is a spec without category and seed. The order is by mean image AUROC over categories and seeds,
    then by pixel AUROC. Configurations with more categories come first.
    """
    rows: list[dict[str, Any]] = []
    axes, metrics = axis_columns(results.records), metric_columns(results.ok())
    recommended = {id(answer.configuration): _recommended(answer) for answer in answers(results)}
    for name, group in results.configurations.items():
        standings = {
            id(one): standing for one, standing in zip(group, configuration_standings(results, name), strict=True)
        }
        ranking = dataset_ranking(results, name)
        synthetic = ranking.ranks() if ranking else {}
        counts = Counter(configuration.model for configuration in group)
        ranks = mean_ranks(results, name)
        leaders = {configuration.model: id(configuration) for configuration in reversed(group)}
        leading = [configuration for configuration in group if id(configuration) in {*leaders.values(), *recommended}]
        for configuration in leading:
            row = _summary_row(results, configuration, axes, metrics, standings[id(configuration)])
            row |= {"recommended": recommended.get(id(configuration))}
            row |= {"configurations_tried": counts[configuration.model], MEAN_RANK: ranks.get(id(configuration))}
            row |= {SYNTHETIC_RANK: synthetic.get(id(configuration))} if synthetic else {}
            rows.append(row)
    # The recommended configurations come first.
    rows.sort(key=lambda row: row["recommended"] is None)
    frame = pd.DataFrame(rows)
    for axis in axes if rows else ():
        frame[axis] = pd.Series([row[axis] for row in rows], dtype=object)
    return frame.drop(columns=[name for name in (MEAN_RANK, BUSY) if rows and frame[name].isna().all()])


def _recommended(answer: Recommendation) -> str:
    if answer.doubts:
        return answer.verdict
    return "by synthetic defects" if answer.synthetic else "yes"


def _summary_row(
    results: Results, best: Configuration, axes: Sequence[str], metrics: Sequence[str], standing: Standing
) -> dict[str, Any]:
    ends = interval(results, best)
    values = axis_values(best.first, axes)
    return {
        "configuration": best.name,
        "recommended": None,
        **{metric: best.metric(metric) for metric in HEADLINE},
        ENDS: interval_text(ends),
        "vs_best": standing.mark or None,
        SHOWN_COSTS[0]: best.cost(SHOWN_COSTS[0]),
        MEAN_RANK: None,
        LOW: ends[0] if ends else None,
        HIGH: ends[1] if ends else None,
        "p_vs_best": standing.p,
        "may_be_lower_by": standing.upper,
        "model": values.pop("model"),
        **values,
        **{metric: best.metric(metric) for metric in metrics if metric not in HEADLINE},
        **false_alarms(best.records),
        **{name: best.cost(name) for name in SHOWN_COSTS[1:]},
        BUSY: "yes" if best.busy else None,
        "categories": ", ".join(best.by_category),
        "runs": len(best.records),
        "configurations_tried": 0,
        "best_run": best.best_run,
    }


def pivot_table(results: Results, metrics: Sequence[str]) -> pd.DataFrame:
    """A block of rows for each metric: the categories, then their average; a column for each configuration, best first.

    The values are means over seeds. A configuration that lacks a category has no average.

    Args:
        results: of the result folder.
        metrics: names of metrics; those that no run has are left out.
    """
    frames = []
    for dataset, group in zip(short_names(list(results.configurations)), results.configurations.values(), strict=True):
        shown = group[:WIDEST]
        categories = sorted({name for configuration in group for name in configuration.by_category})
        for metric in metrics:
            rows = []
            for name in (*categories, AVERAGE) if len(categories) > 1 else categories:
                values = [_pivot_cell(configuration, metric, name, len(categories)) for configuration in shown]
                rows.append({"data": dataset, "metric": metric, "category": name}
                            | {s.label: value for s, value in zip(shown, values, strict=True)})  # fmt: skip
            if any(value is not None for row in rows for value in list(row.values())[3:]):
                frames.append(pd.DataFrame(rows))
    if not frames:
        return pd.DataFrame()
    frame = pd.concat(frames, ignore_index=True)
    return frame if frame["data"].nunique() > 1 else frame.drop(columns="data")


def _pivot_cell(configuration: Configuration, metric: str, name: str, categories: int) -> float | None:
    if name == AVERAGE:
        return configuration.metric(metric) if len(configuration.by_category) == categories else None
    return configuration.metric(metric, name)


def seeds_table(results: Results) -> pd.DataFrame:
    """Each seed of configurations with several seeds, by category, then their mean and standard deviation."""
    metrics = metric_columns(results.ok())
    axes = axis_columns(results.records)
    rows: list[dict[str, Any]] = []
    for group in results.configurations.values():
        for configuration in group:
            values = axis_values(configuration.first, axes)
            for name, runs in configuration.by_category.items():
                if len(runs) > 1:
                    rows += _seed_rows({"category": name, **values}, runs, metrics)
    frame = pd.DataFrame(rows)
    for column in (*axes, "seed") if rows else ():
        frame[column] = pd.Series([row[column] for row in rows], dtype=object)
    return frame.dropna(axis="columns", how="all")


def _seed_rows(base: dict[str, Any], runs: Sequence[RunRecord], metrics: Sequence[str]) -> list[dict[str, Any]]:
    rows = [base | {"seed": run.spec["seed"]} | {metric: run.metrics.get(metric) for metric in metrics} for run in runs]
    for name, function in (("mean", np.mean), ("sd", lambda values: np.std(values, ddof=1))):
        row = base | {"seed": name}
        for metric in metrics:
            column = [run.metrics.get(metric) for run in runs]
            values = [value for value in column if value is not None]
            row[metric] = float(function(values)) if len(values) == len(column) else None
        rows.append(row)
    return rows


def backends_table(results: Results) -> pd.DataFrame:
    """A row for each pair of runs that differ in their backend only: metrics of both, and their difference.

    A pair has equal data, model, backbone, weights, layers, image size and seed. Every parameter that both backends
    know is equal too.
    """
    axes = axis_columns(results.records)
    rows = []
    for left, right in _pairs(results.ok()):
        spec, names = right.spec, (left.spec["backend"], right.spec["backend"])
        parameters = {**left.spec["params"], **right.spec["params"]}
        row = {
            "category": category(left),
            **{name: value for name, value in columns(spec).items() if name not in {"backend", "image_size"}},
            **{axis: cell(parameters.get(axis)) for axis in axes},
            "seed": spec["seed"],
        }
        for metric in HEADLINE:
            values = (left.metrics.get(metric), right.metrics.get(metric))
            row |= {f"{metric} {name}": value for name, value in zip(names, values, strict=True)}
            row[f"{metric} difference"] = None if values[0] is None or values[1] is None else values[1] - values[0]
        one, two = results.components(left.run_id), results.components(right.run_id)
        row["image_AUROC p"] = paired_test([one], [two]) if one and two else None
        for cost in ("alone_seconds", "ms_per_image_p50"):
            row |= {f"{name} {cost}": costs(run)[cost] for name, run in zip(names, (left, right), strict=True)}
        row |= {f"{name} {BUSY}": busy(run) for name, run in zip(names, (left, right), strict=True)}
        rows.append(row)
    return pd.DataFrame(rows).dropna(axis="columns", how="all") if rows else pd.DataFrame()


def _key_without_backend(record: RunRecord) -> str:
    """The values that two runs of a pair share; parameters are left out, since backends differ in them."""
    keys = (*(name for name in COLUMNS if name != "backend"), "seed", "data_kind", "category", "threshold")
    values = record.spec.get("normalization") or {}
    same = [record.data["fingerprint"], record.weights.get("sha256"), values.get("mean"), values.get("std")]
    # Records with the default protocol have none.
    optional = (record.spec.get("protocol"), record.spec.get(UNIFY), record.n_train)
    return repr([*same, *(record.spec[key] for key in keys), *optional])


def _pairs(records: Sequence[RunRecord]) -> Iterator[tuple[RunRecord, RunRecord]]:
    groups: dict[str, dict[str, list[RunRecord]]] = {}
    for record in records:
        groups.setdefault(_key_without_backend(record), {}).setdefault(str(record.spec["backend"]), []).append(record)
    for backends in groups.values():
        for first, second in itertools.combinations(sorted(backends), 2):
            yield from _equal_parameters(backends[first], backends[second])


def _equal_parameters(first: Sequence[RunRecord], second: Sequence[RunRecord]) -> Iterator[tuple[RunRecord, RunRecord]]:
    """Pairs with the same values of all parameters that both backends know."""
    parameters = [_all_parameters(record) for record in (*first, *second)]
    shared = sorted(set.intersection(*(set(values) for values in parameters)))
    seconds: dict[str, list[RunRecord]] = {}
    for record in second:
        seconds.setdefault(_values_of(record, shared), []).append(record)
    for record in first:
        yield from ((record, other) for other in seconds.get(_values_of(record, shared), []))


def _values_of(record: RunRecord, names: Sequence[str]) -> str:
    parameters = _all_parameters(record)
    return repr([parameters[name] for name in names])


def _all_parameters(record: RunRecord) -> dict[str, Any]:
    """Parameters of the model, and the length of the training, which anomalib takes from the trainer."""
    limits = {key: value for key, value in record.spec["trainer"].items() if key in TRAINING_LIMITS}
    return {**AS_ANOMALIB, **implied_values("native", record.spec["model"]), **limits, **record.spec["params"]}
