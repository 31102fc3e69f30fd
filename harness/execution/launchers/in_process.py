"""In this process, one job after the other."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Self

from harness.execution.jobs import Job, execute_job
from harness.execution.launchers.base import Event, JobFinished, RunFinished
from harness.execution.progress import SweepProgress
from harness.results.store import ResultFolder


class InProcessLauncher:
    """A `Launcher` that runs its job in this process, inside `events`.

    Args:
        folder: result folder of the sweep.
        progress: shows the progress within a run, when there are no events.
    """

    jobs = 1

    def __init__(self, folder: ResultFolder, progress: SweepProgress) -> None:
        self._folder, self._progress = folder, progress
        self._job: tuple[int, Job] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing to stop."""

    def stop(self) -> None:
        """Nothing to stop: an exception has ended the job."""

    def ready(self) -> None:
        """Nothing to wait for."""

    def start(self, number: int, job: Job) -> None:
        """Store the job for the next call of `events`.

        Args:
            number: number of the job in events.
            job: the runs.
        """
        self._job = (number, job)

    def events(self, wait: float | None) -> Iterator[Event]:
        """Run the job; the events follow each run."""
        del wait
        assert self._job is not None
        number, job = self._job
        self._job = None
        for record in execute_job(job, self._folder, self._progress.stage):
            yield RunFinished(number, record)
        yield JobFinished(number)
