"""The report of a detection: the sheets, the page and the table in the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
from rich.markup import escape
from rich.table import Table

from harness.backends.base import TEST_IMAGES, TEST_IMAGES_OF_TRIALS
from harness.backends.latency import BUSY
from harness.common.terminal import plain_table
from harness.config.axes import COLUMNS
from harness.registry import SYNTHETIC_AUROC, metric
from harness.report.category_ranks import MEAN_RANK, OF_CATEGORY, ranks_notes, ranks_table
from harness.report.cells import DIFFERENCE, METRICS
from harness.report.comparisons import AVERAGE, backends_table, pivot_table, seeds_table, summary_table
from harness.report.configurations import Configuration
from harness.report.defect_areas import RECALL, defect_areas_table
from harness.report.detection_page import page_part, write_details
from harness.report.facts import ENDS, HEADLINE, HIGH, INTERVAL, LATENCIES, LOW, axis_columns, metric_columns
from harness.report.glossary import DETECTION, with_margin
from harness.report.learning_curve import curve_table
from harness.report.misses import add_misses
from harness.report.more_images import in_few_words, more_images
from harness.report.notices import notices, protocol_sentences
from harness.report.parts import Answer, PagePart, SheetPart
from harness.report.recommend import answers, recommendations
from harness.report.results import Results
from harness.report.sheets import Sheet, chosen_rows, run_links
from harness.report.standings import Standing
from harness.report.synthetic import agreement
from harness.report.tables import busy_cells, defects_table, limit_note, runs_table
from harness.report.terminal import text, varies

if TYPE_CHECKING:
    from harness.report.figures.canvas import NamedFigure

# The metrics of each pivot sheet, as in published tables.
PIVOTS = {
    "Pivot image": ("image_AUROC", "image_F1Score"),
    "Pivot pixel": ("pixel_AUROC", "pixel_AUPRO", "pixel_F1Score"),
}


# Columns of the sheet Summary that are not folded.
IN_SUMMARY = ("configuration", "recommended", *HEADLINE, SYNTHETIC_AUROC, ENDS, "vs_best", LATENCIES[0])
SHOWN = 9  # runs in the terminal


class DetectionReport:
    """The report of a detection, as `harness.report.parts.TaskReport` declares it."""

    def runs(self, results: Results) -> pd.DataFrame:
        """A row for each run, the best of each category first; failed and skipped runs are at the end."""
        return runs_table(results, failed=True)

    def summary(self, results: Results) -> pd.DataFrame:
        """The best configuration of each model on each data set, and the recommended one."""
        return summary_table(results)

    def sheets(self, results: Results) -> Iterator[SheetPart]:
        """The sheets: summary, pivots, ranks, runs, misses, defects, seeds and backends."""
        metrics = [name for name in metric_columns(results.ok()) if not metric(name).count]
        summary, runs = self.summary(results), self.runs(results)
        yield Sheet(
            "Summary",
            summary,
            [*notices(results), *filter(None, (agreement(results, name) for name in results.configurations))],
            scaled=metrics,
            links=run_links(summary, "best_run"),
            marked=busy_cells(summary),
            folded=[str(name) for name in summary if name not in IN_SUMMARY],
            chosen=chosen_rows(summary),
        )
        for title, names in PIVOTS.items():
            pivot = pivot_table(results, names)
            if not pivot.empty:
                frozen = list(pivot.columns).index("category") + 1
                yield Sheet(
                    title, pivot, limit_note(results), bold=_best_of_rows(pivot, frozen), frozen=frozen, format="0.000"
                )
        yield from _ranks_sheet(results)
        curve = curve_table(results)
        if not curve.empty:
            yield Sheet(
                "Learning curve",
                curve,
                [" ".join(sentences) for sentences in more_images(results).values()],
                scaled=[INTERVAL],
                links=run_links(curve, "best_run"),
                frozen=list(curve.columns).index("images") + 1,
            )
        yield Sheet(
            "Runs",
            runs,
            bold=_best_of_columns(_compared(results, runs), metrics),
            scaled=metrics,
            links=run_links(runs, "run"),
            marked=_on_test_images(runs) | busy_cells(runs),
            remarks=protocol_sentences(results.ok()),
        )
        yield partial(add_misses, results=results)
        defects = defects_table(results)
        if not defects.empty:
            scaled = [name for name in metrics if metric(name).by_defect]
            yield Sheet("Defects", defects, limit_note(results), scaled=scaled, frozen=2)
        areas = defect_areas_table(results)
        if not areas.empty:
            yield Sheet("Defect areas", areas, limit_note(results), scaled=[RECALL], frozen=2)
        seeds = seeds_table(results)
        if not seeds.empty:
            means = {(row, str(name)) for row in seeds.index[seeds["seed"].isin(["mean", "sd"])] for name in seeds}
            yield Sheet("Seeds", seeds, bold=means)
        backends = backends_table(results)
        if not backends.empty:
            scaled = [
                str(n) for n in backends if str(n).startswith(METRICS) and not str(n).endswith((DIFFERENCE, " p"))
            ]
            yield Sheet("Backends", backends, scaled=scaled, marked=busy_cells(backends))

    def page(self, results: Results) -> PagePart:
        """The page: configurations, runs, plots and the recommendation."""
        return page_part(results)

    def write_details(self, results: Results, folder: Path) -> None:
        """Write a script with the details of each finished run.

        Args:
            results: of the result folder.
            folder: for the scripts, one for each run.
        """
        for record in results.ok():
            write_details(results, record, folder)

    def figures(self, results: Results, metric: str) -> Iterator[NamedFigure]:
        """The figures of each data set, then those of each run.

        Args:
            results: of the result folder.
            metric: the quality to show; empty for the one that the page shows first.

        Raises:
            ConfigError: no run has the metric.
        """
        from harness.report.figures.detection import detection_figures

        return detection_figures(results, metric)

    def recommended(self, results: Results) -> list[Configuration]:
        """The recommended configuration of each data set that has one."""
        return [answer.configuration for answer in answers(results) if answer.configuration]

    def answer(self, results: Results) -> Answer:
        """The best runs, the recommendation, what more images would bring, and the notices."""
        sentences = [*recommendations(results), *in_few_words(results)]
        table, terms = best_table(results) if results.ok() else None, with_margin(DETECTION, results.limits.margin)
        return Answer(table, sentences, notices(results), terms)


def _ranks_sheet(results: Results) -> Iterator[Sheet]:
    """The sheet of the ranks over categories, where there are ranks."""
    ranks = ranks_table(results)
    if ranks.empty:
        return
    falling = [MEAN_RANK, *(str(name) for name in ranks if str(name).startswith(OF_CATEGORY))]
    yield Sheet(
        "Ranks",
        ranks,
        ranks_notes(results),
        scaled=[*falling, INTERVAL],
        falling=falling,
        links=run_links(ranks, "best_run"),
        frozen=list(ranks.columns).index("configuration") + 1,
        format="0.0",
    )


def best_table(results: Results) -> Table:
    """The table of the best runs, for the terminal: the best of every model, then others up to `SHOWN`."""
    frame = _compared(results, runs_table(results))
    frame = frame.assign(
        place=frame.groupby("category").cumcount(),
        of_model=frame.groupby(["category", "backend", "model"]).cumcount(),
    )
    leaders = frame[frame["of_model"] == 0]
    rest = frame.drop(leaders.index).sort_values(["place", "category"], kind="stable")
    rows = pd.concat([leaders, rest.head(max(0, SHOWN - len(leaders)))])
    rows = rows.sort_values(["category", "place"], kind="stable")
    # Axes with one value take room without telling runs apart; the model is always shown.
    axes = ["model", *(c for c in (*COLUMNS, "seed") if c != "model" and varies(frame[c]))]
    parameters = [c for c in axis_columns(results.records) if varies(frame[c])]
    table = plain_table(("category", "best runs"))
    synthetic = [SYNTHETIC_AUROC] if SYNTHETIC_AUROC in frame else []
    for column in ("image_AUROC", "95%", "against_best", *HEADLINE[1:], *synthetic, "seconds_alone", "ms_an image"):
        table.add_column(column.replace("_", "\n"), justify="right", no_wrap=True)
    for _, row in rows.iterrows():
        parts = [text(row[c]) for c in axes if pd.notna(row[c])]
        parts += [f"{c}={text(row[c])}" for c in parameters if pd.notna(row[c])]
        first, *others = [text(row[c], "{:.3f}") for c in (*HEADLINE, *synthetic)]
        ends = "-" if pd.isna(row[LOW]) else f"{row[LOW]:.2f}-{row[HIGH]:.2f}"
        latency = text(row.get("ms_per_image_p50"), "{:.1f}" + (" (busy)" if row.get(BUSY) == "yes" else ""))
        costs = [text(row.get("alone_seconds"), "{:.1f}"), latency]
        against = Standing(row["vs_best"], row["p_vs_best"]).short
        cells = [first, ends, text(against), *others, *costs]
        table.add_row(escape(str(row["category"])), escape(" ".join(parts)), *cells)
    return table


def _compared(results: Results, runs: pd.DataFrame) -> pd.DataFrame:
    """The rows of the runs that are compared with each other, with their positions in the whole table."""
    return runs[runs["run"].isin({record.run_id for record in results.rivals()})] if not runs.empty else runs


def _on_test_images(runs: pd.DataFrame) -> set[tuple[int, str]]:
    """Cells of runs whose backend validated on test images."""
    column = "backend_validates_on"
    if column not in runs:
        return set()
    return {(int(row), column) for row in runs.index[runs[column].isin([TEST_IMAGES, TEST_IMAGES_OF_TRIALS])]}


def _best_of_columns(frame: pd.DataFrame, metrics: Sequence[str]) -> set[tuple[int, str]]:
    """(row, column) of the best value of each metric on each category's data; ties are all best."""
    cells: set[tuple[int, str]] = set()
    for _, rows in frame.groupby(["category", "data"]) if not frame.empty else ():
        for name in metrics:
            if len(rows) > 1 and name in rows and rows[name].notna().any():
                best = rows[name] == (rows[name].max() if metric(name).higher_is_better else rows[name].min())
                cells |= {(int(row), name) for row in rows.index[best]}
    return cells


def _best_of_rows(pivot: pd.DataFrame, first: int) -> set[tuple[int, str]]:
    """(row, column) of the best value of each row, rounded as in the sheet; ties are all best."""
    values = pivot.iloc[:, first:].astype(float).round(3)
    if values.shape[1] < 2:
        return set()
    rising = pivot["metric"].map(lambda name: metric(name).higher_is_better)
    best = values.eq(values.max(axis=1).where(rising, values.min(axis=1)), axis=0)
    bold = {(row, str(name)) for name in best for row in best.index[best[name]]}
    # The name of the average is bold too.
    return bold | {(int(row), "category") for row in pivot.index[pivot["category"] == AVERAGE]}
