"""The effect of an axis: a series joins configurations that differ in this axis only; see harness/report/effects.py."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from harness.report.figures.canvas import QUIET, add_legend, family, lines_of, mark_of, new_rows, ring, title
from harness.report.model_styles import NAMED

WIDE = 8  # a larger ratio of the ends of an axis makes it logarithmic
TICKS = 12
NAME_WIDTH = 60  # characters of a line

# The mean of a metric or cost of a configuration; None where it has none.
Average = Callable[[Mapping[str, Any], str], float | None]


@dataclass(frozen=True)
class _Series:
    name: str
    points: Sequence[tuple[Any, Mapping[str, Any]]]


def longest_series(configurations: Sequence[Mapping[str, Any]]) -> str | None:
    """The axis with the most points on lines; None where no two configurations differ in one axis only.

    Args:
        configurations: of one data set, as the page has them.
    """
    points: Counter[str] = Counter()
    for axis in dict.fromkeys(axis for one in configurations for axis in one["effects"]):
        values: dict[int, set[Any]] = {}
        for one in configurations:
            if axis in one["effects"]:
                values.setdefault(one["effects"][axis]["series"], set()).add(one["effects"][axis]["value"])
        points[axis] = sum(len(distinct) for distinct in values.values() if len(distinct) > 1)
    best = max(points, key=lambda axis: points[axis], default=None)
    return best if best is not None and points[best] else None


def effect_figure(
    configurations: Sequence[Mapping[str, Any]],
    axis: str,
    names: Sequence[str],
    heading: str,
    better: Callable[[float, float], bool],
    average: Average,
) -> Figure:
    """Quality, and cost below it, over the values of an axis.

    Args:
        configurations: of one data set, as the page has them.
        axis: name of the axis.
        names: of the quality and of the cost.
        heading: of the figure.
        better: whether the first value of the quality is better than the second.
        average: gives the value of a configuration.
    """
    series = _series(configurations, axis, names[0], better, average)
    values = {value for one in series for value, _ in one.points}
    words = any(not isinstance(value, int | float) for value in values)
    places = {value: place for place, value in enumerate(sorted(values, key=str))} if words else {v: v for v in values}
    # The best lines have a look and a name of their own, and all others are thin. A point without a line has no name.
    named = [one for one in series if len(one.points) > 1][:NAMED]
    lines = lines_of([[configuration["style"] for _, configuration in one.points] for one in named])
    figure, rows = new_rows(heading, [1.0] * len(names), height=2.7 * len(names), shared=True)
    for row, name in zip(rows, names, strict=True):
        for index, one in enumerate(series):
            _draw(row, one, [(places[value], average(configuration, name)) for value, configuration in one.points],
                  lines[index] if index < len(named) else None)  # fmt: skip
        _name_others(row, series[len(named) :])
        ring(row, [
            (places[value], height, configuration["recommended"])
            for one in series
            for value, configuration in one.points
            if (height := average(configuration, name)) is not None
        ])  # fmt: skip
        row.set_ylabel(title(name))
    _ticks(rows[-1], places, words)
    rows[-1].set_xlabel(title(axis))
    add_legend(figure, rows[0])
    return figure


def _draw(
    row: Axes, one: _Series, points: Sequence[tuple[float, float | None]], line: Mapping[str, Any] | None
) -> None:
    """The line of a series, and a point for each configuration in the style of its model."""
    known = sorted((across, up) for across, up in points if up is not None)
    look = {**line, "label": one.name, "linewidth": 1.6} if line else {"color": QUIET, "linewidth": 0.8, "alpha": 0.5}
    if len(known) > 1:
        row.plot(*zip(*known, strict=True), **look)
    for (across, up), (_, configuration) in zip(points, one.points, strict=True):
        if up is not None:
            alpha = 1.0 if line or len(known) == 1 else 0.5
            row.plot([across], [up], linestyle="none", markersize=5, alpha=alpha, **mark_of(configuration["style"]))


def _name_others(row: Axes, series: Sequence[_Series]) -> None:
    """Put the models of series without a name into the legend."""
    configurations = [configuration for one in series for _, configuration in one.points]
    for name, style in {family(one): one["style"] for one in configurations}.items():
        row.plot([], [], linestyle="none", markersize=5, label=f"other {name}", **mark_of(style))


def _series(
    configurations: Sequence[Mapping[str, Any]],
    axis: str,
    metric: str,
    better: Callable[[float, float], bool],
    average: Average,
) -> list[_Series]:
    """The series, the best first. Of several configurations with one value, the best one counts."""
    groups: dict[int, dict[Any, tuple[float, Mapping[str, Any]]]] = {}
    for one in configurations:
        effect, value = one["effects"].get(axis), average(one, metric)
        if effect is None or value is None:
            continue
        points = groups.setdefault(effect["series"], {})
        other = points.get(effect["value"])
        if other is None or better(value, other[0]):
            points[effect["value"]] = (value, one)
    # The sign makes the best value the largest one.
    sign = 1 if better(1.0, 0.0) else -1
    best = sorted(
        groups.values(), key=lambda points: (len(points) > 1, max(sign * value for value, _ in points.values())),
        reverse=True,
    )  # fmt: skip
    lines = [[(value, one) for value, (_, one) in points.items()] for points in best]
    return [_Series(_name([one for _, one in points]), points) for points in lines]


def _name(members: Sequence[Mapping[str, Any]]) -> str:
    """What all configurations of a series share in their labels."""
    first, *others = [one["label"].split("\n") for one in members]
    shared = [line for line in first if all(line in lines for lines in others)]
    return textwrap.fill(" ".join(shared) or "all configurations", NAME_WIDTH)


def _ticks(axes: Axes, places: Mapping[Any, float], words: bool) -> None:
    if words:
        # Layers such as layer2+layer3 are wrapped between their names.
        words_of = [str(value).replace("+", "+ ") for value in places]
        names = [textwrap.fill(words, 16, break_long_words=False).replace("+ ", "+") for words in words_of]
        axes.set_xticks(list(places.values()), names, rotation=20 if len(places) > 4 else 0)
        return
    values = sorted(places.values())
    if values[0] > 0 and values[-1] / values[0] >= WIDE:
        axes.set_xscale("log")
        axes.minorticks_off()
    axes.set_xticks(values[:TICKS], [f"{value:g}" for value in values[:TICKS]])
