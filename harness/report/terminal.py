"""The small table at the end of a sweep."""

from __future__ import annotations

from typing import Any

import pandas as pd
from rich.markup import escape
from rich.table import Table

from harness.report.facts import HEADLINE, HIGH, LOW, axis_columns
from harness.report.results import Results
from harness.report.tables import runs_table

SHOWN = 9


def best_table(results: Results) -> Table:
    """The best runs; with several categories the best of each in turn, so that every one is seen."""
    frame = runs_table(results)
    place = frame.groupby("category").cumcount()
    rows = frame.assign(place=place).sort_values(["place", "category"], kind="stable").head(SHOWN)
    rows = rows.sort_values(["category", "place"], kind="stable")
    # What is the same in all runs tells nothing here; the model always does.
    described = ["model", *(c for c in ("backend", "backbone", "layers", "image_size", "seed") if _varies(frame[c]))]
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
