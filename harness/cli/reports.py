"""The commands `report`, `pack`, `recommend`, `table`, `figures` and `compare`. Each returns the exit status."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape

from harness.common.errors import ConfigError, UnknownNameError, unknown_name
from harness.common.files import make_folder, write_atomic
from harness.common.garbage import collector_paused
from harness.common.terminal import terminal
from harness.results.store import REPORT_FILES, ResultFolder

if TYPE_CHECKING:
    from harness.report.results import Results


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
    _, status = _remade(target, console)
    for file in (target.workbook, target.report):
        console.print(f"[bold]{escape(str(file))}[/]")
    return status


def _remade(target: ResultFolder, console: Console) -> tuple[Results, int]:
    """Rebuild the reports; returns the results, and the exit status."""
    from harness.report.csv_files import write_csv_files
    from harness.report.excel import write_workbook
    from harness.report.html import write_report
    from harness.report.results import Results

    target.create()
    # Files of an earlier version of the report must not stay.
    shutil.rmtree(target.root / REPORT_FILES, ignore_errors=True)
    # Nearly all objects stay to the end, so scans of them would free nothing.
    with collector_paused():
        results = Results.of(target)
        write_workbook(target, results)
        write_csv_files(results)
        write_report(target, results)
    for sentence in results.damaged:
        console.print(f"[yellow]left out: {escape(sentence)}[/]")
    return results, int(bool(results.damaged))


def pack(folder: Path, out: Path | None, single: bool) -> int:
    """Write a result folder as one file to send.

    Args:
        folder: a result folder.
        out: the file; None for the name of the folder, here.
        single: whether to write one HTML file instead of a zip file.

    Returns:
        0, or 1 if a file of the folder is damaged.

    Raises:
        StoreError: the folder holds no finished runs, or a file can't be written.
    """
    from harness.report.combine import result_folder
    from harness.report.html import write_single
    from harness.report.pack import write_pack

    console = terminal()
    source = result_folder(folder)
    file = out or Path(source.root.resolve().name + (".html" if single else ".zip"))
    make_folder(file.absolute().parent, "--out")
    results, status = _remade(source, console)
    if single:
        write_single(results, file)
        sentences = ["All plots, no pictures."]
    else:
        sentences = write_pack(results, file)
    console.print(f"[bold]{escape(str(file))}[/]: {file.stat().st_size / 1e6:.1f} MB. {' '.join(sentences)}")
    return status


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
    lines, complete = answer_lines(results, with_options(results.limits, options))
    for line in lines:
        console.print(escape(line))
    return 0 if complete else 1


def table(folder: Path, metric: str, rows: str, columns: str, table_format: str, digits: int, out: Path | None) -> int:
    """Print or write a table of one metric.

    Args:
        folder: a result folder.
        metric: its name; empty for the first metric of the task.
        rows: names of axes, separated by commas.
        columns: names of axes, separated by commas.
        table_format: a key of `harness.analysis.formats.FORMATS`.
        digits: digits after the decimal point.
        out: the file; None for standard output.

    Raises:
        ConfigError: two options do not fit together.
        StoreError: the folder holds no finished runs, or the file can't be written.
        UnknownNameError: there is no such metric, axis or format.
    """
    from harness.analysis.formats import FORMATS
    from harness.analysis.results import load_results
    from harness.analysis.table import metric_table
    from harness.registry import HEADLINES
    from harness.report.terminal import in_few_words

    if table_format not in FORMATS:
        raise UnknownNameError(unknown_name("--format", table_format, FORMATS))
    loaded = load_results(folder)
    name = metric or HEADLINES[loaded.task][0]
    content = metric_table(loaded.results, name, _names("--rows", rows), _names("--columns", columns), digits)
    text = FORMATS[table_format](content)
    if out is None:
        sys.stdout.write(text)
    else:
        make_folder(out.absolute().parent, "--out")
        write_atomic(out, text)
    # Standard output may go into a file, so the notices go to the other stream.
    console = terminal(stderr=True)
    for sentence in (*in_few_words(loaded.results).notices, *loaded.damaged):
        console.print(f"[yellow]{escape(sentence)}[/]")
    if out is not None:
        console.print(f"[bold]{escape(str(out))}[/]")
    return int(bool(loaded.damaged))


def figures(folder: Path, out: Path, file_format: str, metric: str) -> int:
    """Draw all figures of the page as files, and print where they are.

    Args:
        folder: a result folder.
        out: folder for the files.
        file_format: svg, pdf or png.
        metric: the quality in the figures of a sweep; empty for the one that the page shows first.

    Returns:
        0, or 1 if a file of the folder is damaged.

    Raises:
        ConfigError: the figures of this task show no such metric.
        StoreError: the folder holds no finished runs, or a file can't be written.
        UnknownNameError: there is no such format or metric.
    """
    from harness.report.combine import result_folder
    from harness.report.figures.write import FORMATS, write_figures
    from harness.report.results import Results

    if file_format not in FORMATS:
        raise UnknownNameError(unknown_name("--format", file_format, FORMATS))
    results = Results.of(result_folder(folder))
    make_folder(out, "--out")
    console = terminal()
    with console.status("drawing") if console.is_terminal else nullcontext():
        files, problems = write_figures(results, out, file_format, metric)
    for sentence in (*results.damaged, *problems):
        console.print(f"[yellow]{escape(sentence)}[/]")
    console.print(f"[bold]{escape(str(out))}[/]: {len(files)} figures.")
    return int(bool(results.damaged))


def _names(option: str, text: str) -> list[str]:
    names = [name.strip() for name in text.split(",")]
    if not all(names):
        raise ConfigError(f"{option}: {text!r} found; expected names of axes, separated by commas.")
    return names


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
