"""All figures of a result folder as files."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import matplotlib as mpl

from harness.common.errors import StoreError
from harness.report.figures.canvas import STYLE, NamedFigure
from harness.report.figures.search import search_figures
from harness.report.html import replace_file
from harness.report.parts import task_report
from harness.report.results import Results
from harness.report.search import SearchReport

DPI = 200  # of a PNG
# Without these a file would change with each call.
NO_DATE = {"svg": {"Date": None}, "pdf": {"CreationDate": None}, "png": {"Software": None}}
FORMATS = tuple(NO_DATE)
GLYPH = re.compile(r"Glyph \d+ \((?P<name>.+?)\) missing from font")


def write_figures(results: Results, out: Path, file_format: str, metric: str = "") -> tuple[list[Path], list[str]]:
    """Draw all figures of the page, each in a file.

    Args:
        results: of the result folder.
        out: a folder that exists; files of the same names are replaced.
        file_format: one of `FORMATS`.
        metric: the quality in the figures of a sweep; empty for the one that the page shows first.

    Returns:
        The files, and sentences about problems of their text.

    Raises:
        ConfigError: the figures of this task show no such metric.
        StoreError: a file can't be written.
    """
    files = []
    with mpl.rc_context(STYLE), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for one in _figures(results, metric):
            file = out / f"{one.name}.{file_format}"
            content = BytesIO()
            one.figure.savefig(content, format=file_format, dpi=DPI, metadata=NO_DATE[file_format])
            try:
                file.parent.mkdir(parents=True, exist_ok=True)
                replace_file(file, content.getvalue())
            except OSError as error:
                raise StoreError(f"{file}: can't be written ({error.strerror}). Choose another folder.") from error
            files.append(file)
    return files, _problems(caught, file_format)


def _figures(results: Results, metric: str) -> Iterator[NamedFigure]:
    yield from task_report(results).figures(results, metric)
    search = SearchReport.of(results)
    if search is not None:
        yield from search_figures(search.page())


def _problems(caught: list[warnings.WarningMessage], file_format: str) -> list[str]:
    """A sentence on characters that the font lacks; other warnings go on."""
    missing = set()
    for one in caught:
        glyph = GLYPH.search(str(one.message))
        if glyph:
            missing.add(glyph["name"])
        else:
            warnings.warn_explicit(one.message, one.category, one.filename, one.lineno)
    # An SVG file has text, and the program that shows the file has its own fonts.
    if not missing or file_format == "svg":
        return []
    return [f"The font of the figures lacks {len(missing)} characters of the labels. Use --format svg: it keeps them."]
