"""TensorBoard: one folder of events for each run, in the result folder (https://www.tensorflow.org/tensorboard)."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any, ClassVar

from harness.tracking.base import LOCAL, TrackedRun


class TensorBoardTracker:
    """A tracker of TensorBoard. The folder of a run has the run id as its name, and is written as a whole.

    TensorBoard has no store for files, so it gets no model.
    """

    modules: ClassVar[tuple[str, ...]] = ("tensorboard",)

    def __init__(self, folder: Path, experiment: str) -> None:
        del experiment
        self._folder = folder
        self.store = LOCAL

    def log(self, run: TrackedRun) -> str:
        """Write the folder of a run, in place of an earlier one; see `Tracker.log`."""
        import numpy as np
        from PIL import Image
        from torch.utils.tensorboard import SummaryWriter, summary

        target = self._folder / run.run_id
        # TensorBoard reads no folder without events, and no event file is complete before the end.
        scratch = self._folder / f".{run.run_id}.tmp"
        shutil.rmtree(scratch, ignore_errors=True)
        time = run.ended.timestamp() if run.ended is not None else None
        with SummaryWriter(str(scratch)) as writer:
            file = writer._get_file_writer()
            # The method of the writer would put these into another folder.
            parts: Any = summary.hparams(dict(run.parameters), dict(run.metrics))  # type: ignore[no-untyped-call]
            for part in parts:
                file.add_summary(part, walltime=time)
            for name, value in run.metrics.items():
                writer.add_scalar(name, value, 0, walltime=time)
            texts = {"name": run.name, **run.tags, "record": f"```json\n{run.record}\n```"}
            for name, text in texts.items():
                writer.add_text(name, text, 0, walltime=time)
            for name, picture in run.pictures.items():
                with Image.open(picture) as image:
                    pixels = np.asarray(image.convert("RGB"))
                writer.add_image(name, pixels, 0, walltime=time, dataformats="HWC")
        shutil.rmtree(target, ignore_errors=True)
        scratch.replace(target)
        return run.run_id

    def close(self) -> None:
        """Nothing: each run closes its own file."""
