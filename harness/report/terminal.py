"""The report that the terminal shows at the end of a sweep."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pandas as pd

from harness.report.parts import Answer, task_report
from harness.report.results import Results
from harness.report.search import SearchReport


def in_few_words(results: Results) -> Answer:
    """The best runs, the recommendation and the notices, for any task."""
    answer = task_report(results).answer(results)
    search = SearchReport.of(results)
    return replace(answer, sentences=[*answer.sentences, *(search.sentences() if search is not None else [])])


def varies(column: pd.Series[Any]) -> bool:
    """Whether a column has several values."""
    return column.nunique(dropna=False) > 1


def text(value: Any, style: str = "{}") -> str:
    """A value for the table; a dash where the value is missing.

    Args:
        value: of the cell.
        style: a format string, such as {:.3f}.
    """
    return "-" if value is None or pd.isna(value) else style.format(value)
