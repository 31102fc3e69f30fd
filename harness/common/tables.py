"""Tables as CSV that no spreadsheet takes for formulas.

A cell that begins with =, +, -, @, a tab or a line break gets an apostrophe in front, as OWASP recommends ("CSV
Injection"); a number does not. Paths begin with ./ instead, so that they stay the same path.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from typing import Any

START = ("=", "+", "-", "@", "\t", "\r", "\n")
MARK = "'"


def guarded(value: Any) -> Any:
    """A cell's value; text that a spreadsheet would compute is marked as text."""
    return f"{MARK}{value}" if isinstance(value, str) and _risky(value.lstrip(MARK)) else value


def guarded_path(path: str) -> str:
    """A path; the same path that begins with ./ where it would be taken for a formula."""
    return f"./{path}" if _bare(path).startswith(START) else path


def unguarded(text: str) -> str:
    """The value that `guarded` was given."""
    return text[1:] if text[:1] == MARK and _risky(text.lstrip(MARK)) else text


def unguarded_path(text: str) -> str:
    """The path that `guarded_path` was given, before `guarded` or after it."""
    text = unguarded(text)
    return text[2:] if text[:2] == "./" and _bare(text).startswith(START) else text


class Rows:
    """Writes rows, every cell guarded. A row with a carriage return is quoted: it would end the row for some programs.

    Args:
        stream: to write to.
    """

    def __init__(self, stream: Any) -> None:
        self._plain = csv.writer(stream, lineterminator="\n")
        self._quoted = csv.writer(stream, lineterminator="\n", quoting=csv.QUOTE_ALL)

    def write(self, row: Sequence[Any]) -> None:
        """One row."""
        broken = any(isinstance(value, str) and "\r" in value for value in row)
        (self._quoted if broken else self._plain).writerow([guarded(value) for value in row])


def csv_text(rows: Iterable[Sequence[Any]]) -> str:
    """Rows as text, every cell guarded."""
    text = io.StringIO()
    writer = Rows(text)
    for row in rows:
        writer.write(row)
    return text.getvalue()


def _bare(path: str) -> str:
    while path.startswith("./"):
        path = path[2:]
    return path


def _risky(text: str) -> bool:
    if not text.startswith(START):
        return False
    try:
        float(text)
    except ValueError:
        return True
    return False
