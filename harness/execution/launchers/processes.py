"""Worker processes on this machine: each makes one job after the other, with its share of cores and a GPU of its own.

A worker writes into the sweep's stages and tells of each record; putting runs in place is left to the sweep's process.
"""

from __future__ import annotations

import io
import os
import signal
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import connection, get_context, parent_process
from pathlib import Path
from threading import Thread
from types import TracebackType
from typing import Any, Self

from harness.common.errors import HarnessError
from harness.execution.jobs import Job, make
from harness.execution.launchers.base import Event, JobFinished, ProgressEvent, RunFinished, WorkerLost
from harness.execution.launchers.warm import warm
from harness.execution.log_capture import capture_logs
from harness.results.store import ResultFolder

# What the libraries that compute take for the number of their threads, read when they are imported.
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")
VISIBLE = "CUDA_VISIBLE_DEVICES"
TELL_EVERY = 0.2  # seconds between words on what goes on
PATIENCE = 5.0  # seconds that a worker gets to end when it is told to


@dataclass
class _Worker:
    process: Any
    pipe: connection.Connection
    place: int
    job: int | None = None


class ProcessLauncher:
    """See `harness.execution.launchers.base.Launcher`.

    Args:
        folder: the sweep's.
        jobs: how many workers.
        gpus: names of the GPUs to hand out, one to a worker; none if they run on something else, or all on one.
        modules: what jobs will need, imported while there is nothing else to do.
    """

    def __init__(self, folder: ResultFolder, jobs: int, gpus: list[str], modules: Sequence[str] = ()) -> None:
        self.jobs, self._modules = jobs, tuple(modules)
        self._folder, self._gpus = folder, gpus
        self._workers: list[_Worker] = []
        # Not forked: Torch's threads, and CUDA, do not survive that.
        self._context = get_context("spawn")

    def __enter__(self) -> Self:
        """All workers are started: what they import takes as long as what the sweep checks."""
        for _ in range(self.jobs):
            self._hire()
        return self

    def ready(self) -> None:
        """Jobs wait in their workers' pipes."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """See `stop`."""
        self.stop()

    def stop(self) -> None:
        """End all workers: those without work by themselves, the others in the middle of it."""
        for worker in self._workers:
            worker.pipe.close()
            if worker.job is not None:
                worker.process.terminate()
        deadline = time.monotonic() + PATIENCE
        for worker in self._workers:
            worker.process.join(max(0.0, deadline - time.monotonic()))
            if worker.process.is_alive():
                worker.process.kill()
                worker.process.join()
        self._workers = []

    def start(self, number: int, job: Job) -> None:
        """Hand the job to a worker that has none."""
        worker = next((one for one in self._workers if one.job is None), None) or self._hire()
        worker.job = number
        worker.pipe.send(job)

    def _hire(self) -> _Worker:
        place = min(set(range(self.jobs)) - {worker.place for worker in self._workers})
        ours, theirs = self._context.Pipe()
        process = self._context.Process(target=work, args=(theirs, self._folder.root, self._modules), daemon=True)
        with _environment(environment(place, self.jobs, self._gpus)):
            process.start()
        theirs.close()
        worker = _Worker(process, ours, place)
        self._workers.append(worker)
        return worker

    def events(self, wait: float | None) -> Iterator[Event]:
        """What workers say; that one died is known from its process."""
        by_sign = {sign: worker for worker in self._workers for sign in (worker.pipe, worker.process.sentinel)}
        ready = connection.wait(list(by_sign), wait)
        for worker in {id(by_sign[sign]): by_sign[sign] for sign in ready}.values():
            yield from self._heard(worker)

    def _heard(self, worker: _Worker) -> Iterator[Event]:
        # Asked before its words are read: a process that is dead by now has said all it will.
        dead = not worker.process.is_alive()
        broken = ""
        while True:
            try:
                if not worker.pipe.poll():
                    break
                what, *rest = worker.pipe.recv()
            except (EOFError, OSError):
                dead = True
                break
            number = worker.job
            assert number is not None
            if what == "said":
                yield ProgressEvent(number, *rest)
            elif what == "made":
                yield RunFinished(number, *rest)
            elif what == "ended":
                worker.job = None
                yield JobFinished(number)
            elif what == "refused":
                raise rest[0]
            else:
                broken = rest[0]
        if dead:
            worker.process.join()
            self._workers.remove(worker)
            worker.pipe.close()
            if worker.job is not None:
                yield WorkerLost(worker.job, f"a worker process {broken or _how(worker.process.exitcode)}")


def environment(place: int, jobs: int, gpus: list[str]) -> dict[str, str]:
    """What a worker is told of the machine: its share of cores, and the one GPU that it sees.

    Args:
        place: which worker, from 0.
        jobs: how many there are.
        gpus: names of the GPUs to hand out.
    """
    # What is said to OpenMP alone is meant for all: the others go by it too, unless they are told otherwise.
    share = os.environ.get(THREADS[0], str(max(1, _cores() // jobs)))
    found = {name: os.environ.get(name, share) for name in THREADS}
    if gpus:
        found[VISIBLE] = gpus[place % len(gpus)]
    return found


def _cores() -> int:
    """Those that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    """For processes that are started meanwhile."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _how(exit_code: int | None) -> str:
    if exit_code is None or exit_code >= 0:
        return f"ended with exit status {exit_code}"
    try:
        name = signal.Signals(-exit_code).name
    except ValueError:
        name = f"signal {-exit_code}"
    hint = " (out of memory, perhaps)" if -exit_code == signal.SIGKILL else ""
    return f"was killed by {name}{hint}"


def work(pipe: connection.Connection, root: Path, modules: Sequence[str]) -> None:
    """A worker's life: jobs come in, records go out, until the pipe closes or the sweep's process dies."""
    # Ctrl-C reaches all processes of a terminal: the sweep's ends the others.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Not killed outright, so that what libraries have locked is freed.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(1))
    Thread(target=_end_with_parent, daemon=True).start()
    said = io.StringIO()
    with capture_logs(said, show=False):
        warm(modules)
    folder = ResultFolder(root)
    while True:
        try:
            job = pipe.recv()
        except EOFError:
            return
        # Only now: the folder is made once everything was found to be right.
        with folder.open_log() as log, capture_logs(log, show=False):
            log.write(said.getvalue())
            said = io.StringIO()
            _make(job, folder, pipe)


def _end_with_parent() -> None:
    """Whatever it is doing: the next sweep would write to the same stages."""
    parent = parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
    os._exit(1)


def _make(job: Job, folder: ResultFolder, pipe: connection.Connection) -> None:
    told = 0.0

    def stage(text: str) -> None:
        nonlocal told
        if time.monotonic() - told > TELL_EVERY:
            told = time.monotonic()
            pipe.send(("said", text))

    try:
        for record in make(job, folder, stage):
            pipe.send(("made", record))
        pipe.send(("ended",))
    except HarnessError as error:
        pipe.send(("refused", error))
    # A fault of ours, say: the sweep's process says it, and counts the worker as lost.
    except Exception as error:  # noqa: BLE001
        pipe.send(("broken", f"ended with {type(error).__name__}: {error}"))
        sys.exit(1)
