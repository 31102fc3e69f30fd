"""Files that may come from elsewhere, read with limits: results, and what lies beside a model.

Whatever is wrong with one ends in one sentence that names the file. Nothing is read from a link, a pipe or a device.
"""

from __future__ import annotations

import csv
import io
import json
import math
import stat
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from harness.common.errors import StoreError
from harness.common.schema_errors import sentence

MB = 2**20
DEPTH = 24  # of lists and mappings in each other
LARGEST = 1e100  # a product of a few such numbers is still finite
WHOLE = 2**63  # whole numbers are smaller
LINES = 2_000_000  # of a table
TOLD = 3  # problems of one file that are named


def read_bytes(file: Path, limit: int = 64 * MB, advice: str = "") -> bytes:
    """A file's content.

    Args:
        file: which.
        limit: bytes that it may have.
        advice: what to do where it can't be used.

    Raises:
        FileNotFoundError: there is none.
        StoreError: it is no regular file, too large, or can't be read.
    """
    try:
        status = file.lstat()
        if not stat.S_ISREG(status.st_mode):
            raise _unusable(file, f"{_kind(status.st_mode)} found, a regular file expected", advice)
        if status.st_size > limit:
            raise _unusable(file, f"{status.st_size / MB:.0f} MB found, at most {limit / MB:.0f} MB expected", advice)
        with file.open("rb") as stream:
            # Not more than that, should it grow meanwhile.
            return stream.read(limit)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise StoreError(f"{file}: can't be read ({error.strerror}).") from error


def read_text(file: Path, limit: int = 64 * MB, advice: str = "") -> str:
    """As `read_bytes`, of text in UTF-8."""
    try:
        return read_bytes(file, limit, advice).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise _damaged(file, f"no UTF-8 text at byte {error.start}", advice) from error


def read_json(file: Path, schema: type[BaseModel] | None = None, limit: int = 64 * MB, advice: str = "") -> Any:
    """Plain values from JSON.

    Args:
        file: which.
        schema: what it must hold; None for anything.
        limit, advice: see `read_bytes`.

    Returns:
        Mappings, lists, text, finite numbers, booleans and None, as they stand in the file.

    Raises:
        FileNotFoundError: there is none.
        StoreError: it can't be read, or holds something else.
    """
    text = read_text(file, limit, advice)
    try:
        values = json.loads(text)
    except RecursionError as error:
        raise _damaged(file, f"more than {DEPTH} levels of lists and mappings found", advice) from error
    except ValueError as error:
        raise _damaged(file, str(error), advice) from error
    if problem := _not_plain(values):
        raise _damaged(file, problem, advice)
    if schema is not None:
        fit(values, schema, file, advice)
    return values


def fit(values: Any, schema: type[BaseModel], file: Path, advice: str = "") -> None:
    """See that values are as a schema wants them.

    Raises:
        StoreError: they are not.
    """
    try:
        schema.model_validate(values)
    except ValidationError as error:
        found = [sentence(one, schema).rstrip(".") for one in error.errors()]
        more = f"; and {len(found) - TOLD} more" if len(found) > TOLD else ""
        raise _damaged(file, "; ".join(_short(one) for one in found[:TOLD]) + more, advice) from error


def read_rows(file: Path, limit: int = 512 * MB, advice: str = "", lines: int = LINES) -> Iterator[list[str]]:
    """The rows of a CSV file, the header first.

    Raises:
        FileNotFoundError: there is none.
        StoreError: it can't be read, is no UTF-8 text, or has too many lines.
    """
    text = read_text(file, limit, advice)
    if text.count("\n") > lines:
        raise _unusable(file, f"more than {lines:,} lines found, at most that many expected", advice)
    reader = csv.reader(io.StringIO(text, newline=""))
    try:
        yield from reader
    except csv.Error as error:
        raise _damaged(file, f"line {reader.line_num}: {error}", advice) from error


def _not_plain(values: Any) -> str:
    """What is wrong with values from JSON, whatever they are for; empty where nothing is."""
    level = [values]
    for _ in range(DEPTH):
        if not level:
            return ""
        for value in level:
            if problem := _odd(value):
                return problem
        inner = (value for value in level if isinstance(value, dict | list))
        level = list(chain.from_iterable((*one, *one.values()) if isinstance(one, dict) else one for one in inner))
    return f"more than {DEPTH} levels of lists and mappings found" if level else ""


def _odd(value: Any) -> str:
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            return f"text found that is no Unicode: {value[:40]!r}"
    elif isinstance(value, float) and not (math.isfinite(value) and abs(value) <= LARGEST):
        return f"the number {value:g} found, finite numbers up to {LARGEST:g} expected"
    elif isinstance(value, int) and abs(value) >= WHOLE:
        return "a whole number of more than 63 bits found"
    return ""


def _kind(mode: int) -> str:
    kinds = ((stat.S_ISLNK, "a link"), (stat.S_ISDIR, "a folder"), (stat.S_ISFIFO, "a pipe"))
    return next((name for test, name in kinds if test(mode)), "a device or socket")


def _short(text: str) -> str:
    return text if len(text) <= 300 else f"{text[:300]} ..."


def _unusable(file: Path, what: str, advice: str) -> StoreError:
    return StoreError(f"{file}: {what}.{advice and ' '}{advice}")


def _damaged(file: Path, what: str, advice: str) -> StoreError:
    return StoreError(f"{file}: damaged ({what}).{advice and ' '}{advice}")
