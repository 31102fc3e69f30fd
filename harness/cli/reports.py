"""The commands `report` and `compare`. Each returns the exit status."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape

from harness.common.terminal import terminal
from harness.results.store import REPORT_FILES, ResultFolder

if TYPE_CHECKING:
    pass


def report(folders: Sequence[Path], output: Path | None) -> int:
    """Make sheet and report anew from the records alone; of several sweeps, in a folder of their own."""
    from harness.report.combine import combine, result_folder

    console = terminal()
    sources = [result_folder(path) for path in dict.fromkeys(folders)]
    target = sources[0]
    if len(sources) > 1 or output is not None:
        target = ResultFolder(output or sources[0].root.absolute().parent / "combined")
        for sentence in combine(sources, target):
            console.print(escape(sentence))
    return remake(target, console)


def remake(target: ResultFolder, console: Console) -> int:
    """Sheet and report of a result folder, from its records; gives 1 where something could not be used."""
    from harness.report.excel import write_workbook
    from harness.report.html import write_report
    from harness.report.results import Results

    target.create()
    # Nothing of an earlier report, or of a version that made it otherwise.
    shutil.rmtree(target.root / REPORT_FILES, ignore_errors=True)
    results = Results.of(target)
    write_workbook(target, results)
    write_report(target, results)
    for sentence in results.damaged:
        console.print(f"[yellow]left out: {escape(sentence)}[/]")
    for made in (target.workbook, target.report):
        console.print(f"[bold]{escape(str(made))}[/]")
    return int(bool(results.damaged))


def compare(first: Path, second: Path) -> int:
    """Print two runs side by side, and the paired test."""
    from harness.report.compare import side_by_side

    console = terminal()
    table, sentence = side_by_side(first, second)
    console.print(f"first:  {escape(str(first))}\nsecond: {escape(str(second))}")
    console.print(table)
    console.print(escape(sentence))
    return 0
