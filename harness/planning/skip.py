"""Runs of a sweep that are left out because the weights of their backbone can't be had.

A sweep over several backbones goes on with those whose weights are there. What it leaves out is said and recorded.
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
    """A run that is left out.

    Attributes:
        run: which.
        error: why.
    """

    run: PlannedRun
    error: WeightsNotFoundError


def without_weights(runs: Sequence[PlannedRun], planned: Sequence[PlannedRun]) -> list[Skipped]:
    """Those of `runs` to leave out.

    None is left out where weights are asked for by name, where the sweep has one backbone only, or where no backbone
    of it has weights: then the checks refuse the sweep, and say how to get them.

    Args:
        runs: to be made now.
        planned: all of the sweep, finished ones among them.
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
    """Write a record for each, so that sheet and page show them; a result that is there already is kept."""
    kind = task(config.task)
    for one in skipped:
        run_id = one.run.run_id
        with folder.claim(run_id) as mine:
            try:
                earlier = folder.read_record(run_id)
            except StoreError:
                # Left alone; every report says so.
                continue
            if not mine or (earlier is not None and earlier.status == "ok"):
                continue
            folder.stage(run_id)
            folder.commit(_record(one, kind, config.references))
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
        # Something else is wrong, which the checks say.
        return None
    return None


def _record(one: Skipped, kind: Task, references: Mapping[str, str]) -> RunRecord:
    run = one.run
    return RunRecord(
        run_id=run.run_id,
        status="skipped",
        spec=run.spec.as_dict(),
        axes=list(run.spec.axes),
        data=kind.data_summary(run.split),
        provenance={**provenance(), **({"references": dict(references)} if references else {})},
        task=kind.name,
        error={
            "type": type(one.error).__name__,
            "message": str(one.error),
            "reason": one.error.reason,
            "traceback": "",
        },
    )
