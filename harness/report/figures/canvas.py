"""What all figures share: size, colours, marks, titles, legend."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from harness.report.html import PALETTE

# The marks of the page, by their names in matplotlib.
MARKERS = ("o", "D", "s", "^", "X", "*")
QUIET, GOOD, BAD, INK = "#7a7a7a", PALETTE[0], PALETTE[1], "#222222"
WIDTH = 6.4  # inches
TITLE_WIDTH = 78  # characters of a line
MANY = 40  # labels of an axis that are still legible
# A label is text, whatever is in it, and stays text in an SVG file. Equal data make equal files.
STYLE: Any = {
    "text.parse_math": False,
    "svg.fonttype": "none",
    "svg.hashsalt": "harness",
    "pdf.fonttype": 42,
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.edgecolor": QUIET,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": "#dddddd",
    "legend.frameon": False,
    "figure.facecolor": "white",
}


@dataclass(frozen=True)
class NamedFigure:
    """A figure with the name of its file.

    Attributes:
        name: the file's path below the folder of the figures, without suffix.
        figure: the figure.
    """

    name: str
    figure: Figure


def new_axes(heading: str, height: float = 4.2, width: float = WIDTH) -> tuple[Figure, Axes]:
    """A figure with one pair of axes.

    Args:
        heading: of the figure; long lines are wrapped.
        height, width: in inches.
    """
    figure, (axes,) = new_rows(heading, (1,), height, width)
    return figure, axes


def new_rows(
    heading: str, shares: Sequence[float], height: float = 5.4, width: float = WIDTH, shared: bool = False
) -> tuple[Figure, list[Axes]]:
    """A figure with several pairs of axes, one below the other.

    Args:
        heading: of the figure; long lines are wrapped.
        shares: of the height, one for each pair of axes.
        height, width: in inches.
        shared: whether all have the same horizontal axis.
    """
    figure = Figure(figsize=(width, height), layout="constrained")
    grid = figure.subplots(len(shares), 1, squeeze=False, sharex=shared, gridspec_kw={"height_ratios": list(shares)})
    rows: list[Axes] = list(grid[:, 0])
    rows[0].set_title(textwrap.fill(heading, TITLE_WIDTH), loc="left", color=INK)
    return figure, rows


def whole_numbers(axis: Axis) -> None:
    """Put ticks of an axis at whole numbers only.

    Args:
        axis: one axis of the axes.
    """
    axis.set_major_locator(MaxNLocator(8, integer=True))


def add_legend(figure: Figure, axes: Axes) -> None:
    """Put the legend of an axes below all axes, if several things have a name.

    Args:
        figure: the figure.
        axes: with named lines or marks.
    """
    handles, labels = axes.get_legend_handles_labels()
    if len(labels) > 1:
        figure.legend(handles, labels, loc="outside lower left", ncols=2 if len(labels) < MANY else 4)


def named_ticks(axes: Axes, names: Sequence[str], vertical: bool = False) -> None:
    """Write names at the ticks 0, 1, 2 ... of an axis, as far as they are legible.

    Args:
        axes: the axes.
        names: of all ticks.
        vertical: whether the axis is vertical.
    """
    step = -(-len(names) // (2 * MANY)) or 1
    places, shown = range(0, len(names), step), list(names)[::step]
    size = 8 if len(names) <= MANY else 5
    if vertical:
        axes.set_yticks(places, shown, fontsize=size)
    else:
        axes.set_xticks(places, shown, fontsize=size, rotation=45, ha="right", rotation_mode="anchor")


def colour(index: int) -> str:
    """The colour of a model; the palette repeats."""
    return PALETTE[index % len(PALETTE)]


def marker(index: int) -> str:
    """The mark of a model; models of equal colour have different marks."""
    return MARKERS[(index + index // len(PALETTE)) % len(MARKERS)]


def title(name: str) -> str:
    """The name of a metric or cost in words."""
    return name.replace("_", " ").replace("ms per image p50", "ms an image")
