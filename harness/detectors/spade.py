"""SPADE: Cohen & Hoshen, Sub-Image Anomaly Detection with Deep Pyramid Correspondences, 2020 (arXiv:2005.02357).

The score of an image is its mean squared distance to the nearest training images. The score of a pixel is the distance
of its features to the nearest features in these images.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Unpack

import torch
from torch import nn

from harness.backbones.layers import chosen_layers, feature_layers
from harness.detectors.arguments import check_whole
from harness.detectors.base import Detector, Options, State
from harness.detectors.context import StageContext
from harness.detectors.embedding import rows
from harness.detectors.features import FeatureMaps, Features
from harness.detectors.maps import Scores, blur, concatenate, upsample
from harness.detectors.neighbours import k_nearest, nearest_in_prefixes
from harness.detectors.stages import Stage

GALLERY = "gallery."


class SPADE(Detector):
    """SPADE (Cohen and Hoshen, 2020): an image is as anomalous as it is far from its nearest normal images.

    A pixel is as anomalous as its features are far from all features of those images. The detector averages the
    distances of several layers. The paper concatenates the features instead.

    Args:
        backbone: a name of timm.
        layers: of the feature gallery.
        num_neighbors: K of equations 1 and 2; at most the number of training images.
        pooled_layer: its average is the feature vector of an image; by default the deepest layer of the backbone.
        options: see `Options`.
    """

    name = "spade"

    def __init__(
        self,
        backbone: str = "wide_resnet50_2",
        layers: Sequence[str] = ("layer1", "layer2", "layer3"),
        num_neighbors: int = 50,
        pooled_layer: str | None = None,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(backbone, layers, **options)
        check_whole("num_neighbors", num_neighbors)
        self.num_neighbors = num_neighbors
        self.pooled_layer = pooled_layer or list(feature_layers(backbone))[-1]
        chosen_layers(backbone, (self.pooled_layer,))

    def parameters(self) -> dict[str, Any]:
        """The method's constructor arguments."""
        return {"num_neighbors": self.num_neighbors, "pooled_layer": self.pooled_layer}

    def needed_layers(self) -> tuple[str, ...]:
        """The layers of the gallery and the pooled layer."""
        return tuple(dict.fromkeys([*self.layers, self.pooled_layer]))

    def fit_stage(self, group: Sequence[Detector]) -> Gallery:
        """The stage that stores the features; see `Detector.fit_stage`.

        Args:
            group: detectors that share stages.
        """
        return Gallery(self.features("train", group), self.layers, self.pooled_layer)

    def score_stage(self, role: str, group: Sequence[Detector]) -> Stage:
        """The stage that computes the scores; see `Detector.score_stage`.

        Args:
            role: train, val or test.
            group: detectors that share stages.
        """
        numbers = sorted({other.num_neighbors for other in group
                          if isinstance(other, SPADE) and self._same_gallery(other)})  # fmt: skip
        scores = GalleryScores(self.fit_stage(group), self.features(role, group), tuple(numbers))
        return SPADEScores(scores, self.num_neighbors)

    def state_warnings(self) -> list[str]:
        """A warning if there are fewer training images than neighbours."""
        images = len(self.fitted()["pooled"])
        return [_few_images(self.num_neighbors, images)] if images < self.num_neighbors else []

    def _same_gallery(self, other: SPADE) -> bool:
        gallery = (self.layers, self.pooled_layer, self.weights_seed, self.precision)
        return gallery == (other.layers, other.pooled_layer, other.weights_seed, other.precision)

    def head(self) -> nn.Module:
        """The gallery as a module for export."""
        state = self.fitted()
        k = min(self.num_neighbors, len(state["pooled"]))
        return SPADEHead(state, self.layers, self.pooled_layer, k, self.view.input_size)

    def score(self, state: State, features: FeatureMaps, size: tuple[int, int]) -> Scores:
        """Score a batch by the distances to the gallery.

        Args:
            state: the gallery.
            features: features by layer, on the device.
            size: (height, width) of the maps.
        """
        galleries = {layer: state[GALLERY + layer] for layer in self.layers}
        k = min(self.num_neighbors, len(state["pooled"]))
        scores = []
        for i, pooled in enumerate(pool(features[self.pooled_layer])):
            maps = {layer: features[layer][i] for layer in self.layers}
            scores.append(_score_image(maps, pooled[None], galleries, state["pooled"], [k], size)[k])
        return concatenate(scores)


class SPADEHead(nn.Module):
    """The gallery as a module for export: equations 1 to 3, one neighbour after the other to save memory.

    Args:
        state: the gallery.
        layers: layers of the gallery.
        pooled_layer: layer whose average gives the nearest images.
        k: number of neighbours, at most the number of training images.
        size: (height, width) of the anomaly maps.
    """

    def __init__(self, state: State, layers: tuple[str, ...], pooled_layer: str, k: int, size: tuple[int, int]) -> None:
        super().__init__()
        self._layers, self._pooled_layer, self._k, self._size = layers, pooled_layer, k, size
        self.register_buffer("pooled", state["pooled"].cpu().clone())
        for number, layer in enumerate(layers):
            self.register_buffer(f"gallery{number}", state[GALLERY + layer].cpu().clone())

    def forward(self, features: FeatureMaps) -> tuple[torch.Tensor, torch.Tensor]:
        """Compute scores (n,) and maps (n, height, width) from features by layer."""
        pooled, train = pool(features[self._pooled_layer]), self.get_buffer("pooled")
        near = (train.square().sum(dim=1) * 0.5 - pooled @ train.T).topk(self._k, dim=1, largest=False).indices
        scores = (train[near] - pooled[:, None]).square().sum(dim=2).mean(dim=1)
        maps = torch.stack([self._map(number, layer, features, near) for number, layer in enumerate(self._layers)])
        return scores, blur(maps.mean(dim=0))

    def _map(self, number: int, layer: str, features: FeatureMaps, near: torch.Tensor) -> torch.Tensor:
        gallery, grid = self.get_buffer(f"gallery{number}"), features[layer].shape[2:]
        vectors = features[layer].flatten(2).mT
        nearest: torch.Tensor | None = None
        for rank in range(self._k):
            images = gallery[near[:, rank]]
            halves = images.square().sum(dim=2)[:, None] * 0.5
            indices = (halves - vectors @ images.mT).argmin(dim=2)
            neighbours = images.gather(1, indices[:, :, None].expand(-1, -1, images.shape[2]))
            distances = torch.sqrt((vectors - neighbours).square().sum(dim=2))
            nearest = distances if nearest is None else torch.minimum(nearest, distances)
        assert nearest is not None
        return upsample(nearest.reshape(-1, *grid), self._size)


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
        device, size = context.device.torch, context.images[self.features.role].view.input_size
        pooled = pool(maps[self.gallery.pooled_layer]).to(device)
        features = {layer: maps[layer] for layer in layers}
        scores = []
        for i in range(len(pooled)):
            image = {layer: values[i].to(device) for layer, values in features.items()}
            scores.append(_score_image(image, pooled[i : i + 1], galleries, state["pooled"], numbers, size))
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
        context.warn(_few_images(self.num_neighbors, images))
        return scores[images]


def _few_images(num_neighbors: int, images: int) -> str:
    return f"num_neighbors: {num_neighbors} expected, {images} used: there are no more training images"


def _score_image(
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
            maps[k] += upsample(nearest.distances.reshape(1, height, width), size) / len(image)
    return {k: Scores(squared[:k].mean()[None], blur(maps[k])) for k in numbers}
