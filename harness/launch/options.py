"""`--launcher`, `--jobs` and their like -> a launcher, or a clear refusal before any work."""

from __future__ import annotations

import os
from dataclasses import dataclass

from harness.errors import ConfigError, unknown_name
from harness.launch.base import Launcher
from harness.progress import SweepProgress
from harness.store import ResultFolder

LAUNCHERS = ("here", "local")
RETRIES = 2


@dataclass(frozen=True)
class LaunchOptions:
    """Where runs are made.

    Attributes:
        launcher: here (this process), or local (worker processes on this machine).
        jobs: how many groups of runs at once; None for as many as there are GPUs, or 2.
        retries: how often runs are tried again that were lost with the process that made them.
    """

    launcher: str = "here"
    jobs: int | None = None
    retries: int = RETRIES

    def problems(self) -> list[str]:
        """What does not go together, one sentence each."""
        if self.launcher not in LAUNCHERS:
            return [f"--launcher: {unknown_name('launcher', self.launcher, LAUNCHERS)}"]
        if self.launcher == "here" and self.jobs is not None:
            return [f"--jobs: {self.jobs} found, but runs are made in this process; expected --launcher local with it."]
        return []

    def make(self, folder: ResultFolder, progress: SweepProgress, device: str) -> Launcher:
        """The launcher.

        Args:
            folder: the sweep's.
            progress: told what the user must know.
            device: the config's.

        Raises:
            ConfigError: see `problems`.
        """
        problems = self.problems()
        if problems:
            raise ConfigError(problems)
        if self.launcher == "here":
            from harness.launch.here import Here

            return Here(folder, progress)
        from harness.launch.local import Local

        gpus = visible_gpus() if device in {"auto", "cuda"} else []
        jobs = self.jobs or len(gpus) or 2
        if gpus and jobs > len(gpus):
            progress.note(f"{jobs} workers share {len(gpus)} GPU{'' if len(gpus) == 1 else 's'}.")
        return Local(folder, jobs, gpus)


HERE = LaunchOptions()


def visible_gpus() -> list[str]:
    """Names of the GPUs that a process may be restricted to, in CUDA's own terms."""
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    named = [name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    return (named or [str(index) for index in range(count)])[:count]
