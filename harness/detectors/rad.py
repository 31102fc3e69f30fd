"""RAD: retrieval-based anomaly detection (arXiv:2601.22763).

A memory bank has the patches of several blocks of a vision transformer, for all normal images. The class token of an
image chooses the normal images that it is compared with. The score of a patch is its cosine distance to the nearest
patch at a similar position in these images, averaged over the blocks.

Differences from the paper's code: none known for images of one size. `layers` are depths, so that networks with another
number of blocks have a default too: blocks 3, 6, 9 and 11 of twelve.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Unpack

import torch
from torch import nn

from harness.backbones.networks import whole_network
from harness.common.errors import ConfigError
from harness.detectors.arguments import check_whole
from harness.detectors.base import Detector, State
from harness.detectors.features import CLASS_TOKEN, FeatureMaps
from harness.detectors.group import Group
from harness.detectors.maps import Scores, concatenate
from harness.detectors.options import Options
from harness.detectors.rad_stages import (
    PositionBank,
    PositionDistances,
    RADScores,
    batch_distances,
    distances,
    map_scores,
)
from harness.detectors.stages import Stage


class RAD(Detector):
    """RAD (2026): a patch is as anomalous as it is far from similar images' patches at the same position.

    The class token of the last block finds the similar normal images. The score of an image is the mean of the largest
    1% of its map.

    Args:
        backbone: a plain vision transformer of timm with a class token; the paper uses DINOv3.
        layers: blocks whose distances are averaged.
        k_image: number of normal images that an image is compared with.
        pos_radius: largest distance of two compared patches along each side, in patches.
        options: see `Options`.
    """

    name = "rad"
    default_image_size = 448
    only_transformers = True

    def __init__(
        self,
        backbone: str = "vit_small_patch14_dinov2",
        layers: Sequence[str] = ("33%", "58%", "83%", "100%"),
        k_image: int = 150,
        pos_radius: int = 1,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(backbone, layers, **options)
        check_whole("k_image", k_image)
        check_whole("pos_radius", pos_radius, minimum=0)
        network: Any = whole_network(backbone)
        if not network.num_prefix_tokens:
            raise ConfigError(f"backbone: found {backbone}, which has no class token; {self.name} expects one with it.")
        self.k_image, self.pos_radius = k_image, pos_radius

    def parameters(self) -> dict[str, Any]:
        """The method's constructor arguments."""
        return {"k_image": self.k_image, "pos_radius": self.pos_radius}

    @property
    def token(self) -> str:
        """The layer of the class token that finds similar images."""
        return self.layers[-1] + CLASS_TOKEN

    def needed_layers(self) -> tuple[str, ...]:
        """The blocks, and the class token of the last one."""
        return (*self.layers, self.token)

    def fit_stage(self, group: Group) -> Stage:
        """The stage that stores the features; see `Detector.fit_stage`.

        Args:
            group: detectors that share stages.
        """
        return PositionBank(self.features("train", group), self.layers, self.token)

    def score_stage(self, role: str, group: Group) -> Stage:
        """The stage that computes the scores; see `Detector.score_stage`.

        Args:
            role: train, val or test.
            group: detectors that share stages.
        """
        bank = PositionBank(self.features("train", group), self.layers, self.token)
        comparisons = {(other.k_image, other.pos_radius) for other in group.alike(self)}
        distances = PositionDistances(bank, self.features(role, group), tuple(sorted(comparisons)))
        return RADScores(distances, (self.k_image, self.pos_radius))

    def score(self, state: State, features: FeatureMaps, size: tuple[int, int]) -> Scores:
        """Score a batch by the distances to similar images.

        Args:
            state: `class_tokens` (m, d), and `patches0` and so on, (h * w, m, d) for each layer.
            features: features by layer, on the device.
            size: (height, width) of the maps.
        """
        comparison = (self.k_image, self.pos_radius)
        return concatenate([
            map_scores(distances[comparison], size)
            for distances in distances(state, features, self.layers, self.token, [comparison])
        ])  # fmt: skip

    def head(self) -> nn.Module:
        """The bank as a module for export."""
        return RADHead(self)


class RADHead(nn.Module):
    """The bank as a module for export.

    Args:
        detector: a fitted detector.
    """

    def __init__(self, detector: RAD) -> None:
        super().__init__()
        self._detector, self._names = detector, tuple(detector.fitted())
        for name, tensor in detector.fitted().items():
            self.register_buffer(name, tensor.cpu().clone())

    def forward(self, features: FeatureMaps) -> tuple[torch.Tensor, torch.Tensor]:
        """Compute scores (n,) and maps (n, height, width) from features by layer."""
        detector, state = self._detector, {name: self.get_buffer(name) for name in self._names}
        comparison = (detector.k_image, detector.pos_radius)
        maps = [features[layer] for layer in detector.layers]
        distances = batch_distances(state, maps, features[detector.token], [comparison])
        scores = map_scores(distances[comparison], detector.preprocessing.input_size)
        return scores.images, scores.maps
