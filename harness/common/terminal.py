"""The terminal shows control characters in text from files, folders and errors, and does not obey them."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Sequence
from typing import TextIO

from rich.console import Console, ConsoleOptions, RenderableType
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeElapsedColumn, TimeRemainingColumn
from rich.segment import Segment
from rich.table import Table

LONG_TABLE = 500  # rows
# A terminal obeys these characters: they move the cursor, change the title, or remove text. The last two ranges change
# the direction of reading.
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def printable(text: str) -> str:
    r"""Text with control characters as Python writes them, such as \x1b; line breaks and tabs stay."""
    return CONTROL.sub(lambda match: repr(match.group())[1:-1], text)


class Terminal(Console):
    """Rich's console for text from other sources: control characters are shown, not obeyed.

    Args:
        file: the output stream.
        wrap: whether long lines are wrapped at the width of the terminal.
        width: number of columns; None for the width of the terminal.
    """

    def __init__(self, file: TextIO, wrap: bool = False, width: int | None = None) -> None:
        super().__init__(file=file, highlight=False, soft_wrap=not wrap, width=width)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterator[Segment]:
        """Rich's segments, with control characters in their text made printable.

        Args:
            renderable: the content, as in Rich.
            options: as in Rich; None for the console's options.
        """
        for segment in super().render(renderable, options):
            has_control = not segment.control and CONTROL.search(segment.text)
            yield Segment(printable(segment.text), segment.style) if has_control else segment


def terminal(stderr: bool = False) -> Terminal:
    """The terminal of an output. A file or a pipe has no width: tables get as wide as they need, up to 180.

    Args:
        stderr: whether to take the standard error instead of the standard output.
    """
    stream = sys.stderr if stderr else sys.stdout
    console = Terminal(stream)
    return console if console.is_terminal else Terminal(stream, width=180)


def progress_bar(console: Console) -> Progress:
    """A bar with counts and times that disappears at the end; a file or a pipe gets nothing.

    Args:
        console: the terminal.
    """
    columns = (MofNCompleteColumn(), BarColumn(bar_width=24), TimeElapsedColumn(), TimeRemainingColumn())
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)


def plain_table(columns: Sequence[str], fold: bool = False) -> Table:
    """An empty table without lines, with bold headers.

    Args:
        columns: headers of the left-aligned columns; the caller may add other columns.
        fold: whether a long text is continued in the next line, instead of being cut.
    """
    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold" if fold else "ellipsis")
    return table


def print_rows(console: Console, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table without lines. A long table has plain text, because Rich takes a millisecond for each row.

    Args:
        console: the terminal.
        columns: headers of the left-aligned columns.
        rows: the cells, as plain text.
    """
    if len(rows) <= LONG_TABLE:
        table = plain_table(columns, fold=True)
        for row in rows:
            table.add_row(*map(escape, row))
        console.print(table)
        return
    widths = [max(map(len, cells)) for cells in zip(columns, *rows, strict=True)]
    lines = ("  ".join(map(str.ljust, row, widths)).rstrip() for row in (columns, *rows))
    console.file.write(printable("\n".join(lines)) + "\n")
