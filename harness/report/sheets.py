"""One sheet of the workbook: a frozen header with filters, rows, the format of each column, and notices."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from math import ceil
from typing import Any
from urllib.parse import quote

import pandas as pd
from openpyxl import Workbook
from openpyxl.comments import Comment
from openpyxl.formatting.rule import ColorScaleRule, Rule
from openpyxl.utils import get_column_letter
from openpyxl.worksheet.properties import PageSetupProperties
from openpyxl.worksheet.worksheet import Worksheet

from harness.registry import metric
from harness.report.cells import (
    HEADER,
    LONGEST,
    NOTICE,
    Style,
    Styles,
    alignment,
    bold,
    display_text,
    number_format,
    write,
)
from harness.report.glossary import COLUMNS
from harness.report.standings import WORSE
from harness.results.store import RUNS

# White to blue: colour-blind readers can tell the colours apart, and black digits stay readable.
WORST, BEST = "FFFFFF", "7FB2DD"
WIDEST = 100  # characters; longer text is wrapped
NARROW = {"configuration": 40}  # the same for columns of names, so that a printed page has room for the numbers
LINE_HEIGHT = 15  # points
TALLEST = 409  # points, by the format's definition
PAGE = 205  # characters on the width of a landscape page that is still readable
FULL_SCALE = 0.1  # a smaller difference of a share has no strong colours
MOST_COLUMNS = 16_384  # by the format's definition
VS_BEST = "vs_best"  # the column of verdicts on the first scaled column


@dataclass(frozen=True)
class Sheet:
    """The content of a sheet.

    Attributes:
        title: name of the sheet.
        frame: the rows.
        notices: sentences that a reader needs. They stand on the sheet *Read me*, and as a comment on the first header.
        remarks: sentences for the sheet *Read me* alone.
        bold: (row, column) of bold cells.
        scaled: columns with a colour scale, which ends at the best value. The column `vs_best` compares the first one.
        falling: scaled columns where smaller values are better, in addition to metrics that declare it.
        links: by column, an address for each row, relative to the workbook.
        marked: (row, column) of cells with the colour of a warning.
        frozen: number of columns that stay in view.
        folded: columns that a reader unfolds with the button above them. A printed page leaves them out.
        chosen: rows with the colour of the recommended configuration.
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
    folded: Collection[str] = ()
    chosen: Collection[int] = ()
    format: str = ""
    empty: str = "no finished runs yet"
    remarks: Sequence[str] = ()


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
    if data.frame.empty:
        write(sheet, 1, 1, data.empty)
        sheet.column_dimensions["A"].width = 28
        _add_notices(sheet, data.notices)
        return sheet
    styles = Styles(book)
    for position, name in enumerate(columns, 1):
        _column(sheet, data, position, name, styles)
    lines = max(name.count("\n") for name in columns) + 1
    if lines > 1:
        sheet.row_dimensions[1].height = lines * LINE_HEIGHT
    sheet.freeze_panes = sheet.cell(2, data.frozen + 1).coordinate
    sheet.auto_filter.ref = f"A1:{get_column_letter(len(columns))}{1 + len(data.frame)}"
    _fold(sheet, [position for position, name in enumerate(columns, 1) if name in data.folded])
    _print_readably(sheet, data.frozen, [name in data.folded for name in columns])
    _add_notices(sheet, data.notices)
    return sheet


def _add_notices(sheet: Worksheet, notices: Sequence[str]) -> None:
    """Put the notices into a comment on the first cell, which gets the colour of a warning, and on printed pages."""
    if not notices:
        return
    cell = sheet["A1"]
    before = [cell.comment.text] if cell.comment else []
    comment = Comment("\n".join([*notices, *before])[:LONGEST], "harness")
    comment.width, comment.height = 600, 60 * min(len(notices) + 1, 8)
    cell.comment, cell.font, cell.fill = comment, bold("7F0000"), NOTICE
    # The format allows 255 characters, and & starts a code.
    footer = sheet.oddFooter
    assert footer is not None
    footer.left.text = notices[0][:200].replace("&", "&&")


def _fold(sheet: Worksheet, positions: Sequence[int]) -> None:
    for position in positions:
        dimension = sheet.column_dimensions[get_column_letter(position)]
        dimension.outline_level, dimension.hidden = 1, True
    if positions and positions[-1] < MOST_COLUMNS:
        # The button to unfold stands above the column after the folded ones.
        sheet.column_dimensions[get_column_letter(positions[-1] + 1)].collapsed = True


def _print_readably(sheet: Worksheet, frozen: int, folded: Sequence[bool]) -> None:
    """Print a wide sheet on several pages side by side, each with the header and the frozen columns."""
    sheet.print_title_rows = "1:1"
    if frozen:
        sheet.print_title_cols = f"A:{get_column_letter(frozen)}"
    letters = [get_column_letter(position) for position, hidden in enumerate(folded, 1) if not hidden]
    width = sum(sheet.column_dimensions[letter].width for letter in letters)
    sheet.page_setup.fitToWidth = ceil(width / PAGE)


def landscape_sheet(book: Workbook, title: str) -> Worksheet:
    """Append an empty sheet that is one page wide when it is printed or saved as a PDF.

    Args:
        book: the workbook.
        title: name of the sheet.
    """
    sheet: Worksheet = book.create_sheet(title)
    sheet.page_setup.orientation = "landscape"
    sheet.page_setup.fitToHeight = 0
    sheet.sheet_properties.pageSetUpPr = PageSetupProperties(fitToPage=True)
    return sheet


def _column(sheet: Worksheet, data: Sheet, position: int, name: str, styles: Styles) -> None:
    """Header and cells of one column."""
    values = data.frame.iloc[:, position - 1].tolist()
    style = number_format(name, values) or data.format
    texts = [display_text(value, style) for value in values]
    is_text = any(isinstance(value, str) for value in values)
    letter = get_column_letter(position)
    # The header needs room for the filter button.
    longest = max(len(line) for text in (*texts, "") for line in text.split("\n"))
    header = max(len(line) for line in name.split("\n"))
    widest = NARROW.get(name, WIDEST)
    sheet.column_dimensions[letter].width = min(widest, max(header + 4, longest + 1)) + 2
    head = write(sheet, 1, position, name)
    head.font, head.fill = bold("FFFFFF"), HEADER
    head.alignment = alignment(is_text, "\n" in name)
    if name in COLUMNS:
        head.comment = Comment(COLUMNS[name], "harness")
    links = data.links.get(name)
    for row, (value, text) in enumerate(zip(values, texts, strict=True)):
        if not text:
            continue
        cell = write(sheet, 2 + row, position, value)
        lines = 1 if len(text) <= widest and "\n" not in text else _lines(text, widest)
        fill = "marked" if (row, name) in data.marked else "chosen" if row in data.chosen else ""
        key = Style(is_text, lines > 1, style, (row, name) in data.bold or row in data.chosen, fill, links is not None)
        cell._style = styles.of(key)  # type: ignore[attr-defined]
        if links is not None:
            cell.hyperlink = links[row]
        if lines > 1:
            # The height is set here, because some programs show the first lines only.
            dimension = sheet.row_dimensions[2 + row]
            dimension.height = min(TALLEST, max(dimension.height or 0, lines * LINE_HEIGHT))
    if name in data.scaled:
        numbers = [value for value in values if _is_number(value)]
        if numbers and min(numbers) < max(numbers):
            rule = _scale(numbers, metric(name).higher_is_better and name not in data.falling, _similar(data, name))
            sheet.conditional_formatting.add(f"{letter}2:{letter}{1 + len(values)}", rule)


def _lines(text: str, width: int) -> int:
    """The number of lines of a text in a column of that many characters."""
    return sum(ceil(max(len(line), 1) / width) for line in text.split("\n"))


def _is_number(value: Any) -> bool:
    return isinstance(value, float) and not math.isnan(value)


def _similar(data: Sheet, name: str) -> list[float]:
    """The values of the compared metric that are not significantly worse than the best; of other metrics none.

    With several categories, each has its own best, and one scale of colours can't show them all.
    """
    if name != data.scaled[0] or VS_BEST not in data.frame:
        return []
    if "category" in data.frame and data.frame["category"].nunique() > 1:
        return []
    pairs = zip(data.frame[name], data.frame[VS_BEST], strict=True)
    return [value for value, mark in pairs if _is_number(value) and isinstance(mark, str) and mark != WORSE]


def _scale(numbers: Sequence[float], rising: bool, similar: Sequence[float]) -> Rule:
    """Colours from the worst to the best value. Shares that hardly differ get nearly the same colour.

    So do values without a significant difference: they have the upper half of the colours, whatever their distance.
    """
    low, high = min(numbers), max(numbers)
    if low >= 0 and high <= 1:
        low, high = (min(low, high - FULL_SCALE), high) if rising else (low, max(high, low + FULL_SCALE))
    if similar:
        low, high = (min(low, 2 * min(similar) - high), high) if rising else (low, max(high, 2 * max(similar) - low))
    first, last = (WORST, BEST) if rising else (BEST, WORST)
    rule: Rule = ColorScaleRule(  # type: ignore[no-untyped-call]
        start_type="num", start_value=low, start_color=first, end_type="num", end_value=high, end_color=last
    )
    return rule


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


def chosen_rows(summary: pd.DataFrame) -> list[int]:
    """The rows of the recommended configurations.

    Args:
        summary: a table with the column `recommended`.
    """
    return [] if summary.empty else [int(row) for row in summary.index[summary["recommended"].notna()]]
