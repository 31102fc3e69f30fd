"""The commands `sweep`, `tune`, `run` and `plan`. Each returns the exit status."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from harness.common.errors import ConfigError, HarnessError
from harness.common.files import make_folder, write_atomic
from harness.common.paths import expanded
from harness.common.secrets import concealed
from harness.common.terminal import terminal
from harness.config.sweep import SweepConfig, as_yaml, load_config, one_run
from harness.data.index import Progress
from harness.execution.launchers.options import IN_PROCESS, LaunchOptions
from harness.execution.log_capture import capture_logs
from harness.planning.prepare import PlannedRun, Prepared, check, prepare, remarks
from harness.planning.skip import Skipped, record_skipped, without_weights

if TYPE_CHECKING:
    from harness.execution.writer import SweepSummary


def sweep(
    config_file: Path,
    overrides: Sequence[str],
    output: Path | None,
    limit: int | None,
    fresh: bool,
    retry_failed: bool,
    verbose: bool,
    launch: LaunchOptions = IN_PROCESS,
) -> int:
    """Run what is not done yet; 0 if all went well, 1 if a run failed, 130 if stopped."""
    problems = launch.problems()
    if problems:
        raise ConfigError(problems)
    return _sweep(_load(config_file, overrides, output), limit, fresh, retry_failed, verbose, launch)


def tune(
    config_file: Path,
    overrides: Sequence[str],
    output: Path | None,
    retry_failed: bool,
    verbose: bool,
    launch: LaunchOptions,
) -> int:
    """Search; 0 if all went well, 1 if a trial failed, 130 if stopped."""
    from harness.cli.tune import search

    problems = launch.problems()
    if problems:
        raise ConfigError(problems)
    config = _load(config_file, overrides, output)
    if config.search is None:
        raise ConfigError(f"{config_file}: search: missing; expected one, or `python -m harness sweep` for a grid.")
    console = terminal()
    prepared = prepare(config, _reading(console))
    _say(prepared, console)
    summary, failed = search(prepared, console, verbose, launch, retry_failed)
    return _finish(prepared, console, summary) or int(failed > 0)


def run(
    method: str,
    backend: str,
    data: Path,
    given: Mapping[str, str | None],
    parameters: Sequence[str],
    fresh: bool,
    verbose: bool,
) -> int:
    """A sweep of one point; all such share a result folder, and so a sheet."""
    config = one_run(method, backend, data, given, parameters)
    return _sweep(config, None, fresh, False, verbose, IN_PROCESS)


def plan(config_file: Path, overrides: Sequence[str], output: Path | None, checked: bool) -> int:
    """Print the runs and their state; writes no results (toy data is made, since the runs' identities need it)."""
    console = terminal()
    prepared = prepare(_load(config_file, overrides, output), _reading(console))
    if prepared.config.search is not None:
        from harness.cli.tune import show

        show(prepared, console, checked)
    if not prepared.config.grid:
        return 0
    pending = [run for run in prepared.runs if not (prepared.is_done(run) or prepared.is_damaged(run))]
    left_out: set[str] = set()
    said: list[str] = []
    if checked and pending:
        with capture_logs(io.StringIO(), show=False):
            skipped = without_weights(pending, prepared.runs)
            left_out = {one.run.run_id for one in skipped}
            left = _others(pending, skipped)
            check(left, prepared.config.device, prepared.plan.entries)
            said = remarks(left, prepared.config.device)
    table = Table(box=None, header_style="bold", pad_edge=False)
    for name in ("", "state", "seed", "run"):
        table.add_column(name, overflow="fold")
    for position, run in enumerate(prepared.runs, 1):
        state = "done" if prepared.is_done(run) else "failed" if prepared.has_failed(run) else "to do"
        state = "skipped: no weights" if run.run_id in left_out else state
        state = "damaged" if prepared.is_damaged(run) else state
        table.add_row(str(position), state, str(run.spec.seed), escape(run.run_id))
    console.print(table)
    _say(prepared, console)
    for remark in said:
        console.print(escape(remark))
    console.print(_headline(prepared, len(pending) - len(left_out), len(left_out)))
    return 0


def _sweep(
    config: SweepConfig, limit: int | None, fresh: bool, retry_failed: bool, verbose: bool, launch: LaunchOptions
) -> int:
    if not config.grid:
        raise ConfigError("grid: missing; expected one. `search:` is for `python -m harness tune`.")
    console = terminal()
    prepared = prepare(config, _reading(console))
    runs = _chosen(prepared, fresh, retry_failed)
    console.print(_headline(prepared, len(runs[:limit])))
    _say(prepared, console)
    summary = _run(prepared, runs, limit, console, verbose, launch) if runs[:limit] else None
    return _finish(prepared, console, summary)


def _run(
    prepared: Prepared,
    runs: Sequence[PlannedRun],
    limit: int | None,
    console: Console,
    verbose: bool,
    launch: LaunchOptions,
) -> SweepSummary:
    """Check, then execute as many as `limit` says, with what the libraries print in sweep.log."""
    from harness.execution.progress import SweepProgress
    from harness.execution.sweep import execute

    said = io.StringIO()
    folder = prepared.folder
    with SweepProgress(len(runs[:limit]), live=console.is_terminal and not verbose) as progress:
        progress.start("checking models, backbones and weights", stage="")
        begun = False
        try:
            with launch.make(folder, progress, prepared.config, runs[:limit]) as launcher:
                with capture_logs(said, verbose):
                    skipped = without_weights(runs, prepared.runs)
                    # What is skipped does not count.
                    runs = _others(runs, skipped)[:limit]
                    check(runs, launch.device(prepared.config.device), prepared.plan.entries)
                    launcher.ready()
                progress.expect(len(runs))
                for remark in remarks(runs, launch.device(prepared.config.device)):
                    progress.note(remark)
                if prepared.config.cache is not None:
                    make_folder(Path(prepared.config.cache), "cache")
                # Nothing was written before everything was found to be right.
                begun = True
                folder.create()
                prepared.index.save()
                write_atomic(folder.config, as_yaml(prepared.config))
                record_skipped(skipped, folder, prepared.config)
                with folder.open_log() as log:
                    log.write(said.getvalue())
                    with capture_logs(log, verbose):
                        return execute(prepared, runs, progress, launcher, launch.retries)
        except HarnessError:
            if not begun:
                prepared.discard_made_data()
            raise


def _say(prepared: Prepared, console: Console) -> None:
    """What a user must know of the data, and which runs can't be read, before anything is made."""
    several = len(prepared.splits) > 1
    notes = [(split, note) for split in prepared.splits.values() for note in split.notes]
    told = (f"{split.category}: {note}" if several and split.category else note for split, note in notes)
    for sentence in (*map(concealed, dict.fromkeys(told)), *prepared.damaged.values()):
        console.print(f"[yellow]{escape(sentence)}[/]")


def _others(runs: Sequence[PlannedRun], skipped: Sequence[Skipped]) -> list[PlannedRun]:
    left_out = {one.run.run_id for one in skipped}
    return [run for run in runs if run.run_id not in left_out]


def _load(config_file: Path, overrides: Sequence[str], output: Path | None) -> SweepConfig:
    config = load_config(config_file, overrides)
    if output is None:
        return config
    try:
        return config.model_copy(update={"output": expanded(str(output))})
    except ValueError as error:
        raise ConfigError(f"--output: {error}.") from error


def _chosen(prepared: Prepared, fresh: bool, retry_failed: bool) -> list[PlannedRun]:
    if fresh and retry_failed:
        raise ConfigError("--fresh and --retry-failed: found both, expected one of them.")
    runs = [run for run in prepared.runs if fresh or not (prepared.is_done(run) or prepared.is_damaged(run))]
    if retry_failed:
        runs = [run for run in runs if prepared.has_failed(run)]
    return runs


def _headline(prepared: Prepared, to_run: int, skipped: int = 0) -> str:
    plan_ = prepared.plan
    done = sum(prepared.is_done(run) for run in prepared.runs)
    failed = sum(prepared.has_failed(run) for run in prepared.runs)
    damaged = sum(prepared.is_damaged(run) for run in prepared.runs)
    merged = f" ({plan_.points} points, {plan_.collapsed} equal to another)" if plan_.collapsed else ""
    runs = "1 run" if len(prepared.runs) == 1 else f"{len(prepared.runs)} runs"
    return (
        f"{escape(prepared.config.name)}: {runs}{merged}, {done} done"
        + (f", {failed} failed before" if failed else "")
        + (f", {damaged} damaged" if damaged else "")
        + (f", {skipped} skipped" if skipped else "")
        + f", {to_run} to run now."
    )


def _finish(prepared: Prepared, console: Console, summary: SweepSummary | None) -> int:
    """The best runs, what failed, and where the workbook is."""
    from harness.report.excel import write_workbook
    from harness.report.html import write_report
    from harness.report.results import Results
    from harness.report.terminal import in_few_words

    folder = prepared.folder
    results = Results.of(folder)
    # Also where this call made no run: one that was killed had no time to bring them up to date.
    if folder.is_stale(folder.workbook):
        write_workbook(folder, results)
    if folder.is_stale(folder.report):
        write_report(folder, results)
    records = results.records
    answer = in_few_words(results)
    table, answers, notices = answer.table, answer.sentences, answer.notices
    if table is not None:
        console.print(table)
    for sentence in answers:
        console.print(f"[bold]{escape(sentence)}[/]")
    for notice in notices:
        console.print(f"[bold yellow]{escape(notice)}[/]")
    for record in summary.failed if summary else []:
        console.print(f"[red]failed:[/] {escape(record.run_id)}: {escape((record.error or {}).get('message', ''))}")
    for made in (folder.workbook, folder.report):
        if made.is_file():
            console.print(f"[bold]{escape(str(made))}[/]")
    if summary and summary.interrupted:
        console.print("stopped; the same command goes on from here.")
        return 130
    planned = {run.run_id for run in prepared.runs}
    failed = any(record.status == "failed" and record.run_id in planned for record in records)
    return int(failed or bool(planned & set(folder.read_records().damaged)))


def _reading(console: Console) -> Progress:
    """Says that images are being read, where that takes long enough to be noticed."""

    def show(done: int, total: int) -> None:
        if total >= 1000 and (done == total or done % 1000 == 0):
            console.print(f"checking images: {done} of {total}")

    return show
