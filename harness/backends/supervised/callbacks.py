"""Callbacks of a training: checkpoints, averages of weights, early stopping and progress."""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import numpy.typing as npt
import torch
from lightning.pytorch.callbacks import Callback, Checkpoint, EarlyStopping, WeightAveraging
from torch.optim.swa_utils import get_ema_avg_fn

from harness.backends.supervised.module import Training
from harness.backends.supervised.settings import Settings

LAST, BEST = "last.ckpt", "best.ckpt"
SWA_FROM = 0.75  # share of the epochs before the averaging starts
CHECKPOINT_SHARE = 0.05  # largest share of the time for checkpoints, apart from the first one and the best ones
# Called with the number of finished epochs, and the probabilities (n, outputs) of the validation images.
OnEpoch = Callable[[int, npt.NDArray[np.float32]], None]


def training_callbacks(settings: Settings, epochs: int) -> list[Callback]:
    """The callbacks for early stopping and for the average of the weights.

    Args:
        settings: settings of the run.
        epochs: maximum number of epochs.
    """
    callbacks: list[Callback] = []
    if settings.early_stopping:
        mode = "min" if settings.monitor == "loss" else "max"
        monitor, patience = f"val_{settings.monitor}", settings.early_stopping
        # A loss that is infinite in one epoch counts as no better epoch, and does not end the training at once.
        callbacks.append(EarlyStopping(monitor, mode=mode, patience=patience, check_finite=False))
    average: _Average | None = None
    if settings.average == "ema":
        average = _Average(avg_fn=_Ema(settings.ema_decay))
    elif settings.average == "swa":
        average = _Swa(int(SWA_FROM * epochs))
    if average is not None:
        callbacks.append(average)
    if settings.recomputes_statistics:
        # After the average, which puts its weights into the network first.
        callbacks.append(_Statistics(average))
    return callbacks


class _Average(WeightAveraging):
    """Lightning's average of weights and buffers."""

    @property
    def is_copy(self) -> bool:
        """Whether the average is still a copy of the network."""
        return self._average_model is None or int(self._average_model.n_averaged) <= 1


class _Statistics(Callback):
    """Computes the statistics of batch normalisation anew before each validation.

    Args:
        average: the average of the weights. Its statistics stay as they are until it is more than a copy.
    """

    def __init__(self, average: _Average | None) -> None:
        self._average = average

    def on_validation_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Compute the statistics.

        Args:
            trainer: Lightning's trainer.
            pl_module: the trained module.
        """
        del trainer
        assert isinstance(pl_module, Training)
        if self._average is None or not self._average.is_copy:
            pl_module.recompute_statistics()


@dataclass(frozen=True)
class _Ema:
    """Torch's exponential moving average of weights as a picklable object, for trainings in several processes.

    The decay of step t is at most (1 + t) / (10 + t), as in TensorFlow's ExponentialMovingAverage. Without this
    warm-up, the average of a short training consists mostly of the first weights.
    """

    decay: float

    def __call__(self, average: torch.Tensor, now: torch.Tensor, count: torch.Tensor | int) -> torch.Tensor:
        decay = min(self.decay, (1 + int(count)) / (10 + int(count)))
        updated: torch.Tensor = get_ema_avg_fn(decay)(average, now, count)
        return updated


class _Swa(_Average):
    """Equal average of weights and buffers at the ends of the last epochs (Izmailov et al., 2018).

    The update comes before the validation, so that the metrics of an epoch are those of the averaged weights. Before
    the first averaged epoch, the average is a copy of the weights.
    """

    def __init__(self, first: int) -> None:
        super().__init__()
        self._first = first

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Update the average after the last batch of an epoch.

        Args:
            trainer: Lightning's trainer.
            pl_module: the trained module.
            outputs: unused.
            batch: unused.
            batch_idx: unused.
        """
        del outputs, batch, batch_idx
        assert self._average_model is not None
        if not trainer.is_last_batch:
            return
        if trainer.current_epoch <= self._first:
            # The first update after this reset copies the weights.
            self._average_model.n_averaged.zero_()
        self._average_model.update_parameters(pl_module)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Replace the update of the base class, since the average is already updated.

        Args:
            trainer: Lightning's trainer.
            pl_module: the trained module.
        """


class Checkpoints(Checkpoint):
    """Writes checkpoints at the ends of epochs, atomically.

    The first epoch has a checkpoint. A later epoch has one where `CHECKPOINT_SHARE` of the time since the last one
    suffices to write it. A resumed training repeats the epochs after its checkpoint with the same numbers.

    Args:
        folder: folder of the checkpoints.
        best: whether each epoch that is the best one so far has a checkpoint too.
        monitor: macro_F1 or loss of the validation, which decides on the best epoch.
        always: whether each epoch has a checkpoint. A training in other processes needs it, since the last checkpoint
            returns its history.
    """

    def __init__(self, folder: Path, best: bool, monitor: str, always: bool = False) -> None:
        self._folder, self._best, self._monitor, self._always = folder, best, monitor, always
        self._written: float | None = None
        self._seconds = 0.0

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write a checkpoint. Lightning calls this callback last, when the states of all others are up to date.

        Args:
            trainer: Lightning's trainer.
            pl_module: the trained module.
        """
        assert isinstance(pl_module, Training)
        best = self._best and trainer.is_global_zero and self._is_best(pl_module)
        if not (self._always or best or self._is_due()):
            return
        begin = time.monotonic()
        scratch = self._folder / f".{LAST}"
        trainer.save_checkpoint(scratch)  # all processes must call this method, and the first process writes the file
        if not trainer.is_global_zero:
            return
        if best:
            copy = self._folder / f".{BEST}"
            _link_or_copy(scratch, copy)
            copy.replace(self._folder / BEST)
        scratch.replace(self._folder / LAST)
        self._written = time.monotonic()
        self._seconds = self._written - begin

    def _is_due(self) -> bool:
        return self._written is None or (time.monotonic() - self._written) * CHECKPOINT_SHARE >= self._seconds

    def _is_best(self, module: Training) -> bool:
        *earlier, last = (_quality(entry, self._monitor) for entry in module.history)
        return not earlier or last > max(earlier)


def _quality(entry: Mapping[str, float], monitor: str) -> float:
    """The quality of an epoch, where larger is better."""
    value = entry[f"val_{monitor}"]
    if monitor != "loss":
        return value
    # The history has -1 for an infinite loss.
    return -value if value >= 0 else -math.inf


def _link_or_copy(file: Path, other: Path) -> None:
    """Make a hard link, or a copy if the file system has no hard links."""
    other.unlink(missing_ok=True)
    try:
        other.hardlink_to(file)
    except OSError:
        shutil.copyfile(file, other)


class Progress(Callback):
    """Reports the number of the epoch, and passes on the validation probabilities.

    Args:
        stage: callback that takes the name of the current step.
        on_epoch: see `training.train`.
        epochs: maximum number of epochs.
    """

    def __init__(self, stage: Callable[[str], None], on_epoch: OnEpoch | None, epochs: int) -> None:
        self._stage, self._on_epoch, self._epochs = stage, on_epoch, epochs

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Report the number of the epoch.

        Args:
            trainer: Lightning's trainer.
            pl_module: the trained module.
        """
        del pl_module
        self._stage(f"epoch {trainer.current_epoch + 1} of {self._epochs}")

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Pass on the validation probabilities, except those of the last epoch.

        Args:
            trainer: Lightning's trainer.
            pl_module: the trained module.
        """
        assert isinstance(pl_module, Training)
        if self._on_epoch is not None and trainer.current_epoch + 1 < self._epochs and not trainer.should_stop:
            self._on_epoch(trainer.current_epoch + 1, pl_module.val_probabilities)
