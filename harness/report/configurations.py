"""Settings: runs that differ in category and seed only, taken together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from harness.config.axes import AXES, COLUMNS, NORMALIZATION, columns
from harness.metrics.evaluate import FPR_LIMIT
from harness.registry import HEADLINES
from harness.report.facts import (
    axis_columns,
    category,
    cell,
    costs,
    dataset,
    normalization,
    parameter,
    weights_source,
)
from harness.results.record import RunRecord

OF_WEIGHTS = ("weights_source", "weights_sha256", "normalization_values")


@dataclass(frozen=True)
class Configuration:
    """A point of the grid on all categories and seeds of one data set.

    Attributes:
        label: what tells it from the others of the data set, one part a line.
        records: its runs.
    """

    label: str
    records: tuple[RunRecord, ...]

    @property
    def first(self) -> RunRecord:
        """Any of its runs: their specs are the same but for category and seed."""
        return self.records[0]

    @property
    def model(self) -> tuple[str, str]:
        """(backend, model)."""
        return self.first.spec["backend"], self.first.spec["model"]

    @property
    def best_run(self) -> str:
        """Id of its best run."""
        return max(self.records, key=RunRecord.rank).run_id

    @property
    def name(self) -> str:
        """The label in one line."""
        return self.label.replace("\n", " ")

    @cached_property
    def by_category(self) -> dict[str, list[RunRecord]]:
        """Its runs, of all seeds, by category."""
        found: dict[str, list[RunRecord]] = {}
        for record in sorted(self.records, key=lambda record: (category(record), record.spec["seed"])):
            found.setdefault(category(record), []).append(record)
        return found

    def metric(self, name: str, of: str | None = None) -> float | None:
        """Mean of a metric over seeds, and over categories unless one is named; None if one of them has none."""
        return self._mean(lambda record: record.metrics.get(name), of)

    def cost(self, name: str, of: str | None = None) -> float | None:
        """Median of a figure of `facts.costs` over its runs: one run on a busy machine can't spoil it."""
        chosen = self.records if of is None else self.by_category.get(of, [])
        values = [value for record in chosen if (value := costs(record)[name]) is not None]
        return float(np.median(values)) if values and len(values) == len(chosen) else None

    def _mean(self, value: Callable[[RunRecord], float | None], of: str | None) -> float | None:
        chosen = [self.by_category.get(of, [])] if of is not None else list(self.by_category.values())
        means = [_mean([value(record) for record in records]) for records in chosen]
        # A category without anomalous images, say, has no AUROC, whatever the setting.
        defined = [mean for mean in means if mean is not None]
        return float(np.mean(defined)) if defined else None

    def rank(self) -> tuple[int, float, float, str]:
        """Larger is better: more categories, then the task's headlines; the label decides ties."""
        first, second = (self.metric(name) for name in HEADLINES[self.first.task])
        return (len(self.by_category), -1 if first is None else first, -1 if second is None else second, self.label)


def _mean(values: Sequence[float | None]) -> float | None:
    if not values or any(value is None for value in values):
        return None
    return float(np.mean([value for value in values if value is not None]))


def configurations(records: Sequence[RunRecord]) -> dict[str, list[Configuration]]:
    """By data set, best first, of the runs that `current` keeps."""
    groups: dict[tuple[str, str], list[RunRecord]] = {}
    for record in current(records):
        groups.setdefault((dataset(record), _key(record)), []).append(record)
    labels = _labels([group[0] for group in groups.values()])
    found: dict[str, list[Configuration]] = {}
    for ((name, _), group), label in zip(groups.items(), labels, strict=True):
        found.setdefault(name, []).append(Configuration(label, tuple(group)))
    return {
        name: sorted(of, key=lambda configuration: configuration.rank(), reverse=True) for name, of in found.items()
    }


def current(records: Sequence[RunRecord]) -> list[RunRecord]:
    """Runs that can be compared: on what each test set was last, one for each setting, category and seed.

    Of several the one that began last counts. A run that fell back to random weights gives way to one with real ones.
    """
    ok = sorted((record for record in records if record.status == "ok"), key=_began)
    newest = {_place(record): tested_on(record) for record in ok}
    real = {repr(record.spec) for record in ok if not record.weights.get("fallback")}
    found: dict[tuple[object, ...], RunRecord] = {}
    for record in ok:
        given_way = record.weights.get("fallback") and repr(record.spec) in real
        if newest[_place(record)] == tested_on(record) and not given_way:
            found[_place(record), _key(record), record.spec["seed"]] = record
    return list(found.values())


def tested_on(record: RunRecord) -> str:
    """What the test images are, less those that fixed the threshold; earlier records only know all images."""
    found = str(record.data.get("test_fingerprint") or record.data["fingerprint"])
    policy = record.spec["threshold"]
    return f"{found} less {policy['share']}, seed {policy['seed']}" if policy.get("method") == "f1_on_val" else found


def _began(record: RunRecord) -> str:
    return str(record.provenance.get("began", ""))


def _place(record: RunRecord) -> tuple[str, str, str]:
    return dataset(record), record.data["root"], record.spec["category"]


def _key(record: RunRecord) -> str:
    return repr(sorted(_facts(record).items()))


def _facts(record: RunRecord) -> dict[str, str]:
    """Everything that makes a setting, by name: the spec without category and seed, the split, the weights found."""
    rest = {key: value for key, value in record.spec.items() if key not in {"category", "seed", "data_kind"}}
    for block in ("params", "trainer", "threshold"):
        # Earlier records have keys there that say nothing.
        rest |= {f"{block}.{key}": value for key, value in rest.pop(block).items() if value is not None}
    rest |= columns(record.spec)
    if NORMALIZATION in rest or NORMALIZATION in record.axes:
        values = record.spec.get(NORMALIZATION) or {}
        rest[NORMALIZATION] = normalization(record)
        rest["normalization_values"] = repr([values.get("mean"), values.get("std")])
    rest.setdefault("aupro_limit", FPR_LIMIT)
    rest["weights_source"] = weights_source(record)
    rest["weights_sha256"] = (record.weights.get("sha256") or "")[:12] or None
    if "held_out" in record.data:
        rest["val"], rest["split_seed"] = record.data["held_out"]
    return {key: str(cell(value)) for key, value in rest.items() if value is not None}


def described(record: RunRecord, axes: Sequence[str]) -> dict[str, Any]:
    """The values of a configuration's axes, by column, as shown."""
    return {
        **columns(record.spec),
        **{axis: parameter(record, axis) for axis in axes},
        "weights_source": weights_source(record),
    }


def _labels(records: Sequence[RunRecord]) -> list[str]:
    """One for each setting, by a run of it: only what varies between them, the model always."""
    facts = [_facts(record) for record in records]
    axes = [f"params.{axis}" for axis in axis_columns(records)]
    order = [*(name for name in COLUMNS if name != "model"), NORMALIZATION, *axes]
    names = [*order, *sorted({key for fact in facts for key in fact} - {"model", *order})]
    values = {name: {fact.get(name) for fact in facts} for name in names}
    # A parameter that has one value wherever there is one tells nothing, unless labels would be the same without it.
    # So do the weights, which differ wherever the backbones do.
    telling = [name for name in names if len(values[name] - {None}) > 1 and name not in OF_WEIGHTS]
    varying = [name for name in names if len(values[name]) > 1]
    short = [_label(fact, telling) for fact in facts]
    times = Counter((dataset(record), label) for record, label in zip(records, short, strict=True))
    return [
        label if times[dataset(record), label] == 1 else _label(fact, varying)
        for record, fact, label in zip(records, facts, short, strict=True)
    ]


def _label(fact: Mapping[str, str], names: Sequence[str]) -> str:
    plain = {axis.name for axis in AXES if axis.bare}
    named = [name for name in names if name in fact]
    parts = [fact[name] if name in plain else f"{name.removeprefix('params.')} {fact[name]}" for name in named]
    return "\n".join([fact["model"], *parts])


def apart_from(record: RunRecord, axis: str) -> str:
    """What settings have in common that differ in this axis only."""
    return repr(sorted((key, value) for key, value in _facts(record).items() if key not in {axis, f"params.{axis}"}))
