"""The training and validation images of one network, and their order."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import Dataset

from harness.backends.supervised.augment import Augment
from harness.backends.supervised.batch_norm import STATISTICS_IMAGES
from harness.backends.supervised.decoding import Pixels
from harness.backends.supervised.losses import label_weights
from harness.backends.supervised.settings import Settings

# A position in the training images, and how often the epoch has drawn this image before.
Draw = tuple[int, int]


def seed_of(*numbers: int) -> int:
    """Return a seed that is a function of several numbers."""
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])


class FoldDataset(Dataset[tuple[torch.Tensor, int]]):
    """A subset of the decoded images with their targets.

    Args:
        pixels: all images, (n, 3, height, width).
        targets: targets of all images, (n,).
        indices: positions of the subset.
        augment: augmentation of training images; None for none.
        seed: seed of the augmentation, which is a function of this seed, of the image's position, and of the number of
            its draw in the epoch.
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

    def __getitem__(self, index: int | Draw) -> tuple[torch.Tensor, int]:
        index, draw = index if isinstance(index, tuple) else (index, 0)
        position = self._indices[index]
        image = torch.from_numpy(np.array(self._pixels[position]))
        if self._augment is not None:
            # Three libraries draw random numbers. The seed makes them independent of the loading process and order.
            seed = seed_of(self._seed, position, draw)
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
        train_indices: positions of the training images.
        val_indices: positions of the validation images.
        outputs: number of outputs.
        with_margin: whether the images of each output get ArcFace's margin, (outputs,); None for all outputs.
        batch_size: images in a training batch of each process.
        eval_batch_size: images in a validation batch.
        num_workers: processes that load images.
        seed: seed of all random numbers of the training.
    """

    pixels: Pixels
    targets: npt.NDArray[np.int64]
    train_indices: Sequence[int]
    val_indices: Sequence[int]
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
        return torch.from_numpy(np.bincount(self.targets[list(self.train_indices)], minlength=self.outputs)).float()

    def order(self, settings: Settings, epoch: int) -> list[int]:
        """Return positions in `train_indices` for one epoch; `sampler` draws rare labels more often, with replacement.

        Args:
            settings: settings of the run.
            epoch: number of the epoch, from 0.
        """
        rng = np.random.default_rng([self.seed, epoch])
        if settings.balance != "sampler":
            return [int(i) for i in rng.permutation(len(self.train_indices))]
        chances = label_weights(self.counts, settings.balance_strength).double().numpy()
        chances = chances[self.targets[list(self.train_indices)]]
        return [int(i) for i in rng.choice(len(chances), len(chances), p=chances / chances.sum())]

    def batches(self, settings: Settings, epoch: int, share: tuple[int, int] = (0, 1)) -> list[list[Draw]]:
        """Return the batches of an epoch, without a last batch of one image, which batch normalisation cannot use.

        Args:
            settings: settings of the run.
            epoch: number of the epoch, from 0.
            share: (rank, number of processes). All processes get equally many images; the first images may come twice.

        Returns:
            Batches of draws from `train_indices`.
        """
        rank, processes = share
        order = _draws(self.order(settings, epoch))
        return self._batched((order + order[: -len(order) % processes])[rank::processes])

    def statistics_batches(self) -> list[list[Draw]]:
        """Return batches of at most `STATISTICS_IMAGES` training images, for the statistics of batch normalisation."""
        order = np.random.default_rng(self.seed).permutation(len(self.train_indices))[:STATISTICS_IMAGES]
        return self._batched(_draws([int(i) for i in order]))

    def _batched(self, order: list[Draw]) -> list[list[Draw]]:
        batches = [order[start : start + self.batch_size] for start in range(0, len(order), self.batch_size)]
        return batches[:-1] if len(batches) > 1 and len(batches[-1]) == 1 else batches


def _draws(order: Sequence[int]) -> list[Draw]:
    """Number the draws of each image, so that each draw has an augmentation of its own."""
    drawn: Counter[int] = Counter()
    draws = []
    for index in order:
        draws.append((index, drawn[index]))
        drawn[index] += 1
    return draws
