"""AnomalyDINO: Damm et al., AnomalyDINO: Boosting Patch-based Few-shot Anomaly Detection with DINOv2, WACV 2025
(arXiv:2405.14529).

A memory bank has all patches of normal images. The score of a patch is its cosine distance to the nearest patches in
the bank.

Differences from the paper's code: images have one size, given by `image_size`, where the code keeps the aspect ratio
of each image. For images of one shape, an `image_size` of that shape does the same. Rotations come after resizing, not
before. Holes of the foreground are closed in two dimensions, as in anomalib; the code closes them along one dimension.
anomalib interpolates maps to the nearest patch, the code and this file bilinearly.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any, Unpack

import torch
from torch import nn
from torch.nn import functional as F

from harness.common.errors import ConfigError
from harness.detectors.anomalydino_stages import (
    DirectionBank,
    Directions,
    DirectionScores,
    DirectionState,
    Distances,
    patch_scores,
)
from harness.detectors.arguments import check_number, check_whole
from harness.detectors.base import Detector, State
from harness.detectors.embedding import PatchPasses
from harness.detectors.features import FeatureMaps
from harness.detectors.foreground import Foreground, foreground
from harness.detectors.group import Group
from harness.detectors.maps import Scores
from harness.detectors.neighbours import largest_products_in_prefixes
from harness.detectors.options import Options
from harness.detectors.stages import Stage

MASKINGS = ("none", "test", "both")


class AnomalyDINO(Detector):
    """AnomalyDINO (Damm et al., WACV 2025): a patch is as anomalous as its direction is far from all normal patches.

    The features are those of the last block of a vision transformer, after its final norm. The score of an image is the
    mean of the largest 1% of its patch scores. The bank has all patches, so the method suits few training images.

    Args:
        backbone: a plain vision transformer of timm, such as one of DINOv2.
        layers: one block; by default the last.
        num_neighbors: k; the score of a patch is its mean distance to the k nearest patches.
        masking: patches of the background score 0 in `test` images; with `both`, the bank leaves them out too.
        foreground_threshold: smallest coordinate of a patch of the object; see `harness.detectors.foreground`.
        rotations: number of rotations of each training image; 8 in the paper's few-shot results.
        options: see `Options`.
    """

    name = "anomalydino"
    default_image_size = 448
    only_transformers = True

    def __init__(
        self,
        backbone: str = "vit_small_patch14_dinov2",
        layers: Sequence[str] = ("100%",),
        num_neighbors: int = 1,
        masking: str = "none",
        foreground_threshold: float = 10.0,
        rotations: int = 1,
        **options: Unpack[Options],
    ) -> None:
        super().__init__(backbone, layers, **options)
        if len(self.layers) != 1:
            raise ConfigError(f"layers: found {', '.join(self.layers)}; {self.name} expects one block.")
        check_whole("num_neighbors", num_neighbors)
        check_whole("rotations", rotations)
        check_number("foreground_threshold", foreground_threshold, "a number above 0", 0)
        if masking not in MASKINGS:
            raise ConfigError(f"masking: found {masking!r}, expected {', '.join(MASKINGS)}.")
        self.num_neighbors, self.masking, self.rotations = num_neighbors, masking, rotations
        self.foreground_threshold = foreground_threshold

    def parameters(self) -> dict[str, Any]:
        """The method's constructor arguments."""
        return {"num_neighbors": self.num_neighbors, "masking": self.masking,
                "foreground_threshold": self.foreground_threshold, "rotations": self.rotations}  # fmt: skip

    def sharing_key(self) -> Hashable:
        """Detectors with equal keys have the bank of all patches and the masks in common."""
        return super().sharing_key(), self.foreground_threshold

    def _bank(self, group: Group) -> DirectionBank:
        features = self.features("train", group)
        masks = Foreground(features, self.layers[0], self.foreground_threshold)
        return DirectionBank(PatchPasses(Directions(features, self.layers)), masks)

    def state_warnings(self) -> list[str]:
        """A warning if the bank has fewer patches than neighbours."""
        size = len(self.fitted()["bank"])
        text = f"num_neighbors: {self.num_neighbors} expected, {size} used: the bank has no more patches"
        return [text] if size < self.num_neighbors else []

    def fit_stage(self, group: Group) -> Stage:
        """The stage that selects the bank; see `Detector.fit_stage`.

        Args:
            group: detectors that share stages.
        """
        return DirectionState(self._bank(group), self.masking == "both")

    def score_stage(self, role: str, group: Group) -> Stage:
        """The stage that computes the scores; see `Detector.score_stage`.

        Args:
            role: train, val or test.
            group: detectors that share stages.
        """
        bank, features = self._bank(group), self.features(role, group)
        alike = group.alike(self)
        banks = tuple(sorted({other.masking == "both" for other in alike}, reverse=True))
        k = max(other.num_neighbors for other in alike)
        distances = Distances(bank, PatchPasses(Directions(features, self.layers)), banks, k)
        masks = None if self.masking == "none" else Foreground(features, self.layers[0], self.foreground_threshold)
        return DirectionScores(distances, self.masking == "both", self.num_neighbors, masks)

    def head(self) -> nn.Module:
        """The bank as a module for export."""
        return DirectionHead(self)

    def score(self, state: State, features: FeatureMaps, size: tuple[int, int]) -> Scores:
        """Score a batch by the cosine distances to the bank.

        Args:
            state: `bank` (m, d), vectors of length 1.
            features: features by layer, on the device.
            size: (height, width) of the maps.
        """
        maps, bank = features[self.layers[0]], state["bank"]
        vectors = F.normalize(maps, dim=1).permute(0, 2, 3, 1).flatten(0, 2)
        products = largest_products_in_prefixes(vectors, bank, [len(bank)], self.num_neighbors)[0]
        distances = (1 - products).mean(dim=1).reshape(-1, *maps.shape[2:])
        return patch_scores(distances * self.visible(maps), size)

    def visible(self, maps: torch.Tensor) -> torch.Tensor:
        """The factor (n, h, w) of each patch score: 0 in the background where it is masked.

        Args:
            maps: (n, channels, h, w) features.
        """
        if self.masking == "none":
            return torch.ones_like(maps[:, 0])
        return foreground(maps, self.foreground_threshold).float()


class DirectionHead(nn.Module):
    """The bank as a module for export, in blocks of the bank to save memory.

    Args:
        detector: a fitted detector.
    """

    BLOCK = 4096

    def __init__(self, detector: AnomalyDINO) -> None:
        super().__init__()
        self._detector = detector
        self.register_buffer("bank", detector.fitted()["bank"].cpu().clone())

    def forward(self, features: FeatureMaps) -> tuple[torch.Tensor, torch.Tensor]:
        """Compute scores (n,) and maps (n, height, width) from features by layer."""
        detector, bank = self._detector, self.get_buffer("bank")
        maps = features[detector.layers[0]]
        vectors = F.normalize(maps, dim=1).flatten(2).mT
        k = min(detector.num_neighbors, len(bank))
        largest = []
        for left in range(0, len(bank), self.BLOCK):
            block = bank[left : left + self.BLOCK]
            largest.append((vectors @ block.T).topk(min(k, len(block)), dim=2).values)
        products = torch.cat(largest, dim=2).topk(k, dim=2).values
        distances = (1 - products).mean(dim=2).reshape(-1, *maps.shape[2:])
        scores = patch_scores(distances * detector.visible(maps), detector.preprocessing.input_size)
        return scores.images, scores.maps
