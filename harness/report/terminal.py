"""The small table at the end of a sweep."""

from __future__ import annotations

from typing import Any

import pandas as pd
from rich.markup import escape
from rich.table import Table

from harness.config.axes import COLUMNS
from harness.report import classification
from harness.report.classification import ClassificationResults
from harness.report.facts import HEADLINE, HIGH, LOW, axis_columns
from harness.report.recommend import recommendations
from harness.report.results import Results
from harness.report.search import SearchReport
from harness.report.tables import notices, runs_table

SHOWN = 9
PLAIN = {"model", "backbone"}


def in_few_words(results: Results) -> tuple[Table | None, list[str], list[str]]:
    """The best runs, where there are any, the answer, and what a reader must know, whatever the task."""
    table, answers, told = _of_task(results)
    searched = SearchReport.of(results)
    return table, [*answers, *(searched.sentences() if searched is not None else [])], told


def _of_task(results: Results) -> tuple[Table | None, list[str], list[str]]:
    if results.task == "classification":
        found = ClassificationResults(results)
        return (
            classification_table(found) if results.ok() else None,
            classification.answer(found),
            classification.notices(found),
        )
    return best_table(results) if results.ok() else None, recommendations(results), notices(results)


def classification_table(found: ClassificationResults) -> Table:
    """The best settings of a classification."""
    frame = classification.summary_table(found).head(SHOWN)
    figures = [*classification.HEADLINE, classification.LOW, classification.HIGH, *classification.MORE]
    rest = {"vs_best", "p_vs_best", "seeds", "best_run", "fit_seconds", "ms_per_image_p50", "model_MB", *figures}
    what = [str(c) for c in frame if c not in rest and (c == "model" or _varies(frame[c]))]
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("best settings")
    for column in ("macro_F1", "95%", "against_best", *classification.HEADLINE[1:], "fit_seconds"):
        table.add_column(column.replace("_", "\n"), justify="right", no_wrap=True)
    for _, row in frame.iterrows():
        parts = [_text(row[c]) if c in PLAIN else f"{c}={_text(row[c])}" for c in what if pd.notna(row[c])]
        first, *others = [_text(row[c], "{:.3f}") for c in classification.HEADLINE]
        ends = (
            "-"
            if pd.isna(row.get(classification.LOW))
            else f"{row[classification.LOW]:.2f}-{row[classification.HIGH]:.2f}"
        )
        cells = [first, ends, _text(row.get("vs_best")), *others, _text(row.get("fit_seconds"), "{:.1f}")]
        table.add_row(escape(" ".join(parts)), *cells)
    return table


def best_table(results: Results) -> Table:
    """The best runs; with several categories the best of each in turn, so that every one is seen."""
    frame = runs_table(results)
    place = frame.groupby("category").cumcount()
    rows = frame.assign(place=place).sort_values(["place", "category"], kind="stable").head(SHOWN)
    rows = rows.sort_values(["category", "place"], kind="stable")
    # What is the same in all runs tells nothing here; the model always does.
    described = ["model", *(c for c in (*COLUMNS, "seed") if c != "model" and _varies(frame[c]))]
    parameters = [c for c in axis_columns(results.records) if _varies(frame[c])]
    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in ("category", "best runs"):
        table.add_column(column)
    for column in ("image_AUROC", "95%", "against_best", *HEADLINE[1:], "seconds_alone", "ms_an image"):
        table.add_column(column.replace("_", "\n"), justify="right", no_wrap=True)
    for _, row in rows.iterrows():
        parts = [_text(row[c]) for c in described if pd.notna(row[c])]
        parts += [f"{c}={_text(row[c])}" for c in parameters if pd.notna(row[c])]
        first, *others = [_text(row[c], "{:.3f}") for c in HEADLINE]
        ends = "-" if pd.isna(row[LOW]) else f"{row[LOW]:.2f}-{row[HIGH]:.2f}"
        costs = [_text(row.get(name), "{:.1f}") for name in ("alone_seconds", "ms_per_image_p50")]
        cells = [first, ends, _text(row["vs_best"]), *others, *costs]
        table.add_row(escape(str(row["category"])), escape(" ".join(parts)), *cells)
    return table


def _varies(column: pd.Series[Any]) -> bool:
    return column.nunique(dropna=False) > 1


def _text(value: Any, style: str = "{}") -> str:
    return "-" if value is None or pd.isna(value) else style.format(value)
