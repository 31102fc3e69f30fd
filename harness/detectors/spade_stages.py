"""The stages of SPADE: the gallery of the training images, the scores of an image, and the choice of one detector."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from harness.detectors.base import State
from harness.detectors.context import StageContext
from harness.detectors.embedding import rows
from harness.detectors.features import FeatureMaps, Features
from harness.detectors.maps import Scores, concatenate, smooth
from harness.detectors.neighbours import k_nearest, nearest_in_prefixes
from harness.detectors.stages import Stage

GALLERY = "gallery."


def pool(maps: torch.Tensor) -> torch.Tensor:
    """Average maps (n, channels, h, w) to vectors (n, channels)."""
    return maps.mean(dim=(2, 3))


@dataclass(frozen=True)
class Gallery(Stage):
    """All features of the training images.

    Attributes:
        features: features of the training images.
        layers: layers whose features are compared pixel by pixel.
        pooled_layer: layer whose average gives the nearest images.
    """

    features: Features
    layers: tuple[str, ...]
    pooled_layer: str

    title: ClassVar[str] = "gallery"

    def compute(self, context: StageContext, *inputs: Any) -> State:
        """Copy the features into the gallery.

        Args:
            context: device and memory.
            inputs: features by layer.

        Returns:
            `gallery.<layer>` (n, h * w, channels) of each layer, and `pooled` (n, channels).
        """
        maps: FeatureMaps = inputs[0]
        state: State = {"pooled": pool(maps[self.pooled_layer]).to(context.device.torch)}
        for layer in self.layers:
            images, channels, height, width = maps[layer].shape
            state[GALLERY + layer] = context.memory.tensor(images, height * width, channels)
            state[GALLERY + layer][:] = maps[layer].permute(0, 2, 3, 1).reshape(images, height * width, channels)
        return state


@dataclass(frozen=True)
class GalleryScores(Stage):
    """Scores for several numbers of neighbours in one pass. The keys of the subsets are these numbers.

    The nearest images for a small number are a prefix of the nearest images for a large number.

    Attributes:
        gallery: features of the training images.
        features: features of the scored images.
        numbers: numbers of neighbours, ascending.
    """

    gallery: Gallery
    features: Features
    numbers: tuple[int, ...]

    title: ClassVar[str] = "scores"

    def compute(self, context: StageContext, *inputs: Any) -> dict[int, Scores]:
        """Score the images one by one.

        Args:
            context: device, image size and progress.
            inputs: the gallery, and features by layer.

        Returns:
            Scores by number of neighbours, which is at most the number of training images.
        """
        state, maps = inputs
        images = len(state["pooled"])
        numbers = sorted({min(k, images) for k in self.numbers})
        layers = self.gallery.layers
        galleries = {layer: state[GALLERY + layer] for layer in layers}
        device, size = context.device.torch, context.images[self.features.role].input_size
        pooled = pool(maps[self.gallery.pooled_layer]).to(device)
        features = {layer: maps[layer] for layer in layers}
        scores = []
        for i in range(len(pooled)):
            image = {layer: values[i].to(device) for layer, values in features.items()}
            scores.append(score_image(image, pooled[i : i + 1], galleries, state["pooled"], numbers, size))
            context.report(i + 1, len(pooled))
        for k in self.numbers:
            # The time is proportional to the number of compared training images.
            context.mark_time(k, share=min(k, images) / max(numbers))
        return {k: concatenate([by_number[k] for by_number in scores]) for k in numbers}


@dataclass(frozen=True)
class SPADEScores(Stage):
    """The scores of one SPADE.

    Attributes:
        shared: scores for several numbers of neighbours.
        num_neighbors: number of neighbours of this detector.
    """

    shared: GalleryScores
    num_neighbors: int

    title: ClassVar[str] = "scores"

    def uses(self, key: Hashable = None) -> Sequence[tuple[Stage, Hashable]]:
        """The shared scores, for one number of neighbours."""
        del key
        return [(self.shared, self.num_neighbors)]

    def compute(self, context: StageContext, *inputs: Any) -> Scores:
        """Select the scores for one number of neighbours; with too few training images, for all of them.

        Args:
            context: context of the stage.
            inputs: scores by number of neighbours.
        """
        scores: dict[int, Scores] = inputs[0]
        if self.num_neighbors in scores:
            return scores[self.num_neighbors]
        images = max(scores)
        context.warn(few_images(self.num_neighbors, images))
        return scores[images]


def few_images(num_neighbors: int, images: int) -> str:
    """A warning for fewer training images than neighbours.

    Args:
        num_neighbors: of the detector.
        images: number of training images.
    """
    return f"num_neighbors: {num_neighbors} expected, {images} used: there are no more training images"


def score_image(
    image: FeatureMaps,
    pooled: torch.Tensor,
    galleries: FeatureMaps,
    train: torch.Tensor,
    numbers: Sequence[int],
    size: tuple[int, int],
) -> dict[int, Scores]:
    """Equations 1 to 3 for one image.

    Args:
        image: features by layer, (channels, h, w).
        pooled: pooled features of the image, (1, channels).
        galleries: features of the training images by layer, (training images, h * w, channels).
        train: pooled features of the training images, (training images, channels).
        numbers: numbers of neighbours, ascending, at most the number of training images.
        size: (height, width) of the map.

    Returns:
        Scores of the image by number of neighbours.
    """
    near = k_nearest(pooled, train, max(numbers))[0]
    squared = (train[near] - pooled).square().sum(dim=1)
    maps = {k: torch.zeros(1, *size, device=pooled.device) for k in numbers}
    for layer, features in image.items():
        gallery = galleries[layer][near.to(galleries[layer].device)].to(pooled.device)
        patches, height, width = gallery.shape[1], *features.shape[-2:]
        neighbours = nearest_in_prefixes(rows(features[None]), gallery.flatten(0, 1), [k * patches for k in numbers])
        for k, nearest in zip(numbers, neighbours, strict=True):
            maps[k] += smooth(nearest.distances.reshape(1, height, width), size) / len(image)
    return {k: Scores(squared[:k].mean()[None], maps[k]) for k in numbers}
