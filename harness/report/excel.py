"""The workbook models_comparing.xlsx and the order of its sheets; each write replaces the whole file."""

from __future__ import annotations

import io
from collections.abc import Iterator

import pandas as pd
from openpyxl import Workbook

from harness.common.files import write_atomic
from harness.common.garbage import collector_paused
from harness.report.glossary import used
from harness.report.parts import SheetPart, task_report
from harness.report.read_me import read_me
from harness.report.results import Results
from harness.report.search import SearchReport
from harness.report.sheets import Sheet, add_sheet, run_links
from harness.report.tables import environment_table, failures_table
from harness.report.terminal import in_few_words
from harness.results.store import ResultFolder


def write_workbook(folder: ResultFolder, results: Results | None = None) -> None:
    """Replace the workbook of a result folder.

    Args:
        folder: the result folder.
        results: its results; None to read the records first.

    Raises:
        StoreError: no record can be read, or the workbook can't be written.
    """
    with folder.workbook_lock():
        write_atomic(folder.workbook, build_workbook(results or Results.of(folder)))


def build_workbook(results: Results) -> bytes:
    """The content of the workbook file."""
    # All cells stay. A scan of them would take a fifth of the time.
    with collector_paused():
        book = Workbook()
        book.remove(book.worksheets[0])
        for sheet in _sheets(results):
            if isinstance(sheet, Sheet):
                add_sheet(book, sheet)
            else:
                sheet(book)
        stream = io.BytesIO()
        book.save(stream)
    return stream.getvalue()


def _sheets(results: Results) -> Iterator[SheetPart]:
    """All sheets in their order, without those that would be empty."""
    summary, *others = _all_sheets(results)
    assert isinstance(summary, Sheet)
    captions = [(sheet.title, [*sheet.notices, *sheet.remarks]) for sheet in others if isinstance(sheet, Sheet)]
    yield summary
    answer = in_few_words(results)
    yield read_me(answer.sentences, used(answer.terms, answer.sentences), summary, captions)
    yield from others


def _all_sheets(results: Results) -> Iterator[SheetPart]:
    yield from task_report(results).sheets(results)
    search = SearchReport.of(results)
    if search is not None:
        yield _search_sheet(search)
    yield Sheet("Environment", environment_table(results))
    yield Sheet("Config", pd.DataFrame({"config.yaml": results.folder.read_config().rstrip().splitlines()}))
    yield Sheet("Failures", failures_table(results), empty="no failures")


def _search_sheet(search: SearchReport) -> Sheet:
    """A row for each trial; the best one is bold."""
    frame = search.table()
    best = search.best
    rows = frame.index[frame["trial"] == best["number"]] if best is not None else []
    bold = {(int(row), str(name)) for row in rows for name in frame}
    metrics = [name for name in (search.metric, "best_so_far", f"{search.metric}_by_then") if name in frame]
    links = run_links(frame, "run") if "run" in frame else {}
    falling = metrics if search.sign < 0 else ()
    return Sheet("Search", frame, search.sentences(), bold=bold, scaled=metrics, falling=falling, links=links)
