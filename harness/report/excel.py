"""models_comparing.xlsx: which sheets there are, and what each shows; rewritten whole, atomically."""

from __future__ import annotations

import gc
import io
from collections.abc import Iterator
from contextlib import contextmanager

import pandas as pd
from openpyxl import Workbook

from harness.common.files import write_atomic
from harness.report.parts import SheetPart, task_report
from harness.report.results import Results
from harness.report.search import SearchReport
from harness.report.sheets import Sheet, add_sheet, run_links
from harness.report.tables import environment_table, failures_table
from harness.results.store import ResultFolder


def write_workbook(folder: ResultFolder, results: Results | None = None) -> None:
    """Scan the records (unless they were just read) and replace the workbook.

    Raises:
        StoreError: a record can't be read, or the workbook can't be written.
    """
    with folder.workbook_lock():
        write_atomic(folder.workbook, build_workbook(results or Results.of(folder)))


def build_workbook(results: Results) -> bytes:
    """The workbook's bytes."""
    with _uncollected():
        book = Workbook()
        book.remove(book.worksheets[0])
        for part in _sheets(results):
            if isinstance(part, Sheet):
                add_sheet(book, part)
            else:
                part(book)
        target = io.BytesIO()
        book.save(target)
    return target.getvalue()


@contextmanager
def _uncollected() -> Iterator[None]:
    """Hundreds of thousands of cells that all stay: looking through them for garbage takes a fifth of the time."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


def _sheets(results: Results) -> Iterator[SheetPart]:
    """All sheets in their order; those that have nothing to say in this sweep are left out."""
    yield from task_report(results).sheets(results)
    searched = SearchReport.of(results)
    if searched is not None:
        yield _of_search(searched)
    yield Sheet("Environment", environment_table(results))
    yield Sheet("Config", pd.DataFrame({"config.yaml": results.folder.read_config().rstrip().splitlines()}))
    yield Sheet("Failures", failures_table(results), empty="no failures")


def _of_search(searched: SearchReport) -> Sheet:
    """A trial a row; the best stands out."""
    frame = searched.table()
    best = searched.best
    rows = frame.index[frame["trial"] == best["number"]] if best is not None else []
    bold = {(int(row), str(name)) for row in rows for name in frame}
    figures = [name for name in (searched.metric, "best_so_far", f"{searched.metric}_by_then") if name in frame]
    links = run_links(frame, "run") if "run" in frame else {}
    falling = figures if searched.sign < 0 else ()
    return Sheet("Search", frame, searched.sentences(), bold=bold, scaled=figures, falling=falling, links=links)
