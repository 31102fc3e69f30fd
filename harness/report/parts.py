"""The interface of a task's report: sheets of the workbook, the page, and the table at the end of a sweep."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import pandas as pd
from openpyxl import Workbook
from rich.table import Table

from harness import registry
from harness.report.configurations import Configuration
from harness.report.glossary import Term
from harness.report.results import Results
from harness.report.sheets import Sheet

if TYPE_CHECKING:
    from harness.report.figures.canvas import NamedFigure

# A sheet of rows, or a function that appends a sheet of another kind.
SheetPart = Sheet | Callable[[Workbook], None]


@dataclass(frozen=True)
class PagePart:
    """A task's part of report.html.

    Attributes:
        template: a file of report/page/.
        scripts: files of report/page/, in the order in which they run.
        data: for the scripts, as JSON.
        context: for the template, with its notices and its terms.
    """

    template: str
    scripts: tuple[str, ...]
    data: dict[str, Any]
    context: dict[str, Any]


@dataclass(frozen=True)
class Answer:
    """The report in the terminal.

    Attributes:
        table: the best runs; None where no run finished.
        sentences: the recommendation, and the result of a search.
        notices: warnings that a reader needs first.
        terms: words of the task, for those who meet them in the sentences.
    """

    table: Table | None
    sentences: list[str]
    notices: list[str]
    terms: Sequence[Term]


class TaskReport(Protocol):
    """The report of a task; `registry.TASK_REPORTS` has one for each task."""

    def runs(self, results: Results) -> pd.DataFrame:
        """A row for each run, the best first; failed and skipped runs are at the end."""

    def summary(self, results: Results) -> pd.DataFrame:
        """A row for each compared configuration, best first."""

    def sheets(self, results: Results) -> Iterator[SheetPart]:
        """The task's sheets, in their order."""

    def page(self, results: Results) -> PagePart:
        """The task's part of the page."""

    def write_details(self, results: Results, folder: Path) -> None:
        """Write the files that the page loads when a reader opens a run.

        Args:
            results: of the result folder.
            folder: for the files, one for each run.
        """

    def figures(self, results: Results, metric: str) -> Iterator[NamedFigure]:
        """The figures of the page, without those of a search.

        Args:
            results: of the result folder.
            metric: the quality to show; empty for the one that the page shows first.

        Raises:
            ConfigError: the figures show no such metric.
        """

    def recommended(self, results: Results) -> list[Configuration]:
        """The recommended configuration of each data set that has one."""

    def answer(self, results: Results) -> Answer:
        """The report in the terminal at the end of a sweep."""


def task_report(results: Results) -> TaskReport:
    """The report of the task of a result folder; all its runs have the same task."""
    report: TaskReport = registry.load(registry.TASK_REPORTS[results.task])()
    return report
