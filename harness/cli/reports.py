"""The commands `report` and `compare`. Each returns the exit status."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from harness.common.terminal import terminal
from harness.results.store import REPORT_FILES, ResultFolder


def report(folders: Sequence[Path], output: Path | None) -> int:
    """Rebuild workbook and report from the records.

    Args:
        folders: result folders; several are combined in one new folder.
        output: the new folder; None for combined/ beside the first.

    Returns:
        0, or 1 if a file is damaged.

    Raises:
        StoreError: a folder holds no finished runs, or the output can't be written.
    """
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
    """Rebuild workbook and report of one result folder, and print their paths.

    Args:
        target: the result folder.
        console: for the paths and for damaged files.

    Returns:
        0, or 1 if a file is damaged.
    """
    from harness.report.excel import write_workbook
    from harness.report.html import write_report
    from harness.report.results import Results

    target.create()
    # Files of an earlier version of the report must not stay.
    shutil.rmtree(target.root / REPORT_FILES, ignore_errors=True)
    results = Results.of(target)
    write_workbook(target, results)
    write_report(target, results)
    for sentence in results.damaged:
        console.print(f"[yellow]left out: {escape(sentence)}[/]")
    for file in (target.workbook, target.report):
        console.print(f"[bold]{escape(str(file))}[/]")
    return int(bool(results.damaged))


def recommend(folder: Path, options: Mapping[str, str | None]) -> int:
    """Print the recommended configuration of each data set, inside limits.

    Args:
        folder: a result folder.
        options: limits as texts, by the keys of `recommend` in a config; None for the value of the folder's config.

    Returns:
        0, or 1 if no configuration is recommended on a data set.

    Raises:
        ConfigError: an option has no valid value.
        StoreError: the folder holds no finished runs.
    """
    from harness.config.recommend import with_options
    from harness.report.combine import result_folder
    from harness.report.recommended import answer_lines
    from harness.report.results import Results

    console = terminal()
    results = Results.of(result_folder(folder))
    results = replace(results, limits=with_options(results.limits, options))
    lines, complete = answer_lines(results)
    for line in lines:
        console.print(escape(line))
    return 0 if complete else 1


def compare(first: Path, second: Path) -> int:
    """Print two runs side by side, and the paired test.

    Args:
        first: folder of a run.
        second: folder of the other run.

    Raises:
        StoreError: a folder holds no finished run.
        DataError: the runs were not tested on the same images.
    """
    from harness.report.compare import side_by_side

    console = terminal()
    table, sentence = side_by_side(first, second)
    console.print(f"first:  {escape(str(first))}\nsecond: {escape(str(second))}")
    console.print(table)
    console.print(escape(sentence))
    return 0
