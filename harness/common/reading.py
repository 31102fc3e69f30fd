"""Files of results and models, read with limits: they may come from another machine or be damaged.

Every problem ends in one sentence that names the file. Links, pipes and devices are never read.
"""

from __future__ import annotations

import csv
import io
import math
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import from_json

from harness.common.errors import StoreError
from harness.common.schema_errors import sentence

MB = 10**6  # as in texts of a config such as 100 MB
DEPTH = 24  # levels of nested lists and mappings
LARGEST = 1e100  # a product of a few such numbers is still finite
WHOLE = 2**63  # limit of whole numbers
LINES = 2_000_000  # limit of a table
SHOWN = 3  # problems of one file in a message
TOO_DEEP = f"more than {DEPTH} levels of lists and mappings found"


def read_bytes(file: Path, limit: int = 64 * MB, advice: str = "") -> bytes:
    """A file's content.

    Args:
        file: its path.
        limit: largest allowed size in bytes.
        advice: the last sentence of an error message.

    Raises:
        FileNotFoundError: the file is missing.
        StoreError: the file is no regular file, is too large, or can't be read.
    """
    try:
        status = file.lstat()
        if not stat.S_ISREG(status.st_mode):
            raise _unusable(file, f"{_kind(status.st_mode)} found, a regular file expected", advice)
        if status.st_size > limit:
            raise _unusable(file, f"{status.st_size / MB:.0f} MB found, at most {limit / MB:.0f} MB expected", advice)
        with file.open("rb") as stream:
            # The file may grow in the meantime.
            return stream.read(limit)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise StoreError(f"{file}: can't be read ({error.strerror}).") from error


def read_text(file: Path, limit: int = 64 * MB, advice: str = "") -> str:
    """A file's content as text in UTF-8.

    Args:
        file, limit, advice: see `read_bytes`.

    Raises:
        FileNotFoundError: the file is missing.
        StoreError: see `read_bytes`; or the content is not UTF-8.
    """
    try:
        return read_bytes(file, limit, advice).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise _damaged(file, f"no UTF-8 text at byte {error.start}", advice) from error


def read_json(file: Path, schema: type[BaseModel] | None = None, limit: int = 64 * MB, advice: str = "") -> Any:
    """Plain values from a JSON file.

    Args:
        file: its path.
        schema: the model that the values must match; None for any values.
        limit, advice: see `read_bytes`.

    Returns:
        Mappings, lists, text, finite numbers, booleans and None, unchanged.

    Raises:
        FileNotFoundError: the file is missing.
        StoreError: the file can't be read, or its values do not match the schema.
    """
    text = read_text(file, limit, advice)
    try:
        # Faster than Python's json, and equal strings share memory.
        values = from_json(text)
    except ValueError as error:
        deep = "recursion limit" in str(error)
        raise _damaged(file, TOO_DEEP if deep else str(error), advice) from error
    if problem := _problem_of_values(values):
        raise _damaged(file, problem, advice)
    if schema is not None:
        fit(values, schema, file, advice)
    return values


def fit(values: Any, schema: type[BaseModel], file: Path, advice: str = "") -> None:
    """Check that values match a schema.

    Args:
        values: plain values.
        schema: the model that the values must match.
        file: their source, for the error message.
        advice: the last sentence of the error message.

    Raises:
        StoreError: the values do not match.
    """
    try:
        schema.model_validate(values)
    except ValidationError as error:
        problems = [sentence(problem, schema).rstrip(".") for problem in error.errors()]
        more = f"; and {len(problems) - SHOWN} more" if len(problems) > SHOWN else ""
        raise _damaged(file, "; ".join(_short(problem) for problem in problems[:SHOWN]) + more, advice) from error


def read_rows(file: Path, limit: int = 512 * MB, advice: str = "", lines: int = LINES) -> Iterator[list[str]]:
    """The rows of a CSV file, the header first.

    Args:
        file, limit, advice: see `read_bytes`.
        lines: largest allowed number of lines.

    Raises:
        FileNotFoundError: the file is missing.
        StoreError: the file can't be read, is not UTF-8, or has too many lines.
    """
    text = read_text(file, limit, advice)
    if text.count("\n") > lines:
        raise _unusable(file, f"more than {lines:,} lines found, at most that many expected", advice)
    reader = csv.reader(io.StringIO(text, newline=""))
    try:
        yield from reader
    except csv.Error as error:
        raise _damaged(file, f"line {reader.line_num}: {error}", advice) from error


def _problem_of_values(values: Any) -> str:
    """The first problem of values from JSON that no schema allows; empty without a problem."""
    level = [values]
    for _ in range(DEPTH):
        if not level:
            return ""
        inner: list[Any] = []
        for value in level:
            # JSON has no subclasses. Most values are numbers in lists, and a report reads millions of them.
            kind = type(value)
            if kind is str or (kind is float and -LARGEST <= value <= LARGEST):
                continue
            if kind is list:
                inner += value
            elif kind is dict:
                inner += value
                inner += value.values()
            elif problem := _problem_of_value(value):
                return problem
        level = inner
    return TOO_DEEP if level else ""


def _problem_of_value(value: Any) -> str:
    if isinstance(value, float) and not (math.isfinite(value) and abs(value) <= LARGEST):
        return f"the number {value:g} found, finite numbers up to {LARGEST:g} expected"
    if isinstance(value, int) and abs(value) >= WHOLE:
        return "a whole number of more than 63 bits found"
    return ""


def _kind(mode: int) -> str:
    kinds = ((stat.S_ISLNK, "a link"), (stat.S_ISDIR, "a folder"), (stat.S_ISFIFO, "a pipe"))
    return next((name for test, name in kinds if test(mode)), "a device or socket")


def _short(text: str) -> str:
    return text if len(text) <= 300 else f"{text[:300]} ..."


def _unusable(file: Path, problem: str, advice: str) -> StoreError:
    return StoreError(f"{file}: {problem}.{advice and ' '}{advice}")


def _damaged(file: Path, problem: str, advice: str) -> StoreError:
    return StoreError(f"{file}: damaged ({problem}).{advice and ' '}{advice}")
