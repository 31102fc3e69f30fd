"""The Lightning module that trains one network, and its training and validation data."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import lightning.pytorch as pl
import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import BatchSampler, DataLoader, Dataset

from harness.backends.supervised.augment import Augment, augmentation, mixing
from harness.backends.supervised.losses import Loss, label_weights
from harness.backends.supervised.network import Classifier
from harness.backends.supervised.pictures import Pixels
from harness.backends.supervised.schedules import optimizer, plateau, schedule
from harness.backends.supervised.settings import Settings
from harness.common.errors import TrainingError
from harness.metrics.classification import macro_f1

Batch = tuple[torch.Tensor, torch.Tensor]


def seed_of(*numbers: int) -> int:
    """Return a seed that is a function of several numbers."""
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])


class Pictures(Dataset[tuple[torch.Tensor, int]]):
    """A subset of the decoded images with their targets.

    Args:
        pixels: all images, (n, 3, height, width).
        targets: targets of all images, (n,).
        indices: positions of the subset.
        augment: augmentation of training images; None for none.
        seed: seed of the augmentation, which is a function of this seed and of the image's position.
    """

    def __init__(
        self,
        pixels: Pixels,
        targets: npt.NDArray[np.int64],
        indices: Sequence[int],
        augment: Augment | None = None,
        seed: int = 0,
    ) -> None:
        self._pixels, self._targets, self._indices = pixels, targets, list(indices)
        self._augment, self._seed = augment, seed

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        position = self._indices[index]
        image = torch.from_numpy(np.array(self._pixels[position]))
        if self._augment is not None:
            # Three libraries draw random numbers. The seed makes them independent of the loading process and order.
            seed = seed_of(self._seed, position)
            # torch.manual_seed takes 1 ms longer, to record its caller for each device that is not yet in use.
            torch.default_generator.manual_seed(seed)
            random.seed(seed)
            np.random.seed(seed)
            image = self._augment(image)
        return image, int(self._targets[position])


def as_images(pixels: torch.Tensor) -> torch.Tensor:
    """Convert uint8 images (n, 3, height, width) to [0, 1], with channels last, which are a third faster on the cpu."""
    return pixels.to(memory_format=torch.channels_last).float() / 255


@dataclass(frozen=True)
class FoldData:
    """The training and validation data of one network.

    Attributes:
        pixels: all images, (n, 3, height, width).
        targets: output position of each image, (n,).
        learnt: positions of the training images.
        judged: positions of the validation images.
        outputs: number of outputs.
        with_margin: whether the images of each output get ArcFace's margin, (outputs,); None for all outputs.
        batch_size: images in a training batch of each process.
        eval_batch_size: images in a validation batch.
        num_workers: processes that load images.
        seed: seed of all random numbers of the training.
    """

    pixels: Pixels
    targets: npt.NDArray[np.int64]
    learnt: Sequence[int]
    judged: Sequence[int]
    outputs: int
    with_margin: npt.NDArray[np.bool_] | None
    batch_size: int
    eval_batch_size: int
    num_workers: int
    seed: int

    def __deepcopy__(self, memo: object) -> FoldData:
        """Return the object itself: it never changes, and a copy for weight averaging would duplicate the images."""
        del memo
        return self

    @property
    def counts(self) -> torch.Tensor:
        """Number of training images of each output, (outputs,)."""
        return torch.from_numpy(np.bincount(self.targets[list(self.learnt)], minlength=self.outputs)).float()

    def order(self, settings: Settings, epoch: int) -> list[int]:
        """Return positions in `learnt` for one epoch; `sampler` draws rare labels more often, with replacement.

        Args:
            settings: settings of the run.
            epoch: number of the epoch, from 0.
        """
        rng = np.random.default_rng([self.seed, epoch])
        if settings.balance != "sampler":
            return [int(i) for i in rng.permutation(len(self.learnt))]
        chances = label_weights(self.counts, settings.balance_strength).double().numpy()
        chances = chances[self.targets[list(self.learnt)]]
        return [int(i) for i in rng.choice(len(chances), len(chances), p=chances / chances.sum())]

    def batches(self, settings: Settings, epoch: int, share: tuple[int, int] = (0, 1)) -> BatchSampler:
        """Return the batches of an epoch, without a last batch of one image, which batch normalisation cannot use.

        Args:
            settings: settings of the run.
            epoch: number of the epoch, from 0.
            share: (rank, number of processes). All processes get equally many images; the first images may come twice.

        Returns:
            Batches of positions in `learnt`.
        """
        rank, processes = share
        order = self.order(settings, epoch)
        order = (order + order[: -len(order) % processes])[rank::processes]
        rest = len(order) % self.batch_size
        return BatchSampler(order, self.batch_size, drop_last=rest == 1 and len(order) > self.batch_size)


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
        self._mix = mixing(settings.mix, settings.mix_alpha, data.outputs)
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
        pictures = Pictures(data.pixels, data.targets, data.learnt, self._augment, seed)
        sampler = data.batches(self._settings, epoch, self._share)
        return DataLoader(pictures, batch_sampler=sampler, num_workers=data.num_workers)

    def val_dataloader(self) -> DataLoader[Any]:
        """Build the loader of the validation images, without augmentation; each process validates on all images."""
        data = self._data
        pictures = Pictures(data.pixels, data.targets, data.judged)
        return DataLoader(pictures, batch_size=data.eval_batch_size, num_workers=data.num_workers)

    @property
    def _share(self) -> tuple[int, int]:
        return self.trainer.global_rank, self.trainer.world_size

    def configure_optimizers(self) -> Any:
        """Build the optimiser and the learning rate schedule."""
        optimiser = optimizer(self._settings, self.network.parameters())
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
        self.log("val_macro_F1", macro_f1(targets.numpy(), logits.argmax(dim=1).numpy(), self._data.outputs))
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
