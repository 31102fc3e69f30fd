"""`tune`: check the space, then run trials with Ray Tune; and the output of `plan` for a search."""

from __future__ import annotations

import io
from dataclasses import replace
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape

from harness.cli.execute import execute_runs, has_work, store_limits
from harness.cli.summary import log_runs
from harness.common.errors import ConfigError, HarnessError
from harness.common.files import write_atomic
from harness.common.terminal import plain_table
from harness.config.stored import as_yaml
from harness.config.sweep import SweepConfig
from harness.execution.launchers.connect import require_ray
from harness.execution.launchers.node import home_of
from harness.execution.launchers.options import IN_PROCESS, LaunchOptions, heavy_modules
from harness.execution.log_capture import capture_logs
from harness.execution.progress import SweepProgress
from harness.execution.writer import SweepSummary
from harness.planning.check import check
from harness.planning.prepare import Prepared
from harness.search.history import History
from harness.search.holdout import with_holdout
from harness.search.points import Space

if TYPE_CHECKING:
    from harness.execution.launchers.ray_connection import RayConnection


def search(
    prepared: Prepared, console: Console, verbose: bool, launch: LaunchOptions, retry_failed: bool
) -> tuple[SweepSummary | None, int]:
    """Run trials until the search has `num_samples` trials.

    Args:
        prepared: a sweep with `search:` in its config.
        console: the terminal.
        verbose: whether the terminal shows the output of libraries.
        launch: options of the cluster.
        retry_failed: whether failed trials run again.

    Returns:
        The results of this call, None where all trials existed; and the number of failed trials.

    Raises:
        HarnessError: the space, the cluster or the data have errors.
    """
    require_ray("tune", "optuna", "pyarrow", "tensorboardX")
    if (launch.address or "").startswith("ray://"):
        raise ConfigError(
            f"--address: {launch.address} found, but Ray Tune can't use Ray's client; expected auto or host:port. "
            "Start the command on a machine of the cluster."
        )
    started = False
    try:
        prepared, held_out = with_holdout(prepared)
        space = Space(prepared.config, prepared.splits)
        examples = space.check()
        history = History(prepared.folder, space, prepared.records, retry_failed)
        console.print(headline(prepared.config, space, history))
        if held_out:
            console.print(escape(held_out))
        remaining = space.search.num_samples - len(history.finished)
        if remaining <= 0:
            from harness.search.tuner import new_sampler, save_importance

            # Another metric or another space may give another importance.
            save_importance(history, new_sampler(prepared, space, history, None, None, None))
            return _finished(prepared, space, history, console, verbose), 0
        with SweepProgress(remaining, live=console.is_terminal and not verbose) as progress:
            progress.start("checking models, backbones and weights", stage="")
            output = io.StringIO()
            connection = launch.connection(prepared.folder, prepared.config, heavy_modules(examples))
            connection.home = home_of(prepared.folder.root, "search")
            connection.begin()
            try:
                with capture_logs(output, verbose):
                    check(examples, launch.device(prepared.config.device))
                    connection.ready()
                started = True
                return _tune(
                    prepared, space, retry_failed, connection, progress, launch.retries, output.getvalue(), verbose
                )
            finally:
                connection.stop()
    except HarnessError:
        if not started:
            prepared.discard_toy_data()
        raise


def _finished(
    prepared: Prepared, space: Space, history: History, console: Console, verbose: bool
) -> SweepSummary | None:
    """Without a trial to run: store the limits, and make missing models of the recommended configuration."""
    trials = (run for trial in history.finished for run in space.runs(trial.point))
    runs = {run.run_id: run for run in (*prepared.runs, *trials)}
    prepared = replace(prepared, runs=tuple(runs.values()))
    store_limits(prepared)
    if not has_work(prepared, []):
        log_runs(prepared, verbose)
        return None
    return execute_runs(prepared, [], None, console, verbose, IN_PROCESS)


def _tune(
    prepared: Prepared,
    space: Space,
    retry_failed: bool,
    connection: RayConnection,
    progress: SweepProgress,
    retries: int,
    output: str,
    verbose: bool,
) -> tuple[SweepSummary, int]:
    """Write the files of the result folder after all checks, and run the trials."""
    from harness.search.tuner import NAME, Tuning

    folder = prepared.folder
    folder.create()
    with folder.claim(NAME) as claimed:
        if not claimed:
            raise ConfigError(
                f"{folder.root}: another process has a search in this folder; expected one at a time. Wait for its "
                "end, or choose another name or --output."
            )
        prepared.index.save()
        write_atomic(folder.config, as_yaml(prepared.config))
        # Another search may have ended since the start of this call.
        records = folder.read_records().by_id
        history = History(folder, space, records, retry_failed)
        with folder.open_log() as log:
            log.write(output)
            with capture_logs(log, verbose):
                return Tuning(replace(prepared, records=records), space, history, connection, progress, retries).run()


def show(prepared: Prepared, console: Console, checked: bool) -> None:
    """Print the space of a search, without any trial.

    Args:
        prepared: a sweep with `search:` in its config.
        console: the terminal.
        checked: whether to check the examples of the space too.

    Raises:
        HarnessError: the space has errors.
    """
    prepared, held_out = with_holdout(prepared)
    space = Space(prepared.config, prepared.splits)
    examples = space.check()
    if checked:
        with capture_logs(io.StringIO(), show=False):
            check(examples, prepared.config.device)
    table = plain_table(("axis", "values"), fold=True)
    for axis, value in space.search.fixed.items():
        table.add_row(escape(axis), escape("+".join(map(str, value)) if isinstance(value, list) else str(value)))
    for axis, domain in space.domains.items():
        table.add_row(escape(axis), escape(str(domain)))
    console.print(table)
    console.print(headline(prepared.config, space, History(prepared.folder, space, prepared.records)))
    if held_out:
        console.print(escape(held_out))


def headline(config: SweepConfig, space: Space, history: History) -> str:
    """One line with the metric, the axes and the number of finished trials.

    Args:
        config: of the sweep.
        space: the space of the search.
        history: the trials of earlier calls.
    """
    axes = ", ".join(f"{name} ({domain})" for name, domain in space.domains.items())
    return escape(
        f"{config.name}: a search for the {'largest' if space.search.mode == 'max' else 'smallest'} {space.metric}, "
        f"{space.search.num_samples} trials, {len(history.finished)} known, over {axes}."
    )
