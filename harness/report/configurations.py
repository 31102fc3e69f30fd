"""Configurations: groups of runs that differ only in category and seed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from harness.config.axes import AXES, COLUMNS, NORMALIZATION, UNIFY, columns
from harness.metrics.evaluate import FPR_LIMIT
from harness.registry import HEADLINES, SYNTHETIC_AUROC
from harness.report.facts import (
    LATENCIES,
    axis_columns,
    busy,
    category,
    cell,
    costs,
    dataset,
    normalization,
    parameter,
    weights_source,
)
from harness.results.record import RunRecord

# `rank` adds scores of synthetic defects, and `extra_metrics` adds metrics. Both change neither the model nor the other
# metrics. The name of the data set has the protocol.
NOT_OF_A_CONFIGURATION = {"category", "seed", "data_kind", "rank", "extra_metrics", "protocol"}
OF_WEIGHTS = ("weights_source", "weights_sha256", "normalization_values")


@dataclass(frozen=True)
class Configuration:
    """A point of the grid on all categories and seeds of one data set.

    Attributes:
        label: the axes in which configurations of the data set differ, one a line.
        records: the runs, of all categories and seeds.
    """

    label: str
    records: tuple[RunRecord, ...]

    @property
    def first(self) -> RunRecord:
        """One of the runs; their specs are equal except for category and seed."""
        return self.records[0]

    @property
    def model(self) -> tuple[str, str]:
        """(backend, model)."""
        return self.first.spec["backend"], self.first.spec["model"]

    @property
    def best_run(self) -> str:
        """Id of the best run."""
        return max(self.records, key=RunRecord.rank).run_id

    @property
    def best_runs(self) -> list[RunRecord]:
        """The best run of each category, of all seeds."""
        return [max(runs, key=RunRecord.rank) for runs in self.by_category.values()]

    @property
    def name(self) -> str:
        """The label in one line."""
        return self.label.replace("\n", " ")

    @cached_property
    def by_category(self) -> dict[str, list[RunRecord]]:
        """The runs of each category, of all seeds."""
        runs: dict[str, list[RunRecord]] = {}
        for record in sorted(self.records, key=lambda record: (category(record), record.spec["seed"])):
            runs.setdefault(category(record), []).append(record)
        return runs

    def metric(self, name: str, of: str | None = None) -> float | None:
        """Mean of a metric over seeds and categories.

        Args:
            name: of the metric.
            of: the category; None for the mean over all categories.

        Returns:
            The mean; None if a run lacks the metric. Categories where no run has it are left out.
        """
        groups = [self.by_category.get(of, [])] if of is not None else list(self.by_category.values())
        means = [_mean([record.metrics.get(name) for record in records]) for records in groups]
        # A category without anomalous images, for example, has no AUROC in any configuration.
        defined = [mean for mean in means if mean is not None]
        return _mean(defined)

    def cost(self, name: str, of: str | None = None) -> float | None:
        """Median of a cost over runs.

        Times of single images from a busy machine count only where no run has another time.

        Args:
            name: a key of `facts.costs`.
            of: the category; None for all categories.

        Returns:
            The median; None if a run lacks the cost.
        """
        records = self.records if of is None else self.by_category.get(of, [])
        if name in LATENCIES:
            records = [record for record in records if not busy(record)] or records
        values = [value for record in records if (value := self._costs[record.run_id][name]) is not None]
        if not values or len(values) < len(records):
            return None
        return float(values[0] if len(values) == 1 else np.median(values))

    @cached_property
    def _costs(self) -> dict[str, dict[str, float | None]]:
        return {record.run_id: costs(record) for record in self.records}

    @property
    def busy(self) -> bool:
        """Whether all times of single images were taken on a busy machine, so that they decide nothing."""
        return all(busy(record) for record in self.records)

    @property
    def latency(self) -> float | None:
        """Median milliseconds of a single image."""
        return self.cost("ms_per_image_p50")

    def rank(self) -> tuple[int, float, float, float, str]:
        """Sort key, larger is better: more categories, headline metrics, synthetic AUROC; the label decides ties."""
        values = (self.metric(name) for name in (*HEADLINES[self.first.task], SYNTHETIC_AUROC))
        first, second, synthetic = (-1.0 if value is None else value for value in values)
        return len(self.by_category), first, second, synthetic, self.label


def _mean(values: Sequence[float | None]) -> float | None:
    defined = [value for value in values if value is not None]
    if not values or len(defined) < len(values):
        return None
    # Most configurations have one seed; NumPy takes a hundred times as long for one value.
    return float(defined[0] if len(defined) == 1 else np.mean(defined))


def configurations(records: Sequence[RunRecord]) -> dict[str, list[Configuration]]:
    """The configurations of each data set, best first, of the runs that are `current`, and `rivals` there."""
    groups: dict[tuple[str, str], list[RunRecord]] = {}
    for record in rivals(current(records)):
        groups.setdefault((dataset(record), _key(record)), []).append(record)
    names = labels([group[0] for group in groups.values()])
    by_dataset: dict[str, list[Configuration]] = {}
    for ((name, _), group), label in zip(groups.items(), names, strict=True):
        by_dataset.setdefault(name, []).append(Configuration(label, tuple(group)))
    return {name: sorted(group, key=Configuration.rank, reverse=True) for name, group in by_dataset.items()}


def current(records: Sequence[RunRecord]) -> list[RunRecord]:
    """Runs that can be compared: on the newest test images, one for each configuration, category and seed.

    Of several runs the one that began last counts. A run with fallback weights is dropped if the same spec has a run
    with real weights.
    """
    ok = sorted((record for record in records if record.status == "ok"), key=_began)
    newest = {_place(record): tested_on(record) for record in ok}
    real: set[str] = set()
    if any(record.weights.get("fallback") for record in ok):
        real = {repr(record.spec) for record in ok if not record.weights.get("fallback")}
    latest: dict[tuple[object, ...], RunRecord] = {}
    for record in ok:
        superseded = real and record.weights.get("fallback") and repr(record.spec) in real
        if newest[_place(record)] == tested_on(record) and not superseded:
            latest[_place(record), _key(record), record.spec["seed"]] = record
    return list(latest.values())


def rivals(records: Sequence[RunRecord]) -> list[RunRecord]:
    """Runs with the largest `n_train` of their data set.

    Only these runs are compared, ranked and recommended: fewer images say nothing about a configuration on all images.
    """
    most: dict[str, float] = {}
    for record in records:
        most[dataset(record)] = max(record.n_train, most.get(dataset(record), 0.0))
    return [record for record in records if record.n_train == most[dataset(record)]]


def tested_on(record: RunRecord) -> str:
    """Identity of the images that the metrics count; earlier records only know all test images."""
    images = str(record.data.get("test_fingerprint") or record.data["fingerprint"])
    if holdout := record.spec.get("holdout"):
        images += f" held out {holdout['share']}, seed {holdout['seed']}"
    policy = record.spec["threshold"]
    return f"{images} less {policy['share']}, seed {policy['seed']}" if policy.get("method") == "f1_on_val" else images


def _began(record: RunRecord) -> str:
    return str(record.provenance.get("began", ""))


def _place(record: RunRecord) -> tuple[str, str, str]:
    return dataset(record), record.data["root"], record.spec["category"]


def _key(record: RunRecord) -> str:
    return repr(sorted(facts(record).items()))


def facts(record: RunRecord) -> dict[str, str]:
    """All values that define a configuration: the spec without category and seed, the split, the weights."""
    rest = {key: value for key, value in record.spec.items() if key not in NOT_OF_A_CONFIGURATION}
    for block in ("params", "trainer", "threshold"):
        # Earlier records have keys there whose value is None.
        rest |= {f"{block}.{key}": value for key, value in rest.pop(block).items() if value is not None}
    rest |= columns(record.spec)
    if NORMALIZATION in rest or NORMALIZATION in record.axes:
        values = record.spec.get(NORMALIZATION) or {}
        rest[NORMALIZATION] = normalization(record)
        rest["normalization_values"] = repr([values.get("mean"), values.get("std")])
    rest.setdefault("aupro_limit", FPR_LIMIT)
    rest.setdefault(UNIFY, False)
    rest["weights_source"] = weights_source(record)
    rest["weights_sha256"] = (record.weights.get("sha256") or "")[:12] or None
    if "held_out" in record.data:
        rest["val"], rest["split_seed"] = record.data["held_out"]
    return {key: str(cell(value)) for key, value in rest.items() if value is not None}


def axis_values(record: RunRecord, axes: Sequence[str]) -> dict[str, Any]:
    """Values of the axes of a run's configuration, by column, formatted for a cell.

    Args:
        record: the run.
        axes: parameters of the model that the grid sets.
    """
    return {
        **columns(record.spec),
        **{axis: parameter(record, axis) for axis in axes},
        "weights_source": weights_source(record),
    }


def labels(records: Sequence[RunRecord]) -> list[str]:
    """A label for each configuration, given by one run of it: the model, and the axes that vary."""
    all_facts = [facts(record) for record in records]
    axes = [f"params.{axis}" for axis in axis_columns(records)]
    order = [*(name for name in COLUMNS if name != "model"), NORMALIZATION, *axes]
    names = [*order, *sorted({key for fact in all_facts for key in fact} - {"model", *order})]
    values = {name: {fact.get(name) for fact in all_facts} for name in names}
    # A parameter with one value is shown only where labels would be equal without it. The same holds for the weights,
    # which differ wherever the backbones do.
    informative = [name for name in names if len(values[name] - {None}) > 1 and name not in OF_WEIGHTS]
    varying = [name for name in names if len(values[name]) > 1]
    short = [_label(fact, informative) for fact in all_facts]
    counts = Counter((dataset(record), label) for record, label in zip(records, short, strict=True))
    return [
        label if counts[dataset(record), label] == 1 else _label(fact, varying)
        for record, fact, label in zip(records, all_facts, short, strict=True)
    ]


def _label(fact: Mapping[str, str], names: Sequence[str]) -> str:
    plain = {axis.name for axis in AXES if axis.bare}
    named = [name for name in names if name in fact]
    parts = [fact[name] if name in plain else f"{name.removeprefix('params.')} {fact[name]}" for name in named]
    return "\n".join([fact["model"], *parts])


def key_without(of: Mapping[str, str], axis: str) -> str:
    """The same text for all configurations that differ in one axis only, and in values that follow from it.

    Args:
        of: the `facts` of a run of the configuration.
        axis: the axis that the text leaves out.
    """
    implied = next((one.implies for one in AXES if one.name == axis), ())
    names = {axis, f"params.{axis}"}
    kept = ((key, value) for key, value in of.items() if key not in names and not key.startswith(implied))
    return repr(sorted(kept))
