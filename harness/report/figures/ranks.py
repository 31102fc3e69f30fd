"""The critical-difference figure of the mean ranks over categories (Demsar 2006)."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from harness.report.figures.canvas import INK, QUIET, add_legend, new_axes

NAME_WIDTH = 90  # characters of a line
MOST_TICKS = 8
LINE, BAR = 0.17, 0.28  # inches: a line of a name, a bar


def ranks_figure(ranked: Mapping[str, Any], heading: str) -> Figure:
    """A row for each configuration: its name, and below it its mean rank with a bar as long as the critical difference.

    Args:
        ranked: the ranks of one data set, from `harness.report.category_ranks.rank_figures`.
        heading: of the figure.
    """
    rows, half = ranked["rows"], ranked["critical"] / 2
    names = [textwrap.fill(f"{' '.join(row['label'].split())} ({row['rank']:.2f})", NAME_WIDTH) for row in rows]
    heights = [LINE * (name.count("\n") + 1) + BAR for name in names]
    figure, axes = new_axes(heading, height=1.3 + sum(heights))
    tops = [sum(heights[:index]) for index in range(len(rows))]
    bars = [top + height - BAR * 0.6 for top, height in zip(tops, heights, strict=True)]
    for name, top in zip(names, tops, strict=True):
        axes.text(0.0, top, name, transform=axes.get_yaxis_transform(), va="top", fontsize=8)
    best = rows[0]["rank"]
    if ranked["significant"]:
        axes.axvspan(best - half, best + half, color=QUIET, alpha=0.2, linewidth=0)
        worse = [row["rank"] - best > 2 * half for row in rows]
        _bars(axes, rows, bars, half, [not one for one in worse], "no significant difference from the first", INK, "o")
        _bars(axes, rows, bars, half, worse, "significantly worse than the first", QUIET, "X")
    else:
        _bars(axes, rows, bars, half, [True] * len(rows), "no significant difference", INK, "o")
    axes.set(ylim=(sum(heights), 0), yticks=[], xlabel="mean rank")
    # A bar may reach below 1 and above the last rank, where there are no ranks.
    step = -(-ranked["configurations"] // MOST_TICKS)
    axes.set_xticks(sorted({1, *range(step, ranked["configurations"] + 1, step)}))
    axes.spines["left"].set_visible(False)
    axes.grid(axis="y", visible=False)
    add_legend(figure, axes)
    return figure


def _bars(
    axes: Axes,
    rows: Sequence[Mapping[str, Any]],
    heights: Sequence[float],
    half: float,
    chosen: Sequence[bool],
    label: str,
    ink: str,
    mark: str,
) -> None:
    points = [(row["rank"], height) for row, height, one in zip(rows, heights, chosen, strict=True) if one]
    if points:
        ranks, places = zip(*points, strict=True)
        axes.errorbar(ranks, places, xerr=half, fmt=mark, color=ink, linewidth=3, markersize=6, label=label)
