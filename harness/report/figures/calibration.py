"""Figures of a classification's probabilities, its answers and its training."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from harness.report.figures.canvas import (
    QUIET,
    NamedFigure,
    add_legend,
    colour_of,
    new_axes,
    new_rows,
    shade,
    whole_numbers,
)

MOST_LINES = 36  # that a legend can name


def calibration_figures(one: Mapping[str, Any], heading: str) -> Iterator[NamedFigure]:
    """The figures of a configuration; one without any value is left out.

    Args:
        one: the configuration as the page has it.
        heading: of each figure.
    """
    if any(one["reliability"].values()):
        yield NamedFigure("reliability", _reliability(one, heading))
    if one["epochs"]:
        yield NamedFigure("epochs", _epochs(one, heading))
    if one["risk"]["answered"]:
        yield NamedFigure("risk", _risk(one, heading))


def _percent(axes: Axes) -> None:
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(lambda share, _: f"{share:.0%}")


def _reliability(one: Mapping[str, Any], heading: str) -> Figure:
    """The reliability diagram: the share of right labels in bins of the probability, with 95% intervals."""
    figure, axes = new_axes(heading, height=4.8)
    axes.plot([0, 1], [0, 1], color=QUIET, linestyle=":", linewidth=1, label="calibrated perfectly")
    own = colour_of(one["style"])
    for name, ink, face in (("raw", QUIET, "none"), ("calibrated", own, own)):
        bins = one["reliability"][name]
        if not bins:
            continue
        across, up, low, high, images = (
            np.array([entry[key] for entry in bins]) for key in ("probability", "accuracy", "low", "high", "images")
        )
        errors = np.maximum(0.0, np.stack([up - low, high - up]))
        axes.errorbar(across, up, errors, color=ink, linewidth=1, capsize=2, label=name)
        sizes = (4 + 9 * np.sqrt(images / images.max())) ** 2
        axes.scatter(across, up, sizes, edgecolors=ink, facecolors=face, zorder=3)
    axes.set(
        xlim=(0, 1.02), ylim=(0, 1.02), xlabel="probability of the predicted label", ylabel="share of right labels"
    )
    add_legend(figure, axes)
    return figure


def _epochs(one: Mapping[str, Any], heading: str) -> Figure:
    figure, rows = new_rows(heading, (1.0, 1.0), shared=True)
    for index, (name, entries) in enumerate(one["epochs"].items()):
        numbers = [entry["epoch"] for entry in entries]
        for row, key, label, line in (
            (rows[0], "val_macro_F1", "macro F1", "-"),
            (rows[1], "train_loss", "train loss", ":"),
            (rows[1], "val_loss", "validation loss", "-"),
        ):
            values = [np.nan if entry[key] is None else entry[key] for entry in entries]
            row.plot(numbers, values, color=shade(one["style"], index), linestyle=line, label=f"{name} {label}")
    rows[0].set(ylim=(0, 1.02), ylabel="macro F1")
    rows[1].set(xlabel="epoch", ylabel="loss")
    whole_numbers(rows[1].xaxis)
    handles = [*rows[0].get_legend_handles_labels()[0], *rows[1].get_legend_handles_labels()[0]]
    if len(handles) <= MOST_LINES:
        figure.legend(handles=handles, loc="outside lower left", ncols=3)
    return figure


def _risk(one: Mapping[str, Any], heading: str) -> Figure:
    """The risk-coverage curve: the share of wrong answers among the surest images."""
    figure, axes = new_axes(heading)
    axes.step(one["risk"]["answered"], one["risk"]["risk"], where="post", color=colour_of(one["style"]))
    axes.set(xlim=(0, 1.02), xlabel="share of images with an answer, out of fold", ylabel="wrong answers")
    axes.set_ylim(bottom=0.0)
    _percent(axes)
    return figure
