"""At the end, the models of the recommended configuration are saved; with `save_models: best` no others are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from harness.execution.jobs import Job, execute_job, grouped
from harness.execution.session import RunSession
from harness.planning.prepare import PlannedRun, Prepared
from harness.report.recommended import recommended_runs
from harness.report.results import Results
from harness.results.record import RunRecord


def without_model(prepared: Prepared, runs: Sequence[PlannedRun]) -> list[PlannedRun]:
    """The runs of the recommended configuration whose models are not kept.

    Args:
        prepared: the sweep; its result folder exists.
        runs: all runs of the sweep or the search.
    """
    return _without_model(prepared, runs, _recommended(prepared))


def keep_recommended(session: RunSession, prepared: Prepared, runs: Sequence[PlannedRun]) -> None:
    """Keep the models of the recommended configuration, one for each category. `save_models: best` deletes the others.

    During a sweep the best run of each category keeps its model. The recommendation is known at the end only. Where its
    model was not kept, the run is made again, and only its model is taken.

    Args:
        session: the runs of this call.
        prepared: the sweep; its result folder exists.
        runs: all runs of the sweep or the search.

    Raises:
        StoreError: the result folder is not writable.
    """
    folder, recommended = prepared.folder, _recommended(prepared)
    for group in grouped(_without_model(prepared, runs, recommended)).values():
        claims = session.claim(run.run_id for run in group)
        if claims is None:
            continue
        # A training may take hours.
        session.writer.write_workbook(force=False)
        session.note(f"The recommended configuration has no saved model yet; runs made again for it: {len(group)}")
        run_ids = [run.run_id for run in group]
        try:
            for record in execute_job(
                Job(prepared.config, tuple(group), f"keep-{run_ids[0]}"), folder, lambda stage: None
            ):
                _take_model(session, record)
        finally:
            session.release(run_ids, claims)
    for record in recommended if prepared.config.save_models == "best" else ():
        if folder.model_file(record.run_id):
            session.writer.models.replace(record)


def _without_model(
    prepared: Prepared, runs: Sequence[PlannedRun], recommended: Sequence[RunRecord]
) -> list[PlannedRun]:
    run_ids = {record.run_id for record in recommended}
    return [run for run in runs if run.run_id in run_ids and prepared.folder.model_file(run.run_id) is None]


def _recommended(prepared: Prepared) -> list[RunRecord]:
    """The runs whose models are to be kept; none with `save_models: none`."""
    if prepared.config.save_models == "none":
        return []
    # The limits of this call count, also where config.yaml has those of an earlier one.
    results = replace(Results.of(prepared.folder), limits=prepared.config.recommend)
    return recommended_runs(results)


def _take_model(session: RunSession, record: RunRecord) -> None:
    if record.status != "ok":
        error = record.error or {}
        session.note(f"  warning: the model of {record.run_id} can't be made again: {error.get('message')}")
        return
    session.writer.add_model(record)
