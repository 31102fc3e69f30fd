"""SPADE: Cohen & Hoshen, Sub-Image Anomaly Detection with Deep Pyramid Correspondences, 2020 (arXiv:2005.02357).

The score of an image is its mean squared distance to the nearest training images. The score of a pixel is the distance
of its features to the nearest features in these images.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any, Unpack

import torch
from torch import nn

from harness.backbones.layers import chosen_layers, feature_layers
from harness.detectors.arguments import check_whole
from harness.detectors.base import Detector, State
from harness.detectors.features import FeatureMaps
from harness.detectors.group import Group
from harness.detectors.maps import Scores, concatenate, smooth
from harness.detectors.options import Options
from harness.detectors.spade_stages import (
    GALLERY,
    Gallery,
    GalleryScores,
    SPADEScores,
    few_images,
    pool,
    score_image,
)
from harness.detectors.stages import Stage


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

    def fit_stage(self, group: Group) -> Gallery:
        """The stage that stores the features; see `Detector.fit_stage`.

        Args:
            group: detectors that share stages.
        """
        return Gallery(self.features("train", group), self.layers, self.pooled_layer)

    def score_stage(self, role: str, group: Group) -> Stage:
        """The stage that computes the scores; see `Detector.score_stage`.

        Args:
            role: train, val or test.
            group: detectors that share stages.
        """
        numbers = sorted({other.num_neighbors for other in group.alike(self)})
        scores = GalleryScores(self.fit_stage(group), self.features(role, group), tuple(numbers))
        return SPADEScores(scores, self.num_neighbors)

    def state_warnings(self) -> list[str]:
        """A warning if there are fewer training images than neighbours."""
        images = len(self.fitted()["pooled"])
        return [few_images(self.num_neighbors, images)] if images < self.num_neighbors else []

    def sharing_key(self) -> Hashable:
        """Detectors with equal keys have the gallery in common."""
        return super().sharing_key(), self.pooled_layer

    def head(self) -> nn.Module:
        """The gallery as a module for export."""
        state = self.fitted()
        k = min(self.num_neighbors, len(state["pooled"]))
        return SPADEHead(state, self.layers, self.pooled_layer, k, self.preprocessing.input_size)

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
            scores.append(score_image(maps, pooled[None], galleries, state["pooled"], [k], size)[k])
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
        return scores, maps.mean(dim=0)

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
        return smooth(nearest.reshape(-1, *grid), self._size)
