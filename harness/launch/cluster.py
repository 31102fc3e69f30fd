"""A Ray cluster: jobs become tasks, records and files come back to the sweep, which alone writes the result folder."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from harness.errors import ConfigError, HarnessError
from harness.launch.base import Ended, Event, Lost, Made, Said
from harness.launch.connect import Connecting
from harness.launch.node import home_of, run_job
from harness.launch.shipping import files_of, read_files, unpack
from harness.launch.warm import warm
from harness.store import ResultFolder
from harness.work import Job

LOOK_EVERY = 0.1  # seconds between looks at what has come back
MOST_WARMED = 64  # processes
COUNT_EVERY = 2.0  # seconds between counts of the cluster's nodes


@dataclass(frozen=True)
class Needs:
    """What a job takes of a node.

    Attributes:
        cpus: how many.
        gpus: how many; None: one, where any node has one.
        memory: bytes; 0 for no matter how many.
    """

    cpus: float = 1
    gpus: float | None = 0
    memory: int = 0

    def fit_on(self, node: dict[str, float]) -> int:
        """How many jobs a node has room for."""
        wanted = {"CPU": self.cpus, "GPU": self.gpus or 0, "memory": self.memory}
        return min((int(node.get(name, 0) // amount) for name, amount in wanted.items() if amount), default=1)

    def __str__(self) -> str:
        parts = [f"{self.cpus:g} CPUs"] + ([f"{self.gpus:g} GPUs"] if self.gpus else [])
        return ", ".join(parts + ([f"{self.memory / 1e9:.1f} GB of memory"] if self.memory else []))


class Cluster:
    """See `harness.launch.base.Launcher`.

    Args:
        folder: the sweep's.
        address: of the cluster: auto, host:port or ray://host:port; None starts one on this machine.
        jobs: how many at once; None for as many as the nodes have room for.
        needs: of a job.
        ship_data: send images through Ray's object store, instead of reading them at their paths on the nodes.
        modules: what jobs will need, imported on the nodes while there is nothing else to do.
    """

    def __init__(
        self,
        folder: ResultFolder,
        address: str | None,
        jobs: int | None,
        needs: Needs,
        ship_data: bool,
        modules: Sequence[str] = (),
    ) -> None:
        self._folder, self._address, self._limit = folder, address, jobs
        self._needs, self._ship_data, self._modules = needs, ship_data, tuple(modules)
        self._tasks: dict[int, Any] = {}
        self._shipped: dict[str, Any] = {}
        self._queue: Any = None
        self._counted = (0.0, 0)
        self._home = home_of(folder.root)
        self._connecting = Connecting(address, self._warm_up)

    @property
    def jobs(self) -> int:
        """As many as there is room for now: nodes come and go."""
        when, count = self._counted
        if not when or time.monotonic() - when > COUNT_EVERY:
            count = sum(self._needs.fit_on(node) for node in self._nodes())
            self._counted = (time.monotonic(), count)
        # Where nodes died, what is left of them would wait for ever: it is tried again when there is one.
        return count if self._limit is None else min(count, self._limit)

    def __enter__(self) -> Self:
        """Begin to connect.

        Raises:
            ConfigError: Ray is not installed, or nobody listens at the address.
        """
        self._connecting.begin()
        return self

    def ready(self) -> None:
        """Wait until connected.

        Raises:
            ConfigError: nobody answers, or no node has room for a job.
        """
        self._connecting.wait()
        import ray
        from ray.util.queue import Queue
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        nodes = self._nodes()
        if self._needs.gpus is None:
            self._needs = replace(self._needs, gpus=1 if any(node.get("GPU", 0) >= 1 for node in nodes) else 0)
        if not any(self._needs.fit_on(node) for node in nodes):
            there = "; ".join(_told(node) for node in nodes)
            raise ConfigError(
                f"a job needs {self._needs}, but the nodes have {there or 'nothing'}; expected less, with "
                "--cpus-per-job, --gpus-per-job and --memory-per-job, or larger nodes."
            )
        # Beside the sweep, and with ray:// beside the head: what a node has said must not die with another node.
        beside = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        self._queue = Queue(actor_options={"num_cpus": 0, "scheduling_strategy": beside})

    def _warm_up(self) -> None:
        """As many tasks as there may be jobs, which import and leave their processes behind."""
        import ray

        room = sum(Needs(self._needs.cpus).fit_on(node) for node in self._nodes())
        for _ in range(min(room, self._limit or room, MOST_WARMED)):
            ray.remote(warm).options(num_cpus=self._needs.cpus, max_retries=0).remote(self._modules)

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
        if self._queue is not None:
            self._queue.shutdown(force=True)
            self._queue = None
        ray.shutdown()

    def _nodes(self) -> list[dict[str, float]]:
        import ray

        return [node["Resources"] for node in ray.nodes() if node["Alive"]]

    def start(self, number: int, job: Job) -> None:
        """Hand the job to the cluster."""
        import ray

        needs = self._needs
        resources = {"num_cpus": needs.cpus, "num_gpus": needs.gpus or 0, "memory": needs.memory or None}
        # Ray itself tries nothing again: it would begin with runs that are done.
        task = ray.remote(run_job).options(max_retries=0, **resources)
        self._tasks[number] = task.remote(number, job, self._queue, self._home, str(Path.cwd()), *self._data(job))

    def _data(self, job: Job) -> list[Any]:
        """With --ship-data the images, put into the store once for all jobs."""
        import ray

        if not self._ship_data:
            return []
        split = job.runs[0].split
        if split.fingerprint not in self._shipped:
            self._shipped[split.fingerprint] = ray.put(read_files(files_of(split)))
        return [self._shipped[split.fingerprint]]

    def events(self, wait: float | None) -> Iterator[Event]:
        """What jobs say through the queue; that one is lost is known from its task."""
        import ray

        deadline = None if wait is None else time.monotonic() + wait
        while True:
            # Looked at before their words are read: a task that is over by now has said all it will.
            over, _ = ray.wait(list(self._tasks.values()), num_returns=len(self._tasks), timeout=0)
            heard = False
            for message in self._messages():
                heard = True
                yield from self._event(*message)
            for number in [number for number, task in self._tasks.items() if task in over]:
                heard = True
                yield from self._over(number)
            if heard or (deadline is not None and time.monotonic() > deadline):
                return
            time.sleep(LOOK_EVERY)

    def _messages(self) -> list[tuple[Any, ...]]:
        waiting = self._queue.qsize()
        return list(self._queue.get_nowait_batch(waiting)) if waiting else []

    def _event(self, what: str, number: int, *rest: Any) -> Iterator[Event]:
        if number not in self._tasks:
            return
        if what == "said":
            yield Said(number, rest[0])
        elif what == "made":
            record, packed = rest
            unpack(packed, self._folder.stage(record.run_id))
            yield Made(number, record)
        elif what == "log":
            # Where the sweep's libraries write: sweep.log.
            sys.stdout.write(rest[0])

    def _over(self, number: int) -> Iterator[Event]:
        """A task that ended: well, by a refusal, or with what made it."""
        import ray

        task = self._tasks.pop(number)
        try:
            ray.get(task)
        except ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, HarnessError):
                raise error.cause from error
            yield Lost(number, f"a task ended with {type(error.cause).__name__}: {error.cause}")
        except ray.exceptions.RayError as error:
            said = str(error).strip().splitlines()
            yield Lost(number, f"a task was lost with its worker or node ({type(error).__name__}: {said[0][:200]})")
        else:
            yield Ended(number)


def _told(node: dict[str, float]) -> str:
    return f"{node.get('CPU', 0):g} CPUs, {node.get('GPU', 0):g} GPUs, {node.get('memory', 0) / 1e9:.1f} GB"
