"""One network on one fold: Lightning's Trainer, and what outlives a kill."""

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
SWA_FROM = 0.75  # of the epochs
Look = Callable[[int, npt.NDArray[np.float32]], None]


@dataclass(frozen=True)
class Trained:
    """A network that has learnt.

    Attributes:
        network: in evaluation, on the cpu.
        history: see `Training.history`.
        resumed: the epoch it went on from after a kill; 0 where it was trained in one go.
        epoch: whose weights were kept.
    """

    network: Classifier
    history: list[dict[str, float]]
    resumed: int
    epoch: int


def train(
    network: Classifier,
    settings: Settings,
    lesson: FoldData,
    folder: Path,
    device: Device,
    trainer: Mapping[str, Any],
    log_to: Path | None,
    stage: Callable[[str], None],
    look: Look | None = None,
) -> Trained:
    """Train, or go on with what an earlier try left in `folder`.

    Args:
        network: with its first weights.
        settings: of the run.
        lesson: what it learns.
        folder: what outlives a kill; may hold an earlier try's.
        device: what it runs on.
        trainer: arguments of Lightning's Trainer; `max_epochs` among them.
        log_to: where TensorBoard's curves go, None for nowhere.
        stage: told what goes on.
        look: called after each epoch but the last with its number and what is said of the judged images; it need not
            return. Of several processes none calls it.

    Raises:
        TrainingError: the loss is no number.
    """
    folder.mkdir(parents=True, exist_ok=True)
    done = _done(folder, network)
    if done is not None:
        return done
    epochs = int(trainer["max_epochs"])
    module = Training(network, settings, lesson, epochs)
    begun = _begun(folder / LAST)
    resumed = 0 if begun is None else len(begun["history"])
    if begun is not None and (begun["stopped"] or resumed >= epochs):
        # Killed after its last epoch: there is nothing left to train.
        module.load_state_dict(begun["state_dict"])
        module.history = begun["history"]
    else:
        _fit(module, settings, folder, device, {**trainer, "max_epochs": epochs}, log_to, stage, resumed, look)
    # Of what other processes trained, only the weights came back.
    history = module.history or torch.load(folder / LAST, map_location="cpu", weights_only=True)["history"]
    epoch = len(history)
    if settings.keep == "best":
        best = torch.load(folder / BEST, map_location="cpu", weights_only=True)
        module.load_state_dict(best["state_dict"])
        epoch = len(best["history"])
    network.cpu().eval()
    save_file({key: value.contiguous() for key, value in network.state_dict().items()}, folder / WEIGHTS)
    # Last, and whole or not at all: once it is there, all else is.
    write_atomic(folder / DONE, json.dumps({"history": history, "resumed": resumed, "epoch": epoch}))
    for spent in (LAST, BEST):
        (folder / spent).unlink(missing_ok=True)
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
    look: Look | None,
) -> None:
    epochs = trainer["max_epochs"]
    # Other processes can't be handed what tells.
    teller = [_Teller(stage, look, epochs)] if trainer.get("strategy", "auto") == "auto" else []
    runner = pl.Trainer(
        **{**device.trainer_arguments(), **trainer},
        callbacks=[*_callbacks(settings, epochs), *teller, _Keeper(folder, best=settings.keep == "best")],
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
        # Of workers, and of few batches: neither is news to whoever wrote the config.
        warnings.simplefilter("ignore")
        try:
            runner.fit(
                module, ckpt_path=str(folder / LAST) if resumed else None, weights_only=True if resumed else None
            )
        except ProcessRaisedException as error:
            raise _of_process(error) from error
    if runner.interrupted:
        raise KeyboardInterrupt


def _done(folder: Path, network: Classifier) -> Trained | None:
    """What an earlier try finished; damaged files count for nothing."""
    try:
        weights = load_file(folder / WEIGHTS)
        about = json.loads((folder / DONE).read_text())
        found = Trained(network, about["history"], about["resumed"], about["epoch"])
        network.load_state_dict(weights)
        network.eval()
        return found
    except FileNotFoundError:
        return None
    # Whatever the libraries make of a file that is damaged: it is trained anew.
    except Exception:  # noqa: BLE001
        (folder / DONE).unlink(missing_ok=True)
        return None


def _of_process(error: ProcessRaisedException) -> Exception:
    """What one of several processes raised: their library hands on a text."""
    _, found, said = str(error).rstrip().rpartition(f"{TrainingError.__name__}: ")
    return TrainingError(said) if found else error


def _begun(file: Path) -> dict[str, Any] | None:
    """What an earlier try reached; a damaged file counts for nothing."""
    try:
        found: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
        len(found["history"]), found["stopped"]
        return found
    except FileNotFoundError:
        return None
    # Whatever Torch makes of a file that is no checkpoint.
    except Exception:  # noqa: BLE001
        file.unlink(missing_ok=True)
        return None


def _callbacks(settings: Settings, epochs: int) -> list[Callback]:
    found: list[Callback] = []
    if settings.early_stopping:
        found.append(EarlyStopping("val_macro_F1", mode="max", patience=settings.early_stopping))
    if settings.average == "ema":
        found.append(WeightAveraging(avg_fn=_Ema(settings.ema_decay)))
    elif settings.average == "swa":
        found.append(_Swa(int(SWA_FROM * epochs)))
    return found


@dataclass(frozen=True)
class _Ema:
    """Torch's exponential moving average of weights, such that it can be handed to another process."""

    decay: float

    def __call__(self, average: torch.Tensor, now: torch.Tensor, count: torch.Tensor | int) -> torch.Tensor:
        found: torch.Tensor = get_ema_avg_fn(self.decay)(average, now, count)
        return found


class _Swa(WeightAveraging):
    """Equal average of the weights at the ends of the last epochs (Izmailov et al., 2018), buffers too.

    It is brought up to date before validation, so that an epoch's figures are about what is kept of it; until the
    averaging begins, that is the weights as they are.
    """

    def __init__(self, first: int) -> None:
        super().__init__()
        self._first = first

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """After the last batch of an epoch."""
        del outputs, batch, batch_idx
        assert self._average_model is not None
        if not trainer.is_last_batch:
            return
        if trainer.current_epoch <= self._first:
            # The first update of an average is a copy.
            self._average_model.n_averaged.zero_()
        self._average_model.update_parameters(pl_module)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Nothing is left to do."""


class _Keeper(Checkpoint):
    """Writes each epoch's state, in place whole or not at all; with `best` the best one stays beside the last."""

    def __init__(self, folder: Path, best: bool) -> None:
        self._folder, self._best = folder, best

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """After all others, so that their states are in it."""
        assert isinstance(pl_module, Training)
        scratch = self._folder / f".{LAST}"
        trainer.save_checkpoint(scratch)  # which all processes take part in, and the first one writes
        if not trainer.is_global_zero:
            return
        figures = [entry["val_macro_F1"] for entry in pl_module.history]
        if self._best and figures[-1] > max(figures[:-1], default=-1.0):
            copy = self._folder / f".{BEST}"
            _twin(scratch, copy)
            copy.replace(self._folder / BEST)
        scratch.replace(self._folder / LAST)


def _twin(file: Path, other: Path) -> None:
    """The same content by another name: without copying it, where the file system can."""
    other.unlink(missing_ok=True)
    try:
        other.hardlink_to(file)
    except OSError:
        shutil.copyfile(file, other)


class _Teller(Callback):
    """Tells which epoch it is, and shows what it came to."""

    def __init__(self, stage: Callable[[str], None], look: Look | None, epochs: int) -> None:
        self._stage, self._look, self._epochs = stage, look, epochs

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """One more."""
        del pl_module
        self._stage(f"epoch {trainer.current_epoch + 1} of {self._epochs}")

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """After the images were judged."""
        assert isinstance(pl_module, Training)
        if self._look is not None and trainer.current_epoch + 1 < self._epochs and not trainer.should_stop:
            self._look(trainer.current_epoch + 1, pl_module.said)


def predict_all(
    network: Classifier,
    pixels: Pixels,
    chosen: Sequence[int],
    kinds: Sequence[str],
    batch_size: int,
    device: Device,
) -> npt.NDArray[np.float64]:
    """Probabilities (n, outputs) of the chosen images, averaged over views."""
    network.to(device.torch).eval()
    looks, found = views(kinds), []
    with torch.inference_mode():
        for start in range(0, len(chosen), batch_size):
            batch = torch.from_numpy(np.stack([pixels[i] for i in chosen[start : start + batch_size]]))
            found.append(probabilities(network, as_images(batch.to(device.torch)), looks).numpy())
    network.cpu()
    return np.concatenate(found) if found else np.zeros((0, network.head.out_features))
