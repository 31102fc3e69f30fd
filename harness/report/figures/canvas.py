"""What all figures share: size, colours, marks, titles, legend."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from harness.report.model_styles import LINES, PALETTE, SHADES

# The marks of the page, by their names in matplotlib.
MARKERS = ("o", "D", "s", "^", "X", "*")
# The colours of what belongs to no model.
QUIET, INK, GROUND = "#7a7a7a", "#222222", "white"
# The lines of the page, by their names in matplotlib.
DASHES: Mapping[str, Any] = {
    "solid": "-", "dash": "--", "dot": ":", "dashdot": "-.", "longdash": (0, (8, 3)), "longdashdot": (0, (8, 3, 1, 3)),
}  # fmt: skip
# The fills of the page, by their names in matplotlib.
FILLS: Sequence[Any] = ("full", "none", "top")
WIDTH = 6.4  # inches
TITLE_WIDTH = 78  # characters of a line
LONG_NAME = 38  # characters; longer names do not fit into two columns of a legend
HIGH = 0.85  # share of the height where a word above a point would be outside of the axes
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
    "figure.facecolor": GROUND,
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
        columns = 1 if any(len(line) > LONG_NAME for label in labels for line in label.split("\n")) else 2
        figure.legend(handles, labels, loc="outside lower left", ncols=columns if len(labels) < MANY else 4)


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


def colour_of(style: Mapping[str, int]) -> str:
    """The colour of a model.

    Args:
        style: of the model, as the page has it; see `harness.report.model_styles`.
    """
    return PALETTE[style["model"] % len(PALETTE)]


def mark_of(style: Mapping[str, int]) -> dict[str, Any]:
    """Colour, symbol and fill of a model's points, as arguments of matplotlib's plots.

    Args:
        style: of the model, as the page has it.
    """
    model, ink = style["model"], colour_of(style)
    mark = MARKERS[(model + model // len(PALETTE)) % len(MARKERS)]
    fill = FILLS[style["backend"] % len(FILLS)]
    return {"marker": mark, "fillstyle": fill, "markerfacecolor": ink, "markeredgecolor": ink}


def family(configuration: Mapping[str, Any]) -> str:
    """The model and the backend of a configuration.

    Args:
        configuration: as the page has it.
    """
    return f"{configuration['facts']['model']} ({configuration['facts']['backend']})"


def shade(style: Mapping[str, int], place: int) -> str:
    """The colour of a model in one of its shades; the first one is the colour itself.

    Args:
        style: of the model, as the page has it.
        place: of the shade, from 0.
    """
    share = SHADES[place % len(SHADES)]
    own, other = to_rgb(colour_of(style)), to_rgb(GROUND if share < 0 else INK)
    red, green, blue = (one + abs(share) * (end - one) for one, end in zip(own, other, strict=True))
    return to_hex((red, green, blue))


def lines_of(series: Sequence[Sequence[Mapping[str, int]]]) -> list[dict[str, Any]]:
    """Colour and line of each series: shades of a model's colour, and grey from model to model.

    Two series of one model differ.

    Args:
        series: the styles of the points of each series.
    """
    used: Counter[int] = Counter()
    lines = []
    for styles in series:
        model = styles[0]["model"] if len({style["model"] for style in styles}) == 1 else -1
        ink = QUIET if model < 0 else shade(styles[0], used[model])
        lines.append({"color": ink, "linestyle": DASHES[LINES[used[model] % len(LINES)]]})
        used[model] += 1
    return lines


def ring(axes: Axes, points: Sequence[tuple[float, float, str | None]]) -> None:
    """Put a ring with a word around the recommended configuration.

    Args:
        axes: the axes.
        points: the place of each configuration, and the verdict on it; None for those that are not recommended.
    """
    places = {across for across, _, _ in points}
    low, high = axes.get_ylim()
    for across, up, word in points:
        if word:
            axes.plot([across], [up], "o", markersize=13, fillstyle="none", markeredgecolor=INK, label="_ring")
            # The word stands inside of the axes, on the side with more places.
            right = sum(place > across for place in places) >= sum(place < across for place in places)
            below = up - low > HIGH * (high - low)
            axes.annotate(
                word, (across, up), (8 if right else -8, -8 if below else 8), textcoords="offset points", color=INK,
                ha="left" if right else "right", va="top" if below else "bottom",
            )  # fmt: skip


def title(name: str) -> str:
    """The name of a metric or cost in words."""
    return name.replace("_", " ").replace("ms per image p50", "ms an image")
