"""What makes groups of runs, as the sweep sees it: jobs go in, records come out, and jobs may be lost."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, Self

from harness.execution.jobs import Job
from harness.results.record import RunRecord


@dataclass(frozen=True)
class ProgressEvent:
    """What goes on in a job."""

    job: int
    stage: str


@dataclass(frozen=True)
class RunFinished:
    """A run's record; its other files lie in the result folder's stage."""

    job: int
    record: RunRecord


@dataclass(frozen=True)
class JobFinished:
    """Every run of the job has a record."""

    job: int


@dataclass(frozen=True)
class WorkerLost:
    """What made the job died; its runs without a record may be tried again."""

    job: int
    why: str


Event = ProgressEvent | RunFinished | JobFinished | WorkerLost


class Launcher(Protocol):
    """Makes jobs. Used as a context: it begins to get ready on entering, and on leaving stops what is being made."""

    @property
    def jobs(self) -> int:
        """How many at once."""

    def __enter__(self) -> Self:
        """Begin to get ready, while the sweep is still being checked."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop."""

    def ready(self) -> None:
        """Wait until jobs can be started.

        Raises:
            ConfigError: they never can.
        """

    def stop(self) -> None:
        """Stop what is being made, and be done; more than once is no matter."""

    def start(self, number: int, job: Job) -> None:
        """Begin with a job; called while fewer than `jobs` are under way.

        Args:
            number: its name in events.
            job: what to make.
        """

    def events(self, wait: float | None) -> Iterator[Event]:
        """What has happened since, in order; waits for something to happen.

        Args:
            wait: seconds to wait at most; None for as long as it takes.
        """
