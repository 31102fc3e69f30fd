"""Weights & Biases: its server after a log-in by WANDB_API_KEY, or files in the result folder (https://docs.wandb.ai)."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import quote

from harness.tracking.base import LOCAL, TIMEOUT, TrackedRun, without_password

ONLINE, OFFLINE = "online", "offline"
SERVER = "https://api.wandb.ai"
FINISH_TIMEOUT = 120  # seconds in which all files of one run must arrive
RETRIES = 1


class WandbTracker:
    """A tracker of Weights & Biases. The run id is also the id of the run in Weights & Biases.

    The mode is that of WANDB_MODE. Without it, the mode is online with WANDB_API_KEY, and offline without a key.
    """

    modules: ClassVar[tuple[str, ...]] = ("wandb",)

    def __init__(self, folder: Path, experiment: str) -> None:
        # wandb adds its own name to the folder. It refuses some characters in the name of a project.
        self._folder, self._project = folder.absolute().parent, quote(experiment, safe=" ").replace("%", "-")[:128]
        self._mode: Any = os.environ.get("WANDB_MODE") or (ONLINE if os.environ.get("WANDB_API_KEY") else OFFLINE)
        server = without_password(os.environ.get("WANDB_BASE_URL") or SERVER)
        self.store = f"{server}/{os.environ.get('WANDB_ENTITY', '')}" if self._mode == ONLINE else LOCAL

    def log(self, run: TrackedRun) -> str:
        """Log a run, or change the run with the same id; see `Tracker.log`."""
        import wandb

        if self._mode == OFFLINE:
            # Files of an earlier attempt would be a second run.
            for earlier in (self._folder / "wandb").glob(f"offline-run-*-{run.run_id}"):
                shutil.rmtree(earlier)
        logged = wandb.init(
            project=self._project,
            id=run.run_id,
            name=run.name,
            dir=str(self._folder),
            config=dict(run.parameters) | dict(run.tags),
            mode=self._mode,
            resume="allow" if self._mode == ONLINE else None,
            settings=_settings(wandb),
        )
        try:
            logged.summary.update(dict(run.metrics))
            if run.pictures:
                logged.log({name: wandb.Image(str(picture)) for name, picture in run.pictures.items()})
            self._save_files(logged, run)
        except BaseException:
            logged.finish(exit_code=1)
            raise
        logged.finish(exit_code=0 if run.succeeded else 1)
        return run.run_id

    def close(self) -> None:
        """Stop the process of wandb."""
        # Without any run, wandb was not imported.
        if "wandb" in sys.modules:
            sys.modules["wandb"].teardown()

    @staticmethod
    def _save_files(logged: Any, run: TrackedRun) -> None:
        folder = Path(logged.dir)
        (folder / "record.json").write_text(run.record)
        if run.model is not None:
            shutil.copyfile(run.model, folder / run.model.name)
        for file in ("record.json", *([run.model.name] if run.model is not None else [])):
            logged.save(str(folder / file), base_path=str(folder), policy="end")


def _settings(wandb: Any) -> Any:
    """Settings without output, without facts of this machine, and with short waits."""
    return wandb.Settings(
        silent=True,
        console="off",
        disable_git=True,
        disable_code=True,
        x_disable_stats=True,
        x_disable_meta=True,
        init_timeout=TIMEOUT,
        finish_timeout=FINISH_TIMEOUT,
        finish_timeout_raises=True,
        x_graphql_retry_max=RETRIES,
        x_file_stream_retry_max=RETRIES,
        x_file_transfer_retry_max=RETRIES,
    )
