"""A table of one metric for a paper: mean and standard deviation over seeds, the best value of each row marked."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from harness.common.errors import ConfigError, StoreError, UnknownNameError, unknown_name
from harness.registry import Metric, metric
from harness.report.configurations import Configuration, axis_values
from harness.report.facts import axis_columns, category, metric_columns, short_names
from harness.report.results import Results

CATEGORY, CONFIGURATION = "category", "configuration"
AVERAGE = "average"
DIGITS = 3


@dataclass(frozen=True)
class Entry:
    """One cell.

    Attributes:
        mean: over the seeds; None without a value.
        sd: standard deviation over the seeds, with n - 1 in the denominator; None for a single seed.
        best: whether no other cell of the row is better, after rounding.
    """

    mean: float | None
    sd: float | None = None
    best: bool = False


@dataclass(frozen=True)
class MetricTable:
    """A table of one metric.

    Attributes:
        metric: name of the metric, such as image_AUROC.
        digits: digits after the decimal point.
        row_names: names of the axes of the rows.
        rows: one text for each axis and row.
        columns: the texts of the columns.
        entries: the cells, by row.
        notes: sentences that belong below the table.
    """

    metric: str
    digits: int
    row_names: tuple[str, ...]
    rows: list[tuple[str, ...]]
    columns: list[str]
    entries: list[list[Entry]]
    notes: list[str]


def metric_table(
    results: Results, name: str, rows: Sequence[str] = (CATEGORY,), columns: Sequence[str] = ("model",),
    digits: int = DIGITS,
) -> MetricTable:  # fmt: skip
    """Build the table. A cell shows the best configuration of its group, where the group has several.

    Args:
        results: of a result folder.
        name: of the metric.
        rows: axes of the rows: `category`, `configuration`, or columns of the workbook such as `backbone`.
        columns: axes of the columns, in the same words.
        digits: digits after the decimal point.

    Returns:
        The table. With rows of categories and more than one category, the last row is their average.

    Raises:
        UnknownNameError: no finished run has the metric, or there is no such axis.
        StoreError: no run is finished.
        ConfigError: an axis is named twice, or `category` is an axis of the columns.
    """
    _check(results, name, rows, columns)
    groups = _Groups(results, metric(name), rows, columns)
    keys, labels = groups.row_keys(), groups.column_keys()
    entries = [groups.entries(key, labels, digits) for key in keys]
    texts = [" ".join(label) for label in labels]
    return MetricTable(name, digits, tuple(groups.row_names), keys, texts, entries, groups.notes())


def _check(results: Results, name: str, rows: Sequence[str], columns: Sequence[str]) -> None:
    records = results.ok()
    if not records:
        raise StoreError(f"{results.folder.root}: no finished runs found; expected one or more.")
    with_values = [
        one for one in metric_columns(records) if any(record.metrics.get(one) is not None for record in records)
    ]
    if name not in with_values:
        raise UnknownNameError(unknown_name("metric of these runs", name, with_values))
    known = [CATEGORY, CONFIGURATION, *(axis_values(records[0], axis_columns(records)))]
    for axis in (*rows, *columns):
        if axis not in known:
            raise UnknownNameError(unknown_name("axis", axis, known))
    if len({*rows, *columns}) < len([*rows, *columns]):
        raise ConfigError(f"--rows and --columns: an axis found twice in {[*rows, *columns]}; expected each axis once.")
    if CATEGORY in columns or (CATEGORY in rows and len(rows) > 1):
        raise ConfigError(
            f"--rows, --columns: {CATEGORY!r} beside other axes found; expected it alone, as --rows {CATEGORY}."
        )


class _Groups:
    """The configurations of each cell."""

    def __init__(self, results: Results, of: Metric, rows: Sequence[str], columns: Sequence[str]) -> None:
        self._metric, self._rows, self._columns = of, tuple(rows), tuple(columns)
        self._datasets = dict(zip(results.configurations, short_names(list(results.configurations)), strict=True))
        self._configurations = results.configurations
        self._axes = axis_columns(results.ok())
        backends: dict[str, set[str]] = {}
        for group in results.configurations.values():
            for one in group:
                backends.setdefault(one.first.spec["model"], set()).add(one.first.spec["backend"])
        self._several = {model for model, names in backends.items() if len(names) > 1}
        self._tried: set[int] = set()
        self._seeds: set[int] = set()

    @property
    def row_names(self) -> list[str]:
        """Names of the axes of the rows; data sets are an axis where there are several."""
        return [*(["data"] if len(self._datasets) > 1 else []), *self._rows]

    def row_keys(self) -> list[tuple[str, ...]]:
        """The texts of the rows, in the order of the report."""
        keys: dict[tuple[str, ...], None] = {}
        for dataset, group in self._configurations.items():
            front = self._front(dataset)
            if self._rows == (CATEGORY,):
                names = sorted({name for one in group for name in one.by_category})
                inner_keys: list[tuple[str, ...]] = [
                    (name,) for name in ([*names, AVERAGE] if len(names) > 1 else names)
                ]
            else:
                inner_keys = [self._key(one, self._rows) for one in group]
            keys |= {(*front, *key): None for key in inner_keys}
        return list(keys)

    def column_keys(self) -> list[tuple[str, ...]]:
        """The texts of the columns; the column of the best configuration comes first."""
        return list({self._key(one, self._columns): None for group in self._configurations.values() for one in group})

    def entries(self, row: tuple[str, ...], columns: Sequence[tuple[str, ...]], digits: int) -> list[Entry]:
        """The cells of a row, the best of them marked."""
        cells = [self._entry(row, column) for column in columns]
        rounded = [None if cell.mean is None else round(cell.mean, digits) for cell in cells]
        values = [value for value in rounded if value is not None]
        if len(values) < 2:
            return cells
        best = max(values) if self._metric.higher_is_better else min(values)
        return [Entry(cell.mean, cell.sd, value == best) for cell, value in zip(cells, rounded, strict=True)]

    def notes(self) -> list[str]:
        """What a reader must know about the choice of configurations and the numbers. Call it after `entries`."""
        better = "" if self._metric.higher_is_better else " Smaller values are better."
        notes = [f"{self._metric.key}.{better}"]
        if max(self._tried, default=1) > 1:
            notes.append(
                f"A cell shows the best of up to {max(self._tried)} configurations, chosen by this metric on the same "
                "images, so its value is optimistic."
            )
        if max(self._seeds, default=1) > 1:
            notes.append(f"Mean and standard deviation over {max(self._seeds)} seeds.")
        return notes

    def _entry(self, row: tuple[str, ...], column: tuple[str, ...]) -> Entry:
        for dataset, group in self._configurations.items():
            front = self._front(dataset)
            if row[: len(front)] != front:
                continue
            rest = row[len(front) :]
            chosen = self._best([one for one in group if self._key(one, self._columns) == column], rest)
            if chosen is not None:
                return self._value(chosen, rest[0] if self._rows == (CATEGORY,) else AVERAGE)
        return Entry(None)

    def _best(self, group: Sequence[Configuration], row: tuple[str, ...]) -> Configuration | None:
        """The best configuration of a group. All categories have the same one."""
        if self._rows != (CATEGORY,):
            group = [one for one in group if self._key(one, self._rows) == row]
        usable = [one for one in group if one.metric(self._metric.key) is not None]
        self._tried.add(len(usable))
        sign = 1 if self._metric.higher_is_better else -1
        return max(
            usable, key=lambda one: (len(one.by_category), sign * (one.metric(self._metric.key) or 0)), default=None
        )

    def _value(self, configuration: Configuration, of: str) -> Entry:
        """Mean and standard deviation over seeds of one category, or of the average over categories."""
        categories = list(configuration.by_category) if of == AVERAGE else [of]
        seeds: dict[int, list[float]] = {}
        for record in configuration.records:
            value = record.metrics.get(self._metric.key)
            if value is not None and category(record) in categories:
                seeds.setdefault(record.spec["seed"], []).append(value)
        most = max((len(values) for values in seeds.values()), default=0)
        # A seed that lacks a category has another average.
        means = [float(np.mean(values)) for values in seeds.values() if len(values) == most]
        if not means:
            return Entry(None)
        self._seeds.add(len(means))
        return Entry(float(np.mean(means)), float(np.std(means, ddof=1)) if len(means) > 1 else None)

    def _front(self, dataset: str) -> tuple[str, ...]:
        return (self._datasets[dataset],) if len(self._datasets) > 1 else ()

    def _key(self, configuration: Configuration, axes: Sequence[str]) -> tuple[str, ...]:
        return tuple(self._texts(configuration, axes))

    def _texts(self, configuration: Configuration, axes: Sequence[str]) -> Iterator[str]:
        values = axis_values(configuration.first, self._axes)
        for axis in axes:
            if axis == CONFIGURATION:
                yield configuration.name
            elif axis == "model" and values["model"] in self._several and "backend" not in axes:
                yield f"{values['model']} ({configuration.first.spec['backend']})"
            else:
                value = values.get(axis)
                yield "-" if value is None else str(value)
