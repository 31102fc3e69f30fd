"""The training of Dinomaly on stored features, and its scores.

The encoder is frozen and the training images are not augmented, so the features of an image never change. One pass of
the encoder serves all steps, all seeds and all points of a grid.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn import functional as F

from harness.backbones.inject import seeded
from harness.detectors.block_means import patches_of, prefix_of
from harness.detectors.context import StageContext
from harness.detectors.default import Learnt
from harness.detectors.features import FeatureMaps
from harness.detectors.maps import Scores, mean_of_largest, smooth, upsample
from harness.detectors.reconstruction import Architecture, Reconstruction
from harness.detectors.stable_adamw import StableAdamW

LARGEST_NORM = 0.1  # of the gradient of all parameters
LAST_RATE = 0.1  # learning rate of the last step, relative to the largest one
# Schedules of the paper's training of one category, in steps. A shorter training shortens them in proportion.
STEPS, WARM_UP, MINING = 5000, 100, 1000
# Of the patches, this share is easy at the end of the schedule; their gradients are multiplied by `EASY_WEIGHT`.
EASY_SHARE, EASY_WEIGHT = 0.9, 0.1
# An image score comes from a map of this size, smoothed within this radius, in pixels.
SCORED_SIZE, SCORED_RADIUS = (256, 256), 2


@dataclass(frozen=True)
class Blocks:
    """The encoder's blocks that a Dinomaly reconstructs.

    Attributes:
        groups: names of the blocks in each group, the shallow group first.
        prefix: whether the encoder has tokens before the patches.
    """

    groups: tuple[tuple[str, ...], ...]
    prefix: bool

    def layers(self) -> tuple[str, ...]:
        """Names of the stored features: of each group, the patches and the tokens before them."""
        names = [patches_of(group) for group in self.groups]
        return (*names, *(prefix_of(group) for group in self.groups if self.prefix))

    def reconstructed(
        self, network: Callable[[torch.Tensor], list[torch.Tensor]], features: FeatureMaps
    ) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        """Reconstruct the patches of each group.

        Args:
            network: maps tokens to one reconstruction for each group; see `Reconstruction.forward`.
            features: features of `layers()`.

        Returns:
            The patches of each group and their reconstructions, (n, patches, channels) each.
        """
        patches = [features[patches_of(group)].flatten(2).mT for group in self.groups]
        tokens = patches
        if self.prefix:
            before = [features[prefix_of(group)].flatten(2).mT for group in self.groups]
            tokens = [torch.cat(parts, dim=1) for parts in zip(before, patches, strict=True)]
        count = sum(map(len, self.groups))
        weighted = [len(group) / count * one for group, one in zip(self.groups, tokens, strict=True)]
        number = patches[0].shape[1]
        return patches, [one[:, -number:] for one in network(torch.stack(weighted).sum(dim=0))]

    def scores(
        self,
        network: Callable[[torch.Tensor], list[torch.Tensor]],
        features: FeatureMaps,
        size: tuple[int, int],
    ) -> Scores:
        """Score a batch. A map is the mean cosine distance of the groups.

        The score of an image is the mean of the largest 1% of a smoothed map of `SCORED_SIZE`.

        Args:
            network: see `reconstructed`.
            features: features of `layers()`.
            size: (height, width) of the maps.
        """
        grid = features[patches_of(self.groups[0])].shape[2:]
        pairs = zip(*self.reconstructed(network, features), strict=True)
        distances = [(1 - F.cosine_similarity(*pair, dim=2)).reshape(-1, *grid) for pair in pairs]
        maps = torch.stack([upsample(one, size, corners=True) for one in distances]).mean(dim=0)
        smoothed = smooth(maps, SCORED_SIZE, radius=SCORED_RADIUS)
        return Scores(mean_of_largest(smoothed.flatten(1)), maps)


@dataclass(frozen=True)
class Training:
    """The parameters of a training.

    Attributes:
        max_steps: largest number of steps.
        max_epochs: largest number of passes over the training images; None for no limit.
        batch: images in a step.
        lr: largest learning rate.
    """

    max_steps: int
    max_epochs: int | None
    batch: int
    lr: float

    def steps(self, images: int) -> int:
        """The number of steps.

        Args:
            images: number of training images.
        """
        if self.max_epochs is None:
            return self.max_steps
        return min(self.max_steps, self.max_epochs * self.steps_in_epoch(images))

    def steps_in_epoch(self, images: int) -> int:
        """The number of steps in a pass over the training images. The images of an incomplete batch wait.

        Args:
            images: number of training images.
        """
        return max(images // self.batch, 1)


def learning_rates(largest: float, steps: int) -> npt.NDArray[np.float64]:
    """Learning rates of all steps: a linear start from 0, then half a cosine.

    Args:
        largest: largest learning rate.
        steps: number of steps.
    """
    warm_up = _shortened(WARM_UP, steps)
    progress = np.arange(steps - warm_up) / max(steps - warm_up, 1)
    cosine = largest * (LAST_RATE + (1 - LAST_RATE) * (1 + np.cos(np.pi * progress)) / 2)
    return np.concatenate([np.linspace(0, largest, warm_up), cosine])


def easy_share(step: int, steps: int) -> float:
    """The share of patches whose gradients are reduced.

    Args:
        step: number of finished steps.
        steps: number of all steps.
    """
    return EASY_SHARE * min(step / max(_shortened(MINING, steps), 1), 1)


def _shortened(schedule: int, steps: int) -> int:
    return schedule * min(steps, STEPS) // STEPS


def loss(targets: Sequence[torch.Tensor], reconstructed: Sequence[torch.Tensor], easy: float) -> torch.Tensor:
    """The loose loss of section 3.5: one cosine distance for an image and group, where easy patches have less weight.

    Args:
        targets: patches of each group, (n, patches, channels).
        reconstructed: of the same shapes.
        easy: share of the patches in the batch whose gradients are multiplied by `EASY_WEIGHT`.

    Returns:
        The mean of the distances, a number.
    """
    distances = []
    for target, one in zip(targets, reconstructed, strict=True):
        with torch.no_grad():
            difficulty = 1 - F.cosine_similarity(target, one, dim=2)
            hard = max(int(difficulty.numel() * (1 - easy)), 1)
            limit = difficulty.flatten().topk(hard).values[-1]
            weight = torch.where(difficulty < limit, EASY_WEIGHT, 1.0)[..., None]
        # The value is that of `one`; only the gradient has the weight.
        weighted = weight * one + (1 - weight) * one.detach()
        distances.append(1 - F.cosine_similarity(target.flatten(1), weighted.flatten(1)))
    return torch.stack(distances).mean()


@dataclass(frozen=True)
class TrainedDecoder(Learnt):
    """A trained bottleneck and decoder.

    Attributes:
        blocks: of the encoder.
        architecture: of the trained networks.
        training: parameters of the training.
        seed: of the initial weights, the order of the images and the dropout.
    """

    blocks: Blocks
    architecture: Architecture
    training: Training
    seed: int

    title: ClassVar[str] = "training"

    def compute(self, context: StageContext, *inputs: Any) -> dict[str, torch.Tensor]:
        """Train the networks.

        Args:
            context: device, progress and observer.
            inputs: features by layer.

        Returns:
            The trained parameters by name.
        """
        features = {layer: context.to_device(inputs[0][layer]) for layer in self.blocks.layers()}
        device, images = context.device.torch, len(next(iter(features.values())))
        steps = self.training.steps(images)
        rates = learning_rates(self.training.lr, steps)
        with seeded(self.seed):
            network = Reconstruction(self.architecture)
            network.initialise()
            network.to(device).train()
            optimiser = StableAdamW(network.parameters())
            for step, indices in enumerate(self._batches(images, steps)):
                batch = {layer: values[indices.to(values.device)].to(device) for layer, values in features.items()}
                patches, reconstructed = self.blocks.reconstructed(network, batch)
                loss(patches, reconstructed, easy_share(step, steps)).backward()  # type: ignore[no-untyped-call]
                nn.utils.clip_grad_norm_(optimiser.parameters, LARGEST_NORM)
                optimiser.step(float(rates[step]))
                context.report(step + 1, steps)
                self._observe(context, network, step + 1, images, steps)
        return _state(network)

    def _batches(self, images: int, steps: int) -> Iterator[torch.Tensor]:
        """The images of each step: a new random order for each pass, without its incomplete batch."""
        size = min(self.training.batch, images)
        in_epoch = self.training.steps_in_epoch(images)
        order = torch.empty(0)
        for step in range(steps):
            number = step % in_epoch
            if not number:
                order = torch.randperm(images)
            yield order[number * size : (number + 1) * size]

    def _observe(self, context: StageContext, network: Reconstruction, done: int, images: int, steps: int) -> None:
        epoch, rest = divmod(done, self.training.steps_in_epoch(images))
        if not rest and done < steps:
            context.observe(epoch, lambda: _state(network))


def _state(network: Reconstruction) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in network.state_dict().items()}
