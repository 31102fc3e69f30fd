"""The report of a classification: the sheets, the page and the table in the terminal."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
from rich.markup import escape
from rich.table import Table

from harness.backends.latency import BUSY
from harness.common.terminal import plain_table
from harness.report import classification_tables as tables
from harness.report.classification_answer import answers
from harness.report.classification_calibration import CALIBRATION_CAPTION, calibration_table
from harness.report.classification_coverage import (
    COVERAGE_CAPTION,
    RISK_CAPTION,
    coverage_sentences,
    coverage_table,
    risk_table,
)
from harness.report.classification_page import page_part
from harness.report.classification_results import ClassificationResults
from harness.report.configurations import Configuration
from harness.report.glossary import CLASSIFICATION, with_margin
from harness.report.parts import Answer, PagePart, SheetPart
from harness.report.results import Results
from harness.report.sheets import Sheet, chosen_rows, run_links
from harness.report.standings import Standing
from harness.report.tables import busy_cells
from harness.report.terminal import text, varies

if TYPE_CHECKING:
    from harness.report.figures.canvas import NamedFigure

SHOWN = 9  # configurations in the terminal
BARE = {"model", "backbone"}  # columns whose values are clear without their name


class ClassificationReport:
    """The report of a classification, as `harness.report.parts.TaskReport` declares it."""

    def runs(self, results: Results) -> pd.DataFrame:
        """A row for each run, the best first; failed and skipped runs are at the end."""
        return tables.runs_table(ClassificationResults(results), failed=True)

    def summary(self, results: Results) -> pd.DataFrame:
        """A row for each configuration, best first."""
        return tables.summary_table(ClassificationResults(results))

    def sheets(self, results: Results) -> Iterator[SheetPart]:
        """The sheets: summary, runs, labels, classes and conditions, confusions, folds, images of each label."""
        classification = ClassificationResults(results)
        metrics = [*tables.HEADLINE, *tables.MORE, tables.LOW, tables.HIGH]
        summary, runs = self.summary(results), self.runs(results)
        links, notices = run_links(summary, "best_run"), tables.notices(classification)
        yield Sheet(
            "Summary",
            summary,
            notices,
            scaled=metrics,
            links=links,
            marked=busy_cells(summary),
            folded=[str(name) for name in summary if name not in tables.IN_SUMMARY],
            chosen=chosen_rows(summary),
        )
        yield Sheet("Runs", runs, scaled=metrics, links=run_links(runs, "run"), marked=busy_cells(runs))
        for title, frame, frozen in (
            ("Labels", tables.labels_table(classification), 2),
            ("Classes and conditions", tables.groups_table(classification), 3),
        ):
            if not frame.empty:
                names = [str(name) for name in frame.columns[frozen:]]
                yield Sheet(title, frame, scaled=names, frozen=frozen, format="0.000")
        confusion = tables.confusion_table(classification)
        if not confusion.empty:
            best = classification.configurations[0]
            caption = f"Images of the best run ({best.name}): a row is a true label, a column is a predicted label."
            rows = {str(name): row for row, name in enumerate(confusion["true label"])}
            errors = {
                (row, name) for name in rows for row in confusion.index[confusion[name].notna()] if rows[name] != row
            }
            yield Sheet("Confusion", confusion, [caption], marked=errors)
        for title, frame, caption in (
            ("Coverage", coverage_table(classification), COVERAGE_CAPTION),
            ("Risk", risk_table(classification), RISK_CAPTION),
            ("Calibration", calibration_table(classification), CALIBRATION_CAPTION),
        ):
            if not frame.empty:
                yield Sheet(title, frame, [caption], frozen=1, format="0.000")
        for title, frame in (
            ("Confused", tables.confused_table(classification)),
            ("Folds", tables.folds_table(classification)),
            ("Distribution", tables.distribution_table(classification)),
        ):
            if not frame.empty:
                yield Sheet(title, frame, frozen=2)

    def page(self, results: Results) -> PagePart:
        """The page: configurations, confusions and epochs."""
        return page_part(results)

    def write_details(self, results: Results, folder: Path) -> None:
        """Write nothing: the page itself holds all details.

        Args:
            results: of the result folder.
            folder: for the files; stays empty.
        """

    def figures(self, results: Results, metric: str) -> Iterator[NamedFigure]:
        """The figures of each configuration on the page.

        Args:
            results: of the result folder.
            metric: has to be empty.

        Raises:
            ConfigError: there is a metric.
        """
        from harness.report.figures.classification import classification_figures

        return classification_figures(results, metric)

    def recommended(self, results: Results) -> list[Configuration]:
        """The best configuration of each data set."""
        return [group[0] for group in results.configurations.values()]

    def answer(self, results: Results) -> Answer:
        """The best configurations, a sentence for each data set, and the notices."""
        classification = ClassificationResults(results)
        table = best_table(classification) if results.ok() else None
        sentences = [*answers(classification), *coverage_sentences(classification)]
        terms = with_margin(CLASSIFICATION, results.limits.margin)
        return Answer(table, sentences, tables.notices(classification), terms)


def best_table(classification: ClassificationResults) -> Table:
    """The table of the best configurations, for the terminal."""
    frame = tables.summary_table(classification).head(SHOWN)
    metrics = [*tables.HEADLINE, tables.LOW, tables.HIGH, *tables.MORE]
    comparison = ("vs_best", "p_vs_best", "may_be_lower_by")
    rest = {
        *(*comparison, *metrics, "configuration", "recommended", tables.ENDS, BUSY, "seeds", "best_run"),
        *("fit_seconds", "ms_per_image_p50", "model_MB"),
    }
    axes = [str(c) for c in frame if c not in rest and (c == "model" or varies(frame[c]))]
    table = plain_table(("best configurations",))
    for column in ("macro_F1", "95%", "against_best", *tables.HEADLINE[1:], "fit_seconds"):
        table.add_column(column.replace("_", "\n"), justify="right", no_wrap=True)
    for _, row in frame.iterrows():
        parts = [text(row[c]) if c in BARE else f"{c}={text(row[c])}" for c in axes if pd.notna(row[c])]
        first, *others = [text(row[c], "{:.3f}") for c in tables.HEADLINE]
        ends = "-" if pd.isna(row.get(tables.LOW)) else f"{row[tables.LOW]:.2f}-{row[tables.HIGH]:.2f}"
        against = Standing(row.get("vs_best") or "", row.get("p_vs_best")).short
        cells = [first, ends, text(against), *others, text(row.get("fit_seconds"), "{:.1f}")]
        table.add_row(escape(" ".join(parts)), *cells)
    return table
