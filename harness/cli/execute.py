"""The way of planned runs from their checks to their execution, with the files of the result folder."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from harness.common.errors import HarnessError
from harness.common.files import make_folder, write_atomic
from harness.config.recommend import limits_of
from harness.config.stored import as_yaml
from harness.execution.launchers.options import LaunchOptions
from harness.execution.log_capture import capture_logs
from harness.planning.check import check, remarks
from harness.planning.prepare import PlannedRun, Prepared
from harness.planning.skip import Skipped, record_skipped, without_weights

if TYPE_CHECKING:
    from harness.execution.writer import SweepSummary


def has_work(prepared: Prepared, runs: Sequence[PlannedRun]) -> bool:
    """Whether there are runs to execute, or models of the recommended configuration to make."""
    from harness.execution.keep import without_model

    return bool(runs) or (prepared.folder.runs.is_dir() and bool(without_model(prepared, prepared.runs)))


def store_limits(prepared: Prepared) -> None:
    """Write the config if its limits changed, because the reports read the limits from the stored config."""
    folder, config = prepared.folder, prepared.config
    if folder.config.is_file() and limits_of(folder.read_config()) != config.recommend:
        write_atomic(folder.config, as_yaml(config))


def execute_runs(
    prepared: Prepared,
    runs: Sequence[PlannedRun],
    limit: int | None,
    console: Console,
    verbose: bool,
    launch: LaunchOptions,
) -> SweepSummary:
    """Check the runs, then execute at most `limit` runs. The output of libraries goes to sweep.log."""
    from harness.execution.progress import SweepProgress
    from harness.execution.sweep import execute

    output = io.StringIO()
    folder = prepared.folder
    with SweepProgress(len(runs[:limit]), live=console.is_terminal and not verbose) as progress:
        progress.start("checking models, backbones and weights", stage="")
        started = False
        try:
            with launch.make(folder, progress, prepared.config, runs[:limit]) as launcher:
                with capture_logs(output, verbose):
                    skipped = without_weights(runs, prepared.runs)
                    # Skipped runs do not count for the limit.
                    runs = without(runs, skipped)[:limit]
                    check(runs, launch.device(prepared.config.device), prepared.plan.entries)
                    launcher.ready()
                progress.expect(len(runs))
                for remark in remarks(runs, launch.device(prepared.config.device), prepared.config.memory_limit):
                    progress.note(remark)
                if prepared.config.cache is not None:
                    make_folder(Path(prepared.config.cache), "cache")
                # A refused sweep leaves no files, so all checks come before the first file.
                started = True
                folder.create()
                prepared.index.save()
                write_atomic(folder.config, as_yaml(prepared.config))
                record_skipped(skipped, folder, prepared.config)
                with folder.open_log() as log:
                    log.write(output.getvalue())
                    with capture_logs(log, verbose):
                        return execute(prepared, runs, progress, launcher, launch.retries)
        except HarnessError:
            if not started:
                prepared.discard_toy_data()
            raise


def without(runs: Sequence[PlannedRun], skipped: Sequence[Skipped]) -> list[PlannedRun]:
    skipped_ids = {skip.run.run_id for skip in skipped}
    return [run for run in runs if run.run_id not in skipped_ids]
