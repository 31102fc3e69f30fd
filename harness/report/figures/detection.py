"""All figures of a detection: those of each data set, then those of each run."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace

from harness.common.errors import UnknownNameError, unknown_name
from harness.report.facts import INTERVAL
from harness.report.figures.canvas import NamedFigure
from harness.report.figures.curve import curve_figure
from harness.report.figures.ranks import ranks_figure
from harness.report.figures.run import run_figures
from harness.report.figures.sweep import Place, sweep_figures
from harness.report.parts import task_report
from harness.report.results import Results


def detection_figures(results: Results, metric: str) -> Iterator[NamedFigure]:
    """The figures of the page.

    Args:
        results: of the result folder.
        metric: the quality to show; empty for the one that the page shows first.

    Raises:
        UnknownNameError: no run has the metric.
    """
    data = task_report(results).page(results).data
    names = [name for name in data["metrics"] if name not in data["counts"]]
    if metric and metric not in names:
        raise UnknownNameError(unknown_name("--metric", metric, names))
    chosen = metric or (INTERVAL if INTERVAL in names else next(iter(names), INTERVAL))
    suffixes = _suffixes(data["datasets"])
    for index, suffix in enumerate(suffixes):
        for one in sweep_figures(Place(data, index, chosen)):
            yield replace(one, name=one.name + suffix)
    for ranked in data["ranks"]:
        if ranked["rows"]:
            index = ranked["dataset"]
            yield NamedFigure(f"ranks{suffixes[index]}", ranks_figure(ranked, data["datasets"][index]))
    for curves in data["curves"]:
        index = curves["dataset"]
        yield NamedFigure(f"curve{suffixes[index]}", curve_figure(curves, data["datasets"][index]))
    for record in results.ok():
        yield from run_figures(results, record)


def _suffixes(datasets: Sequence[str]) -> list[str]:
    """The end of the file names of each data set; empty if there is only one."""
    if len(datasets) < 2:
        return [""] * len(datasets)
    words = [re.sub(r"[^\w.]+", "-", name).strip("-.") for name in datasets]
    different = len({word.lower() for word in words}) == len(words)
    return [f"-{word}" if different else f"-{index}-{word}" for index, word in enumerate(words, start=1)]
