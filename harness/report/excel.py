"""models_comparing.xlsx: Summary, Runs, Backends (where there are two), Failures; rewritten whole, atomically."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from math import ceil
from typing import Any

import pandas as pd
from openpyxl import Workbook
from openpyxl.cell.cell import ILLEGAL_CHARACTERS_RE, Cell
from openpyxl.styles import Alignment, Font, PatternFill
from openpyxl.utils import get_column_letter
from openpyxl.worksheet.properties import PageSetupProperties
from openpyxl.worksheet.worksheet import Worksheet

from harness.record import RunRecord
from harness.report.table import backends_table, failures_table, metric_columns, notices, runs_table, summary_table
from harness.store import ResultFolder, write_atomic

HEADER = PatternFill("solid", fgColor="1F3A5F")
NOTICE = PatternFill("solid", fgColor="FFE699")
WIDEST = 100  # characters; longer text is wrapped
LINE_HEIGHT = 15  # points
TALLEST = 409  # points, by the format's definition
LONGEST = 32_000  # characters a cell may hold, by the format's definition (32,767), with some to spare
SECONDS = ("fit_seconds", "test_seconds", "alone_seconds", "total_seconds")
# How the columns of the sheet Backends begin that hold a metric of one backend, or the difference.
METRICS = ("image_", "pixel_")
DIFFERENCE = " difference"
PLAIN_NUMBERS = ("image_threshold", "pixel_threshold")


def write_workbook(folder: ResultFolder) -> None:
    """Scan the records and replace the workbook.

    Raises:
        StoreError: a record can't be read, or the workbook can't be written.
    """
    with folder.workbook_lock():
        write_atomic(folder.workbook, build_workbook(folder.records()))


def build_workbook(records: Sequence[RunRecord]) -> bytes:
    """The workbook's bytes."""
    book = Workbook()
    book.remove(book.worksheets[0])
    metrics = metric_columns(records)
    runs, summary = runs_table(records, failed=True), summary_table(records)
    _sheet(book, "Summary", summary, metrics, notices(records), best_of=None)
    _sheet(book, "Runs", runs, metrics, [], best_of="category")
    backends = backends_table(records)
    if not backends.empty:
        _sheet(
            book,
            "Backends",
            backends,
            [str(name) for name in backends if str(name).startswith(METRICS)],
            [],
            best_of=None,
        )
    _sheet(book, "Failures", failures_table(records), [], [], best_of=None)
    target = io.BytesIO()
    book.save(target)
    return target.getvalue()


def _sheet(
    book: Workbook, title: str, frame: pd.DataFrame, metrics: Sequence[str], head: Sequence[str], best_of: str | None
) -> None:
    """One sheet: notices, a frozen header with filters, rows, the best values bold."""
    sheet = book.create_sheet(title)
    # Printed, or turned into a PDF, a sheet is as wide as the page.
    sheet.page_setup.orientation = "landscape"
    sheet.page_setup.fitToHeight = 0
    sheet.sheet_properties.pageSetUpPr = PageSetupProperties(fitToPage=True)
    columns = [str(column) for column in frame.columns]
    for row, text in enumerate(head, 1):
        cell = _write(sheet, row, 1, text)
        cell.font = _bold("7F0000")
        for column in range(1, max(len(columns), 1) + 1):
            sheet.cell(row, column).fill = NOTICE
    top = len(head) + 1
    if not columns or frame.empty:
        _write(sheet, top, 1, "no failures" if title == "Failures" else "no finished runs yet")
        sheet.column_dimensions["A"].width = 24
        return
    best = _best_cells(frame, metrics, best_of)
    for position, name in enumerate(columns, 1):
        style = _number_format(name, metrics)
        values = frame[name].tolist()
        shown = [_shown(value, style) for value in values]
        longest = max(max(map(len, text.split("\n"))) for text in shown)
        # The header has a filter's button beside it; both sides get some air.
        sheet.column_dimensions[get_column_letter(position)].width = min(WIDEST, max(len(name) + 4, longest + 1)) + 2
        text_column = any(isinstance(value, str) for value in values)
        head_cell = _write(sheet, top, position, name)
        head_cell.font = _bold("FFFFFF")
        head_cell.fill = HEADER
        head_cell.alignment = _alignment(text_column, wrap=False)
        for row, (value, text) in enumerate(zip(values, shown, strict=True)):
            cell = _write(sheet, top + 1 + row, position, value)
            if style and isinstance(cell.value, float):
                cell.number_format = style
            if (row, name) in best:
                cell.font = _bold()
            lines = sum(ceil(max(len(line), 1) / WIDEST) for line in text.split("\n"))
            cell.alignment = _alignment(text_column, wrap=lines > 1)
            if lines > 1:
                # Not left to the program that opens it: some show the first lines only.
                dimension = sheet.row_dimensions[top + 1 + row]
                dimension.height = min(TALLEST, max(dimension.height or 0, lines * LINE_HEIGHT))
    frozen = 2 if title == "Summary" else min(len(columns), 1) + 1
    sheet.freeze_panes = sheet.cell(top + 1, frozen).coordinate
    sheet.auto_filter.ref = f"A{top}:{get_column_letter(len(columns))}{top + len(frame)}"


def _bold(colour: str = "000000") -> Font:
    """The workbook's own font, bold; a bare Font would be another typeface."""
    return Font(name="Calibri", size=11, bold=True, color=colour)


def _alignment(text_column: bool, wrap: bool) -> Alignment:
    """Numbers to the right, text to the left with a gap to the numbers before it; long text wrapped, never cut."""
    if text_column:
        return Alignment(horizontal="left", indent=1, vertical="top", wrap_text=wrap)
    return Alignment(horizontal="right", vertical="top")


def _write(sheet: Worksheet, row: int, column: int, value: Any) -> Cell:
    """A value into a cell, text always as text: nothing can start a formula."""
    cell = sheet.cell(row, column)
    assert isinstance(cell, Cell)
    if value is None or (isinstance(value, float) and math.isnan(value)) or value is pd.NA:
        return cell
    if isinstance(value, bool | int | float):
        cell.value = value
        return cell
    text = ILLEGAL_CHARACTERS_RE.sub("\N{REPLACEMENT CHARACTER}", str(value))
    if len(text) > LONGEST:
        text = f"(the last {LONGEST} characters) {text[-LONGEST:]}"
    cell.value = text
    cell.data_type = "s"
    return cell


def _number_format(name: str, metrics: Sequence[str]) -> str:
    if name.endswith(DIFFERENCE):
        return "+0.000;-0.000;0.000"
    if name in metrics or name in PLAIN_NUMBERS:
        return "0.000"
    return "0.0" if name.endswith(SECONDS) else ""


def _shown(value: Any, style: str) -> str:
    """As it will look, to measure its width."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if not style or not isinstance(value, float):
        return str(value)
    return f"{value:.1f}" if style == "0.0" else f"{value:.3f}"


def _best_cells(frame: pd.DataFrame, metrics: Sequence[str], best_of: str | None) -> set[tuple[int, str]]:
    """(row, column) of the best value of each metric, in each group of `best_of`; ties are all best."""
    found: set[tuple[int, str]] = set()
    groups = frame.groupby(best_of) if best_of else [("", frame)]
    for _, rows in groups:
        if len(rows) < 2:
            continue
        for name in metrics:
            if name in rows and rows[name].notna().any() and not name.endswith(DIFFERENCE):
                best = rows[name] == rows[name].max()
                found |= {(int(row), name) for row in rows.index[best]}
    return found
