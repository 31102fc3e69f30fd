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
    return f"{MARK}{value}" if isinstance(value, str) and _risky(value) else value


def guarded_path(path: str) -> str:
    """A path; the same path that begins with ./ where it would be taken for a formula."""
    return f"./{path}" if path.startswith(START) else path


def unguarded(text: str) -> str:
    """The value that `guarded` or `guarded_path` was given."""
    if text[:1] == MARK and _risky(text[1:]):
        return text[1:]
    return text[2:] if text[:2] == "./" and text[2:].startswith(START) else text


def csv_text(rows: Iterable[Sequence[Any]]) -> str:
    """Rows as text, every cell guarded."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([guarded(value) for value in row] for row in rows)
    return text.getvalue()


def _risky(text: str) -> bool:
    if not text.startswith(START):
        return False
    try:
        float(text)
    except ValueError:
        return True
    return False
