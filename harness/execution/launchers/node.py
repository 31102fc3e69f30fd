"""A job on a node of a cluster: made in a folder of the node, and sent to the sweep run by run."""

from __future__ import annotations

import io
import os
import socket
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

from harness.common.errors import DataError
from harness.execution.jobs import Job, Rungs, make
from harness.execution.launchers.shipping import laid_out, pack, unreadable
from harness.execution.log_capture import capture_logs
from harness.results.record import RunRecord
from harness.results.store import ResultFolder

TELL_EVERY = 0.5  # seconds between words on what goes on


def work_folder() -> Path:
    """Where this node keeps what its jobs work on."""
    return Path(tempfile.gettempdir()) / f"harness-{os.getuid() if hasattr(os, 'getuid') else 0}"


def home_of(root: Path, what: str = "") -> str:
    """The name of a sweep (or of what else is made for its result folder) on the nodes."""
    return sha256(f"{socket.gethostname()}{root.resolve()}{what}".encode()).hexdigest()[:12]


def run_job(
    number: int, job: Job, queue: Any, home: str, directory: str, contents: Mapping[str, bytes] | None = None
) -> None:
    """Make a job; see `making`."""
    for _ in making(number, job, queue, home, directory, contents):
        pass


def making(
    number: int,
    job: Job,
    queue: Any,
    home: str,
    directory: str,
    contents: Mapping[str, bytes] | None = None,
    rungs: Rungs | None = None,
) -> Iterator[RunRecord]:
    """Make a job; every message is in the queue before this is over. A record comes once its message is sent.

    Args:
        number: the job's name in messages.
        job: what to make.
        home: names the sweep: what a killed training has reached is found again on the same node.
        directory: the sweep's working directory, which relative paths are meant from; taken where the node has it.
        queue: takes ("said", number, text), ("made", number, record, packed files), ("log", number, text).
        contents: of the images, where they are not to be read at their paths.
        rungs: see `harness.execution.jobs.make`.

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
            "node, or --ship-data."
        )
    told = 0.0

    def stage(text: str) -> None:
        nonlocal told
        if time.monotonic() - told > TELL_EVERY:
            told = time.monotonic()
            queue.put(("said", number, text))

    here = replace(job, runs=tuple(replace(run, split=split) for run in job.runs))
    log = io.StringIO()
    try:
        with capture_logs(log, show=False):
            for record in map(_named, make(here, folder, stage, rungs)):
                queue.put(("made", number, record, pack(folder.staged(record.run_id))))
                yield record
    except SystemExit:
        # Stopped early: nobody will go on from what it has reached.
        folder.clear_unfinished(job.key)
        raise
    finally:
        folder.clear_work(run.run_id for run in job.runs)
        queue.put(("log", number, log.getvalue()))
    folder.clear_unfinished(job.key)


def _named(record: RunRecord) -> RunRecord:
    """A failure names the node: it may be the node's, whose weights are missing, say."""
    if record.error is None:
        return record
    said = {**record.error, "message": f"node {socket.gethostname()}: {record.error['message']}"}
    return replace(record, error=said)
