"""MH-PatchCore: PatchCore in whitened principal components, with a memory bank from one pass over blocks of images.

The score of a patch is its squared Mahalanobis distance to the nearest patch in the bank. The method is that of
anomalib's model of this name: principal components with 99% of the variance, a covariance with shrinkage, and a bank
by merge-and-reduce.

Differences from anomalib's model: one pass over the images instead of three, because the covariance of principal
components is diagonal. The blocks of the bank are images in their order, where anomalib's loader shuffles them. Images
are not cropped unless `center_crop` says so. Maps are smoothed with reflected borders, where anomalib repeats the
outermost pixel. `bank: exact` selects from all patches at once.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any, Unpack

import torch
from torch import nn

from harness.common.errors import ConfigError
from harness.detectors.arguments import check_number, check_whole
from harness.detectors.bank import BANKS, EXACT
from harness.detectors.base import Detector, State
from harness.detectors.embedding import Patches, PatchPasses
from harness.detectors.features import FeatureMaps
from harness.detectors.group import Group
from harness.detectors.maps import Scores, smooth
from harness.detectors.memory import BYTES
from harness.detectors.mhpatchcore_stages import (
    WhitenedBank,
    WhitenedNeighbourhoods,
    WhitenedPatches,
    WhitenedScores,
    WhitenedState,
    Whitening,
    squared_scores,
)
from harness.detectors.moments import Moments, check_share
from harness.detectors.neighbours import nearest_in_prefixes
from harness.detectors.options import Options
from harness.detectors.patchcore_stages import find_neighbourhood, image_scores
from harness.detectors.pooled_patches import WIDTH, PooledPatches, pooled_patches
from harness.detectors.stages import Stage


class MHPatchCore(Detector):
    """MH-PatchCore: a patch is as anomalous as it is far from the bank, in units of the normal variation.

    Args:
        backbone: a name of timm.
        layers: of the patch features; the first layer gives the grid.
        pca_variance_ratio: share of the variance that the principal components explain, above 0 and up to 1.
        covariance_shrinkage: weight of the mean variance in each variance, 0 to 1.
        memory_bank_size: number of patches in the bank.
        local_coreset_size: number of patches that a block of images, or two merged blocks, leave.
        num_neighbors: number of neighbours in the weight of an image score.
        bank: merge_reduce, or exact for a selection from all patches at once.
        options: see `Options`.
    """

    name = "mhpatchcore"
    # The whitening of fewer images gives larger distances.
    default_folds = None

    def __init__(
        self,
        backbone: str = "wide_resnet50_2",
        layers: Sequence[str] = ("layer2", "layer3"),
        pca_variance_ratio: float = 0.99,
        covariance_shrinkage: float = 0.07,
        memory_bank_size: int = 1000,
        local_coreset_size: int = 256,
        num_neighbors: int = 9,
        bank: str = "merge_reduce",
        **options: Unpack[Options],
    ) -> None:
        super().__init__(backbone, layers, **options)
        check_share("pca_variance_ratio", pca_variance_ratio)
        if covariance_shrinkage != 0:
            check_number("covariance_shrinkage", covariance_shrinkage, "a number from 0 to 1", 0, 1)
        check_whole("memory_bank_size", memory_bank_size)
        check_whole("local_coreset_size", local_coreset_size)
        check_whole("num_neighbors", num_neighbors)
        if bank not in BANKS:
            raise ConfigError(f"bank: found {bank!r}, expected {' or '.join(BANKS)}.")
        self.pca_variance_ratio, self.covariance_shrinkage = pca_variance_ratio, covariance_shrinkage
        self.memory_bank_size, self.local_coreset_size = memory_bank_size, local_coreset_size
        self.num_neighbors, self.bank = num_neighbors, bank

    def parameters(self) -> dict[str, Any]:
        """The method's constructor arguments."""
        return {"pca_variance_ratio": self.pca_variance_ratio, "covariance_shrinkage": self.covariance_shrinkage,
                "memory_bank_size": self.memory_bank_size, "local_coreset_size": self.local_coreset_size,
                "num_neighbors": self.num_neighbors, "bank": self.bank}  # fmt: skip

    def bytes_of_all_patches(self, train_images: int) -> int:
        """Most bytes of all whitened patches, for `bank: exact`; see `Detector.bytes_of_all_patches`.

        Args:
            train_images: number of normal training images.
        """
        return BYTES * WIDTH * self.patches(train_images) if self.bank == EXACT else 0

    def timing_key(self) -> Hashable:
        """The parameters that affect the time of an image."""
        return self.name, self.pca_variance_ratio, self.memory_bank_size

    def sharing_key(self) -> Hashable:
        """Detectors with equal keys have banks that are prefixes of one bank."""
        return super().sharing_key(), self.pca_variance_ratio, self.covariance_shrinkage, self._local()

    def _whitened(self, role: str, group: Group) -> WhitenedPatches:
        moments = Moments(self._pooled("train", group))
        whitening = Whitening(moments, self.pca_variance_ratio, self.covariance_shrinkage)
        return WhitenedPatches(whitening, self._pooled(role, group))

    def _pooled(self, role: str, group: Group) -> PatchPasses:
        return PatchPasses(PooledPatches(self.features(role, group), self.layers))

    def _local(self) -> int:
        return 0 if self.bank == EXACT else min(self.local_coreset_size, self.memory_bank_size)

    def _whitened_bank(self, group: Group) -> WhitenedBank:
        whitened = self._whitened("train", group)
        sizes = {other.memory_bank_size for other in group.alike(self)}
        return WhitenedBank(whitened, self._local(), tuple(sorted(sizes)))

    def fit_stage(self, group: Group) -> Stage:
        """The stage that selects the bank; see `Detector.fit_stage`.

        Args:
            group: detectors that share stages.
        """
        return WhitenedState(self._whitened_bank(group), self.memory_bank_size)

    def score_stage(self, role: str, group: Group) -> Stage:
        """The stage that computes the scores; see `Detector.score_stage`.

        Args:
            role: train, val or test.
            group: detectors that share stages.
        """
        bank = self._whitened_bank(group)
        k = max(other.num_neighbors for other in group.alike(self))
        neighbourhoods = WhitenedNeighbourhoods(bank, self._whitened(role, group), k)
        return WhitenedScores(neighbourhoods, self.memory_bank_size, self.num_neighbors)

    def state_warnings(self) -> list[str]:
        """A warning if the bank has fewer patches than neighbours."""
        size = len(self.fitted()["bank"])
        text = f"num_neighbors: {self.num_neighbors} expected, {size} used: the bank has no more patches"
        return [text] if size < self.num_neighbors else []

    def score(self, state: State, features: FeatureMaps, size: tuple[int, int]) -> Scores:
        """Score a batch by the squared distances to the bank.

        Args:
            state: `mean` (1024,), `whitening` (1024, k) and `bank` (m, k).
            features: features by layer, on the device.
            size: (height, width) of the maps.
        """
        maps = pooled_patches(features, self.layers)
        vectors = (maps.permute(0, 2, 3, 1).flatten(0, 2) - state["mean"]) @ state["whitening"]
        patches = Patches(vectors, (maps.shape[2], maps.shape[3]))
        nearest = nearest_in_prefixes(vectors, state["bank"], [len(state["bank"])])[0]
        neighbourhood = find_neighbourhood(patches, state["bank"], nearest, self.num_neighbors)
        return squared_scores(neighbourhood, self.num_neighbors, size)

    def head(self) -> nn.Module:
        """The bank as a module for export."""
        return MHPatchCoreHead(self.fitted(), self.layers, self.num_neighbors, self.preprocessing.input_size)


class MHPatchCoreHead(nn.Module):
    """Projection and bank as a module for export.

    Args:
        state: the fitted state.
        layers: layers in the order of the sequence.
        k: number of neighbours.
        size: (height, width) of the anomaly maps.
    """

    def __init__(self, state: State, layers: tuple[str, ...], k: int, size: tuple[int, int]) -> None:
        super().__init__()
        self._layers, self._size, self._k = layers, size, min(k, len(state["bank"]))
        for name, tensor in state.items():
            self.register_buffer(name, tensor.cpu().clone())

    def forward(self, features: FeatureMaps) -> tuple[torch.Tensor, torch.Tensor]:
        """Compute scores (n,) and maps (n, height, width) from features by layer."""
        maps, bank = pooled_patches(features, self._layers), self.get_buffer("bank")
        vectors = (maps.flatten(2).mT - self.get_buffer("mean")) @ self.get_buffer("whitening")
        halves = bank.square().sum(dim=1) * 0.5
        nearest = (halves - vectors @ bank.T).argmin(dim=2)
        distances = (vectors - bank[nearest]).square().sum(dim=2)
        anomaly_maps = smooth(distances.reshape(-1, *maps.shape[2:]), self._size)
        largest, farthest = distances.max(dim=1)
        if self._k == 1:
            return largest, anomaly_maps
        star = nearest.gather(1, farthest[:, None])[:, 0]
        products = halves - bank[star] @ bank.T
        is_star = torch.arange(len(bank), device=bank.device)[None] == star[:, None]
        neighbours = torch.where(is_star, -1e30, products).topk(self._k, dim=1, largest=False).indices
        patch = vectors.gather(1, farthest[:, None, None].expand(-1, 1, vectors.shape[2]))
        return image_scores((patch - bank[neighbours]).square().sum(dim=2), self._k), anomaly_maps
