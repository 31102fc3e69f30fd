"""The connection to a Ray cluster: resources of a job, images for the nodes, and records and files from the nodes.

Only the process of the sweep writes the result folder.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from harness.backends.base import AnySplit
from harness.common.errors import ConfigError
from harness.execution.launchers.base import Event, ProgressEvent, RunFinished, warm
from harness.execution.launchers.connect import Connecting
from harness.execution.launchers.node import home_of
from harness.execution.launchers.shipping import files_of, read_files, unpack
from harness.results.store import ResultFolder

MAX_WARM_TASKS = 64
WARM_TIMEOUT = 30.0  # seconds


@dataclass(frozen=True)
class Needs:
    """Resources of a job on a node.

    Attributes:
        cpus: number of CPUs; None: 1 with GPUs, otherwise `devices`.
        gpus: number of GPUs; None: `devices` if any node has GPUs, otherwise 0.
        memory: memory in bytes; 0 for no requirement.
        devices: number of devices of a training.
    """

    cpus: float | None = None
    gpus: float | None = None
    memory: int = 0
    devices: int = 1

    def settled(self, nodes: Sequence[Mapping[str, float]]) -> Needs:
        """The needs without None: default values depend on the resources of the nodes."""
        any_gpu = any(node.get("GPU", 0) >= 1 for node in nodes)
        gpus = self.gpus if self.gpus is not None else float(self.devices * any_gpu)
        cpus = self.cpus if self.cpus is not None else 1.0 if gpus else float(self.devices)
        return replace(self, cpus=cpus, gpus=gpus)

    def fit_on(self, node: Mapping[str, float]) -> int:
        """Number of jobs that fit on a node."""
        amounts = {"CPU": self.cpus or 0, "GPU": self.gpus or 0, "memory": self.memory}
        return min((int(node.get(name, 0) // amount) for name, amount in amounts.items() if amount), default=1)

    def of_task(self) -> dict[str, Any]:
        """The needs as options of a Ray task."""
        return {"num_cpus": self.cpus, "num_gpus": self.gpus or 0, "memory": self.memory or None}

    def __str__(self) -> str:
        texts = [f"{self.cpus or 0:g} CPUs"] + ([f"{self.gpus:g} GPUs"] if self.gpus else [])
        return ", ".join(texts + ([f"{self.memory / 1e9:.1f} GB of memory"] if self.memory else []))


class RayConnection:
    """A cluster for one sweep.

    Args:
        folder: result folder of the sweep.
        address: address of the cluster: auto, host:port or ray://host:port; None starts a cluster on this machine.
        jobs: largest number of jobs at the same time; None for as many as fit on the nodes.
        needs: resources of a job.
        ship_data: send images through Ray's object store; otherwise the nodes read them at their paths.
        modules: modules that the jobs import; the nodes import them before the first job.

    Attributes:
        needs: resources of a job; without None after `ready`.
        limit: the argument `jobs`.
        queue: takes the messages of the nodes.
        home: folder name of the sweep on the nodes.
        directory: working directory of the sweep.
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
        self._folder, self._address, self.limit = folder, address, jobs
        self.needs, self._ship_data, self._modules = needs, ship_data, tuple(modules)
        self._shipped: dict[str, Any] = {}
        self.queue: Any = None
        self.home, self.directory = home_of(folder.root), str(Path.cwd())
        self._warming: list[Any] = []
        self._connecting = Connecting(address, self._warm_up)

    def begin(self) -> None:
        """Start to connect.

        Raises:
            ConfigError: Ray is not installed, or no program listens at the address.
        """
        self._connecting.begin()

    def ready(self) -> None:
        """Wait for the connection.

        Raises:
            ConfigError: there is no connection, or no node has room for a job.
        """
        self._connecting.wait()
        import ray
        from ray.util.queue import Queue

        nodes = self.nodes()
        self.needs = self.needs.settled(nodes)
        if not any(self.needs.fit_on(node) for node in nodes):
            resources = "; ".join(sorted({_resources(node) for node in nodes}))
            raise ConfigError(
                f"a job needs {self.needs}, but the nodes have {resources or 'nothing'}; expected a node with room. "
                "Set --cpus-per-job, --gpus-per-job and --memory-per-job, or add larger nodes."
            )
        # Ray would start an earlier job in another process, which imports the modules again.
        ray.wait(self._warming, num_returns=len(self._warming), timeout=WARM_TIMEOUT)
        # On the node of the sweep, or with ray:// on the head: messages must survive the loss of other nodes.
        self.queue = Queue(actor_options={"num_cpus": 0, "scheduling_strategy": same_node()})

    def _warm_up(self) -> None:
        """Start tasks that import the modules; Ray reuses their processes for the jobs."""
        import ray

        nodes = self.nodes()
        needs = Needs(self.needs.settled(nodes).cpus, 0.0)
        room = sum(needs.fit_on(node) for node in nodes)
        task = ray.remote(warm).options(num_cpus=needs.cpus, max_retries=0)
        self._warming = [task.remote(self._modules) for _ in range(min(room, self.limit or room, MAX_WARM_TASKS))]

    def stop(self) -> None:
        """Disconnect. The caller must have stopped all jobs."""
        import ray

        if self.queue is not None:
            self.queue.shutdown(force=True)
            self.queue = None
        ray.shutdown()

    def nodes(self) -> list[dict[str, float]]:
        """Resources of each living node."""
        import ray

        return [node["Resources"] for node in ray.nodes() if node["Alive"]]

    def room(self) -> int:
        """Number of jobs that fit on the present nodes."""
        count = sum(self.needs.fit_on(node) for node in self.nodes())
        # The number changes when nodes join or die. With 0, the sweep starts no job that would wait for ever.
        return count if self.limit is None else min(count, self.limit)

    def contents(self, split: AnySplit) -> Any:
        """With --ship-data, the images in the object store, stored once for all jobs; otherwise None."""
        import ray

        if not self._ship_data:
            return None
        if split.fingerprint not in self._shipped:
            self._shipped[split.fingerprint] = ray.put(read_files(files_of(split)))
        return self._shipped[split.fingerprint]

    def messages(self) -> list[tuple[Any, ...]]:
        """Read all new messages of the nodes."""
        waiting = self.queue.qsize()
        return list(self.queue.get_nowait_batch(waiting)) if waiting else []

    def event(self, kind: str, number: int, *values: Any) -> Iterator[Event]:
        """Convert a message to an event. Files of a run are written to its stage, log texts to the log.

        Args:
            kind: kind of the message; see `harness.execution.launchers.node.records_of_job`.
            number: number of the job.
            values: other values of the message.
        """
        if kind == "progress":
            yield ProgressEvent(number, values[0])
        elif kind == "record":
            record, packed = values
            unpack(packed, self._folder.stage(record.run_id))
            yield RunFinished(number, record)
        elif kind == "log":
            # The sweep redirects its standard output to sweep.log.
            sys.stdout.write(values[0])


def same_node() -> Any:
    """A scheduling strategy that places an actor on the node of the sweep."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    return NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)


def _resources(node: dict[str, float]) -> str:
    return f"{node.get('CPU', 0):g} CPUs, {node.get('GPU', 0):g} GPUs, {node.get('memory', 0) / 1e9:.1f} GB"
