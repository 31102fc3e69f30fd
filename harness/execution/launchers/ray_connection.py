"""The way to a Ray cluster and back: connecting, what a job needs, images out, records and files in.

The sweep alone writes the result folder.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from harness.backends.base import AnySplit
from harness.common.errors import ConfigError
from harness.execution.launchers.base import Event, ProgressEvent, RunFinished
from harness.execution.launchers.connect import Connecting
from harness.execution.launchers.node import home_of
from harness.execution.launchers.shipping import files_of, read_files, unpack
from harness.execution.launchers.warm import warm
from harness.results.store import ResultFolder

MOST_WARMED = 64  # processes
WARMS_WITHIN = 30.0  # seconds


@dataclass(frozen=True)
class Needs:
    """What a job takes of a node.

    Attributes:
        cpus: how many; None: one beside GPUs, else as many as devices.
        gpus: how many; None: as many as devices, where any node has them.
        memory: bytes; 0 for no matter how many.
        devices: that a training runs on.
    """

    cpus: float | None = None
    gpus: float | None = None
    memory: int = 0
    devices: int = 1

    def settled(self, nodes: Sequence[Mapping[str, float]]) -> Needs:
        """With all that depends on what nodes there are."""
        there = any(node.get("GPU", 0) >= 1 for node in nodes)
        gpus = self.gpus if self.gpus is not None else float(self.devices * there)
        cpus = self.cpus if self.cpus is not None else 1.0 if gpus else float(self.devices)
        return replace(self, cpus=cpus, gpus=gpus)

    def fit_on(self, node: Mapping[str, float]) -> int:
        """How many jobs a node has room for."""
        wanted = {"CPU": self.cpus or 0, "GPU": self.gpus or 0, "memory": self.memory}
        return min((int(node.get(name, 0) // amount) for name, amount in wanted.items() if amount), default=1)

    def of_task(self) -> dict[str, Any]:
        """As Ray's options."""
        return {"num_cpus": self.cpus, "num_gpus": self.gpus or 0, "memory": self.memory or None}

    def __str__(self) -> str:
        parts = [f"{self.cpus or 0:g} CPUs"] + ([f"{self.gpus:g} GPUs"] if self.gpus else [])
        return ", ".join(parts + ([f"{self.memory / 1e9:.1f} GB of memory"] if self.memory else []))


class RayConnection:
    """A cluster, as a sweep uses it.

    Args:
        folder: the sweep's.
        address: of the cluster: auto, host:port or ray://host:port; None starts one on this machine.
        jobs: how many at once; None for as many as the nodes have room for.
        needs: of a job.
        ship_data: send images through Ray's object store, instead of reading them at their paths on the nodes.
        modules: what jobs will need, imported on the nodes while there is nothing else to do.

    Attributes:
        needs: of a job; once it is ready, in whole.
        limit: how many jobs at once, None for as many as there is room for.
        queue: takes what nodes say.
        home: names the sweep on the nodes.
        directory: the sweep's.
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
        """Begin to connect.

        Raises:
            ConfigError: Ray is not installed, or nobody listens at the address.
        """
        self._connecting.begin()

    def ready(self) -> None:
        """Wait until connected.

        Raises:
            ConfigError: nobody answers, or no node has room for a job.
        """
        self._connecting.wait()
        import ray
        from ray.util.queue import Queue

        nodes = self.nodes()
        self.needs = self.needs.settled(nodes)
        if not any(self.needs.fit_on(node) for node in nodes):
            there = "; ".join(sorted({_told(node) for node in nodes}))
            raise ConfigError(
                f"a job needs {self.needs}, but the nodes have {there or 'nothing'}; expected less, with "
                "--cpus-per-job, --gpus-per-job and --memory-per-job, or larger nodes."
            )
        # A job that came earlier would be given to another process, which imports all that again.
        ray.wait(self._warming, num_returns=len(self._warming), timeout=WARMS_WITHIN)
        # Beside the sweep, and with ray:// beside the head: what a node has said must not die with another node.
        self.queue = Queue(actor_options={"num_cpus": 0, "scheduling_strategy": beside()})

    def _warm_up(self) -> None:
        """As many tasks as there may be jobs, which import and leave their processes behind."""
        import ray

        nodes = self.nodes()
        needs = Needs(self.needs.settled(nodes).cpus, 0.0)
        room = sum(needs.fit_on(node) for node in nodes)
        task = ray.remote(warm).options(num_cpus=needs.cpus, max_retries=0)
        self._warming = [task.remote(self._modules) for _ in range(min(room, self.limit or room, MOST_WARMED))]

    def stop(self) -> None:
        """Disconnect; what runs there must have been stopped."""
        import ray

        if self.queue is not None:
            self.queue.shutdown(force=True)
            self.queue = None
        ray.shutdown()

    def nodes(self) -> list[dict[str, float]]:
        """Resources of each node that is alive."""
        import ray

        return [node["Resources"] for node in ray.nodes() if node["Alive"]]

    def room(self) -> int:
        """How many jobs there is room for at once: nodes come and go."""
        count = sum(self.needs.fit_on(node) for node in self.nodes())
        # Where nodes died, what is left of them would wait for ever: it is tried again when there is one.
        return count if self.limit is None else min(count, self.limit)

    def contents(self, split: AnySplit) -> Any:
        """With --ship-data the images, put into the store once for all jobs; None without."""
        import ray

        if not self._ship_data:
            return None
        if split.fingerprint not in self._shipped:
            self._shipped[split.fingerprint] = ray.put(read_files(files_of(split)))
        return self._shipped[split.fingerprint]

    def messages(self) -> list[tuple[Any, ...]]:
        """What nodes have said since."""
        waiting = self.queue.qsize()
        return list(self.queue.get_nowait_batch(waiting)) if waiting else []

    def event(self, what: str, number: int, *rest: Any) -> Iterator[Event]:
        """What a message means; files of runs are put into the sweep's stages, logs into its log."""
        if what == "said":
            yield ProgressEvent(number, rest[0])
        elif what == "made":
            record, packed = rest
            unpack(packed, self._folder.stage(record.run_id))
            yield RunFinished(number, record)
        elif what == "log":
            # Where the sweep's libraries write: sweep.log.
            sys.stdout.write(rest[0])


def beside() -> Any:
    """Says of an actor that it is to be on the node that the sweep is on."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    return NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)


def _told(node: dict[str, float]) -> str:
    return f"{node.get('CPU', 0):g} CPUs, {node.get('GPU', 0):g} GPUs, {node.get('memory', 0) / 1e9:.1f} GB"
