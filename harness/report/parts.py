"""What a task shows: sheets of the workbook, its part of the page, and the table at the end of a sweep."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from openpyxl import Workbook
from rich.table import Table

from harness import registry
from harness.report.results import Results
from harness.report.sheets import Sheet

# A sheet of rows, or a function that appends a sheet of another kind.
SheetPart = Sheet | Callable[[Workbook], None]


@dataclass(frozen=True)
class PagePart:
    """A task's part of report.html.

    Attributes:
        template: a file of report/page/.
        scripts: files of report/page/, in the order in which they run.
        data: for the scripts, as JSON.
        context: for the template.
    """

    template: str
    scripts: tuple[str, ...]
    data: dict[str, Any]
    context: dict[str, Any]


@dataclass(frozen=True)
class Answer:
    """What the terminal shows.

    Attributes:
        table: the best runs; None where no run ended well.
        sentences: what to take, and what a search came to.
        notices: what a reader must know first.
    """

    table: Table | None
    sentences: list[str]
    notices: list[str]


class TaskReport(Protocol):
    """What a task shows of its results; `registry.TASK_REPORTS` has one for each task."""

    def sheets(self, results: Results) -> Iterator[SheetPart]:
        """The task's sheets, in their order."""

    def page(self, results: Results) -> PagePart:
        """The task's part of the page."""

    def write_details(self, results: Results, folder: Path) -> None:
        """Write what the page loads when a run is opened.

        Args:
            results: of the result folder.
            folder: for the files, one a run.
        """

    def answer(self, results: Results) -> Answer:
        """What the terminal shows at the end of a sweep."""


def task_report(results: Results) -> TaskReport:
    """The report of the task that all runs of a result folder have."""
    report: TaskReport = registry.load(registry.TASK_REPORTS[results.task])()
    return report
