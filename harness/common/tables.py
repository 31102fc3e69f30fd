"""Tables as CSV without cells that a spreadsheet reads as formulas.

A cell that begins with =, +, -, @, a tab or a line break gets an apostrophe in front, as OWASP recommends ("CSV
Injection"). Numbers stay unchanged. Paths get ./ in front instead, so that they name the same file.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from typing import Any

FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n")
TEXT_MARK = "'"


def guarded(value: Any) -> Any:
    """A cell's value; a formula gets an apostrophe in front."""
    return f"{TEXT_MARK}{value}" if isinstance(value, str) and _is_formula(value.lstrip(TEXT_MARK)) else value


def guarded_path(path: str) -> str:
    """A path; one that a spreadsheet reads as a formula gets ./ in front."""
    return f"./{path}" if _without_dot_slash(path).startswith(FORMULA_STARTS) else path


def unguarded(text: str) -> str:
    """The inverse of `guarded`."""
    return text[1:] if text[:1] == TEXT_MARK and _is_formula(text.lstrip(TEXT_MARK)) else text


def unguarded_path(text: str) -> str:
    """The inverse of `guarded_path`, with or without `guarded`."""
    text = unguarded(text)
    return text[2:] if text[:2] == "./" and _without_dot_slash(text).startswith(FORMULA_STARTS) else text


class Rows:
    """A writer of rows that guards every cell.

    A row with a carriage return is quoted, because some programs end a row there.

    Args:
        stream: a text stream for the rows.
    """

    def __init__(self, stream: Any) -> None:
        self._plain = csv.writer(stream, lineterminator="\n")
        self._quoted = csv.writer(stream, lineterminator="\n", quoting=csv.QUOTE_ALL)

    def write(self, row: Sequence[Any]) -> None:
        """Write one row."""
        has_return = any(isinstance(value, str) and "\r" in value for value in row)
        (self._quoted if has_return else self._plain).writerow([guarded(value) for value in row])


def csv_text(rows: Iterable[Sequence[Any]]) -> str:
    """Rows as CSV text, with every cell guarded."""
    text = io.StringIO()
    writer = Rows(text)
    for row in rows:
        writer.write(row)
    return text.getvalue()


def _without_dot_slash(path: str) -> str:
    while path.startswith("./"):
        path = path[2:]
    return path


def _is_formula(text: str) -> bool:
    if not text.startswith(FORMULA_STARTS):
        return False
    try:
        float(text)
    except ValueError:
        return True
    return False
