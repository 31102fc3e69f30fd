"""SPADE: Cohen & Hoshen, Sub-Image Anomaly Detection with Deep Pyramid Correspondences, 2020 (arXiv:2005.02357).

An image is as anomalous as it is far from its nearest normal images; a pixel, as its features are far from all
features of those images.
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
from harness.detectors.maps import Scores, blur, upsample
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
        """See `Detector.parameters`."""
        return {"num_neighbors": self.num_neighbors, "pooled_layer": self.pooled_layer}

    def needed_layers(self) -> tuple[str, ...]:
        """The gallery's, and the pooled one."""
        return tuple(dict.fromkeys([*self.layers, self.pooled_layer]))

    def fit_stage(self, group: Sequence[Detector]) -> Stage:
        """See `Detector.fit_stage`."""
        return Gallery(self.features("train", group), self.layers, self.pooled_layer)

    def score_stage(self, role: str, group: Sequence[Detector]) -> Stage:
        """See `Detector.score_stage`."""
        alike = sorted({one.num_neighbors for one in group if isinstance(one, SPADE) and self._same_gallery(one)})
        gallery = Gallery(self.features("train", group), self.layers, self.pooled_layer)
        return SPADEScores(GalleryScores(gallery, self.features(role, group), tuple(alike)), self.num_neighbors)

    def state_warnings(self) -> list[str]:
        """See `Detector.shortfalls`."""
        images = len(self.fitted()["pooled"])
        return [_too_few(self.num_neighbors, images)] if images < self.num_neighbors else []

    def _same_gallery(self, other: SPADE) -> bool:
        mine = (self.layers, self.pooled_layer, self.weights_seed, self.precision)
        return mine == (other.layers, other.pooled_layer, other.weights_seed, other.precision)

    def head(self) -> nn.Module:
        """See `Detector.head`."""
        state = self.fitted()
        k = min(self.num_neighbors, len(state["pooled"]))
        return SPADEHead(state, self.layers, self.pooled_layer, k, self.view.input_size)

    def score(self, state: State, features: FeatureMaps, size: tuple[int, int]) -> Scores:
        """See `Detector.score`."""
        galleries = {layer: state[GALLERY + layer] for layer in self.layers}
        k = min(self.num_neighbors, len(state["pooled"]))
        scores = []
        for i, own in enumerate(pool(features[self.pooled_layer])):
            maps = {layer: features[layer][i] for layer in self.layers}
            scores.append(_score_image(maps, own[None], galleries, state["pooled"], [k], size)[k])
        return _stack(scores)


class SPADEHead(nn.Module):
    """See `Detector.head`: equations 1 to 3, one neighbour after the other so that little memory is needed.

    Args:
        state: what was learnt.
        layers: whose features are compared.
        pooled_layer: whose average says which images are near.
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
        """Features by layer -> scores (n,), maps (n, height, width)."""
        pooled, train = pool(features[self._pooled_layer]), self.get_buffer("pooled")
        near = (train.square().sum(dim=1) * 0.5 - pooled @ train.T).topk(self._k, dim=1, largest=False).indices
        scores = (train[near] - pooled[:, None]).square().sum(dim=2).mean(dim=1)
        maps = torch.stack([self._map(number, layer, features, near) for number, layer in enumerate(self._layers)])
        return scores, blur(maps.mean(dim=0))

    def _map(self, number: int, layer: str, features: FeatureMaps, near: torch.Tensor) -> torch.Tensor:
        gallery, grid = self.get_buffer(f"gallery{number}"), features[layer].shape[2:]
        vectors = features[layer].flatten(2).mT
        nearest: torch.Tensor | None = None
        for number_near in range(self._k):
            images = gallery[near[:, number_near]]
            halves = images.square().sum(dim=2)[:, None] * 0.5
            rows_ = (halves - vectors @ images.mT).argmin(dim=2)
            chosen = images.gather(1, rows_[:, :, None].expand(-1, -1, images.shape[2]))
            distances = torch.sqrt((vectors - chosen).square().sum(dim=2))
            nearest = distances if nearest is None else torch.minimum(nearest, distances)
        assert nearest is not None
        return upsample(nearest.reshape(-1, *grid), self._size)


def pool(maps: torch.Tensor) -> torch.Tensor:
    """(n, channels, h, w) -> (n, channels)."""
    return maps.mean(dim=(2, 3))


@dataclass(frozen=True)
class Gallery(Stage):
    """All features of the training images.

    Attributes:
        features: of the training images.
        layers: whose features are compared pixel by pixel.
        pooled_layer: whose average says which images are near.
    """

    features: Features
    layers: tuple[str, ...]
    pooled_layer: str

    title: ClassVar[str] = "gallery"

    def compute(self, context: StageContext, *inputs: Any) -> State:
        """gallery.<layer> (n, h * w, channels) each, pooled (n, channels)."""
        maps: FeatureMaps = inputs[0]
        state: State = {"pooled": pool(maps[self.pooled_layer]).to(context.device.torch)}
        for layer in self.layers:
            images, channels, height, width = maps[layer].shape
            state[GALLERY + layer] = context.memory.tensor(images, height * width, channels)
            state[GALLERY + layer][:] = maps[layer].permute(0, 2, 3, 1).reshape(images, height * width, channels)
        return state


@dataclass(frozen=True)
class GalleryScores(Stage):
    """Scores for all numbers of neighbours in one pass: the gallery of fewer is the first part of that of more.

    Attributes:
        gallery: of the training images.
        features: of the images to be judged.
        numbers: of neighbours, ascending.
    """

    gallery: Gallery
    features: Features
    numbers: tuple[int, ...]

    title: ClassVar[str] = "scores"

    def compute(self, context: StageContext, *inputs: Any) -> dict[int, Scores]:
        """By number of neighbours, clipped to the number of training images."""
        state, maps = inputs
        images = len(state["pooled"])
        numbers = sorted({min(k, images) for k in self.numbers})
        layers = self.gallery.layers
        galleries = {layer: state[GALLERY + layer] for layer in layers}
        device, size = context.device.torch, context.images[self.features.role].view.input_size
        pooled = pool(maps[self.gallery.pooled_layer]).to(device)
        found = []
        for i in range(len(pooled)):
            own = {layer: maps[layer][i].to(device) for layer in layers}
            found.append(_score_image(own, pooled[i : i + 1], galleries, state["pooled"], numbers, size))
            context.at(i + 1, len(pooled))
        for k in self.numbers:
            # The work is comparing with k images' galleries.
            context.mark_time(k, share=min(k, images) / max(numbers))
        return {k: _stack([one[k] for one in found]) for k in numbers}


@dataclass(frozen=True)
class SPADEScores(Stage):
    """What one SPADE says."""

    shared: GalleryScores
    num_neighbors: int

    title: ClassVar[str] = "scores"

    def uses(self, part: Hashable = None) -> Sequence[tuple[Stage, Hashable]]:
        """Only its own number of neighbours."""
        del part
        return [(self.shared, self.num_neighbors)]

    def compute(self, context: StageContext, *inputs: Any) -> Scores:
        """Its own number of neighbours."""
        found: dict[int, Scores] = inputs[0]
        if self.num_neighbors in found:
            return found[self.num_neighbors]
        images = max(found)
        context.warn(_too_few(self.num_neighbors, images))
        return found[images]


def _too_few(asked: int, images: int) -> str:
    return f"num_neighbors: {asked} asked for, {images} used: there are no more training images"


def _score_image(
    own: FeatureMaps,
    pooled: torch.Tensor,
    galleries: FeatureMaps,
    train: torch.Tensor,
    numbers: Sequence[int],
    size: tuple[int, int],
) -> dict[int, Scores]:
    """Equations 1 to 3 for one image.

    Args:
        own: layer -> (channels, h, w).
        pooled: (1, channels).
        galleries: layer -> (training images, h * w, channels).
        train: (training images, channels), pooled.
        numbers: of neighbours, ascending, none above the number of training images.
        size: (height, width) of the map.
    """
    near = k_nearest(pooled, train, max(numbers))[0]
    squared = (train[near] - pooled).square().sum(dim=1)
    maps = {k: torch.zeros(1, *size, device=pooled.device) for k in numbers}
    for layer, mine in own.items():
        gallery = galleries[layer][near.to(galleries[layer].device)].to(pooled.device)
        patches, height, width = gallery.shape[1], *mine.shape[-2:]
        found = nearest_in_prefixes(rows(mine[None]), gallery.flatten(0, 1), [k * patches for k in numbers])
        for k, one in zip(numbers, found, strict=True):
            maps[k] += upsample(one.distances.reshape(1, height, width), size) / len(own)
    return {k: Scores(squared[:k].mean()[None], blur(maps[k])) for k in numbers}


def _stack(scores: Sequence[Scores]) -> Scores:
    return Scores(torch.cat([one.images for one in scores]), torch.cat([one.maps for one in scores]))
