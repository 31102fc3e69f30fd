"""Settings: runs that differ in category and seed only, taken together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from harness.record import RunRecord
from harness.report.facts import axis_columns, category, cell, costs, dataset, join, weights_source


@dataclass(frozen=True)
class Setting:
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
        return _mean(means)

    def rank(self) -> tuple[int, float, float, str]:
        """Larger is better: more categories, image AUROC, pixel AUROC; the label decides ties."""
        image, pixel = self.metric("image_AUROC"), self.metric("pixel_AUROC")
        return (len(self.by_category), -1 if image is None else image, -1 if pixel is None else pixel, self.label)


def _mean(values: Sequence[float | None]) -> float | None:
    if not values or any(value is None for value in values):
        return None
    return float(np.mean([value for value in values if value is not None]))


def settings(records: Sequence[RunRecord]) -> dict[str, list[Setting]]:
    """By data set, best first.

    Where the data was changed between calls only runs on what it was last count, and a run that fell back to random
    weights gives way to the same run with real ones.
    """
    datasets: dict[str, dict[str, list[RunRecord]]] = {}
    for record in on_current_data([record for record in records if record.status == "ok"]):
        datasets.setdefault(dataset(record), {}).setdefault(_key(record), []).append(record)
    return {
        name: sorted(_labelled(list(groups.values())), key=lambda setting: setting.rank(), reverse=True)
        for name, groups in datasets.items()
    }


def on_current_data(records: Sequence[RunRecord]) -> list[RunRecord]:
    """Those on what each data set was last."""
    newest: dict[tuple[str, str, str], tuple[str, str]] = {}
    for record in records:
        place = (record.data["kind"], record.data["root"], record.spec["category"])
        newest[place] = max(newest.get(place, ("", "")), (record.provenance["began"], record.data["fingerprint"]))
    real = {repr(record.spec) for record in records if not record.weights.get("fallback")}
    return [
        record
        for record in records
        if newest[record.data["kind"], record.data["root"], record.spec["category"]][1] == record.data["fingerprint"]
        and not (record.weights.get("fallback") and repr(record.spec) in real)
    ]


def _key(record: RunRecord) -> str:
    rest = {key: value for key, value in record.spec.items() if key not in {"category", "seed"}}
    # The same policy can find other weights later: those are other settings.
    rest["weights"] = [record.weights.get("source"), record.weights.get("sha256")]
    return repr(sorted(rest.items(), key=lambda item: item[0]))


def described(record: RunRecord, axes: Sequence[str]) -> dict[str, Any]:
    """What a setting is made of, by name, as shown."""
    spec = record.spec
    return {
        "model": spec["model"],
        "backend": spec["backend"],
        "backbone": spec["backbone"],
        "layers": join(spec["layers"]),
        "image_size": join(spec["image_size"], "x") or None,
        **{axis: cell(spec["params"].get(axis)) for axis in axes},
        "weights_source": weights_source(record),
    }


def _labelled(groups: Sequence[Sequence[RunRecord]]) -> list[Setting]:
    """Settings with labels of only what varies between them; the model always."""
    axes = axis_columns([record for group in groups for record in group])
    facts = [described(group[0], axes) | _less_common(group[0]) for group in groups]
    values = {key: {repr(fact[key]) for fact in facts} for key in facts[0] if key != "model"}
    # A parameter that has one value wherever there is one tells nothing, unless labels would be the same without it.
    telling = [key for key in values if len(values[key] - {"None"}) > 1]
    varying = [key for key in values if len(values[key]) > 1]
    short = Counter(_label(fact, telling) for fact in facts)
    seen: Counter[str] = Counter()
    found = []
    for fact, group in zip(facts, groups, strict=True):
        label = _label(fact, telling)
        label = label if short[label] == 1 else _label(fact, varying)
        seen[label] += 1
        # Settings that differ in nothing that has a name here are still told apart.
        found.append(Setting(label if seen[label] == 1 else f"{label}\n({seen[label]})", tuple(group)))
    return found


def _less_common(record: RunRecord) -> dict[str, Any]:
    """What else may tell two settings apart."""
    spec = record.spec
    return {
        "threshold": spec["threshold"].get("method"),
        "max_epochs": spec["trainer"].get("max_epochs"),
        "batch": spec["train_batch_size"],
        "weights": (record.weights.get("sha256") or "")[:6] or None,
    }


def _label(fact: Mapping[str, Any], varying: Sequence[str]) -> str:
    plain = {"backend", "backbone", "layers"}
    named = [key for key in varying if fact[key] is not None]
    parts = [str(fact[key]) if key in plain else f"{key} {fact[key]}" for key in named]
    return "\n".join([str(fact["model"]), *parts])
