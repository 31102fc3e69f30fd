"""The commands `sweep`, `tune`, `run` and `plan`. Each returns the exit status."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape

from harness.cli.execute import execute_runs, has_work, store_limits, without
from harness.cli.summary import finish, headline, image_progress, log_runs, print_notes
from harness.common.errors import ConfigError, HarnessError
from harness.common.paths import expanded
from harness.common.terminal import print_rows, terminal
from harness.config.load import load_config, load_configs, one_run
from harness.config.sweep import SweepConfig
from harness.execution.launchers.options import IN_PROCESS, LaunchOptions
from harness.execution.log_capture import capture_logs
from harness.planning.check import check, remarks
from harness.planning.prepare import PlannedRun, Prepared, prepare, prepare_all
from harness.planning.skip import without_weights

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
    """Execute the runs of a grid that are not done.

    Args:
        config_file: the YAML file.
        overrides: KEY=VALUE pairs for the config.
        output: parent of the result folder; None for the value of the config.
        limit: largest number of runs; None for no limit.
        fresh: whether finished runs run again.
        retry_failed: whether only failed runs run again.
        verbose: whether the terminal shows the output of libraries.
        launch: the launcher with its options.

    Returns:
        0 for success, 1 for a failed run, 130 for an interrupt.

    Raises:
        HarnessError: the options, the config or the data have errors.
    """
    launch.check()
    return _sweep(_load_all(config_file, overrides, output), limit, fresh, retry_failed, verbose, launch)


def tune(
    config_file: Path,
    overrides: Sequence[str],
    output: Path | None,
    retry_failed: bool,
    verbose: bool,
    launch: LaunchOptions,
) -> int:
    """Run the trials of a search.

    Args:
        config_file: the YAML file.
        overrides: KEY=VALUE pairs for the config.
        output: parent of the result folder; None for the value of the config.
        retry_failed: whether failed trials run again.
        verbose: whether the terminal shows the output of libraries.
        launch: options of the cluster.

    Returns:
        0 for success, 1 for a failed trial, 130 for an interrupt.

    Raises:
        HarnessError: the options, the config, the cluster or the data have errors.
    """
    from harness.cli.tune import search

    launch.check()
    config = _with_output(load_config(config_file, overrides), output)
    if config.search is None:
        raise ConfigError(f"{config_file}: search: missing; expected one, or `python -m harness sweep` for a grid.")
    console = terminal()
    prepared = prepare(config, image_progress(console))
    print_notes(prepared, console)
    summary, failed = search(prepared, console, verbose, launch, retry_failed)
    return finish([prepared], console, [summary] if summary else []) or int(failed > 0)


def run(
    method: str,
    backend: str,
    data: Path,
    options: Mapping[str, str | None],
    parameters: Sequence[str],
    fresh: bool,
    verbose: bool,
) -> int:
    """Execute one run. All such runs share a result folder, so one workbook compares them.

    Args:
        method: name of the model.
        backend: of the model.
        data: folder with the images.
        options: values of the other options, by name; None for the default.
        parameters: NAME=VALUE pairs for the model.
        fresh: whether a finished run runs again.
        verbose: whether the terminal shows the output of libraries.

    Returns:
        0 for success, 1 for a failed run, 130 for an interrupt.

    Raises:
        HarnessError: the options or the data have errors.
    """
    config = one_run(method, backend, data, options, parameters)
    return _sweep([config], None, fresh, False, verbose, IN_PROCESS)


def plan(config_file: Path, overrides: Sequence[str], output: Path | None, checked: bool) -> int:
    """Print the runs and their states, without any result. Toy data is written, since run ids depend on the data.

    Args:
        config_file: the YAML file.
        overrides: KEY=VALUE pairs for the config.
        output: parent of the result folder; None for the value of the config.
        checked: whether to check models, backbones and weights too.

    Returns:
        0 for success.

    Raises:
        HarnessError: the config or the data have errors.
    """
    console = terminal()
    for prepared in prepare_all(_load_all(config_file, overrides, output), image_progress(console)):
        if prepared.config.search is not None:
            from harness.cli.tune import show

            show(prepared, console, checked)
        if prepared.config.grid:
            _show(prepared, console, checked)
    return 0


def _show(prepared: Prepared, console: Console, checked: bool) -> None:
    """Print the runs of a grid and their states."""
    pending = _pending(prepared)
    skipped_ids: set[str] = set()
    notes: list[str] = []
    if checked and pending:
        with capture_logs(io.StringIO(), show=False):
            skipped = without_weights(pending, prepared.runs)
            skipped_ids = {skip.run.run_id for skip in skipped}
            runs = without(pending, skipped)
            check(runs, prepared.config.device, prepared.plan.entries)
            notes = remarks(runs, prepared.config.device, prepared.config.memory_limit)
    rows = []
    for position, run in enumerate(prepared.runs, 1):
        state = "done" if prepared.is_done(run) else "failed" if prepared.has_failed(run) else "to do"
        state = "skipped: no weights" if run.run_id in skipped_ids else state
        state = "damaged" if prepared.is_damaged(run) else state
        rows.append((str(position), state, str(run.spec.seed), run.run_id))
    print_rows(console, ("", "state", "seed", "run"), rows)
    print_notes(prepared, console)
    for note in notes:
        console.print(escape(note))
    console.print(headline(prepared, len(pending) - len(skipped_ids), len(skipped_ids)))


def _sweep(
    configs: Sequence[SweepConfig],
    limit: int | None,
    fresh: bool,
    retry_failed: bool,
    verbose: bool,
    launch: LaunchOptions,
) -> int:
    """Execute the runs on each data set in turn."""
    if not configs[0].grid:
        raise ConfigError("grid: missing; expected one. `search:` is for `python -m harness tune`.")
    console = terminal()
    sweeps = prepare_all(configs, image_progress(console))
    summaries: list[SweepSummary] = []
    for position, prepared in enumerate(sweeps):
        runs = _pending(prepared, fresh, retry_failed)
        console.print(headline(prepared, len(runs[:limit])))
        print_notes(prepared, console)
        if not has_work(prepared, runs[:limit]):
            store_limits(prepared)
            log_runs(prepared, verbose)
            continue
        try:
            summary = execute_runs(prepared, runs, limit, console, verbose, launch)
        except HarnessError:
            for later in sweeps[position + 1 :]:
                later.discard_toy_data()
            raise
        summaries.append(summary)
        if summary.interrupted:
            break
        if limit is not None:
            limit -= len(summary.done) + len(summary.failed)
    return finish(sweeps, console, summaries)


def _load_all(config_file: Path, overrides: Sequence[str], output: Path | None) -> list[SweepConfig]:
    """One config for each data set."""
    return [_with_output(config, output) for config in load_configs(config_file, overrides)]


def _with_output(config: SweepConfig, output: Path | None) -> SweepConfig:
    if output is None:
        return config
    try:
        return config.model_copy(update={"output": expanded(str(output))})
    except ValueError as error:
        raise ConfigError(f"--output: {error}.") from error


def _pending(prepared: Prepared, fresh: bool = False, retry_failed: bool = False) -> list[PlannedRun]:
    if fresh and retry_failed:
        raise ConfigError("--fresh and --retry-failed: found both, expected one of them. Remove one option.")
    runs = [run for run in prepared.runs if fresh or not (prepared.is_done(run) or prepared.is_damaged(run))]
    if retry_failed:
        runs = [run for run in runs if prepared.has_failed(run)]
    return runs
