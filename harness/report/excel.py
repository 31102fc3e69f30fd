"""models_comparing.xlsx: which sheets there are, and what each shows; rewritten whole, atomically."""

from __future__ import annotations

import gc
import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from urllib.parse import quote

import pandas as pd
from openpyxl import Workbook

from harness.common.files import write_atomic
from harness.registry import metric
from harness.report import classification
from harness.report.classification import ClassificationResults
from harness.report.comparisons import AVERAGE, backends_table, pivot_table, seeds_table, summary_table
from harness.report.facts import metric_columns
from harness.report.misses import add_misses
from harness.report.results import Results
from harness.report.search import SearchReport
from harness.report.sheets import DIFFERENCE, METRICS, Sheet, add_sheet
from harness.report.tables import defects_table, environment_table, failures_table, notices, runs_table, thresholds
from harness.results.store import RUNS, ResultFolder

# The metrics of each pivot, as published tables have them.
PIVOTS = {
    "Pivot image": ("image_AUROC", "image_F1Score"),
    "Pivot pixel": ("pixel_AUROC", "pixel_AUPRO", "pixel_F1Score"),
}


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
        for sheet in _sheets(results):
            add_sheet(book, sheet)
            if sheet.title == "Runs" and results.task == "detection":
                add_misses(book, results)
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


def _sheets(results: Results) -> Iterator[Sheet]:
    """All sheets in their order; those that have nothing to say in this sweep are left out."""
    yield from (
        _of_naming(ClassificationResults(results)) if results.task == "classification" else _of_detection(results)
    )
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
    links = _links(frame, "run") if "run" in frame else {}
    falling = figures if searched.sign < 0 else ()
    return Sheet("Search", frame, searched.sentences(), bold=bold, scaled=figures, falling=falling, links=links)


def _of_naming(found: ClassificationResults) -> Iterator[Sheet]:
    """Sheets of a classification."""
    figures = [*classification.HEADLINE, *classification.MORE, classification.LOW, classification.HIGH]
    summary, runs = classification.summary_table(found), classification.runs_table(found, failed=True)
    yield Sheet("Summary", summary, classification.notices(found), scaled=figures, links=_links(summary, "best_run"))
    yield Sheet("Runs", runs, scaled=figures, links=_links(runs, "run"))
    for title, frame, frozen in (
        ("Labels", classification.labels_table(found), 2),
        ("Classes and states", classification.groups_table(found), 3),
    ):
        if not frame.empty:
            shown = [str(name) for name in frame.columns[frozen:]]
            yield Sheet(title, frame, scaled=shown, frozen=frozen, format="0.000")
    confusion = classification.confusion_table(found)
    if not confusion.empty:
        best = found.configurations[0]
        said = [f"Images of the best run ({best.name}): a row is what they are, a column what they were called."]
        names = {str(name): row for row, name in enumerate(confusion["true label"])}
        wrong = {
            (row, said) for said in names for row in confusion.index[confusion[said].notna()] if names[said] != row
        }
        yield Sheet("Confusion", confusion, said, marked=wrong)
    for title, frame in (
        ("Confused", classification.confused_table(found)),
        ("Folds", classification.folds_table(found)),
    ):
        if not frame.empty:
            yield Sheet(title, frame, frozen=2)


def _of_detection(results: Results) -> Iterator[Sheet]:
    """Sheets of a detection."""
    metrics = [name for name in metric_columns(results.ok()) if not metric(name).count]
    summary, runs = summary_table(results), runs_table(results, failed=True)
    yield Sheet("Summary", summary, notices(results), scaled=metrics, links=_links(summary, "best_run"))
    for title, names in PIVOTS.items():
        pivot = pivot_table(results, names)
        if not pivot.empty:
            frozen = list(pivot.columns).index("category") + 1
            yield Sheet(
                title, pivot, thresholds(results), bold=_best_of_rows(pivot, frozen), frozen=frozen, format="0.000"
            )
    yield Sheet(
        "Runs",
        runs,
        bold=_best_of_columns(runs, metrics),
        scaled=metrics,
        links=_links(runs, "run"),
        marked=_on_test_images(runs),
    )
    defects = defects_table(results)
    if not defects.empty:
        yield Sheet("Defects", defects, thresholds(results), scaled=["image_AUROC", "image_AP"], frozen=2)
    seeds = seeds_table(results)
    if not seeds.empty:
        means = {(row, str(name)) for row in seeds.index[seeds["seed"].isin(["mean", "sd"])] for name in seeds}
        yield Sheet("Seeds", seeds, bold=means)
    backends = backends_table(results)
    if not backends.empty:
        compared = [str(n) for n in backends if str(n).startswith(METRICS) and not str(n).endswith((DIFFERENCE, " p"))]
        yield Sheet("Backends", backends, scaled=compared)


def _links(frame: pd.DataFrame, column: str) -> dict[str, Sequence[str]]:
    """From a run's name to its folder."""
    if frame.empty:
        return {}
    return {column: [f"{RUNS}/{quote(str(run), safe='+')}/" for run in frame[column]]}


def _on_test_images(runs: pd.DataFrame) -> set[tuple[int, str]]:
    """Cells that name test images as what a backend validated on."""
    column = "backend_validates_on"
    return {(int(row), column) for row in runs.index[runs[column] == "test images"]} if column in runs else set()


def _best_of_columns(frame: pd.DataFrame, metrics: Sequence[str]) -> set[tuple[int, str]]:
    """(row, column) of the best value of each metric on each category's data; ties are all best."""
    found: set[tuple[int, str]] = set()
    for _, rows in frame.groupby(["category", "data"]) if not frame.empty else ():
        for name in metrics:
            if len(rows) > 1 and name in rows and rows[name].notna().any():
                best = rows[name] == (rows[name].max() if metric(name).higher_is_better else rows[name].min())
                found |= {(int(row), name) for row in rows.index[best]}
    return found


def _best_of_rows(pivot: pd.DataFrame, first: int) -> set[tuple[int, str]]:
    """(row, column) of the best value of each row, as it is shown; ties are all best."""
    values = pivot.iloc[:, first:].astype(float).round(3)
    if values.shape[1] < 2:
        return set()
    rising = pivot["metric"].map(lambda name: metric(name).higher_is_better)
    best = values.eq(values.max(axis=1).where(rising, values.min(axis=1)), axis=0)
    bold = {(row, str(name)) for name in best for row in best.index[best[name]]}
    # The average stands out by itself.
    return bold | {(int(row), "category") for row in pivot.index[pivot["category"] == AVERAGE]}
