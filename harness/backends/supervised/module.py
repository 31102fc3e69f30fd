"""The Lightning module that trains one network."""

from __future__ import annotations

import math
import time
from typing import Any

import lightning.pytorch as pl
import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import DataLoader

from harness.backends.supervised.augment import augmentation, mixing
from harness.backends.supervised.batch_norm import recompute
from harness.backends.supervised.fold_data import FoldData, FoldDataset, as_images, seed_of
from harness.backends.supervised.losses import Loss, label_weights
from harness.backends.supervised.network import Classifier
from harness.backends.supervised.schedules import optimizer, plateau, schedule
from harness.backends.supervised.settings import Settings
from harness.common.errors import TrainingError
from harness.metrics.classification import macro_f1_of_fold

Batch = tuple[torch.Tensor, torch.Tensor]


class Training(pl.LightningModule):
    """Trains one network.

    Args:
        network: the network.
        settings: settings of the run.
        data: training and validation data.
        epochs: maximum number of epochs.

    Attributes:
        network: the network.
        history: one entry for each epoch: epoch, train_loss, val_loss, val_macro_F1, lr, seconds.
        val_probabilities: (validation images, outputs) after the last finished epoch.
    """

    def __init__(self, network: Classifier, settings: Settings, data: FoldData, epochs: int) -> None:
        super().__init__()
        self.network = network
        self.history: list[dict[str, float]] = []
        self.val_probabilities: npt.NDArray[np.float32] = np.zeros((0, data.outputs), dtype=np.float32)
        self._settings, self._data, self._epochs = settings, data, epochs
        weighted = settings.balance == "class_weights"
        weights = label_weights(data.counts, settings.balance_strength) if weighted else None
        margin = None if data.with_margin is None else torch.from_numpy(data.with_margin)
        self._loss = Loss(settings, data.outputs, weights, margin)
        self._augment = augmentation(settings.augment)
        self._mix = mixing(settings.mix, settings.mix_alpha, settings.mix_probability, data.outputs)
        self._train_losses: list[torch.Tensor] = []
        self._val_outputs: list[tuple[torch.Tensor, torch.Tensor]] = []
        self._start = 0.0
        self._plateau: Any = None
        self._plateau_state: dict[str, Any] | None = None

    def train_dataloader(self) -> DataLoader[Any]:
        """Build the loader of an epoch, whose random numbers are a function of seed and epoch."""
        epoch = self.trainer.current_epoch
        data = self._data
        seed = seed_of(data.seed, epoch)
        dataset = FoldDataset(data.pixels, data.targets, data.train_indices, self._augment, seed)
        sampler = data.batches(self._settings, epoch, self._share)
        return DataLoader(dataset, batch_sampler=sampler, num_workers=data.num_workers)

    def val_dataloader(self) -> DataLoader[Any]:
        """Build the loader of the validation images, without augmentation; each process validates on all images."""
        data = self._data
        dataset = FoldDataset(data.pixels, data.targets, data.val_indices)
        return DataLoader(dataset, batch_size=data.eval_batch_size, num_workers=data.num_workers)

    def recompute_statistics(self) -> None:
        """Compute the statistics of batch normalisation anew, from training images without augmentation.

        Each process computes the statistics of the same images, so that all have the same network.
        """
        data = self._data
        dataset = FoldDataset(data.pixels, data.targets, data.train_indices)
        loader = DataLoader(dataset, batch_sampler=data.statistics_batches(), num_workers=data.num_workers)
        with self.trainer.precision_plugin.forward_context():
            images = (as_images(batch[0].to(self.device)) for batch in loader)
            recompute(self.network.features, map(self.network.normalised, images))

    @property
    def _share(self) -> tuple[int, int]:
        return self.trainer.global_rank, self.trainer.world_size

    def configure_optimizers(self) -> Any:
        """Build the optimiser and the learning rate schedule."""
        optimiser = optimizer(self._settings, self.network)
        self._plateau = plateau(self._settings, optimiser)
        if self._plateau is not None and self._plateau_state is not None:
            self._plateau.load_state_dict(self._plateau_state)
        batches = len(self._data.batches(self._settings, 0, self._share))
        # Lightning moves the schedule with each step of the optimiser, which may be several batches.
        steps = math.ceil(batches / self.trainer.accumulate_grad_batches)
        scheduler = schedule(self._settings, optimiser, steps, steps * self._epochs)
        config = {"optimizer": optimiser, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}
        return optimiser if scheduler is None else config

    def on_train_epoch_start(self) -> None:
        """Reset the losses and the clock."""
        self._train_losses, self._start = [], time.perf_counter()

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Seed dropout and mixing by the seed and the position of the batch in the training.

        Args:
            batch: the batch.
            batch_idx: number of the batch in the epoch.
        """
        del batch
        seed = seed_of(self._data.seed, 1, self.current_epoch, batch_idx)
        torch.default_generator.manual_seed(seed)
        if self.device.type != "cpu":
            torch.manual_seed(seed)

    def training_step(self, batch: Batch, batch_idx: int) -> torch.Tensor:
        """Return the loss of a batch.

        Args:
            batch: uint8 images (n, 3, height, width) and targets (n,).
            batch_idx: number of the batch in the epoch.

        Raises:
            TrainingError: the loss is NaN or infinite.
        """
        images, targets = as_images(batch[0]), batch[1]
        if self._mix is not None:
            images, targets = self._mix(images, targets)
        loss: torch.Tensor = self._loss(self.network, images, targets)
        if not torch.isfinite(loss.detach()):
            raise TrainingError(
                f"the loss is {float(loss.detach())} in epoch {self.current_epoch + 1}, batch {batch_idx + 1}: "
                f"training was stopped. Try a smaller lr (found {self._settings.lr}), trainer.gradient_clip_val or "
                "another precision."
            )
        self._train_losses.append(loss.detach())
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Collect logits and targets of a batch.

        Args:
            batch: uint8 images (n, 3, height, width) and targets (n,).
            batch_idx: number of the batch.
        """
        del batch_idx
        self._val_outputs.append((self.network(as_images(batch[0])).float().cpu(), batch[1].cpu()))

    def on_validation_epoch_end(self) -> None:
        """Compute the validation metrics of the epoch."""
        logits, targets = (torch.cat(batches) for batches in zip(*self._val_outputs, strict=True))
        self._val_outputs = []
        self.val_probabilities = logits.softmax(dim=1).numpy()
        self.log("val_macro_F1", macro_f1_of_fold(targets.numpy(), logits.argmax(dim=1).numpy()))
        self.log("val_loss", float(torch.nn.functional.cross_entropy(logits, targets)))

    def on_train_epoch_end(self) -> None:
        """Append an entry to the history, and move a plateau schedule."""
        loss = float(torch.stack(self._train_losses).mean())
        metrics = self.trainer.callback_metrics
        entry = {
            "epoch": float(self.current_epoch + 1),
            "train_loss": loss,
            "val_loss": float(metrics["val_loss"]),
            "val_macro_F1": float(metrics["val_macro_F1"]),
            "lr": float(self.trainer.optimizers[0].param_groups[0]["lr"]),
            "seconds": time.perf_counter() - self._start,
        }
        self.history.append({key: value if math.isfinite(value) else -1.0 for key, value in entry.items()})
        self.log("train_loss", loss)
        if self._plateau is not None:
            self._plateau.step(entry["val_loss"])

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the history and the state that Lightning does not save itself."""
        checkpoint["history"] = self.history
        checkpoint["stopped"] = self.trainer.should_stop
        checkpoint["plateau"] = None if self._plateau is None else self._plateau.state_dict()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore the history and the state that `on_save_checkpoint` added."""
        self.history, self._plateau_state = checkpoint["history"], checkpoint["plateau"]
        if self._plateau is not None and self._plateau_state is not None:
            self._plateau.load_state_dict(self._plateau_state)
