"""Figures of a search: its best value after each trial, the values of its trials, and the importance of its axes."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

from matplotlib.figure import Figure

from harness.report.figures.canvas import (
    INK,
    QUIET,
    NamedFigure,
    add_legend,
    new_axes,
    title,
    whole_numbers,
)

DONE, STOPPED = "done", "stopped"  # states of a trial
LONGEST = 22  # characters of a value
BEHIND = {"facecolor": "white", "edgecolor": "none", "alpha": 0.85, "pad": 1}  # a value, so that no line hides it


def search_figures(search: dict[str, Any]) -> Iterator[NamedFigure]:
    """The figures of a search.

    Args:
        search: its data for the page, from `SearchReport.page`.
    """
    yield NamedFigure("convergence", _convergence(search))
    if any(trial["state"] == DONE for trial in search["trials"]):
        yield NamedFigure("parallel", _parallel(search))
    if search["importance"]:
        yield NamedFigure("importance", _importance(search["importance"], search["metric"]))


def _convergence(search: dict[str, Any]) -> Figure:
    figure, axes = new_axes("Trials of the search")
    trials, sign = search["trials"], search["sign"]
    best: list[float] = []
    for trial in trials:
        values = [*best[-1:], *([trial["value"]] if trial["state"] == DONE else [])]
        best.append(max(values, key=lambda value: sign * value) if values else math.nan)
    axes.step([trial["number"] for trial in trials], best, where="post", color=INK, label="best so far")
    completed = [(trial["number"], trial["value"]) for trial in trials if trial["state"] == DONE]
    stopped = [
        (trial["number"], trial["looks"][-1][1]) for trial in trials if trial["state"] == STOPPED and trial["looks"]
    ]
    for points, mark, name, ink in ((completed, "o", "completed", INK), (stopped, "X", "stopped early", QUIET)):
        if points:
            axes.scatter(*zip(*points, strict=True), color=ink, marker=mark, label=name)
    axes.set(xlabel="trial", ylabel=title(search["metric"]))
    whole_numbers(axes.xaxis)
    add_legend(figure, axes)
    return figure


def _parallel(search: dict[str, Any]) -> Figure:
    """A line for each completed trial through its values; better trials are darker and lie higher."""
    figure, axes = new_axes("Completed trials: their values and their result", height=4.8)
    completed = sorted(
        (trial for trial in search["trials"] if trial["state"] == DONE),
        key=lambda trial: search["sign"] * trial["value"],
    )
    columns = [
        (one["name"], one["log"], [trial["point"][one["name"]] for trial in completed]) for one in search["axes"]
    ]
    columns.append((search["metric"], False, [trial["value"] for trial in completed]))
    places = []
    for index, (_, log, values) in enumerate(columns):
        heights, ticks = _scale(values, log)
        places.append(heights)
        for height, text in ticks:
            short = text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"
            last = index == len(columns) - 1
            offset = (-4, 0) if last else (4, 0)
            axes.annotate(short, (index, height), offset, textcoords="offset points", fontsize=7,
                          ha="right" if last else "left", va="center", zorder=3, bbox=BEHIND)  # fmt: skip
    for rank, line in enumerate(zip(*places, strict=True), start=1):
        strength = (rank / len(completed)) ** 2
        axes.plot(range(len(line)), line, color=INK, alpha=0.15 + 0.85 * strength, linewidth=1 + 2 * strength)
    axes.set(xlim=(-0.15, len(columns) - 0.85), ylim=(-0.1, 1.1), yticks=[])
    axes.set_xticks(range(len(columns)), [name.replace("_", "\n") for name, _, _ in columns])
    axes.spines["left"].set_visible(False)
    return figure


def _scale(values: Sequence[Any], log: bool) -> tuple[list[float], list[tuple[float, str]]]:
    """The place of each value on its axis, from 0 to 1, and the ticks of the axis."""
    if all(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
        numbers = [math.log10(value) if log else float(value) for value in values]
        low, high = min(numbers), max(numbers)
        heights = [(number - low) / (high - low) if high > low else 0.5 for number in numbers]
        ends = dict.fromkeys((min(values), max(values)))
        return heights, [(heights[list(values).index(end)], f"{end:.3g}") for end in ends]
    names = sorted({str(value) for value in values})
    place = {name: index / (len(names) - 1) if len(names) > 1 else 0.5 for index, name in enumerate(names)}
    # Lines with an equal choice have a small offset, so that each one is visible.
    heights = [place[str(value)] + 0.06 * (rank / len(values) - 0.5) for rank, value in enumerate(values)]
    return heights, [(height, name) for name, height in place.items()]


def _importance(shares: dict[str, float], metric: str) -> Figure:
    ordered = sorted(shares.items(), key=lambda item: item[1])
    figure, axes = new_axes(f"Importance of the axes for {title(metric)}", height=1.2 + 0.35 * len(ordered))
    axes.barh([name for name, _ in ordered], [share for _, share in ordered], color=QUIET)
    axes.xaxis.set_major_formatter(lambda share, _: f"{share:.0%}")
    axes.set(xlabel="share of the importance")
    return figure
