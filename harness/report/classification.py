"""What a classification shows: its sheets, its part of the page, and its table in the terminal."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pandas as pd
from rich.markup import escape
from rich.table import Table

from harness.report import classification_tables as tables
from harness.report.classification_page import page_part
from harness.report.classification_tables import ClassificationResults
from harness.report.parts import Answer, PagePart, SheetPart
from harness.report.results import Results
from harness.report.sheets import Sheet, run_links
from harness.report.terminal import text, varies

SHOWN = 9  # configurations in the terminal
BARE = {"model", "backbone"}  # columns whose values need no name


class ClassificationReport:
    """See `harness.report.parts.TaskReport`."""

    def sheets(self, results: Results) -> Iterator[SheetPart]:
        """Summary, runs, labels, classes and conditions, confusions and folds."""
        found = ClassificationResults(results)
        figures = [*tables.HEADLINE, *tables.MORE, tables.LOW, tables.HIGH]
        summary, runs = tables.summary_table(found), tables.runs_table(found, failed=True)
        yield Sheet("Summary", summary, tables.notices(found), scaled=figures, links=run_links(summary, "best_run"))
        yield Sheet("Runs", runs, scaled=figures, links=run_links(runs, "run"))
        for title, frame, frozen in (
            ("Labels", tables.labels_table(found), 2),
            ("Classes and states", tables.groups_table(found), 3),
        ):
            if not frame.empty:
                shown = [str(name) for name in frame.columns[frozen:]]
                yield Sheet(title, frame, scaled=shown, frozen=frozen, format="0.000")
        confusion = tables.confusion_table(found)
        if not confusion.empty:
            best = found.configurations[0]
            said = [f"Images of the best run ({best.name}): a row is what they are, a column what they were called."]
            names = {str(name): row for row, name in enumerate(confusion["true label"])}
            wrong = {
                (row, said) for said in names for row in confusion.index[confusion[said].notna()] if names[said] != row
            }
            yield Sheet("Confusion", confusion, said, marked=wrong)
        for title, frame in (
            ("Confused", tables.confused_table(found)),
            ("Folds", tables.folds_table(found)),
        ):
            if not frame.empty:
                yield Sheet(title, frame, frozen=2)

    def page(self, results: Results) -> PagePart:
        """Configurations, confusions and epochs."""
        return page_part(results)

    def write_details(self, results: Results, folder: Path) -> None:
        """Nothing: the page has everything in it."""

    def answer(self, results: Results) -> Answer:
        """The best configurations, and how the best one stands."""
        found = ClassificationResults(results)
        table = best_table(found) if results.ok() else None
        return Answer(table, tables.answers(found), tables.notices(found))


def best_table(found: ClassificationResults) -> Table:
    """The best settings of a tables."""
    frame = tables.summary_table(found).head(SHOWN)
    figures = [*tables.HEADLINE, tables.LOW, tables.HIGH, *tables.MORE]
    rest = {"vs_best", "p_vs_best", "seeds", "best_run", "fit_seconds", "ms_per_image_p50", "model_MB", *figures}
    what = [str(c) for c in frame if c not in rest and (c == "model" or varies(frame[c]))]
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("best settings")
    for column in ("macro_F1", "95%", "against_best", *tables.HEADLINE[1:], "fit_seconds"):
        table.add_column(column.replace("_", "\n"), justify="right", no_wrap=True)
    for _, row in frame.iterrows():
        parts = [text(row[c]) if c in BARE else f"{c}={text(row[c])}" for c in what if pd.notna(row[c])]
        first, *others = [text(row[c], "{:.3f}") for c in tables.HEADLINE]
        ends = "-" if pd.isna(row.get(tables.LOW)) else f"{row[tables.LOW]:.2f}-{row[tables.HIGH]:.2f}"
        cells = [first, ends, text(row.get("vs_best")), *others, text(row.get("fit_seconds"), "{:.1f}")]
        table.add_row(escape(" ".join(parts)), *cells)
    return table
