"""One sheet of the workbook: notices, a frozen header with filters, rows, and the format of each column."""

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
from openpyxl.comments import Comment
from openpyxl.formatting.rule import ColorScaleRule
from openpyxl.styles import Alignment, Font, PatternFill
from openpyxl.styles.cell_style import StyleArray
from openpyxl.utils import get_column_letter
from openpyxl.worksheet.properties import PageSetupProperties
from openpyxl.worksheet.worksheet import Worksheet

from harness.registry import SYNTHETIC_AUROC, metric
from harness.report.category_ranks import MEAN_RANK
from harness.report.false_alarms import EXPECTED, ON_TEST
from harness.results.store import RUNS

HEADER = PatternFill("solid", fgColor="1F3A5F")
NOTICE = PatternFill("solid", fgColor="FFE699")
# White to blue: colour-blind readers can tell the colours apart, and black digits stay readable.
WORST, BEST = "FFFFFF", "7FB2DD"
WIDEST = 100  # characters; longer text is wrapped
LINE_HEIGHT = 15  # points
TALLEST = 409  # points, by the format's definition
LONGEST = 32_000  # characters a cell may hold, by the format's definition (32,767), with some to spare
DIFFERENCE = " difference"
PLAIN_NUMBERS = (
    EXPECTED,
    ON_TEST,
    MEAN_RANK,
    "image_threshold",
    "pixel_threshold",
    "p_vs_best",
    "may_be_lower_by",
    "image_AUROC p",
    "best_so_far",
    "recall",
)
# Names of columns with metrics begin so; a backend's name or "mean" may follow.
METRICS = ("image_", "pixel_", "region_", "anomalib_", SYNTHETIC_AUROC)
# Names of columns with metrics of a classification end so.
SHARES = ("_F1", "accuracy", "_F1_low", "_F1_high", "folds_mean", "folds_sd")

# Comments on headers.
EXPLAINED = {
    "configurations_tried": "A configuration is a point of the grid: all axes except category and seed.",
    "vs_best": "The first metric against the best one on the same images. 'as good': lower by less than the margin. "
    "'worse': significantly lower. At most 5% of such reports call one worse that is equally good.",
    "p_vs_best": "p-value of the difference, adjusted for the choice of the best and for the number of tests.",
    SYNTHETIC_AUROC: "AUROC of synthetic defects against held-out normal images (rank: synthetic).",
    "synthetic_rank": "The rank by synthetic AUROC, among all configurations of the data set.",
    MEAN_RANK: "Mean over the categories of the rank by image AUROC of all configurations; 1 is the best. See Ranks.",
    "may_be_lower_by": "With a confidence of 95%, the first metric is lower than that of the best by at most this.",
}


@dataclass(frozen=True)
class Sheet:
    """The content of a sheet.

    Attributes:
        title: name of the sheet.
        frame: the rows.
        notices: sentences above the header.
        bold: (row, column) of bold cells.
        scaled: columns with a colour scale, which ends at the best value.
        falling: scaled columns where smaller values are better, in addition to metrics that declare it.
        links: by column, an address for each row, relative to the workbook.
        marked: (row, column) of cells with the colour of a warning.
        frozen: number of columns that stay in view.
        format: of numbers in columns whose name implies no format.
        empty: the text of a sheet without rows.
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


def add_sheet(book: Workbook, data: Sheet) -> Worksheet:
    """Append a sheet to the workbook.

    Args:
        book: the workbook.
        data: content of the sheet.

    Returns:
        The new sheet.
    """
    sheet = landscape_sheet(book, data.title)
    columns = [str(column) for column in data.frame.columns]
    for row, text in enumerate(data.notices, 1):
        for column in range(1, max(len(columns), 1) + 1):
            sheet.cell(row, column).fill = NOTICE
        write(sheet, row, 1, text).font = bold("7F0000")
    top = len(data.notices) + 1
    if data.frame.empty:
        write(sheet, top, 1, data.empty)
        sheet.column_dimensions["A"].width = 28
        return sheet
    styles = _Styles(book)
    for position, name in enumerate(columns, 1):
        _column(sheet, data, top, position, name, styles)
    lines = max(name.count("\n") for name in columns) + 1
    if lines > 1:
        sheet.row_dimensions[top].height = lines * LINE_HEIGHT
    sheet.freeze_panes = sheet.cell(top + 1, data.frozen + 1).coordinate
    sheet.print_title_rows = f"{top}:{top}"
    sheet.auto_filter.ref = f"A{top}:{get_column_letter(len(columns))}{top + len(data.frame)}"
    return sheet


def landscape_sheet(book: Workbook, title: str) -> Worksheet:
    """Append an empty sheet that is as wide as the page when it is printed or saved as a PDF.

    Args:
        book: the workbook.
        title: name of the sheet.
    """
    sheet: Worksheet = book.create_sheet(title)
    sheet.page_setup.orientation = "landscape"
    sheet.page_setup.fitToHeight = 0
    sheet.sheet_properties.pageSetUpPr = PageSetupProperties(fitToPage=True)
    return sheet


def _column(sheet: Worksheet, data: Sheet, top: int, position: int, name: str, styles: _Styles) -> None:
    """Header and cells of one column."""
    values = data.frame.iloc[:, position - 1].tolist()
    style = number_format(name, values) or data.format
    texts = [_display_text(value, style) for value in values]
    is_text = any(isinstance(value, str) for value in values)
    letter = get_column_letter(position)
    # The header needs room for the filter button.
    longest = max(len(line) for text in (*texts, "") for line in text.split("\n"))
    header = max(len(line) for line in name.split("\n"))
    sheet.column_dimensions[letter].width = min(WIDEST, max(header + 4, longest + 1)) + 2
    head = write(sheet, top, position, name)
    head.font, head.fill = bold("FFFFFF"), HEADER
    head.alignment = alignment(is_text, "\n" in name)
    if name in EXPLAINED:
        head.comment = Comment(EXPLAINED[name], "harness")
    links = data.links.get(name)
    for row, (value, text) in enumerate(zip(values, texts, strict=True)):
        if not text:
            continue
        cell = write(sheet, top + 1 + row, position, value)
        lines = sum(ceil(max(len(line), 1) / WIDEST) for line in text.split("\n"))
        key = _Style(is_text, lines > 1, style, (row, name) in data.bold, (row, name) in data.marked, links is not None)
        cell._style = styles.of(key)  # type: ignore[attr-defined]
        if links is not None:
            cell.hyperlink = links[row]
        if lines > 1:
            # The height is set here, because some programs show the first lines only.
            dimension = sheet.row_dimensions[top + 1 + row]
            dimension.height = min(TALLEST, max(dimension.height or 0, lines * LINE_HEIGHT))
    if name in data.scaled and any(isinstance(value, float) and not math.isnan(value) for value in values):
        lowest, highest = (WORST, BEST) if metric(name).higher_is_better and name not in data.falling else (BEST, WORST)
        rule = ColorScaleRule(start_type="min", start_color=lowest, end_type="max", end_color=highest)  # type: ignore[no-untyped-call]
        sheet.conditional_formatting.add(f"{letter}{top + 1}:{letter}{top + len(values)}", rule)


@dataclass(frozen=True)
class _Style:
    """The style of a cell."""

    text: bool
    wrap: bool
    number_format: str
    bold: bool
    marked: bool
    link: bool


class _Styles:
    """The styles of a workbook, each built once: openpyxl takes longer to look a style up than to write a cell."""

    def __init__(self, book: Workbook) -> None:
        self._scratch = book.create_sheet("scratch")
        self._styles: dict[_Style, StyleArray] = {}
        book.remove(self._scratch)

    def of(self, key: _Style) -> StyleArray:
        """The style in the form that a cell stores."""
        if key not in self._styles:
            cell = self._scratch.cell(1, 1)
            cell.style = "Normal"
            cell.alignment = alignment(key.text, key.wrap)
            if key.bold:
                cell.font = bold()
            if key.link:
                cell.font = Font(name="Calibri", size=11, color="0563C1", underline="single")
            if key.marked:
                cell.fill = NOTICE
            if key.number_format:
                cell.number_format = key.number_format
            self._styles[key] = copy(cell._style)
        return self._styles[key]


def bold(colour: str = "000000") -> Font:
    """The font of the workbook, bold; a bare Font would be another typeface."""
    return Font(name="Calibri", size=11, bold=True, color=colour)


@cache
def alignment(text: bool, wrap: bool) -> Alignment:
    """Numbers to the right, text to the left with a gap to the numbers before it.

    Args:
        text: whether the column holds text.
        wrap: whether the cell has several lines.
    """
    if text:
        return Alignment(horizontal="left", indent=1, vertical="top", wrap_text=wrap)
    return Alignment(horizontal="right", vertical="top", wrap_text=wrap)


def write(sheet: Worksheet, row: int, column: int, value: Any) -> Cell:
    """Write a value into a cell; text stays text and can't start a formula.

    Args:
        sheet: of the workbook.
        row: from 1.
        column: from 1.
        value: a number, a text, or a missing value, which leaves the cell empty.

    Returns:
        The cell.
    """
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
    """The number format of a column: three digits for metrics, one for costs, none for counts and parameters.

    Args:
        name: of the column.
        values: of the column.
    """
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


def _display_text(value: Any, style: str) -> str:
    """The displayed text of a value, for the width of the column."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if not style or not isinstance(value, float):
        return str(value)
    return f"{value:.{style.partition('.')[2].partition(';')[0].count('0')}f}"


def run_address(run_id: str) -> str:
    """The address of a run's folder, relative to workbook and page."""
    return f"{RUNS}/{quote(run_id, safe='+')}/"


def run_links(frame: pd.DataFrame, column: str) -> dict[str, Sequence[str]]:
    """Links from run ids to the folders of the runs.

    Args:
        frame: the rows of a sheet.
        column: the column of run ids.
    """
    if frame.empty:
        return {}
    return {column: [run_address(str(run)) for run in frame[column]]}
