"""A Ray cluster as a launcher: jobs are Ray tasks, and their results arrive through the connection."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any, Self

from harness.common.errors import HarnessError
from harness.execution.jobs import Job
from harness.execution.launchers.base import Event, JobFinished, WorkerLost
from harness.execution.launchers.node import run_job, take_share
from harness.execution.launchers.ray_connection import RayConnection

POLL_INTERVAL = 0.1  # seconds between two checks for messages
COUNT_INTERVAL = 2.0  # seconds between two counts of the cluster's nodes


class RayLauncher:
    """A `Launcher` on a Ray cluster.

    Args:
        connection: connection to the cluster.
    """

    def __init__(self, connection: RayConnection) -> None:
        self._connection = connection
        self._tasks: dict[int, Any] = {}
        self._capacity = (0.0, 0)

    @property
    def jobs(self) -> int:
        """Number of jobs that fit on the present nodes."""
        time_of_count, count = self._capacity
        if not time_of_count or time.monotonic() - time_of_count > COUNT_INTERVAL:
            count = self._connection.room()
            self._capacity = (time.monotonic(), count)
        return count

    def __enter__(self) -> Self:
        """Start to connect."""
        self._connection.begin()
        return self

    def ready(self) -> None:
        """Wait for the connection.

        Raises:
            ConfigError: there is no connection, or no node has room for a job.
        """
        self._connection.ready()

    def __exit__(self, *_: object) -> None:
        """Stop all jobs and disconnect."""
        self.stop()

    def stop(self) -> None:
        """Stop all jobs and disconnect."""
        import ray

        for task in self._tasks.values():
            ray.cancel(task, force=True)
        self._tasks = {}
        self._connection.stop()

    def start(self, number: int, job: Job) -> None:
        """Submit the job as a task.

        Args:
            number: number of the job in events.
            job: the runs.
        """
        import ray

        cluster = self._connection
        # A retry of Ray would repeat finished runs; the sweep repeats only the lost ones.
        task = ray.remote(_task).options(max_retries=0, **cluster.needs.of_task())
        contents = cluster.contents(job.runs[0].split)
        self._tasks[number] = task.remote(number, job, cluster.queue, cluster.home, cluster.directory, contents)

    def events(self, wait: float | None) -> Iterator[Event]:
        """Wait for messages in the queue, or for the end of a task.

        Args:
            wait: longest wait in seconds; None without a limit.

        Raises:
            HarnessError: a job ended with this error.
        """
        import ray

        deadline = None if wait is None else time.monotonic() + wait
        while True:
            # This check comes first: a task that has ended now has sent all its messages.
            ended, _ = ray.wait(list(self._tasks.values()), num_returns=len(self._tasks), timeout=0)
            any_news = False
            for kind, number, *values in self._connection.messages():
                any_news = True
                if number in self._tasks:
                    yield from self._connection.event(kind, number, *values)
            for number in [number for number, task in self._tasks.items() if task in ended]:
                any_news = True
                yield from self._end_task(number)
            if any_news or (deadline is not None and time.monotonic() > deadline):
                return
            time.sleep(POLL_INTERVAL)

    def _end_task(self, number: int) -> Iterator[Event]:
        """The event of an ended task. An error of the harness is raised again."""
        import ray

        task = self._tasks.pop(number)
        try:
            ray.get(task)
        except ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, HarnessError):
                raise error.cause from error
            yield WorkerLost(number, f"a task ended with {type(error.cause).__name__}: {error.cause}")
        except ray.exceptions.RayError as error:
            lines = str(error).strip().splitlines()
            yield WorkerLost(
                number, f"a task was lost with its worker or node ({type(error).__name__}: {lines[0][:200]})"
            )
        else:
            yield JobFinished(number)


def _task(*arguments: Any) -> None:
    """Run a job on a node with the threads of its task; the arguments are those of `run_job`."""
    take_share()
    run_job(*arguments)
