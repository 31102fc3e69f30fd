"""In this process, one job after the other."""

from __future__ import annotations

from collections.abc import Iterator
from types import TracebackType
from typing import Self

from harness.execution.jobs import Job, make
from harness.execution.launchers.base import Event, JobFinished, RunFinished
from harness.execution.progress import SweepProgress
from harness.results.store import ResultFolder


class InProcessLauncher:
    """See `harness.execution.launchers.base.Launcher`.

    Args:
        folder: the sweep's.
        progress: told of stages as they come: events are only asked for between runs.
    """

    jobs = 1

    def __init__(self, folder: ResultFolder, progress: SweepProgress) -> None:
        self._folder, self._progress = folder, progress
        self._job: tuple[int, Job] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """See `stop`."""

    def stop(self) -> None:
        """Nothing outlives what was raised."""

    def ready(self) -> None:
        """It always is."""

    def start(self, number: int, job: Job) -> None:
        """Remember it: the work is done when events are asked for."""
        self._job = (number, job)

    def events(self, wait: float | None) -> Iterator[Event]:
        """Make the job."""
        del wait
        assert self._job is not None
        number, job = self._job
        self._job = None
        for record in make(job, self._folder, self._progress.stage):
            yield RunFinished(number, record)
        yield JobFinished(number)
