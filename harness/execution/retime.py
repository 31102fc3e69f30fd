"""Times of single images that were taken on a busy machine are taken again at the end of a sweep, with saved models."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

from harness.backends.latency import BUSY, THREADS, WARNING, Timing, measure
from harness.common.devices import pick
from harness.common.threads import same_number
from harness.config.sweep import SweepConfig
from harness.execution.jobs import timed_images
from harness.execution.progress import SweepProgress
from harness.execution.writer import ResultWriter
from harness.planning.prepare import PlannedRun, Prepared, backend, task
from harness.results.provenance import provenance
from harness.results.record import RunRecord

# Why a time stays marked.
NO_MODEL = "no saved model (save_models: all keeps them)"
STILL_BUSY = "the machine is still busy"
ELSEWHERE = "measured on another device"
IN_USE = "another process works on the run"
FAILED = "the saved model can't be timed"


def retime(prepared: Prepared, writer: ResultWriter, progress: SweepProgress) -> None:
    """Measure the marked times of finished runs again, and tell which ones stay marked.

    The first time that is marked again ends the measurement, so that a busy machine does not delay the end of a sweep.

    Args:
        prepared: the sweep.
        writer: has the records of the finished runs, and commits the new ones.
        progress: shows the result.
    """
    runs = {run.run_id: run for run in prepared.runs}
    marked = [record for record in writer.summary.done if record.cost.get(BUSY) and record.run_id in runs]
    still_marked: Counter[str] = Counter()
    for record in marked:
        reason = (
            STILL_BUSY
            if still_marked[STILL_BUSY]
            else _renewed(prepared, runs[record.run_id], record, writer, progress)
        )
        if reason:
            still_marked[reason] += 1
    if marked:
        text = f"{len(marked)} times of single images were measured on a busy machine; "
        text += f"{len(marked) - still_marked.total()} of them were measured again"
        reasons = "; ".join(f"{reason}: {number}" for reason, number in still_marked.items())
        progress.note(
            f"  warning: {text}. {still_marked.total()} stay marked ({reasons})." if still_marked else f"  {text}."
        )


def _renewed(
    prepared: Prepared, run: PlannedRun, record: RunRecord, writer: ResultWriter, progress: SweepProgress
) -> str:
    """Replace the time in a record; return the reason why it stays marked, or "" for a new time."""
    folder, config = prepared.folder, prepared.config
    file = folder.model_file(record.run_id)
    if file is None:
        return NO_MODEL
    # A measurement of a large model takes a while.
    writer.write_workbook(force=False)
    progress.stage("timing single images again")
    with folder.claim(record.run_id) as claimed:
        if not claimed:
            return IN_USE
        # Another number of threads would give the time of another run.
        with same_number(int(record.cost[THREADS] or 1)):
            if (pick(config.device).description, provenance()["cpu"]) != (record.device, record.provenance.get("cpu")):
                return ELSEWHERE
            try:
                timing = _timing(config, run, record, file)
            # A model may be too large beside other programs; its run is complete.
            except Exception:  # noqa: BLE001
                return FAILED
        if timing.busy:
            return STILL_BUSY
        warnings = [text for text in record.warnings if not text.startswith(WARNING)]
        writer.update(replace(record, cost={**record.cost, **timing.cost()}, warnings=warnings))
    return ""


def _timing(config: SweepConfig, run: PlannedRun, record: RunRecord, file: Path) -> Timing:
    scorer = backend(run.spec.backend).load(run.spec, file, config.device, trust=False)
    return measure(task(config.task).decision(scorer, record.thresholds), timed_images(run.own_split))
