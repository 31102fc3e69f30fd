"""`tune`: check what may be proposed, then let Ray Tune try it; and what `plan` says of it."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from harness.common.errors import ConfigError, HarnessError
from harness.common.files import write_atomic
from harness.config.sweep import SweepConfig, as_yaml
from harness.execution.launchers.connect import require_ray
from harness.execution.launchers.node import home_of
from harness.execution.launchers.options import LaunchOptions
from harness.execution.log_capture import capture_logs
from harness.execution.progress import SweepProgress
from harness.execution.writer import SweepSummary
from harness.planning.prepare import PlannedRun, Prepared, backend, check
from harness.search.history import History
from harness.search.points import Space

if TYPE_CHECKING:
    from harness.execution.launchers.ray_connection import RayConnection


def search(
    prepared: Prepared, console: Console, verbose: bool, launch: LaunchOptions, retry_failed: bool
) -> tuple[SweepSummary | None, int]:
    """Try settings until there are as many as were asked for.

    Args:
        prepared: the sweep, whose config has a search.
        console: where it is said.
        verbose: show what the libraries print.
        launch: of the cluster.
        retry_failed: try failed trials again.

    Returns:
        What was done, None where there was nothing to do; and how many trials failed.

    Raises:
        HarnessError: what is wrong with the space, the cluster or the data.
    """
    require_ray("tune", "optuna", "pyarrow", "tensorboardX")
    if (launch.address or "").startswith("ray://"):
        raise ConfigError(
            f"--address: {launch.address} found, which Ray Tune can't be used through; expected auto or host:port, on "
            "a machine of the cluster."
        )
    space = Space(prepared.config, prepared.splits)
    begun = False
    try:
        examples = space.check()
        history = History(prepared.folder, space, prepared.records, retry_failed)
        console.print(headline(prepared.config, space, history))
        left = space.search.num_samples - len(history.known)
        if left <= 0:
            _bring_up_to_date(prepared, space, history)
            return None, 0
        with SweepProgress(left, live=console.is_terminal and not verbose) as progress:
            progress.start("checking models, backbones and weights", stage="")
            said = io.StringIO()
            connection = launch.connection(prepared.folder, prepared.config, _modules(examples))
            connection.home = home_of(prepared.folder.root, "search")
            connection.begin()
            try:
                with capture_logs(said, verbose):
                    check(examples, launch.device(prepared.config.device))
                    connection.ready()
                begun = True
                return _try(
                    prepared, space, retry_failed, connection, progress, launch.retries, said.getvalue(), verbose
                )
            finally:
                connection.stop()
    except HarnessError:
        if not begun:
            prepared.discard_made_data()
        raise


def _try(
    prepared: Prepared,
    space: Space,
    retry_failed: bool,
    connection: RayConnection,
    progress: SweepProgress,
    retries: int,
    said: str,
    verbose: bool,
) -> tuple[SweepSummary, int]:
    """Everything was found to be right: write, and begin."""
    from harness.search.tuner import NAME, Tuning

    folder = prepared.folder
    folder.create()
    with folder.claim(NAME) as mine:
        if not mine:
            raise ConfigError(
                f"{folder.root}: another process searches there; expected one at a time. Choose another name or "
                "--output."
            )
        prepared.index.save()
        write_atomic(folder.config, as_yaml(prepared.config))
        # Another search may have ended meanwhile.
        records = folder.read_records().by_id
        history = History(folder, space, records, retry_failed)
        with folder.open_log() as log:
            log.write(said)
            with capture_logs(log, verbose):
                return Tuning(replace(prepared, records=records), space, history, connection, progress, retries).run()


def _bring_up_to_date(prepared: Prepared, space: Space, history: History) -> None:
    """There is nothing left to try, but it may be looked at otherwise: another metric, another space."""
    from harness.search.tuner import conclude, sampler

    conclude(history, sampler(prepared, space, history, None, None, None))


def show(prepared: Prepared, console: Console, checked: bool) -> None:
    """What would be searched; nothing is tried.

    Raises:
        HarnessError: what is wrong with the space.
    """
    space = Space(prepared.config, prepared.splits)
    examples = space.check()
    if checked:
        with capture_logs(io.StringIO(), show=False):
            check(examples, prepared.config.device)
    table = Table(box=None, header_style="bold", pad_edge=False)
    for name in ("axis", "values"):
        table.add_column(name, overflow="fold")
    for axis, value in space.search.fixed.items():
        table.add_row(escape(axis), escape("+".join(map(str, value)) if isinstance(value, list) else str(value)))
    for axis, domain in space.domains.items():
        table.add_row(escape(axis), escape(str(domain)))
    console.print(table)
    console.print(headline(prepared.config, space, History(prepared.folder, space, prepared.records)))


def headline(config: SweepConfig, space: Space, history: History) -> str:
    """What is searched, and how far it is."""
    search_ = space.search
    axes = ", ".join(f"{name} ({domain})" for name, domain in space.domains.items())
    known = len(history.known)
    return escape(
        f"{config.name}: a search for the {'largest' if search_.mode == 'max' else 'smallest'} {space.metric}, "
        f"{search_.num_samples} trials, {known} known, over {axes}."
    )


def _modules(runs: Sequence[PlannedRun]) -> list[str]:
    """What takes long to import, for the nodes."""
    return [backend(name).heavy for name in dict.fromkeys(run.spec.backend for run in runs)]
