"""results.csv and summary.csv: the rows of the sheets *Runs* and *Summary*, with all digits."""

from __future__ import annotations

import pandas as pd

from harness.common.files import write_atomic
from harness.common.tables import csv_text
from harness.report.parts import task_report
from harness.report.results import Results


def write_csv_files(results: Results) -> None:
    """Replace results.csv (a row for each run) and summary.csv (a row for each compared configuration).

    Args:
        results: of the result folder.

    Raises:
        StoreError: a file can't be written.
    """
    report, folder = task_report(results), results.folder
    with folder.workbook_lock():
        write_atomic(folder.results_csv, _text(report.runs(results)))
        write_atomic(folder.summary_csv, _text(report.summary(results)))


def _text(frame: pd.DataFrame) -> str:
    """The rows as CSV. A missing value is an empty cell. A text that a spreadsheet reads as a formula is guarded."""
    cells = frame.astype(object).where(frame.notna(), "")
    return csv_text([[str(name).replace("\n", " ") for name in frame], *cells.values.tolist()])
