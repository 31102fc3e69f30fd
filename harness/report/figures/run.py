"""Figures of one run of a detection: its curves, and the scores of the test images."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from harness.metrics.pimo import LOWER, UPPER
from harness.report.facts import category
from harness.report.figures.canvas import INK, QUIET, NamedFigure, add_legend, colour_of, new_axes, whole_numbers
from harness.report.model_styles import ModelStyles
from harness.report.results import Results
from harness.results.record import RunRecord
from harness.results.scores import TestScores

BINS = 24
RATE = "false positive rate of normal images"
DECADES = (1e-6, LOWER, UPPER, 1e-3)
# Level, line.
LEVELS = (("image", "-"), ("pixel", "--"))
# Name of the file, heading, and names of both axes with their keys in the curves.
CURVES = (
    ("roc", "ROC", ("fpr", "false positive rate"), ("tpr", "true positive rate")),
    ("pr", "Precision and recall", ("recall", "recall"), ("precision", "precision")),
)


def run_figures(results: Results, record: RunRecord) -> Iterator[NamedFigure]:
    """The figures of a run; a run without curves or scores has fewer.

    Args:
        results: of the result folder.
        record: the run.
    """
    curves = results.details(record.run_id).get("curves") or {}
    words = [category(record), results.configuration_name(record), f"seed {record.spec['seed']}"]
    heading = ", ".join(words)
    # As in the figures of all configurations.
    ink = colour_of(ModelStyles.of(results).style(record))
    for name, kind, across, up in CURVES:
        if any(curves.get(level, {}).get(across[0]) for level, *_ in LEVELS):
            yield NamedFigure(f"runs/{record.run_id}/{name}", _curves(curves, f"{kind}: {heading}", across, up, ink))
    if points := results.details(record.run_id).get("pimo_curve"):
        yield NamedFigure(f"runs/{record.run_id}/pimo", _overlap(points, f"Per-image overlap: {heading}", ink))
    scores = results.scores(record.run_id)
    if scores is not None and len(scores.scores):
        figure = _histogram(scores, record.thresholds.get("image"), f"Scores of the test images: {heading}", ink)
        yield NamedFigure(f"runs/{record.run_id}/scores", figure)


def _curves(curves: dict[str, Any], heading: str, across: tuple[str, str], up: tuple[str, str], ink: str) -> Figure:
    figure, axes = new_axes(heading, height=4.8)
    for level, line in LEVELS:
        curve = curves.get(level) or {}
        if curve.get(across[0]):
            axes.plot(curve[across[0]], curve[up[0]], color=ink, linestyle=line, label=level)
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), xlabel=across[1], ylabel=up[1])
    add_legend(figure, axes)
    return figure


def _overlap(points: Sequence[Mapping[str, float]], heading: str, ink: str) -> Figure:
    """The mean overlap over the rate of false positives; a band marks the rates that AUPIMO counts."""
    figure, axes = new_axes(heading)
    axes.axvspan(LOWER, UPPER, color=QUIET, alpha=0.15, label="limits of AUPIMO")
    axes.plot([one["rate"] for one in points], [one["overlap"] for one in points], color=ink, label="mean overlap")
    axes.set(xscale="log", ylim=(-0.02, 1.02), xlabel=RATE, ylabel="overlap with the defect")
    axes.minorticks_off()
    axes.set_xticks(DECADES, [f"{rate:g}" for rate in DECADES])
    add_legend(figure, axes)
    return figure


def _histogram(scores: TestScores, threshold: float | None, heading: str, ink: str) -> Figure:
    figure, axes = new_axes(heading)
    low, high = float(scores.scores.min()), float(scores.scores.max())
    edges = np.linspace(low, high if high > low else low + 1.0, BINS + 1)
    for name, label, face, hatch in (("normal", False, QUIET, ""), ("anomalous", True, ink, "///")):
        values = scores.scores[scores.labels == label]
        axes.hist(values, edges.tolist(), color=face, alpha=0.75, hatch=hatch, edgecolor="white", label=name)
    if threshold is not None:
        axes.axvline(threshold, color=INK, linestyle=":", label="threshold")
    axes.set(xlabel="raw score", ylabel="images")
    whole_numbers(axes.yaxis)
    add_legend(figure, axes)
    return figure
