"""A job on a node of a cluster: the job runs in a folder of the node, and sends its runs to the sweep."""

from __future__ import annotations

import io
import os
import socket
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

from harness.common import threads
from harness.common.errors import DataError
from harness.execution.jobs import Job, Rungs, at_intervals, execute_job
from harness.execution.launchers.shipping import laid_out, pack, unreadable
from harness.execution.log_capture import capture_logs
from harness.results.record import RunRecord
from harness.results.store import ResultFolder

REPORT_INTERVAL = 0.5  # seconds between two progress messages


def work_folder() -> Path:
    """The folder of all jobs on this node."""
    return Path(tempfile.gettempdir()) / f"harness-{os.getuid() if hasattr(os, 'getuid') else 0}"


def home_of(root: Path, purpose: str = "") -> str:
    """The folder name of a sweep on the nodes.

    Args:
        root: result folder of the sweep.
        purpose: distinguishes other work for the same result folder, such as a search.
    """
    return sha256(f"{socket.gethostname()}{root.resolve()}{purpose}".encode()).hexdigest()[:12]


def run_job(
    number: int, job: Job, queue: Any, home: str, directory: str, contents: Mapping[str, bytes] | None = None
) -> None:
    """Run a job to its end.

    Args:
        number, job, queue, home, directory, contents: see `records_of_job`.

    Raises:
        DataError: images can't be read on this node.
    """
    for _ in records_of_job(number, job, queue, home, directory, contents):
        pass


def take_share() -> None:
    """Set the number of threads of this process: the CPUs of its Ray task, or `OMP_NUM_THREADS` if this is less."""
    import ray

    cpus = max(1, int(ray.get_runtime_context().get_assigned_resources().get("CPU", 1)))
    # Torch may have the number of an earlier task of this process, so that only the variable counts here.
    threads.start(min(threads.requested() or cpus, cpus))


def records_of_job(
    number: int,
    job: Job,
    queue: Any,
    home: str,
    directory: str,
    contents: Mapping[str, bytes] | None = None,
    rungs: Rungs | None = None,
) -> Iterator[RunRecord]:
    """Run a job, and yield each record after its message is in the queue.

    Args:
        number: number of the job in messages.
        job: the runs.
        queue: takes ("progress", number, text), ("record", number, record, packed files), ("log", number, text).
        home: folder name of the sweep; with the same name, a killed training continues on the same node.
        directory: working directory of the sweep, for relative paths; used if it exists on the node.
        contents: contents of the images by path; None if the node reads the images at their paths.
        rungs: see `harness.execution.jobs.execute_job`.

    Raises:
        DataError: images can't be read on this node.
    """
    work = work_folder()
    with suppress(OSError):
        os.chdir(directory)
    folder = ResultFolder(work / home)
    folder.root.mkdir(parents=True, exist_ok=True)
    split = job.runs[0].split
    if contents is not None:
        split = laid_out(split, contents, work / "data" / split.fingerprint)
    missing = unreadable(split)
    if missing is not None:
        raise DataError(
            f"node {socket.gethostname()}: no file found at {missing}; expected the data at the same paths on every "
            "node. Copy the data, or use --ship-data."
        )
    stage = at_intervals(REPORT_INTERVAL, lambda text: queue.put(("progress", number, text)))
    local_job = replace(job, runs=tuple(replace(run, split=split) for run in job.runs))
    log = io.StringIO()
    try:
        with capture_logs(log, show=False):
            for record in map(_with_node, execute_job(local_job, folder, stage, rungs)):
                queue.put(("record", number, record, pack(folder.staged(record.run_id))))
                yield record
    except SystemExit:
        # A trial that was stopped early never continues.
        folder.clear_unfinished(job.key)
        raise
    finally:
        folder.clear_work(run.run_id for run in job.runs)
        queue.put(("log", number, log.getvalue()))
    folder.clear_unfinished(job.key)


def _with_node(record: RunRecord) -> RunRecord:
    """The record with the name of the node in its error: the cause may be on the node, such as missing weights."""
    if record.error is None:
        return record
    error = {**record.error, "message": f"node {socket.gethostname()}: {record.error['message']}"}
    return replace(record, error=error)
