"""What the commands do, in terms of the modules that do it. Each gives the exit status."""

from __future__ import annotations

import io
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from harness.common.errors import ConfigError, DataError, HarnessError
from harness.common.files import make_folder, write_atomic
from harness.common.paths import expanded
from harness.common.secrets import concealed
from harness.common.terminal import Terminal
from harness.config.sweep import SweepConfig, as_yaml, load_config, one_run
from harness.data.index import Progress
from harness.execution.launchers.options import IN_PROCESS, LaunchOptions
from harness.execution.log_capture import capture_logs
from harness.planning.prepare import PlannedRun, Prepared, check, prepare, remarks
from harness.planning.skip import Skipped, record_skipped, without_weights
from harness.results.store import REPORT_FILES, ResultFolder

if TYPE_CHECKING:
    from harness.execution.writer import SweepSummary

LEAST_LABELLED = 40  # training images of labelled toy data
NAMED_BACKBONES = ("resnet18", "resnet50", "wide_resnet50_2", "tf_efficientnet_b7", "cspdarknet53")


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
    console = _console()
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


def _sweep(
    config: SweepConfig, limit: int | None, fresh: bool, retry_failed: bool, verbose: bool, launch: LaunchOptions
) -> int:
    if not config.grid:
        raise ConfigError("grid: missing; expected one. `search:` is for `python -m harness tune`.")
    console = _console()
    prepared = prepare(config, _reading(console))
    runs = _chosen(prepared, fresh, retry_failed)
    console.print(_headline(prepared, len(runs[:limit])))
    _say(prepared, console)
    summary = _run(prepared, runs, limit, console, verbose, launch) if runs[:limit] else None
    return _finish(prepared, console, summary)


def plan(config_file: Path, overrides: Sequence[str], output: Path | None, checked: bool) -> int:
    """Print the runs and their state; writes no results (toy data is made, since the runs' identities need it)."""
    console = _console()
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


def report(folders: Sequence[Path], output: Path | None) -> int:
    """Make sheet and report anew from the records alone; of several sweeps, in a folder of their own."""
    from harness.report.combine import combine, result_folder

    console = _console()
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

    console = _console()
    table, sentence = side_by_side(first, second)
    console.print(f"first:  {escape(str(first))}\nsecond: {escape(str(second))}")
    console.print(table)
    console.print(escape(sentence))
    return 0


def weights(backbones: Sequence[str], folder: Path) -> int:
    """Print what is found for each backbone: source, hash, file."""
    from harness.backbones.local import file_name, find_in, weight_files
    from harness.backbones.packages import installed, packaged_networks
    from harness.common.files import file_hash

    console = _console()
    names = list(backbones or [*packaged_networks(), *NAMED_BACKBONES])
    if not backbones:
        # Whatever lies in the folder is of interest too.
        listed = {find_in(folder, name) for name in names}
        names += dict.fromkeys(file_name(path) for path in weight_files(folder) if path not in listed)
    with capture_logs(io.StringIO(), show=False):
        from harness.backbones.networks import known_backbone
        from harness.backbones.resolve import cached

        for name in backbones:
            known_backbone(name)
    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in ("backbone", "source", "sha256", "file"):
        table.add_column(column, overflow="fold")
    for name in names:
        local, package, hub = find_in(folder, name), installed(name), cached(name)
        path, source = (
            (local, f"{folder}/")
            if local
            else (package.file, f"package {package.package} {package.version}")
            if package
            else (hub, "hub cache")
            if hub
            else (None, "none on this machine")
        )
        table.add_row(name, source, file_hash(path)[:12] if path else "", escape(str(path)) if path else "")
    console.print(table)
    console.print(f"To add one: put a state dict of the network at {folder}/<backbone>.safetensors (or .pth, .pt).")
    return 0


def models(markdown: bool) -> int:
    """Print a table of all detectors, a row each; as Markdown without what is on this machine."""
    console = _console()
    with capture_logs(io.StringIO(), show=False):
        from harness.cli.catalogue import COLUMNS, detectors

        rows = detectors(state=not markdown)
    if markdown:
        for row in (COLUMNS, ("---",) * len(COLUMNS), *rows):
            print("| " + " | ".join(cell.replace("\n", "<br>") for cell in row) + " |")
        return 0
    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in COLUMNS:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*map(escape, row))
    console.print(table)
    console.print("A file goes to the place named. `python -m harness weights NAME` says where weights are.")
    return 0


def init(folder: Path | None) -> int:
    """Write a first config: for the images of a folder, or the samples."""
    from harness.config.first import write_config, write_samples

    console = _console()
    if folder is None:
        files = write_samples(Path("configs"))
        console.print(f"{len(files)} sample configs written to configs/")
        console.print("Next: python -m harness sweep configs/patchcore.yaml", highlight=False)
        return 0
    file = write_config(folder)
    console.print(f"[bold]{escape(str(file))}[/] written for the images in {escape(str(folder))}")
    console.print(escape(f"Next: python -m harness sweep {file}"))
    return 0


def make_data(folder: Path, seed: int, size: int, train: int | None, good: int, bad: int, labelled: bool) -> int:
    """Write the toy data; refuses a folder that already holds something."""
    from harness.data.labelled.toy_images import LABELS, write_labelled_toy
    from harness.data.toy_images import CATEGORIES, write_toy

    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise DataError(f"{folder}: already exists and is not empty; expected a new or an empty folder.")
    if labelled and (train or 400) < LEAST_LABELLED:
        raise DataError(
            f"--train: {train} found; labelled data has {len(LABELS)} labels, expected {LEAST_LABELLED} or more."
        )
    try:
        if labelled:
            folder.mkdir(parents=True, exist_ok=True)
            write_labelled_toy(folder, seed=seed, size=size, train=train or 400)
        else:
            write_toy(folder, seed=seed, size=size, train=train or 100, good=good, bad=bad)
    except OSError as error:
        raise DataError(f"{folder}: can't be written ({error.strerror}).") from error
    console = _console()
    if labelled:
        console.print(f"{len(LABELS)} labels, long-tailed, written to {escape(str(folder))}")
        console.print(f"Use them with: task: classification, data: {{kind: labelled, root: {escape(str(folder))}}}")
        return 0
    console.print(f"{len(CATEGORIES)} categories ({', '.join(CATEGORIES)}) written to {escape(str(folder))}")
    console.print(f"Use them with: data: {{kind: mvtec, root: {escape(str(folder))}}}")
    return 0


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


def _console() -> Console:
    console = Terminal(sys.stdout)
    # A file or a pipe has no width: tables are then as wide as they need to be, within reason.
    return console if console.is_terminal else Terminal(sys.stdout, width=180)


def _reading(console: Console) -> Progress:
    """Says that images are being read, where that takes long enough to be noticed."""

    def show(done: int, total: int) -> None:
        if total >= 1000 and (done == total or done % 1000 == 0):
            console.print(f"checking images: {done} of {total}")

    return show
