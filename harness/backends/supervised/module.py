"""One network in training, as Lightning wants it; and the images it learns from."""

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
    """A seed that is a function of several numbers."""
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])


class Pictures(Dataset[tuple[torch.Tensor, int]]):
    """Some of the decoded images with their targets.

    Args:
        pixels: all images, (n, 3, height, width).
        targets: of all images, (n,).
        chosen: positions of those meant.
        augment: of training images; None for none.
        seed: what is drawn for an image is a function of this and of its position.
    """

    def __init__(
        self,
        pixels: Pixels,
        targets: npt.NDArray[np.int64],
        chosen: Sequence[int],
        augment: Augment | None = None,
        seed: int = 0,
    ) -> None:
        self._pixels, self._targets, self._chosen = pixels, targets, list(chosen)
        self._augment, self._seed = augment, seed

    def __len__(self) -> int:
        return len(self._chosen)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        place = self._chosen[index]
        image = torch.from_numpy(np.array(self._pixels[place]))
        if self._augment is not None:
            # Three libraries draw: the same picture in the same epoch gets the same, whoever loads it and when.
            seed = seed_of(self._seed, place)
            # Not torch.manual_seed: for each device not in use yet, it notes where it was called, which takes 1 ms.
            torch.default_generator.manual_seed(seed)
            random.seed(seed)
            np.random.seed(seed)
            image = self._augment(image)
        return image, int(self._targets[place])


def as_images(pixels: torch.Tensor) -> torch.Tensor:
    """(n, 3, height, width) of uint8 -> in [0, 1], channels last: a third faster on the cpu."""
    return pixels.to(memory_format=torch.channels_last).float() / 255


@dataclass(frozen=True)
class FoldData:
    """What a network learns, and from which images.

    Attributes:
        pixels: all images.
        targets: of all images, positions of outputs.
        learnt, judged: positions of the images to learn from and to be judged by.
        outputs: how many.
        with_margin: outputs whose images get ArcFace's margin, (outputs,); None for all.
        batch_size, eval_batch_size: images, of each process.
        num_workers: processes that load images.
        seed: of everything random.
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
        """Itself: nothing in it changes, and weight averaging copies all that a module holds."""
        del memo
        return self

    @property
    def counts(self) -> torch.Tensor:
        """(outputs,) images to learn from."""
        found = np.bincount(self.targets[list(self.learnt)], minlength=self.outputs)
        return torch.from_numpy(found).float()

    def order(self, settings: Settings, epoch: int) -> list[int]:
        """Positions in `learnt` for one epoch; a `sampler` draws rare labels more often, with replacement."""
        rng = np.random.default_rng([self.seed, epoch])
        if settings.balance != "sampler":
            return [int(i) for i in rng.permutation(len(self.learnt))]
        chances = label_weights(self.counts, settings.balance_strength).double().numpy()
        chances = chances[self.targets[list(self.learnt)]]
        return [int(i) for i in rng.choice(len(chances), len(chances), p=chances / chances.sum())]

    def batches(self, settings: Settings, epoch: int, share: tuple[int, int] = (0, 1)) -> BatchSampler:
        """Positions in `learnt`; a last batch of a single image is dropped: batch normalisation can't do with one.

        Args:
            settings: of the run.
            epoch: from 0.
            share: (which process, of how many): all get equally many images, some of the first ones twice if need be.
        """
        which, processes = share
        order = self.order(settings, epoch)
        order = (order + order[: -len(order) % processes])[which::processes]
        rest = len(order) % self.batch_size
        return BatchSampler(order, self.batch_size, drop_last=rest == 1 and len(order) > self.batch_size)


class Training(pl.LightningModule):
    """Trains one network.

    Args:
        network: to be trained.
        settings: of the run.
        lesson: what it learns.
        epochs: how many at most.

    Attributes:
        network: as given.
        history: one entry an epoch: epoch, train_loss, val_loss, val_macro_F1, lr, seconds.
        said: of the judged images after the last epoch, (judged, outputs) probabilities.
    """

    def __init__(self, network: Classifier, settings: Settings, lesson: FoldData, epochs: int) -> None:
        super().__init__()
        self.network = network
        self.history: list[dict[str, float]] = []
        self.said: npt.NDArray[np.float32] = np.zeros((0, lesson.outputs), dtype=np.float32)
        self._settings, self._lesson, self._epochs = settings, lesson, epochs
        weighted = settings.balance == "class_weights"
        weights = label_weights(lesson.counts, settings.balance_strength) if weighted else None
        margin = None if lesson.with_margin is None else torch.from_numpy(lesson.with_margin)
        self._loss = Loss(settings, lesson.outputs, weights, margin)
        self._augment = augmentation(settings.augment)
        self._mix = mixing(settings.mix, settings.mix_alpha, lesson.outputs)
        self._train_losses: list[torch.Tensor] = []
        self._judged: list[tuple[torch.Tensor, torch.Tensor]] = []
        self._began = 0.0
        self._plateau: Any = None
        self._plateau_state: dict[str, Any] | None = None

    def train_dataloader(self) -> DataLoader[Any]:
        """Built anew for each epoch, so that what is drawn is a function of seed and epoch."""
        epoch = self.trainer.current_epoch
        lesson = self._lesson
        seed = seed_of(lesson.seed, epoch)
        pictures = Pictures(lesson.pixels, lesson.targets, lesson.learnt, self._augment, seed)
        sampler = lesson.batches(self._settings, epoch, self._share)
        return DataLoader(pictures, batch_sampler=sampler, num_workers=lesson.num_workers)

    def val_dataloader(self) -> DataLoader[Any]:
        """The images that the network is judged by, as they are; of several processes each judges all."""
        lesson = self._lesson
        pictures = Pictures(lesson.pixels, lesson.targets, lesson.judged)
        return DataLoader(pictures, batch_size=lesson.eval_batch_size, num_workers=lesson.num_workers)

    @property
    def _share(self) -> tuple[int, int]:
        return self.trainer.global_rank, self.trainer.world_size

    def configure_optimizers(self) -> Any:
        """See `harness.backends.supervised.schedules`."""
        made = optimizer(self._settings, self.network.parameters())
        self._plateau = plateau(self._settings, made)
        if self._plateau is not None and self._plateau_state is not None:
            self._plateau.load_state_dict(self._plateau_state)
        batches = len(self._lesson.batches(self._settings, 0, self._share))
        # Lightning moves a schedule once a step of the optimiser, which may be several batches.
        steps = math.ceil(batches / self.trainer.accumulate_grad_batches)
        moved = schedule(self._settings, made, steps, steps * self._epochs)
        return made if moved is None else {"optimizer": made, "lr_scheduler": {"scheduler": moved, "interval": "step"}}

    def on_train_epoch_start(self) -> None:
        """Begin counting."""
        self._train_losses, self._began = [], time.perf_counter()

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Dropout and mixing too are a function of the seed and of how far training is."""
        del batch
        seed = seed_of(self._lesson.seed, 1, self.current_epoch, batch_idx)
        torch.default_generator.manual_seed(seed)
        if self.device.type != "cpu":
            torch.manual_seed(seed)

    def training_step(self, batch: Batch, batch_idx: int) -> torch.Tensor:
        """Loss of a batch.

        Raises:
            TrainingError: it is NaN or infinite.
        """
        images, targets = as_images(batch[0]), batch[1]
        if self._mix is not None:
            images, targets = self._mix(images, targets)
        loss: torch.Tensor = self._loss(self.network, images, targets)
        if not torch.isfinite(loss.detach()):
            raise TrainingError(
                f"the loss is {float(loss.detach())} in epoch {self.current_epoch + 1}, batch {batch_idx + 1}: "
                f"training was stopped. A smaller lr ({self._settings.lr} found), trainer.gradient_clip_val or another "
                "precision may help."
            )
        self._train_losses.append(loss.detach())
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Keep what the network says."""
        del batch_idx
        self._judged.append((self.network(as_images(batch[0])).float().cpu(), batch[1].cpu()))

    def on_validation_epoch_end(self) -> None:
        """Figures of the epoch."""
        logits, targets = (torch.cat(part) for part in zip(*self._judged, strict=True))
        self._judged = []
        self.said = logits.softmax(dim=1).numpy()
        found = macro_f1(targets.numpy(), logits.argmax(dim=1).numpy(), self._lesson.outputs)
        self.log("val_macro_F1", found)
        self.log("val_loss", float(torch.nn.functional.cross_entropy(logits, targets)))

    def on_train_epoch_end(self) -> None:
        """An entry of the history; a plateau is looked for."""
        loss = float(torch.stack(self._train_losses).mean())
        figures = self.trainer.callback_metrics
        entry = {
            "epoch": float(self.current_epoch + 1),
            "train_loss": loss,
            "val_loss": float(figures["val_loss"]),
            "val_macro_F1": float(figures["val_macro_F1"]),
            "lr": float(self.trainer.optimizers[0].param_groups[0]["lr"]),
            "seconds": time.perf_counter() - self._began,
        }
        self.history.append({key: value if math.isfinite(value) else -1.0 for key, value in entry.items()})
        self.log("train_loss", loss)
        if self._plateau is not None:
            self._plateau.step(entry["val_loss"])

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """What Lightning does not know of."""
        checkpoint["history"] = self.history
        checkpoint["stopped"] = self.trainer.should_stop
        checkpoint["plateau"] = None if self._plateau is None else self._plateau.state_dict()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """See `on_save_checkpoint`."""
        self.history, self._plateau_state = checkpoint["history"], checkpoint["plateau"]
        if self._plateau is not None and self._plateau_state is not None:
            self._plateau.load_state_dict(self._plateau_state)
