"""A Ray cluster as a launcher: jobs become tasks, and what they make comes back through the link."""

from __future__ import annotations

import time
from collections.abc import Iterator
from types import TracebackType
from typing import Any, Self

from harness.common.errors import HarnessError
from harness.execution.jobs import Job
from harness.execution.launchers.base import Event, JobFinished, WorkerLost
from harness.execution.launchers.node import run_job
from harness.execution.launchers.ray_connection import RayConnection

LOOK_EVERY = 0.1  # seconds between looks at what has come back
COUNT_EVERY = 2.0  # seconds between counts of the cluster's nodes


class RayLauncher:
    """See `harness.execution.launchers.base.Launcher`.

    Args:
        link: to the cluster.
    """

    def __init__(self, link: RayConnection) -> None:
        self._link = link
        self._tasks: dict[int, Any] = {}
        self._counted = (0.0, 0)

    @property
    def jobs(self) -> int:
        """As many as there is room for now."""
        when, count = self._counted
        if not when or time.monotonic() - when > COUNT_EVERY:
            count = self._link.room()
            self._counted = (time.monotonic(), count)
        return count

    def __enter__(self) -> Self:
        """See `RayConnection.begin`."""
        self._link.begin()
        return self

    def ready(self) -> None:
        """See `RayConnection.ready`."""
        self._link.ready()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """See `stop`."""
        self.stop()

    def stop(self) -> None:
        """Stop what is under way, and disconnect."""
        import ray

        for task in self._tasks.values():
            ray.cancel(task, force=True)
        self._tasks = {}
        self._link.stop()

    def start(self, number: int, job: Job) -> None:
        """Hand the job to the cluster."""
        import ray

        link = self._link
        # Ray itself tries nothing again: it would begin with runs that are done.
        task = ray.remote(run_job).options(max_retries=0, **link.needs.of_task())
        contents = link.contents(job.runs[0].split)
        self._tasks[number] = task.remote(number, job, link.queue, link.home, link.directory, contents)

    def events(self, wait: float | None) -> Iterator[Event]:
        """What jobs say through the queue; that one is lost is known from its task."""
        import ray

        deadline = None if wait is None else time.monotonic() + wait
        while True:
            # Looked at before their words are read: a task that is over by now has said all it will.
            over, _ = ray.wait(list(self._tasks.values()), num_returns=len(self._tasks), timeout=0)
            heard = False
            for what, number, *rest in self._link.messages():
                heard = True
                if number in self._tasks:
                    yield from self._link.event(what, number, *rest)
            for number in [number for number, task in self._tasks.items() if task in over]:
                heard = True
                yield from self._over(number)
            if heard or (deadline is not None and time.monotonic() > deadline):
                return
            time.sleep(LOOK_EVERY)

    def _over(self, number: int) -> Iterator[Event]:
        """A task that ended: well, by a refusal, or with what made it."""
        import ray

        task = self._tasks.pop(number)
        try:
            ray.get(task)
        except ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, HarnessError):
                raise error.cause from error
            yield WorkerLost(number, f"a task ended with {type(error.cause).__name__}: {error.cause}")
        except ray.exceptions.RayError as error:
            said = str(error).strip().splitlines()
            yield WorkerLost(
                number, f"a task was lost with its worker or node ({type(error).__name__}: {said[0][:200]})"
            )
        else:
            yield JobFinished(number)
