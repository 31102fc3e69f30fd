"""The learning curve: image AUROC over the number of normal images; see harness/report/learning_curve.py."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from typing import Any

from matplotlib.figure import Figure

from harness.report.facts import INTERVAL
from harness.report.figures.canvas import add_legend, lines_of, mark_of, new_axes, title

NAME_WIDTH = 60  # characters of a line


def curve_figure(curves: Mapping[str, Any], heading: str) -> Figure:
    """A line for each configuration, with the 95% interval of each point that has one.

    Args:
        curves: of one data set, from `harness.report.learning_curve.curve_figures`.
        heading: of the figure.
    """
    figure, axes = new_axes(heading)
    images = set()
    lines = lines_of([[line["style"]] for line in curves["lines"]])
    for line, look in zip(curves["lines"], lines, strict=True):
        points = line["points"]
        ends = [(point["low"], point["high"]) for point in points]
        values = [point["value"] for point in points]
        errors = [
            [0.0 if low is None else max(0.0, value - low) for value, (low, _) in zip(values, ends, strict=True)],
            [0.0 if high is None else max(0.0, high - value) for value, (_, high) in zip(values, ends, strict=True)],
        ]
        images |= {point["images"] for point in points}
        name = textwrap.fill(" ".join(line["label"].split()) or "all configurations", NAME_WIDTH)
        axes.errorbar(
            [point["images"] for point in points], values, yerr=errors, **look, **mark_of(line["style"]),
            markersize=5, capsize=2, linewidth=1.2, label=name,
        )  # fmt: skip
    axes.set(xscale="log", xlabel="normal images", ylabel=title(INTERVAL))
    axes.minorticks_off()
    axes.set_xticks(sorted(images), [f"{number:g}" for number in sorted(images)])
    add_legend(figure, axes)
    return figure
