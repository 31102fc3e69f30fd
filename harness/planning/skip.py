"""Runs that a sweep skips, since no place has the weights of their backbone.

A sweep with several backbones goes on with the other backbones. The sweep reports and records the skipped runs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from harness.backbones.local import AUTO
from harness.common.errors import HarnessError, StoreError, WeightsNotFoundError
from harness.config.sweep import SweepConfig
from harness.planning.prepare import PlannedRun, task
from harness.results.provenance import provenance
from harness.results.record import RunRecord
from harness.results.store import ResultFolder
from harness.tasks.base import Task


@dataclass(frozen=True)
class Skipped:
    """A run without weights.

    Attributes:
        run: the planned run.
        error: the reason.
    """

    run: PlannedRun
    error: WeightsNotFoundError


def without_weights(runs: Sequence[PlannedRun], planned: Sequence[PlannedRun]) -> list[Skipped]:
    """Find the runs to skip.

    A sweep skips runs with `weights: auto` only, and only where another backbone has weights. In all other cases the
    checks refuse the sweep, with advice how to get the weights.

    Args:
        runs: runs of this call.
        planned: all runs of the sweep, with finished runs.
    """
    names = {name for run in planned if (name := _backbone(run)) is not None}
    pending = dict.fromkeys(name for run in runs if (name := _backbone(run)) is not None)
    if len(names) < 2 or not pending:
        return []
    missing = {name: error for name in pending if (error := _missing(name)) is not None}
    if len(missing) == len(names):
        return []
    return [Skipped(run, missing[name]) for run in runs if (name := _backbone(run)) in missing and name is not None]


def record_skipped(skipped: Sequence[Skipped], folder: ResultFolder, config: SweepConfig) -> None:
    """Write a record for each skipped run, so that the sheet and the page show the run. Earlier results stay.

    Args:
        skipped: the skipped runs.
        folder: the result folder.
        config: of the sweep.
    """
    config_task = task(config.task)
    for skip in skipped:
        run_id = skip.run.run_id
        with folder.claim(run_id) as claimed:
            try:
                earlier = folder.read_record(run_id)
            except StoreError:
                # Every report shows a damaged record.
                continue
            if not claimed or (earlier is not None and earlier.status == "ok"):
                continue
            folder.stage(run_id)
            folder.commit(_record(skip, config_task, config.references))
            folder.clear_work([run_id])


def _backbone(run: PlannedRun) -> str | None:
    return run.spec.backbone if run.spec.weights == AUTO else None


def _missing(backbone: str) -> WeightsNotFoundError | None:
    from harness.backbones.resolve import resolve

    try:
        resolve(AUTO, backbone)
    except WeightsNotFoundError as error:
        return error
    except HarnessError:
        # The checks report every other problem of the weights.
        return None
    return None


def _record(skipped: Skipped, config_task: Task, references: Mapping[str, str]) -> RunRecord:
    run, error = skipped.run, skipped.error
    return run.record(
        "skipped",
        data=config_task.data_summary(run.own_split),
        provenance={**provenance(), **({"references": dict(references)} if references else {})},
        task=config_task.name,
        error={"type": type(error).__name__, "message": str(error), "reason": error.reason, "traceback": ""},
    )
