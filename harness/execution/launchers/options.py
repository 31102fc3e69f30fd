"""The launcher from options such as `--launcher` and `--jobs`; wrong options fail before any work."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.common.errors import ConfigError, unknown_name
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
    """Where and how runs are computed.

    Attributes:
        launcher: here (this process), local (worker processes on this machine), or ray (a cluster).
        jobs: number of groups at the same time; None for the number of GPUs, or 2; on a cluster, as many as fit.
        retries: how often runs are repeated that were lost with their process or node.
        address: address of the cluster: auto, host:port or ray://host:port; None starts a cluster on this machine.
        ship_data: whether images are sent to the nodes.
        cpus, gpus, memory: resources of a job on a node, memory in GB; None for the values of `connection`.
    """

    launcher: str = "here"
    jobs: int | None = None
    retries: int = RETRIES
    address: str | None = None
    ship_data: bool = False
    cpus: float | None = None
    gpus: float | None = None
    memory: float | None = None

    def check(self) -> None:
        """Check the combination of options.

        Raises:
            ConfigError: options do not fit together; one sentence for each.
        """
        if self.launcher not in LAUNCHERS:
            raise ConfigError(f"--launcher: {unknown_name('launcher', self.launcher, LAUNCHERS)}")
        problems = []
        if self.launcher == "here" and self.jobs is not None:
            problems.append(f"--jobs: {self.jobs} found, but runs are made in this process; expected --launcher local.")
        cluster_options = {
            "--address": self.address is not None,
            "--ship-data": self.ship_data,
            "--cpus-per-job": self.cpus is not None,
            "--gpus-per-job": self.gpus is not None,
            "--memory-per-job": self.memory is not None,
        }
        if self.launcher != "ray":
            used = [name for name, on in cluster_options.items() if on]
            problems += [f"{name}: found without --launcher ray; add it, or remove {name}." for name in used]
        if problems:
            raise ConfigError(problems)

    def device(self, device: str) -> str:
        """The device that this machine must have; the nodes of a cluster check their own devices."""
        return "auto" if self.launcher == "ray" else device

    def make(
        self, folder: ResultFolder, progress: SweepProgress, config: SweepConfig, runs: Sequence[PlannedRun]
    ) -> Launcher:
        """Build the launcher, after `check`.

        Args:
            folder: result folder of the sweep.
            progress: shows notes to the user.
            config: config of the sweep.
            runs: runs that the launcher will get.
        """
        if self.launcher == "here":
            from harness.execution.launchers.in_process import InProcessLauncher

            return InProcessLauncher(folder, progress)
        modules = heavy_modules(runs)
        if self.launcher == "ray":
            from harness.execution.launchers.ray import RayLauncher

            return RayLauncher(self.connection(folder, config, modules))
        from harness.execution.launchers.processes import ProcessLauncher

        gpus = visible_gpus() if config.device in {"auto", "cuda"} else []
        jobs = self.jobs or len(gpus) or 2
        if gpus and jobs > len(gpus):
            progress.note(f"{jobs} workers share {len(gpus)} GPU{'' if len(gpus) == 1 else 's'}.")
        return ProcessLauncher(folder, min(jobs, len(runs)), gpus, modules)

    def connection(self, folder: ResultFolder, config: SweepConfig, modules: Sequence[str]) -> RayConnection:
        """The connection to the cluster.

        By default, a job takes the resources of its training: `trainer.devices` GPUs (or CPUs), and `memory_limit`.

        Args:
            folder: result folder of the sweep.
            config: config of the sweep.
            modules: modules that the jobs import.
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


def heavy_modules(runs: Sequence[PlannedRun]) -> list[str]:
    """The modules with long imports, which workers import before their first job."""
    return [backend(name).heavy for name in dict.fromkeys(run.spec.backend for run in runs)]


def visible_gpus() -> list[str]:
    """Names of the visible GPUs, as in CUDA_VISIBLE_DEVICES."""
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    names = [name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    return (names or [str(index) for index in range(count)])[:count]
