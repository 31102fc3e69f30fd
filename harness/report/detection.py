"""What a detection shows: its sheets, its part of the page, and its table in the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import pandas as pd
from rich.markup import escape
from rich.table import Table

from harness.config.axes import COLUMNS
from harness.registry import metric
from harness.report.comparisons import AVERAGE, backends_table, pivot_table, seeds_table, summary_table
from harness.report.detection_page import page_part, write_details
from harness.report.facts import HEADLINE, HIGH, LOW, axis_columns, metric_columns
from harness.report.misses import add_misses
from harness.report.parts import Answer, PagePart, SheetPart
from harness.report.recommend import recommendations
from harness.report.results import Results
from harness.report.sheets import DIFFERENCE, METRICS, Sheet, run_links
from harness.report.tables import defects_table, notices, runs_table, thresholds
from harness.report.terminal import text, varies

# The metrics of each pivot, as published tables have them.
PIVOTS = {
    "Pivot image": ("image_AUROC", "image_F1Score"),
    "Pivot pixel": ("pixel_AUROC", "pixel_AUPRO", "pixel_F1Score"),
}


SHOWN = 9  # runs in the terminal


class DetectionReport:
    """See `harness.report.parts.TaskReport`."""

    def sheets(self, results: Results) -> Iterator[SheetPart]:
        """Summary, pivots, runs, misses, defects, seeds and backends."""
        metrics = [name for name in metric_columns(results.ok()) if not metric(name).count]
        summary, runs = summary_table(results), runs_table(results, failed=True)
        yield Sheet("Summary", summary, notices(results), scaled=metrics, links=run_links(summary, "best_run"))
        for title, names in PIVOTS.items():
            pivot = pivot_table(results, names)
            if not pivot.empty:
                frozen = list(pivot.columns).index("category") + 1
                yield Sheet(
                    title, pivot, thresholds(results), bold=_best_of_rows(pivot, frozen), frozen=frozen, format="0.000"
                )
        yield Sheet(
            "Runs",
            runs,
            bold=_best_of_columns(runs, metrics),
            scaled=metrics,
            links=run_links(runs, "run"),
            marked=_on_test_images(runs),
        )
        yield partial(add_misses, results=results)
        defects = defects_table(results)
        if not defects.empty:
            yield Sheet("Defects", defects, thresholds(results), scaled=["image_AUROC", "image_AP"], frozen=2)
        seeds = seeds_table(results)
        if not seeds.empty:
            means = {(row, str(name)) for row in seeds.index[seeds["seed"].isin(["mean", "sd"])] for name in seeds}
            yield Sheet("Seeds", seeds, bold=means)
        backends = backends_table(results)
        if not backends.empty:
            compared = [
                str(n) for n in backends if str(n).startswith(METRICS) and not str(n).endswith((DIFFERENCE, " p"))
            ]
            yield Sheet("Backends", backends, scaled=compared)

    def page(self, results: Results) -> PagePart:
        """Configurations, runs, plots and the recommendation."""
        return page_part(results)

    def write_details(self, results: Results, folder: Path) -> None:
        """A script for each run that ended well."""
        for record in results.ok():
            write_details(results, record, folder)

    def answer(self, results: Results) -> Answer:
        """The best runs and the recommendation."""
        return Answer(best_table(results) if results.ok() else None, recommendations(results), notices(results))


def best_table(results: Results) -> Table:
    """The best runs; with several categories the best of each in turn, so that every one is seen."""
    frame = runs_table(results)
    place = frame.groupby("category").cumcount()
    rows = frame.assign(place=place).sort_values(["place", "category"], kind="stable").head(SHOWN)
    rows = rows.sort_values(["category", "place"], kind="stable")
    # What is the same in all runs tells nothing here; the model always does.
    described = ["model", *(c for c in (*COLUMNS, "seed") if c != "model" and varies(frame[c]))]
    parameters = [c for c in axis_columns(results.records) if varies(frame[c])]
    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in ("category", "best runs"):
        table.add_column(column)
    for column in ("image_AUROC", "95%", "against_best", *HEADLINE[1:], "seconds_alone", "ms_an image"):
        table.add_column(column.replace("_", "\n"), justify="right", no_wrap=True)
    for _, row in rows.iterrows():
        parts = [text(row[c]) for c in described if pd.notna(row[c])]
        parts += [f"{c}={text(row[c])}" for c in parameters if pd.notna(row[c])]
        first, *others = [text(row[c], "{:.3f}") for c in HEADLINE]
        ends = "-" if pd.isna(row[LOW]) else f"{row[LOW]:.2f}-{row[HIGH]:.2f}"
        costs = [text(row.get(name), "{:.1f}") for name in ("alone_seconds", "ms_per_image_p50")]
        cells = [first, ends, text(row["vs_best"]), *others, *costs]
        table.add_row(escape(str(row["category"])), escape(" ".join(parts)), *cells)
    return table


def _on_test_images(runs: pd.DataFrame) -> set[tuple[int, str]]:
    """Cells that name test images as what a backend validated on."""
    column = "backend_validates_on"
    return {(int(row), column) for row in runs.index[runs[column] == "test images"]} if column in runs else set()


def _best_of_columns(frame: pd.DataFrame, metrics: Sequence[str]) -> set[tuple[int, str]]:
    """(row, column) of the best value of each metric on each category's data; ties are all best."""
    found: set[tuple[int, str]] = set()
    for _, rows in frame.groupby(["category", "data"]) if not frame.empty else ():
        for name in metrics:
            if len(rows) > 1 and name in rows and rows[name].notna().any():
                best = rows[name] == (rows[name].max() if metric(name).higher_is_better else rows[name].min())
                found |= {(int(row), name) for row in rows.index[best]}
    return found


def _best_of_rows(pivot: pd.DataFrame, first: int) -> set[tuple[int, str]]:
    """(row, column) of the best value of each row, as it is shown; ties are all best."""
    values = pivot.iloc[:, first:].astype(float).round(3)
    if values.shape[1] < 2:
        return set()
    rising = pivot["metric"].map(lambda name: metric(name).higher_is_better)
    best = values.eq(values.max(axis=1).where(rising, values.min(axis=1)), axis=0)
    bold = {(row, str(name)) for name in best for row in best.index[best[name]]}
    # The average stands out by itself.
    return bold | {(int(row), "category") for row in pivot.index[pivot["category"] == AVERAGE]}
