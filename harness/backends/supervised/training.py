"""Training of one network on one fold by Lightning's Trainer, with checkpoints that outlive a kill."""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import numpy.typing as npt
import torch
from lightning.pytorch.callbacks import Callback, Checkpoint, EarlyStopping, WeightAveraging
from lightning.pytorch.loggers import TensorBoardLogger
from safetensors.torch import load_file, save_file
from torch.multiprocessing.spawn import ProcessRaisedException
from torch.optim.swa_utils import get_ema_avg_fn

from harness.backends.supervised.module import FoldData, Training, as_images
from harness.backends.supervised.network import Classifier
from harness.backends.supervised.pictures import Pixels
from harness.backends.supervised.settings import Settings
from harness.backends.supervised.views import probabilities, views
from harness.common.devices import Device
from harness.common.errors import TrainingError
from harness.common.files import write_atomic

LAST, BEST, DONE, WEIGHTS = "last.ckpt", "best.ckpt", "done.json", "weights.safetensors"
SWA_FROM = 0.75  # share of the epochs before the averaging starts
# Called with the number of finished epochs, and the probabilities (n, outputs) of the validation images.
OnEpoch = Callable[[int, npt.NDArray[np.float32]], None]


@dataclass(frozen=True)
class Trained:
    """A trained network.

    Attributes:
        network: the network in evaluation mode, on the cpu.
        history: see `Training.history`.
        resumed: number of epochs before a kill, after which the training resumed; 0 without a kill.
        epoch: number of the epoch whose weights the network has.
    """

    network: Classifier
    history: list[dict[str, float]]
    resumed: int
    epoch: int


def train(
    network: Classifier,
    settings: Settings,
    data: FoldData,
    folder: Path,
    device: Device,
    trainer: Mapping[str, Any],
    log_to: Path | None,
    stage: Callable[[str], None],
    on_epoch: OnEpoch | None = None,
) -> Trained:
    """Train a network, or resume the training that an earlier attempt left in a folder.

    Args:
        network: the network with its first weights.
        settings: settings of the run.
        data: training and validation data.
        folder: folder of the checkpoints, which may contain those of an earlier attempt.
        device: the device of the training.
        trainer: arguments of Lightning's Trainer, with `max_epochs`.
        log_to: folder of TensorBoard's curves, None for no curves.
        stage: callback that takes the name of the current step.
        on_epoch: called after each epoch except the last, and may raise. A training in several processes ignores it.

    Raises:
        TrainingError: the loss is NaN or infinite.
    """
    folder.mkdir(parents=True, exist_ok=True)
    finished = _finished(folder, network)
    if finished is not None:
        return finished
    epochs = int(trainer["max_epochs"])
    module = Training(network, settings, data, epochs)
    checkpoint = _checkpoint(folder / LAST)
    resumed = 0 if checkpoint is None else len(checkpoint["history"])
    if checkpoint is not None and (checkpoint["stopped"] or resumed >= epochs):
        # The kill came after the last epoch, so that the training is complete.
        module.load_state_dict(checkpoint["state_dict"])
        module.history = checkpoint["history"]
    else:
        _fit(module, settings, folder, device, {**trainer, "max_epochs": epochs}, log_to, stage, resumed, on_epoch)
    # Other processes return only the weights; their history is in the checkpoint.
    history = module.history or torch.load(folder / LAST, map_location="cpu", weights_only=True)["history"]
    epoch = len(history)
    if settings.keep == "best":
        best = torch.load(folder / BEST, map_location="cpu", weights_only=True)
        module.load_state_dict(best["state_dict"])
        epoch = len(best["history"])
    network.cpu().eval()
    save_file({key: value.contiguous() for key, value in network.state_dict().items()}, folder / WEIGHTS)
    # This atomic write comes last: if the file exists, the training is complete.
    write_atomic(folder / DONE, json.dumps({"history": history, "resumed": resumed, "epoch": epoch}))
    for name in (LAST, BEST):
        (folder / name).unlink(missing_ok=True)
    return Trained(network, history, resumed, epoch)


def _fit(
    module: Training,
    settings: Settings,
    folder: Path,
    device: Device,
    trainer: Mapping[str, Any],
    log_to: Path | None,
    stage: Callable[[str], None],
    resumed: int,
    on_epoch: OnEpoch | None,
) -> None:
    epochs = trainer["max_epochs"]
    # The callbacks of this process cannot be sent to other processes.
    progress = [_Progress(stage, on_epoch, epochs)] if trainer.get("strategy", "auto") == "auto" else []
    runner = pl.Trainer(
        **{**device.trainer_arguments(), **trainer},
        callbacks=[*_callbacks(settings, epochs), *progress, _Checkpoints(folder, best=settings.keep == "best")],
        logger=TensorBoardLogger(str(log_to), name="", version="") if log_to is not None else False,
        default_root_dir=folder,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        log_every_n_steps=1,
        reload_dataloaders_every_n_epochs=1,
        use_distributed_sampler=False,
    )
    with warnings.catch_warnings():
        # Lightning warns of few workers and few batches, which the config sets on purpose.
        warnings.simplefilter("ignore")
        try:
            runner.fit(
                module, ckpt_path=str(folder / LAST) if resumed else None, weights_only=True if resumed else None
            )
        except ProcessRaisedException as error:
            raise _original_error(error) from error
    if runner.interrupted:
        raise KeyboardInterrupt


def _finished(folder: Path, network: Classifier) -> Trained | None:
    """The finished training of an earlier attempt, None for missing or damaged files."""
    try:
        weights = load_file(folder / WEIGHTS)
        record = json.loads((folder / DONE).read_text())
        trained = Trained(network, record["history"], record["resumed"], record["epoch"])
        network.load_state_dict(weights)
        network.eval()
        return trained
    except FileNotFoundError:
        return None
    # For a damaged file, the libraries may raise any error; the network is then trained again.
    except Exception:  # noqa: BLE001
        (folder / DONE).unlink(missing_ok=True)
        return None


def _original_error(error: ProcessRaisedException) -> Exception:
    """The `TrainingError` of another process, of which Torch passes on only the text; else the error itself."""
    _, separator, message = str(error).rstrip().rpartition(f"{TrainingError.__name__}: ")
    return TrainingError(message) if separator else error


def _checkpoint(file: Path) -> dict[str, Any] | None:
    """The checkpoint of an earlier attempt, None for a missing or damaged file."""
    try:
        checkpoint: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
        len(checkpoint["history"]), checkpoint["stopped"]
        return checkpoint
    except FileNotFoundError:
        return None
    # For a damaged file, Torch may raise any error.
    except Exception:  # noqa: BLE001
        file.unlink(missing_ok=True)
        return None


def _callbacks(settings: Settings, epochs: int) -> list[Callback]:
    callbacks: list[Callback] = []
    if settings.early_stopping:
        callbacks.append(EarlyStopping("val_macro_F1", mode="max", patience=settings.early_stopping))
    if settings.average == "ema":
        callbacks.append(WeightAveraging(avg_fn=_Ema(settings.ema_decay)))
    elif settings.average == "swa":
        callbacks.append(_Swa(int(SWA_FROM * epochs)))
    return callbacks


@dataclass(frozen=True)
class _Ema:
    """Torch's exponential moving average of weights as a picklable object, for trainings in several processes."""

    decay: float

    def __call__(self, average: torch.Tensor, now: torch.Tensor, count: torch.Tensor | int) -> torch.Tensor:
        updated: torch.Tensor = get_ema_avg_fn(self.decay)(average, now, count)
        return updated


class _Swa(WeightAveraging):
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
        """Update the average after the last batch of an epoch."""
        del outputs, batch, batch_idx
        assert self._average_model is not None
        if not trainer.is_last_batch:
            return
        if trainer.current_epoch <= self._first:
            # The first update after this reset copies the weights.
            self._average_model.n_averaged.zero_()
        self._average_model.update_parameters(pl_module)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Replace the update of the base class, since the average is already updated."""


class _Checkpoints(Checkpoint):
    """Writes a checkpoint of each epoch atomically; with `best` also keeps the checkpoint of the best epoch."""

    def __init__(self, folder: Path, best: bool) -> None:
        self._folder, self._best = folder, best

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write a checkpoint. Lightning calls this callback last, when the states of all others are up to date."""
        assert isinstance(pl_module, Training)
        scratch = self._folder / f".{LAST}"
        trainer.save_checkpoint(scratch)  # all processes must call this method, and the first process writes the file
        if not trainer.is_global_zero:
            return
        metrics = [entry["val_macro_F1"] for entry in pl_module.history]
        if self._best and metrics[-1] > max(metrics[:-1], default=-1.0):
            copy = self._folder / f".{BEST}"
            _link_or_copy(scratch, copy)
            copy.replace(self._folder / BEST)
        scratch.replace(self._folder / LAST)


def _link_or_copy(file: Path, other: Path) -> None:
    """Make a hard link, or a copy if the file system has no hard links."""
    other.unlink(missing_ok=True)
    try:
        other.hardlink_to(file)
    except OSError:
        shutil.copyfile(file, other)


class _Progress(Callback):
    """Reports the number of the epoch, and passes on the validation probabilities."""

    def __init__(self, stage: Callable[[str], None], on_epoch: OnEpoch | None, epochs: int) -> None:
        self._stage, self._on_epoch, self._epochs = stage, on_epoch, epochs

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Report the number of the epoch."""
        del pl_module
        self._stage(f"epoch {trainer.current_epoch + 1} of {self._epochs}")

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Pass on the validation probabilities, except those of the last epoch."""
        assert isinstance(pl_module, Training)
        if self._on_epoch is not None and trainer.current_epoch + 1 < self._epochs and not trainer.should_stop:
            self._on_epoch(trainer.current_epoch + 1, pl_module.val_probabilities)


def predict_all(
    network: Classifier,
    pixels: Pixels,
    indices: Sequence[int],
    kinds: Sequence[str],
    batch_size: int,
    device: Device,
) -> npt.NDArray[np.float64]:
    """Predict images, with probabilities averaged over views.

    Args:
        network: the trained network; afterwards in evaluation mode on the cpu.
        pixels: all images, (n, 3, height, width).
        indices: positions of the images to predict.
        kinds: kinds of views; see `views`.
        batch_size: images in a batch.
        device: the device of the prediction.

    Returns:
        Probabilities (len(indices), outputs).
    """
    network.to(device.torch).eval()
    image_views, batches = views(kinds), []
    with torch.inference_mode():
        for start in range(0, len(indices), batch_size):
            batch = torch.from_numpy(np.stack([pixels[i] for i in indices[start : start + batch_size]]))
            batches.append(probabilities(network, as_images(batch.to(device.torch)), image_views).numpy())
    network.cpu()
    return np.concatenate(batches) if batches else np.zeros((0, network.head.out_features))
