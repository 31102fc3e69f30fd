"""The terminal output of the commands `sweep`, `tune`, `run` and `plan`, before and after the runs."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape

from harness.common.secrets import concealed
from harness.data.base import joint_notes
from harness.data.index import Progress
from harness.planning.prepare import Prepared

if TYPE_CHECKING:
    from harness.execution.writer import SweepSummary


def headline(prepared: Prepared, to_run: int, skipped: int = 0) -> str:
    """One line with the number of runs in each condition.

    Args:
        prepared: the sweep.
        to_run: number of runs of this call.
        skipped: number of runs without weights.
    """
    plan = prepared.plan
    done = sum(prepared.is_done(run) for run in prepared.runs)
    failed = sum(prepared.has_failed(run) for run in prepared.runs)
    damaged = sum(prepared.is_damaged(run) for run in prepared.runs)
    merged = f" ({plan.points} points, {plan.collapsed} equal to another)" if plan.collapsed else ""
    runs = "1 run" if len(prepared.runs) == 1 else f"{len(prepared.runs)} runs"
    return (
        f"{escape(prepared.config.name)}{_dataset(prepared)}: {runs}{merged}, {done} done"
        + (f", {failed} failed before" if failed else "")
        + (f", {damaged} damaged" if damaged else "")
        + (f", {skipped} skipped" if skipped else "")
        + f", {to_run} to run now."
    )


def _dataset(prepared: Prepared) -> str:
    """The data set of a sweep over several data sets."""
    config = prepared.config
    if not config.datasets:
        return ""
    kind, root = config.data.kind, getattr(config.data, "root", None)
    return escape(f" ({kind}{f' {concealed(str(root))}' if root else ''})")


def finish(sweeps: Sequence[Prepared], console: Console, summaries: Sequence[SweepSummary]) -> int:
    """Write the reports, and print the best runs, the failures and the reports' paths.

    Args:
        sweeps: all sweeps of this call, in one result folder.
        console: the terminal.
        summaries: the results of this call; empty for a call without any run.

    Returns:
        The exit status: 0 for success, 1 for a failed run or a damaged record, 130 for an interrupt.
    """
    from harness.report.csv_files import write_csv_files
    from harness.report.excel import write_workbook
    from harness.report.html import write_report
    from harness.report.results import Results
    from harness.report.terminal import in_few_words

    folder = sweeps[0].folder
    results = Results.of(folder)
    # A killed call leaves old reports. This call writes them, also without any new run.
    if folder.is_stale(folder.workbook):
        write_workbook(folder, results)
    if folder.is_stale(folder.results_csv) or folder.is_stale(folder.summary_csv):
        write_csv_files(results)
    if folder.is_stale(folder.report):
        write_report(folder, results)
    records = results.records
    overview = in_few_words(results)
    if overview.table is not None:
        console.print(overview.table)
    for sentence in overview.sentences:
        console.print(f"[bold]{escape(sentence)}[/]")
    for notice in overview.notices:
        console.print(f"[bold yellow]{escape(notice)}[/]")
    for record in itertools.chain.from_iterable(summary.failed for summary in summaries):
        console.print(f"[red]failed:[/] {escape(record.run_id)}: {escape((record.error or {}).get('message', ''))}")
    for report in (folder.workbook, folder.report):
        if report.is_file():
            console.print(f"[bold]{escape(str(report))}[/]")
    if any(summary.interrupted for summary in summaries):
        console.print("stopped. The same command continues from here.")
        return 130
    planned = {run.run_id for prepared in sweeps for run in prepared.runs}
    failed = any(record.status == "failed" and record.run_id in planned for record in records)
    return int(failed or bool(planned & set(folder.read_records().damaged)))


def log_runs(prepared: Prepared, verbose: bool) -> None:
    """Log the runs that a tracker does not have, in a call without any new run.

    Args:
        prepared: the sweep.
        verbose: whether the terminal shows the output of the trackers too.
    """
    if not prepared.config.tracking:
        return
    from harness.execution.progress import SweepProgress
    from harness.execution.writer import log_rest

    with SweepProgress(0, live=False) as progress:
        log_rest(prepared, progress, verbose)


def image_progress(console: Console) -> Progress:
    """A callback that shows the progress of the image check for 1000 images or more."""

    def show(done: int, total: int) -> None:
        if total >= 1000 and (done == total or done % 1000 == 0):
            console.print(f"checking images: {done} of {total}")

    return show


def print_notes(prepared: Prepared, console: Console) -> None:
    """Print notes on the data, and the damaged records.

    Args:
        prepared: the sweep.
        console: the terminal.
    """
    several = len(prepared.splits) > 1
    # A note on every category concerns the sweep.
    notes = joint_notes([(split.category if several else "", split.notes) for split in prepared.splits.values()])
    for sentence in (*map(concealed, notes), *prepared.damaged.values()):
        console.print(f"[yellow]{escape(sentence)}[/]")
