"""Cells of the workbook: values as they are, number formats, fonts and colours."""

from __future__ import annotations

import math
from collections.abc import Sequence
from copy import copy
from functools import cache
from typing import Any, NamedTuple

import pandas as pd
from openpyxl import Workbook
from openpyxl.cell.cell import ILLEGAL_CHARACTERS_RE, Cell
from openpyxl.styles import Alignment, Font, PatternFill
from openpyxl.styles.cell_style import StyleArray
from openpyxl.worksheet.worksheet import Worksheet

from harness.registry import SYNTHETIC_AUROC, metric
from harness.report.category_ranks import MEAN_RANK
from harness.report.false_alarms import EXPECTED, ON_TEST

HEADER = PatternFill("solid", fgColor="1F3A5F")
NOTICE = PatternFill("solid", fgColor="FFE699")
CHOSEN = PatternFill("solid", fgColor="E2EFDA")
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


class Style(NamedTuple):
    """The style of a cell."""

    text: bool
    wrap: bool
    number_format: str
    bold: bool
    fill: str
    link: bool


class Styles:
    """The styles of a workbook, each built once: openpyxl takes longer to look a style up than to write a cell."""

    def __init__(self, book: Workbook) -> None:
        self._scratch = book.create_sheet("scratch")
        self._styles: dict[Style, StyleArray] = {}
        book.remove(self._scratch)

    def of(self, key: Style) -> StyleArray:
        """The style in the form that a cell stores."""
        if key not in self._styles:
            cell = self._scratch.cell(1, 1)
            cell.style = "Normal"
            cell.alignment = alignment(key.text, key.wrap)
            if key.bold:
                cell.font = bold()
            if key.link:
                cell.font = Font(name="Calibri", size=11, color="0563C1", underline="single")
            if key.fill:
                cell.fill = NOTICE if key.fill == "marked" else CHOSEN
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


def display_text(value: Any, style: str) -> str:
    """The displayed text of a value, for the width of the column.

    Args:
        value: of the cell; None and NaN are displayed as nothing.
        style: Excel's number format, such as "0.000"; empty for no format.
    """
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if not style or not isinstance(value, float):
        return str(value)
    return f"{value:.{style.partition('.')[2].partition(';')[0].count('0')}f}"
