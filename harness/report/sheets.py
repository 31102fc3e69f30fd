"""One sheet of the workbook: notices, a frozen header with filters, rows; how each kind of column looks."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field
from functools import cache
from math import ceil
from typing import Any
from urllib.parse import quote

import pandas as pd
from openpyxl import Workbook
from openpyxl.cell.cell import ILLEGAL_CHARACTERS_RE, Cell
from openpyxl.formatting.rule import ColorScaleRule
from openpyxl.styles import Alignment, Font, PatternFill
from openpyxl.styles.cell_style import StyleArray
from openpyxl.utils import get_column_letter
from openpyxl.worksheet.properties import PageSetupProperties
from openpyxl.worksheet.worksheet import Worksheet

from harness.registry import metric
from harness.results.store import RUNS

HEADER = PatternFill("solid", fgColor="1F3A5F")
NOTICE = PatternFill("solid", fgColor="FFE699")
# Pale to blue: to be told apart by everybody, and readable under black figures.
WORST, BEST = "FFFFFF", "7FB2DD"
WIDEST = 100  # characters; longer text is wrapped
LINE_HEIGHT = 15  # points
TALLEST = 409  # points, by the format's definition
LONGEST = 32_000  # characters a cell may hold, by the format's definition (32,767), with some to spare
DIFFERENCE = " difference"
PLAIN_NUMBERS = ("image_threshold", "pixel_threshold", "p_vs_best", "image_AUROC p", "best_so_far")
# How the columns begin that hold a metric, also where a backend's name or "mean" follows.
METRICS = ("image_", "pixel_", "anomalib_")
# And of a classification.
SHARES = ("_F1", "accuracy", "_F1_low", "_F1_high", "folds_mean", "folds_sd")


@dataclass(frozen=True)
class Sheet:
    """What a sheet shows.

    Attributes:
        title: its name.
        frame: its rows.
        notices: sentences above the header.
        bold: (row, column) of cells to stand out.
        scaled: columns with a colour scale, which ends at the best value.
        falling: those of the scaled columns of which less is better, where the metric does not say so.
        links: by column, an address for each row, relative to the workbook.
        marked: (row, column) of cells to warn of.
        frozen: columns that stay in view.
        format: of numbers in columns whose name says nothing.
        empty: what is said where there are no rows.
    """

    title: str
    frame: pd.DataFrame
    notices: Sequence[str] = ()
    bold: Collection[tuple[int, str]] = ()
    scaled: Sequence[str] = ()
    falling: Collection[str] = ()
    links: Mapping[str, Sequence[str]] = field(default_factory=dict)
    marked: Collection[tuple[int, str]] = ()
    frozen: int = 1
    format: str = ""
    empty: str = "no finished runs yet"


def add_sheet(book: Workbook, what: Sheet) -> Worksheet:
    """Append a sheet to the book."""
    sheet: Worksheet = book.create_sheet(what.title)
    # Printed, or turned into a PDF, a sheet is as wide as the page.
    sheet.page_setup.orientation = "landscape"
    sheet.page_setup.fitToHeight = 0
    sheet.sheet_properties.pageSetUpPr = PageSetupProperties(fitToPage=True)
    columns = [str(column) for column in what.frame.columns]
    for row, text in enumerate(what.notices, 1):
        for column in range(1, max(len(columns), 1) + 1):
            sheet.cell(row, column).fill = NOTICE
        write(sheet, row, 1, text).font = bold("7F0000")
    top = len(what.notices) + 1
    if what.frame.empty:
        write(sheet, top, 1, what.empty)
        sheet.column_dimensions["A"].width = 28
        return sheet
    styles = _Styles(book)
    for position, name in enumerate(columns, 1):
        _column(sheet, what, top, position, name, styles)
    lines = max(name.count("\n") for name in columns) + 1
    if lines > 1:
        sheet.row_dimensions[top].height = lines * LINE_HEIGHT
    sheet.freeze_panes = sheet.cell(top + 1, what.frozen + 1).coordinate
    sheet.print_title_rows = f"{top}:{top}"
    sheet.auto_filter.ref = f"A{top}:{get_column_letter(len(columns))}{top + len(what.frame)}"
    return sheet


def _column(sheet: Worksheet, what: Sheet, top: int, position: int, name: str, styles: _Styles) -> None:
    """Header and cells of one column."""
    values = what.frame.iloc[:, position - 1].tolist()
    style = number_format(name, values) or what.format
    shown = [_shown(value, style) for value in values]
    is_text = any(isinstance(value, str) for value in values)
    letter = get_column_letter(position)
    # The header has a filter's button beside it; both sides get some air.
    longest = max(len(line) for text in (*shown, "") for line in text.split("\n"))
    header = max(len(line) for line in name.split("\n"))
    sheet.column_dimensions[letter].width = min(WIDEST, max(header + 4, longest + 1)) + 2
    head = write(sheet, top, position, name)
    head.font, head.fill = bold("FFFFFF"), HEADER
    head.alignment = alignment(is_text, "\n" in name)
    links = what.links.get(name)
    for row, (value, text) in enumerate(zip(values, shown, strict=True)):
        if not text:
            continue
        cell = write(sheet, top + 1 + row, position, value)
        lines = sum(ceil(max(len(line), 1) / WIDEST) for line in text.split("\n"))
        look = _Look(is_text, lines > 1, style, (row, name) in what.bold, (row, name) in what.marked, links is not None)
        cell._style = styles.of(look)  # type: ignore[attr-defined]
        if links is not None:
            cell.hyperlink = links[row]
        if lines > 1:
            # Not left to the program that opens it: some show the first lines only.
            dimension = sheet.row_dimensions[top + 1 + row]
            dimension.height = min(TALLEST, max(dimension.height or 0, lines * LINE_HEIGHT))
    if name in what.scaled and any(isinstance(value, float) and not math.isnan(value) for value in values):
        lowest, highest = (WORST, BEST) if metric(name).higher_is_better and name not in what.falling else (BEST, WORST)
        rule = ColorScaleRule(start_type="min", start_color=lowest, end_type="max", end_color=highest)  # type: ignore[no-untyped-call]
        sheet.conditional_formatting.add(f"{letter}{top + 1}:{letter}{top + len(values)}", rule)


@dataclass(frozen=True)
class _Look:
    """How a cell looks."""

    text: bool
    wrap: bool
    number_format: str
    bold: bool
    marked: bool
    link: bool


class _Styles:
    """Looks made once for the book: openpyxl takes longer to look a style up than to write a cell."""

    def __init__(self, book: Workbook) -> None:
        self._scratch = book.create_sheet("scratch")
        self._made: dict[_Look, StyleArray] = {}
        book.remove(self._scratch)

    def of(self, look: _Look) -> StyleArray:
        """The style, as a cell holds it."""
        if look not in self._made:
            cell = self._scratch.cell(1, 1)
            cell.style = "Normal"
            cell.alignment = alignment(look.text, look.wrap)
            if look.bold:
                cell.font = bold()
            if look.link:
                cell.font = Font(name="Calibri", size=11, color="0563C1", underline="single")
            if look.marked:
                cell.fill = NOTICE
            if look.number_format:
                cell.number_format = look.number_format
            self._made[look] = copy(cell._style)
        return self._made[look]


def bold(colour: str = "000000") -> Font:
    """The workbook's own font, bold; a bare Font would be another typeface."""
    return Font(name="Calibri", size=11, bold=True, color=colour)


@cache
def alignment(text: bool, wrap: bool) -> Alignment:
    """Numbers to the right, text to the left with a gap to the numbers before it; long text wrapped, never cut."""
    if text:
        return Alignment(horizontal="left", indent=1, vertical="top", wrap_text=wrap)
    return Alignment(horizontal="right", vertical="top", wrap_text=wrap)


def write(sheet: Worksheet, row: int, column: int, value: Any) -> Cell:
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


def number_format(name: str, values: Sequence[Any]) -> str:
    """Three digits for metrics, one for seconds and the like, none for counts and parameters."""
    if name.endswith(DIFFERENCE):
        return "+0.000;-0.000;0.000"
    if metric(name).count:
        # Means over seeds and categories need not be whole.
        whole = all(value is None or math.isnan(value) or float(value).is_integer() for value in values)
        return "0" if whole else "0.0"
    if name == "images":
        return "0"
    if name.endswith(("_seconds", "_MB", "images_per_second")) or name == "seconds" or "ms_per_image" in name:
        return "0.0"
    if name.startswith(METRICS) or name.endswith((*SHARES, "_by_then")) or name in PLAIN_NUMBERS:
        return "0.000"
    return ""


def _shown(value: Any, style: str) -> str:
    """As it will look, to measure its width."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if not style or not isinstance(value, float):
        return str(value)
    return f"{value:.{style.partition('.')[2].partition(';')[0].count('0')}f}"


def run_links(frame: pd.DataFrame, column: str) -> dict[str, Sequence[str]]:
    """From a run's name to its folder."""
    if frame.empty:
        return {}
    return {column: [f"{RUNS}/{quote(str(run), safe='+')}/" for run in frame[column]]}
