"""Figures of the labels of a classification: confusion, F1, images."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

from harness.common.errors import ConfigError
from harness.report.classification_results import ClassificationResults
from harness.report.figures.calibration import calibration_figures
from harness.report.figures.canvas import (
    GROUND,
    MANY,
    QUIET,
    WIDTH,
    NamedFigure,
    add_legend,
    colour_of,
    named_ticks,
    new_axes,
    new_rows,
    shade,
    whole_numbers,
)
from harness.report.parts import task_report
from harness.report.results import Results

TEST = "test"  # the images of the test have an axis of their own


def classification_figures(results: Results, metric: str) -> Iterator[NamedFigure]:
    """The figures of each configuration on the page.

    Args:
        results: of the result folder.
        metric: has to be empty.

    Raises:
        ConfigError: there is a metric.
    """
    if metric:
        raise ConfigError(
            f"--metric: {metric!r} found; expected none, because figures of a classification have fixed metrics. "
            "Remove it."
        )
    configurations = ClassificationResults(results).configurations
    for configuration, one in zip(configurations, task_report(results).page(results).data["settings"], strict=False):
        for drawn in _configuration_figures(one):
            yield replace(drawn, name=f"runs/{configuration.best_run}/{drawn.name}")


def _configuration_figures(one: Mapping[str, Any]) -> Iterator[NamedFigure]:
    """The figures of a configuration as the page has it; one without any value is left out."""
    heading = one["name"]
    if one["confusion"]:
        yield NamedFigure("confusion", _confusion(one, heading))
    if any(label["f1"] is not None for label in one["labels"]):
        yield NamedFigure("labels", _labels(one, heading))
    if any(count for counts in one["distribution"].values() for count in counts):
        yield NamedFigure("images", _images(one, heading))
    yield from calibration_figures(one, heading)


def _width(labels: int) -> float:
    return min(24.0, max(WIDTH, 1.5 + 0.22 * labels))


def _confusion(one: Mapping[str, Any], heading: str) -> Figure:
    """The share of each predicted label among the images of a true label; the numbers are counts."""
    names = [label["label"] for label in one["labels"]]
    counts = np.array(one["confusion"], dtype=float)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1.0)
    side = _width(len(names))
    figure, axes = new_axes(heading, height=side, width=side)
    shades = LinearSegmentedColormap.from_list("shares", [GROUND, colour_of(one["style"])])
    axes.imshow(shares, cmap=shades, vmin=0.0, vmax=1.0)
    if len(names) <= MANY:
        for row, column in zip(*np.nonzero(counts), strict=True):
            ink = "white" if shares[row, column] > 0.5 else "black"
            axes.text(column, row, f"{counts[row, column]:.0f}", ha="center", va="center", color=ink, fontsize=7)
    named_ticks(axes, names)
    named_ticks(axes, names, vertical=True)
    axes.set(xlabel="predicted label", ylabel="true label")
    axes.grid(visible=False)
    return figure


def _labels(one: Mapping[str, Any], heading: str) -> Figure:
    labels = sorted((label for label in one["labels"] if label["f1"] is not None), key=lambda label: label["images"])
    figure, axes = new_axes(heading, width=_width(len(labels)))
    axes.bar(range(len(labels)), [label["f1"] for label in labels], color=colour_of(one["style"]))
    named_ticks(axes, [f"{label['label']} ({label['images']})" for label in labels])
    axes.set(ylim=(0.0, 1.02), ylabel="F1")
    axes.grid(axis="x", visible=False)
    return figure


def _images(one: Mapping[str, Any], heading: str) -> Figure:
    subsets = {name: counts for name, counts in one["distribution"].items() if any(counts)}
    totals = np.sum([counts for name, counts in subsets.items() if name != TEST] or [[0] * len(one["labels"])], axis=0)
    order = np.argsort(totals, kind="stable")
    tested = TEST in subsets
    figure, rows = new_rows(heading, (0.65, 0.35) if tested else (1.0,), width=_width(len(order)), shared=True)
    lower = np.zeros(len(order))
    for index, (name, counts) in enumerate(subsets.items()):
        heights = np.asarray(counts, dtype=float)[order]
        if name == TEST:
            rows[1].bar(range(len(order)), heights, color=QUIET)
            rows[1].set_ylabel(TEST)
            continue
        rows[0].bar(range(len(order)), heights, bottom=lower, color=shade(one["style"], index), label=name)
        lower += heights
    rows[0].set_ylabel("images")
    for row in rows:
        whole_numbers(row.yaxis)
        row.grid(axis="x", visible=False)
    named_ticks(rows[-1], [one["labels"][place]["label"] for place in order])
    add_legend(figure, rows[0])
    return figure
