"""PatchCore: Roth et al., Towards Total Recall in Industrial Anomaly Detection, CVPR 2022 (arXiv:2106.08265).

A memory bank has a coreset of the patches of normal images. The score of a patch is its distance to the nearest patch
in the bank.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Unpack

import torch
from torch import nn

from harness.common.errors import ConfigError
from harness.detectors.arguments import check_number, check_whole
from harness.detectors.bank import Bank, CoresetOrder
from harness.detectors.base import Detector, Options, State
from harness.detectors.context import StageContext
from harness.detectors.embedding import Embedding, Patches, embed, rows
from harness.detectors.features import FeatureMaps
from harness.detectors.maps import Scores, blur, upsample
from harness.detectors.neighbours import Nearest, k_nearest, nearest_in_prefixes
from harness.detectors.stages import Stage


class PatchCore(Detector):
    """PatchCore (Roth et al., CVPR 2022): a patch is as anomalous as it is far from the nearest patch in the bank.

    The bank holds a coreset of the patches of normal images.

    Args:
        backbone: a name of timm.
        layers: of the patch features; the first layer gives the grid.
        coreset_sampling_ratio: the share of all patches in the bank, above 0 and up to 1.
        num_neighbors: b of equation 7; with 1 the image score is the largest patch score, without a weight.
        upsampling: from patch scores to the map: `nearest` as anomalib, `bilinear` as the paper.
        options: see `Options`.
    """

    name = "patchcore"
    uses_seed = True

    def __init__(
        self,
        backbone: str = "wide_resnet50_2",
        layers: Sequence[str] = ("layer2", "layer3"),
        coreset_sampling_ratio: float = 0.1,
        num_neighbors: int = 9,
        upsampling: str = "nearest",
        **options: Unpack[Options],
    ) -> None:
        super().__init__(backbone, layers, **options)
        check_number("coreset_sampling_ratio", coreset_sampling_ratio, "a share above 0 and up to 1", 0, 1)
        check_whole("num_neighbors", num_neighbors)
        if upsampling not in {"nearest", "bilinear"}:
            raise ConfigError(f"upsampling: found {upsampling!r}, expected nearest or bilinear.")
        self.coreset_sampling_ratio = coreset_sampling_ratio
        self.num_neighbors = num_neighbors
        self.upsampling = upsampling

    def parameters(self) -> dict[str, Any]:
        """The method's constructor arguments."""
        return {"coreset_sampling_ratio": self.coreset_sampling_ratio, "num_neighbors": self.num_neighbors,
                "upsampling": self.upsampling}  # fmt: skip

    def _bank(self, group: Sequence[Detector]) -> Bank:
        """The largest bank of the detectors with the same patches; the bank of this detector is a prefix."""
        ratios = sorted({other.coreset_sampling_ratio for other in group
                         if isinstance(other, PatchCore) and other.shares_patches_with(self)})  # fmt: skip
        embedding = Embedding(self.features("train", group), self.layers)
        return Bank(CoresetOrder(embedding, self.seed, tuple(ratios)), embedding)

    def shares_patches_with(self, other: PatchCore) -> bool:
        """Whether both detectors select from the same patches, with the same first patch."""
        return (self.layers, self.precision, self.seed) == (other.layers, other.precision, other.seed)

    def timing_key(self) -> Hashable:
        """The parameters that affect the time of an image; the number of neighbours only concerns one patch."""
        return self.name, self.coreset_sampling_ratio, self.upsampling

    def state_warnings(self) -> list[str]:
        """A warning if the bank has fewer patches than neighbours."""
        size = len(self.fitted()["bank"])
        text = f"num_neighbors: {self.num_neighbors} expected, {size} used: the coreset has no more patches"
        return [text] if size < self.num_neighbors else []

    def fit_stage(self, group: Sequence[Detector]) -> Stage:
        """The stage that selects the bank; see `Detector.fit_stage`.

        Args:
            group: detectors that share stages.
        """
        return BankState(self._bank(group), self.coreset_sampling_ratio)

    def score_stage(self, role: str, group: Sequence[Detector]) -> Stage:
        """The stage that computes the scores; see `Detector.score_stage`.

        Args:
            role: train, val or test.
            group: detectors that share stages.
        """
        alike = [other for other in group if isinstance(other, PatchCore) and other.shares_patches_with(self)]
        embedding, k = Embedding(self.features(role, group), self.layers), max(other.num_neighbors for other in alike)
        neighbourhoods = Neighbourhoods(self._bank(group), embedding, k)
        maps = PatchMaps(neighbourhoods, self.coreset_sampling_ratio, self.upsampling)
        return PatchCoreScores(maps, neighbourhoods, self.coreset_sampling_ratio, self.num_neighbors)

    def head(self) -> nn.Module:
        """The bank as a module for export."""
        return PatchCoreHead(
            self.fitted()["bank"], self.layers, self.num_neighbors, self.view.input_size, self.upsampling
        )

    def score(self, state: State, features: FeatureMaps, size: tuple[int, int]) -> Scores:
        """Score a batch by the distances to the bank.

        Args:
            state: the bank.
            features: features by layer, on the device.
            size: (height, width) of the maps.
        """
        maps = embed(features, self.layers)
        patches = Patches(rows(maps), (maps.shape[2], maps.shape[3]))
        bank = state["bank"]
        nearest = nearest_in_prefixes(patches.vectors, bank, [len(bank)])[0]
        neighbourhood = find_neighbourhood(patches, bank, nearest, self.num_neighbors)
        anomaly_maps = blur(upsample(neighbourhood.distances, size, self.upsampling))
        return Scores(image_scores(neighbourhood.support, self.num_neighbors), anomaly_maps)


class PatchCoreHead(nn.Module):
    """The bank as a module for export: equations 5 to 7, in blocks of the bank to save memory.

    Args:
        bank: (m, d).
        layers: layers in the order of the concatenation.
        k: number of neighbours.
        size: (height, width) of the anomaly maps.
        upsampling: nearest or bilinear.
    """

    BLOCK = 4096

    def __init__(
        self, bank: torch.Tensor, layers: tuple[str, ...], k: int, size: tuple[int, int], upsampling: str
    ) -> None:
        super().__init__()
        self._layers, self._k, self._size, self._upsampling = layers, k, size, upsampling
        self.register_buffer("bank", bank.cpu().clone())

    def forward(self, features: FeatureMaps) -> tuple[torch.Tensor, torch.Tensor]:
        """Compute scores (n,) and maps (n, height, width) from features by layer."""
        maps, bank = embed(features, self._layers), self.get_buffer("bank")
        grid = maps.shape[2:]
        vectors = maps.flatten(2).mT
        halves = bank.square().sum(dim=1) * 0.5
        smallest, nearest = (halves[: self.BLOCK] - vectors @ bank[: self.BLOCK].T).min(dim=2)
        for left in range(self.BLOCK, len(bank), self.BLOCK):
            block = slice(left, left + self.BLOCK)
            minima, columns = (halves[block] - vectors @ bank[block].T).min(dim=2)
            nearest = torch.where(minima < smallest, columns + left, nearest)
            smallest = torch.minimum(minima, smallest)
        distances = torch.sqrt((vectors - bank[nearest]).square().sum(dim=2))
        patches = upsample(distances.reshape(-1, *grid), self._size, self._upsampling)
        return self._scores(vectors, distances, nearest, halves), blur(patches)

    def _scores(
        self, vectors: torch.Tensor, distances: torch.Tensor, nearest: torch.Tensor, halves: torch.Tensor
    ) -> torch.Tensor:
        bank = self.get_buffer("bank")
        largest, farthest = distances.max(dim=1)
        if self._k == 1:
            return largest
        star = nearest.gather(1, farthest[:, None])[:, 0]
        products = halves - bank[star] @ bank.T
        # m* is its own nearest neighbour; rounding must not put another patch first.
        is_star = torch.arange(len(bank), device=bank.device)[None] == star[:, None]
        products = torch.where(is_star, -1e30, products)
        neighbours = products.topk(min(self._k, len(bank)), dim=1, largest=False).indices
        patch = vectors.gather(1, farthest[:, None, None].expand(-1, 1, vectors.shape[2]))
        support = torch.sqrt((patch - bank[neighbours]).square().sum(dim=2))
        return image_scores(support, self._k)


@dataclass(frozen=True)
class BankState(Stage):
    """The state of one PatchCore.

    Attributes:
        bank: the largest bank.
        ratio: coreset ratio of this detector.
    """

    bank: Bank
    ratio: float

    title: ClassVar[str] = "bank"

    def compute(self, context: StageContext, *inputs: Any) -> State:
        """Select the bank of one ratio.

        Args:
            context: context of the stage.
            inputs: the largest bank with the sizes of all ratios.
        """
        del context
        bank, sizes = inputs[0]
        return {"bank": bank[: sizes[self.ratio]]}

    def uses(self, key: Hashable = None) -> Sequence[tuple[Stage, Hashable]]:
        """The prefix of the bank for one ratio."""
        del key
        return [(self.bank, self.ratio)]


@dataclass(frozen=True)
class Neighbourhood:
    """Distances of n images to one bank.

    Attributes:
        distances: (n, h, w) distance of each patch to its nearest neighbour in the bank.
        support: (n, k) distances of each image's farthest patch to its nearest neighbour m* (first) and to the nearest
            neighbours of m* in the bank.
    """

    distances: torch.Tensor
    support: torch.Tensor


def find_neighbourhood(patches: Patches, bank: torch.Tensor, nearest: Nearest, k: int) -> Neighbourhood:
    """Equation 6: the farthest patch of each image, and the distances for the weight of equation 7.

    Args:
        patches: patches of n images.
        bank: (m, d).
        nearest: nearest neighbours of the patches in the bank.
        k: number of neighbours.
    """
    distances = nearest.distances.reshape(-1, patches.per_image)
    farthest = distances.argmax(dim=1)
    images = torch.arange(len(distances), device=distances.device)
    indices = images * patches.per_image + farthest
    star = nearest.rows[indices]
    neighbours = k_nearest(bank[star], bank, k, star)
    vectors = patches.vectors[indices.to(patches.vectors.device)].to(bank.device)
    support = torch.linalg.vector_norm(vectors[:, None] - bank[neighbours], dim=2)
    return Neighbourhood(distances.reshape(-1, *patches.grid), support)


def image_scores(support: torch.Tensor, k: int) -> torch.Tensor:
    """Equation 7: the largest patch score of each image, with a weight below 1 that depends on the neighbourhood.

    Args:
        support: (n, k or more) distances of the farthest patches; see `Neighbourhood`.
        k: number of neighbours; with 1, there is no weight.

    Returns:
        (n,) image scores.
    """
    largest = support[:, 0]
    if k == 1:
        return largest
    return (1 - torch.softmax(support[:, :k], dim=1)[:, 0]) * largest


@dataclass(frozen=True)
class Neighbourhoods(Stage):
    """Nearest neighbours in the banks of all ratios, in one pass. The keys of the subsets are ratios.

    Attributes:
        bank: the largest bank.
        embedding: patches of the scored images.
        k: largest number of neighbours of the detectors.
    """

    bank: Bank
    embedding: Embedding
    k: int

    title: ClassVar[str] = "neighbours"

    def compute(self, context: StageContext, *inputs: Any) -> dict[float, Neighbourhood]:
        """Find the neighbourhood of each image, by ratio.

        Args:
            context: context of the stage.
            inputs: the largest bank with the sizes of all ratios, and patches of the scored images.
        """
        (bank, sizes), patches = inputs
        neighbourhoods: dict[float, Neighbourhood] = {}

        def on_result(size: int, nearest: Nearest) -> None:
            neighbourhood = find_neighbourhood(patches, bank[:size], nearest, self.k)
            neighbourhood = Neighbourhood(neighbourhood.distances.cpu(), neighbourhood.support.cpu())
            for ratio, length in sizes.items():
                if length == size:
                    neighbourhoods[ratio] = neighbourhood
                    context.mark_time(ratio)
            context.report(size, len(bank))

        nearest_in_prefixes(patches.vectors, bank, sorted(set(sizes.values())), on_result)
        return neighbourhoods

    def uses(self, key: Hashable = None) -> Sequence[tuple[Stage, Hashable]]:
        """The bank of the ratio `key`, and all patches."""
        return [(self.bank, key), (self.embedding, None)]


@dataclass(frozen=True)
class PatchMaps(Stage):
    """Anomaly maps of one ratio; they do not depend on `num_neighbors`.

    Attributes:
        neighbourhoods: neighbourhoods for several ratios.
        ratio: coreset ratio of the maps.
        upsampling: nearest or bilinear.
    """

    neighbourhoods: Neighbourhoods
    ratio: float
    upsampling: str

    title: ClassVar[str] = "maps"

    def compute(self, context: StageContext, *inputs: Any) -> torch.Tensor:
        """Compute the maps (n, height, width).

        Args:
            context: context of the stage.
            inputs: neighbourhoods by ratio.
        """
        size = context.images[self.neighbourhoods.embedding.features.role].view.input_size
        return blur(upsample(inputs[0][self.ratio].distances, size, self.upsampling))

    def uses(self, key: Hashable = None) -> Sequence[tuple[Stage, Hashable]]:
        """The neighbourhoods of one ratio."""
        del key
        return [(self.neighbourhoods, self.ratio)]


@dataclass(frozen=True)
class PatchCoreScores(Stage):
    """The scores of one PatchCore.

    Attributes:
        maps: anomaly maps of the ratio.
        neighbourhoods: neighbourhoods for several ratios.
        ratio: coreset ratio of this detector.
        num_neighbors: number of neighbours of this detector.
    """

    maps: PatchMaps
    neighbourhoods: Neighbourhoods
    ratio: float
    num_neighbors: int

    title: ClassVar[str] = "scores"

    def compute(self, context: StageContext, *inputs: Any) -> Scores:
        """Compute the image scores (equation 7); the maps are shared.

        Args:
            context: context of the stage.
            inputs: the maps, and neighbourhoods by ratio.
        """
        del context
        maps, neighbourhoods = inputs
        return Scores(image_scores(neighbourhoods[self.ratio].support, self.num_neighbors), maps)

    def uses(self, key: Hashable = None) -> Sequence[tuple[Stage, Hashable]]:
        """The maps, and the neighbourhoods of one ratio."""
        del key
        return [(self.maps, None), (self.neighbourhoods, self.ratio)]
