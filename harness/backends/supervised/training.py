"""Training of one network on one fold by Lightning's Trainer, with checkpoints that outlive a kill."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import numpy.typing as npt
import torch
from lightning.pytorch.loggers import TensorBoardLogger
from safetensors.torch import load_file, save_file
from torch.multiprocessing.spawn import ProcessRaisedException

from harness.backends.supervised.callbacks import BEST, LAST, Checkpoints, OnEpoch, Progress, training_callbacks
from harness.backends.supervised.decoding import Pixels
from harness.backends.supervised.fold_data import FoldData, as_images
from harness.backends.supervised.module import Training
from harness.backends.supervised.network import Classifier
from harness.backends.supervised.settings import Settings
from harness.backends.supervised.tta import Views
from harness.backends.supervised.views import probabilities
from harness.common.devices import Device
from harness.common.errors import TrainingError
from harness.common.files import write_atomic

DONE, WEIGHTS = "done.json", "weights.safetensors"


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
    load_data: Callable[[], FoldData],
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
        load_data: returns training and validation data; not called where an earlier attempt finished.
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
    module = Training(network, settings, load_data(), epochs)
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
    in_process = trainer.get("strategy", "auto") == "auto"
    progress = [Progress(stage, on_epoch, epochs)] if in_process else []
    runner = pl.Trainer(
        **{**device.trainer_arguments(), **trainer},
        callbacks=[
            *training_callbacks(settings, epochs),
            *progress,
            Checkpoints(folder, best=settings.keep == "best", monitor=settings.monitor, always=not in_process),
        ],
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


def predict_all(
    network: Classifier,
    pixels: Pixels,
    indices: Sequence[int],
    views: Views,
    batch_size: int,
    device: Device,
) -> npt.NDArray[np.float64]:
    """Predict images, with probabilities averaged over views.

    Args:
        network: the trained network; afterwards in evaluation mode on the cpu.
        pixels: all images, (n, 3, height, width).
        indices: positions of the images to predict.
        views: the views of an image.
        batch_size: images in a batch.
        device: the device of the prediction.

    Returns:
        Probabilities (len(indices), outputs).
    """
    network.to(device.torch).eval()
    size, batches = (pixels.shape[2], pixels.shape[3]), []
    with torch.inference_mode():
        for start in range(0, len(indices), batch_size):
            batch = torch.from_numpy(np.stack([pixels[i] for i in indices[start : start + batch_size]]))
            batches.append(probabilities(network, as_images(batch.to(device.torch)), views, size).numpy())
    network.cpu()
    return np.concatenate(batches) if batches else np.zeros((0, network.head.out_features))
