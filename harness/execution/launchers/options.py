"""`--launcher`, `--jobs` and their like -> a launcher, or a clear refusal before any work."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.common.errors import unknown_name
from harness.execution.launchers.base import Launcher
from harness.execution.progress import SweepProgress
from harness.planning.prepare import PlannedRun, backend
from harness.results.store import ResultFolder

if TYPE_CHECKING:
    from harness.config.sweep import SweepConfig
    from harness.execution.launchers.ray_connection import RayConnection

LAUNCHERS = ("here", "local", "ray")
RETRIES = 2


@dataclass(frozen=True)
class LaunchOptions:
    """Where runs are made.

    Attributes:
        launcher: here (this process), local (worker processes on this machine), or ray (a cluster).
        jobs: how many groups of runs at once; None for as many as there are GPUs, or 2; on a cluster as many as fit.
        retries: how often runs are tried again that were lost with the process or node that made them.
        address: of the cluster: auto, host:port or ray://host:port; None starts one on this machine.
        ship_data: whether images are sent to nodes.
        cpus, gpus, memory: what a job takes of a node, memory in GB; None: as the config says, see `link`.
    """

    launcher: str = "here"
    jobs: int | None = None
    retries: int = RETRIES
    address: str | None = None
    ship_data: bool = False
    cpus: float | None = None
    gpus: float | None = None
    memory: float | None = None

    def problems(self) -> list[str]:
        """What does not go together, one sentence each."""
        if self.launcher not in LAUNCHERS:
            return [f"--launcher: {unknown_name('launcher', self.launcher, LAUNCHERS)}"]
        found = []
        if self.launcher == "here" and self.jobs is not None:
            found.append(f"--jobs: {self.jobs} found, but runs are made in this process; expected --launcher local.")
        of_cluster = {
            "--address": self.address is not None,
            "--ship-data": self.ship_data,
            "--cpus-per-job": self.cpus is not None,
            "--gpus-per-job": self.gpus is not None,
            "--memory-per-job": self.memory is not None,
        }
        if self.launcher != "ray":
            found += [
                f"{name}: found without --launcher ray, which it is for." for name, on in of_cluster.items() if on
            ]
        return found

    def device(self, device: str) -> str:
        """Of the config, the device that must be on this machine."""
        return "auto" if self.launcher == "ray" else device

    def make(
        self, folder: ResultFolder, progress: SweepProgress, config: SweepConfig, runs: Sequence[PlannedRun]
    ) -> Launcher:
        """The launcher, where there are no `problems`.

        Args:
            folder: the sweep's.
            progress: told what the user must know.
            config: the sweep's.
            runs: what it will make.
        """
        if self.launcher == "here":
            from harness.execution.launchers.in_process import InProcessLauncher

            return InProcessLauncher(folder, progress)
        modules = [backend(name).heavy for name in dict.fromkeys(run.spec.backend for run in runs)]
        if self.launcher == "ray":
            from harness.execution.launchers.ray import RayLauncher

            return RayLauncher(self.connection(folder, config, modules))
        from harness.execution.launchers.processes import ProcessLauncher

        free = visible_gpus() if config.device in {"auto", "cuda"} else []
        jobs = self.jobs or len(free) or 2
        if free and jobs > len(free):
            progress.note(f"{jobs} workers share {len(free)} GPU{'' if len(free) == 1 else 's'}.")
        return ProcessLauncher(folder, min(jobs, len(runs)), free, modules)

    def connection(self, folder: ResultFolder, config: SweepConfig, modules: Sequence[str]) -> RayConnection:
        """The way to the cluster. A job takes what its training does: as many GPUs (or CPUs) as `trainer.devices`, and
        `memory_limit`, unless the options say otherwise.

        Args:
            folder: the sweep's.
            config: the sweep's.
            modules: what jobs will need.
        """
        from harness.execution.launchers.ray_connection import Needs, RayConnection

        devices = config.trainer.get("devices", 1)
        gpus = self.gpus
        if gpus is None and config.device != "auto" and not config.device.startswith("cuda"):
            gpus = 0.0
        memory = (config.memory_limit or 0) if self.memory is None else round(self.memory * 1e9)
        needs = Needs(self.cpus, gpus, memory, devices if isinstance(devices, int) and devices > 0 else 1)
        return RayConnection(folder, self.address, self.jobs, needs, self.ship_data, modules)


IN_PROCESS = LaunchOptions()


def visible_gpus() -> list[str]:
    """Names of the GPUs that a process may be restricted to, in CUDA's own terms."""
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    named = [name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    return (named or [str(index) for index in range(count)])[:count]
