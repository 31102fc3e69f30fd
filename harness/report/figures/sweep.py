"""Figures of all configurations of a detection on one data set: quality against cost, an axis, the categories."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from harness.report.facts import INTERVAL
from harness.report.figures.canvas import (
    QUIET,
    NamedFigure,
    add_legend,
    colour_of,
    family,
    mark_of,
    named_ticks,
    new_axes,
    ring,
    title,
)
from harness.report.figures.effect import effect_figure, longest_series

FASTER = "images_per_second"  # the only cost that is better when larger
FIRST_COST = "ms_per_image_p50"


@dataclass(frozen=True)
class Place:
    """The configurations of one data set, as the page has them.

    Attributes:
        data: of the page.
        index: of the data set.
        metric: the quality to show.
    """

    data: Mapping[str, Any]
    index: int
    metric: str

    @property
    def configurations(self) -> list[dict[str, Any]]:
        """All, the best first."""
        return [one for one in self.data["settings"] if one["dataset"] == self.index]

    @property
    def categories(self) -> list[str]:
        """Of all configurations, sorted."""
        return sorted({name for one in self.configurations for name in one["values"] if name})

    @property
    def families(self) -> dict[str, list[dict[str, Any]]]:
        """The configurations of each model and backend."""
        groups: dict[str, list[dict[str, Any]]] = {}
        for one in self.configurations:
            groups.setdefault(family(one), []).append(one)
        return groups

    @property
    def cost(self) -> str | None:
        """The cost to show; None where no run has one."""
        costs: list[str] = self.data["costs"]
        return FIRST_COST if FIRST_COST in costs else next(iter(costs), None)

    def average(self, configuration: Mapping[str, Any], name: str) -> float | None:
        """The mean of a metric or cost over all categories; None where a category is missing.

        Args:
            configuration: as the page has it.
            name: of the metric or cost.
        """
        if configuration["complete"] < len(self.categories):
            return None
        value: float | None = configuration["values"][""].get(name)
        return value

    def better(self, name: str, first: float, second: float) -> bool:
        """Whether the first value is better.

        Args:
            name: of the metric or cost of both values.
            first: a value.
            second: another value.
        """
        falling = name in self.data["falling"] or (name in self.data["costs"] and name != FASTER)
        return first < second if falling else first > second


def sweep_figures(place: Place) -> Iterator[NamedFigure]:
    """The figures of a data set; one without any value is left out.

    Args:
        place: the data set and the metric.
    """
    cost = place.cost
    if cost is not None and any(_points(place, cost, one) for one in place.families.values()):
        yield NamedFigure("cost", _cost(place, cost))
    axis = longest_series(place.configurations)
    if axis is not None:
        names = [place.metric, *([cost] if cost else [])]
        better = partial(place.better, place.metric)
        figure = effect_figure(place.configurations, axis, names, _heading(place), better, place.average)
        yield NamedFigure("effect", figure)
    leaders = [one for one in place.configurations if one["run"] in place.data["leaders"]]
    if any(one["values"].get(name, {}).get(place.metric) is not None for one in leaders for name in place.categories):
        yield NamedFigure("compare", _compare(place, leaders))


def _heading(place: Place) -> str:
    return f"{place.data['datasets'][place.index]}"


def _points(place: Place, cost: str, members: Sequence[Mapping[str, Any]]) -> list[tuple[float, float]]:
    pairs = [(place.average(one, cost), place.average(one, place.metric)) for one in members]
    return [(x, y) for x, y in pairs if x is not None and y is not None]


def _verdicts(place: Place, cost: str) -> list[tuple[float, float, str | None]]:
    """Cost and quality of each configuration, with the verdict on it."""
    values = [(place.average(one, cost), place.average(one, place.metric), one) for one in place.configurations]
    return [(x, y, one["recommended"]) for x, y, one in values if x is not None and y is not None]


def _cost(place: Place, cost: str) -> Figure:
    figure, axes = new_axes(_heading(place))
    points = []
    for name, members in place.families.items():
        family_points = _points(place, cost, members)
        points += family_points
        if family_points:
            axes.plot(*zip(*family_points, strict=True), linestyle="none", label=name, **mark_of(members[0]["style"]))
    front = _front(place, cost, points)
    axes.step(*zip(*front, strict=True), where="post", color=QUIET, linestyle=":", label="Pareto front", zorder=1)
    axes.set(xscale="log", xlabel=title(cost), ylabel=title(place.metric))
    ring(axes, _verdicts(place, cost))
    _plain_numbers(axes, [x for x, _ in points])
    add_legend(figure, axes)
    return figure


def _front(place: Place, cost: str, points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """The Pareto-optimal points, from the cheapest up: no other one is both better and cheaper."""
    cheap = 1 if place.better(cost, 0.0, 1.0) else -1
    good = 1 if place.better(place.metric, 1.0, 0.0) else -1
    front: list[tuple[float, float]] = []
    for point in sorted(points, key=lambda point: (cheap * point[0], -good * point[1])):
        if not front or place.better(place.metric, point[1], front[-1][1]):
            front.append(point)
    return front


def _plain_numbers(axes: Axes, values: Sequence[float]) -> None:
    """Ticks of a logarithmic axis, as numbers without powers."""
    low, high = min(values), max(values)
    # On a short axis, 1, 2, 5, 10 ... would be one or two numbers.
    digits = (1, 1.5, 2, 3, 5, 7) if high < 10 * low else (1, 2, 5)
    ticks = [digit * 10.0**power for power in range(-3, 7) for digit in digits]
    near = [tick for tick in ticks if low / 2 <= tick <= high * 2]
    limits = axes.get_xlim()
    axes.set_xticks(near, [f"{tick:g}" for tick in near])
    axes.set_xlim(limits)
    axes.minorticks_off()


def _compare(place: Place, leaders: Sequence[Mapping[str, Any]]) -> Figure:
    """The best configuration of each model on each category; one run has an interval of its image AUROC."""
    categories = place.categories
    figure, axes = new_axes(_heading(place), height=1.6 + 0.6 * len(categories) + 0.1 * len(leaders))
    gap = min(0.12, 0.7 / max(1, len(leaders)))
    for index, one in enumerate(leaders):
        position = place.data["settings"].index(one)
        points = [
            (row + (index - (len(leaders) - 1) / 2) * gap, name, one["values"][name][place.metric])
            for row, name in enumerate(categories)
            if one["values"].get(name, {}).get(place.metric) is not None
        ]
        if not points:
            continue
        heights, names, values = zip(*points, strict=True)
        axes.errorbar(
            values, heights, xerr=_errors(place, position, names, values), linestyle="none", capsize=2, linewidth=1.2,
            color=colour_of(one["style"]), label=family(one), **mark_of(one["style"]),
        )  # fmt: skip
    named_ticks(axes, categories, vertical=True)
    axes.set(ylim=(len(categories) - 0.5, -0.5), xlabel=title(place.metric))
    add_legend(figure, axes)
    return figure


def _errors(
    place: Place, position: int, names: Sequence[str], values: Sequence[float]
) -> tuple[list[float], list[float]] | None:
    """Lengths of the intervals below and above the values; None with several seeds, where no interval holds."""
    if place.metric != INTERVAL:
        return None
    ends = []
    for name in names:
        runs = [run for run in place.data["runs"] if run["setting"] == position and run["category"] == name]
        if len(runs) != 1 or runs[0].get(f"{INTERVAL}_low") is None:
            return None
        ends.append((runs[0][f"{INTERVAL}_low"], runs[0][f"{INTERVAL}_high"]))
    # Rounding may put an end of an interval on the wrong side of its value.
    below = [max(0.0, value - low) for value, (low, _) in zip(values, ends, strict=True)]
    return below, [max(0.0, high - value) for value, (_, high) in zip(values, ends, strict=True)]
