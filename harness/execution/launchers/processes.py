"""Worker processes on this machine: each runs one job after the other, with a share of the cores and one GPU.

A worker writes into the stages of the result folder and sends each record. Only the process of the sweep commits runs.
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
from typing import Any, Self

from harness.common import threads
from harness.common.errors import HarnessError
from harness.execution.jobs import Job, at_intervals, execute_job
from harness.execution.launchers.base import Event, JobFinished, ProgressEvent, RunFinished, WorkerLost, warm
from harness.execution.log_capture import capture_logs
from harness.results.store import ResultFolder

VISIBLE = "CUDA_VISIBLE_DEVICES"
REPORT_INTERVAL = 0.2  # seconds between two progress messages
STOP_TIMEOUT = 5.0  # seconds until a worker that does not end is killed


@dataclass
class _Worker:
    process: Any
    pipe: connection.Connection
    place: int
    job: int | None = None


class ProcessLauncher:
    """A `Launcher` with worker processes on this machine.

    Args:
        folder: result folder of the sweep.
        jobs: number of workers.
        gpus: names of the GPUs, one for each worker; empty if the device of the config decides.
        modules: modules that the jobs import; the workers import them before the first job.
    """

    def __init__(self, folder: ResultFolder, jobs: int, gpus: list[str], modules: Sequence[str] = ()) -> None:
        self.jobs, self._modules = jobs, tuple(modules)
        self._folder, self._gpus = folder, gpus
        self._workers: list[_Worker] = []
        # Torch's threads and CUDA do not work in a forked process.
        self._context = get_context("spawn")

    def __enter__(self) -> Self:
        """Start all workers: their imports take as long as the checks of the sweep."""
        for _ in range(self.jobs):
            self._start_worker()
        return self

    def ready(self) -> None:
        """Nothing to wait for: jobs wait in the pipes of their workers."""

    def __exit__(self, *_: object) -> None:
        """Stop all workers."""
        self.stop()

    def stop(self) -> None:
        """Stop all workers: those without a job end by themselves, the others are terminated."""
        for worker in self._workers:
            worker.pipe.close()
            if worker.job is not None:
                worker.process.terminate()
        deadline = time.monotonic() + STOP_TIMEOUT
        for worker in self._workers:
            worker.process.join(max(0.0, deadline - time.monotonic()))
            if worker.process.is_alive():
                worker.process.kill()
                worker.process.join()
        self._workers = []

    def start(self, number: int, job: Job) -> None:
        """Send the job to a free worker.

        Args:
            number: number of the job in events.
            job: the runs.
        """
        worker = next((worker for worker in self._workers if worker.job is None), None) or self._start_worker()
        worker.job = number
        worker.pipe.send(job)

    def _start_worker(self) -> _Worker:
        place = min(set(range(self.jobs)) - {worker.place for worker in self._workers})
        pipe, worker_pipe = self._context.Pipe()
        process = self._context.Process(target=work, args=(worker_pipe, self._folder.root, self._modules), daemon=True)
        with _environment(environment(place, self.jobs, self._gpus)):
            process.start()
        worker_pipe.close()
        worker = _Worker(process, pipe, place)
        self._workers.append(worker)
        return worker

    def events(self, wait: float | None) -> Iterator[Event]:
        """Wait for messages of the workers, or for the end of a worker's process.

        Args:
            wait: longest wait in seconds; None without a limit.
        """
        workers = {source: worker for worker in self._workers for source in (worker.pipe, worker.process.sentinel)}
        ready = connection.wait(list(workers), wait)
        for worker in {id(workers[source]): workers[source] for source in ready}.values():
            yield from self._receive(worker)

    def _receive(self, worker: _Worker) -> Iterator[Event]:
        # This check comes first: a process that is dead now has sent all its messages.
        dead = not worker.process.is_alive()
        problem = ""
        while True:
            try:
                if not worker.pipe.poll():
                    break
                kind, *values = worker.pipe.recv()
            except (EOFError, OSError):
                dead = True
                break
            number = worker.job
            assert number is not None
            if kind == "progress":
                yield ProgressEvent(number, *values)
            elif kind == "record":
                yield RunFinished(number, *values)
            elif kind == "ended":
                worker.job = None
                yield JobFinished(number)
            elif kind == "refused":
                raise values[0]
            else:
                problem = values[0]
        if dead:
            worker.process.join()
            self._workers.remove(worker)
            worker.pipe.close()
            if worker.job is not None:
                yield WorkerLost(worker.job, f"a worker process {problem or _exit_text(worker.process.exitcode)}")


def environment(place: int, jobs: int, gpus: list[str]) -> dict[str, str]:
    """Environment variables of a worker: its number of threads and its GPU.

    Args:
        place: number of the worker, from 0.
        jobs: number of all workers.
        gpus: names of the GPUs.
    """
    variables = threads.shared(jobs)
    if gpus:
        variables[VISIBLE] = gpus[place % len(gpus)]
    return variables


@contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables for the processes that start inside the context."""
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


def _exit_text(exit_code: int | None) -> str:
    if exit_code is None or exit_code >= 0:
        return f"ended with exit status {exit_code}"
    try:
        name = signal.Signals(-exit_code).name
    except ValueError:
        name = f"signal {-exit_code}"
    hint = " (out of memory, perhaps)" if -exit_code == signal.SIGKILL else ""
    return f"was killed by {name}{hint}"


def work(pipe: connection.Connection, root: Path, modules: Sequence[str]) -> None:
    """The main function of a worker: run jobs until the pipe closes or the process of the sweep ends.

    Args:
        pipe: brings jobs, and takes messages.
        root: result folder of the sweep.
        modules: modules that are imported before the first job.
    """
    # Ctrl-C reaches all processes of a terminal; only the process of the sweep stops the workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # An exception, instead of the default end, lets libraries release their locks.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(1))
    Thread(target=_end_with_parent, daemon=True).start()
    buffer = io.StringIO()
    with capture_logs(buffer, show=False):
        # The environment has the number. Torch must know it before its first parallel work.
        threads.start(threads.count())
        warm(modules)
    folder = ResultFolder(root)
    while True:
        try:
            job = pipe.recv()
        except EOFError:
            return
        # The sweep creates the folder only after its checks, so the log opens with the first job.
        with folder.open_log() as log, capture_logs(log, show=False):
            log.write(buffer.getvalue())
            buffer = io.StringIO()
            _run(job, folder, pipe)


def _end_with_parent() -> None:
    """End this process with the process of the sweep: the next sweep would write to the same stages."""
    parent = parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
    os._exit(1)


def _run(job: Job, folder: ResultFolder, pipe: connection.Connection) -> None:
    stage = at_intervals(REPORT_INTERVAL, lambda text: pipe.send(("progress", text)))
    try:
        for record in execute_job(job, folder, stage):
            pipe.send(("record", record))
        pipe.send(("ended",))
    except HarnessError as error:
        pipe.send(("refused", error))
    # Any other exception ends the worker; the sweep reports the exception with the lost worker.
    except Exception as error:  # noqa: BLE001
        pipe.send(("broken", f"ended with {type(error).__name__}: {error}"))
        sys.exit(1)
