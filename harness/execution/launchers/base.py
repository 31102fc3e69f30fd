"""The interface of launchers. A launcher takes jobs and returns records; a job can be lost with its worker."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Protocol, Self

from harness.execution.jobs import Job
from harness.results.record import RunRecord


@dataclass(frozen=True)
class ProgressEvent:
    """Progress of a job.

    Attributes:
        job: number of the job.
        stage: text about the present work.
    """

    job: int
    stage: str


@dataclass(frozen=True)
class RunFinished:
    """The record of a finished run; its other files are in the stage of the result folder.

    Attributes:
        job: number of the job.
        record: record of the run.
    """

    job: int
    record: RunRecord


@dataclass(frozen=True)
class JobFinished:
    """The end of a job: every run has a record.

    Attributes:
        job: number of the job.
    """

    job: int


@dataclass(frozen=True)
class WorkerLost:
    """The loss of a worker; the sweep can repeat the runs without a record.

    Attributes:
        job: number of the job.
        why: reason of the loss.
    """

    job: int
    why: str


Event = ProgressEvent | RunFinished | JobFinished | WorkerLost


class Launcher(Protocol):
    """Runs jobs. A context manager: it starts the preparation at the beginning, and stops all jobs at the end."""

    @property
    def jobs(self) -> int:
        """Number of jobs that run at the same time."""

    def __enter__(self) -> Self:
        """Start the preparation; the sweep checks its runs meanwhile."""

    def __exit__(self, *_: object) -> None:
        """Stop all jobs."""

    def ready(self) -> None:
        """Wait until the launcher can start jobs.

        Raises:
            ConfigError: the launcher can't start jobs.
        """

    def stop(self) -> None:
        """Stop all jobs and release the workers; a second call has no effect."""

    def start(self, number: int, job: Job) -> None:
        """Start a job; the sweep calls this function while fewer than `jobs` jobs run.

        Args:
            number: number of the job in events.
            job: the runs, and everything that they need.
        """

    def events(self, wait: float | None) -> Iterator[Event]:
        """Wait for new events, and return them in order.

        Args:
            wait: longest wait in seconds; None without a limit.
        """


def warm(modules: Sequence[str]) -> None:
    """Import modules. A failed import ends the function; the job that needs the module reports the error."""
    for module in modules:
        try:
            import_module(module)
        # A module can raise any exception. The job imports the module again, and records the failure.
        except Exception:  # noqa: BLE001
            return
