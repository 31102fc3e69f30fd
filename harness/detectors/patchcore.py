"""PatchCore: Roth et al., Towards Total Recall in Industrial Anomaly Detection, CVPR 2022 (arXiv:2106.08265).

Patches of normal images are remembered, thinned out to a coreset; a patch is as anomalous as it is far from the
nearest one remembered.
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
        """See `Detector.parameters`."""
        return {"coreset_sampling_ratio": self.coreset_sampling_ratio, "num_neighbors": self.num_neighbors,
                "upsampling": self.upsampling}  # fmt: skip

    def _bank(self, group: Sequence[Detector]) -> Bank:
        """The largest bank that detectors of the group with the same patches ask for; mine is the first part of it."""
        ratios = sorted({one.coreset_sampling_ratio for one in group
                         if isinstance(one, PatchCore) and one.shares_patches_with(self)})  # fmt: skip
        embedding = Embedding(self.features("train", group), self.layers)
        return Bank(CoresetOrder(embedding, self.seed, tuple(ratios)), embedding)

    def shares_patches_with(self, other: PatchCore) -> bool:
        """Whether both choose from the same patches, from the same start."""
        return (self.layers, self.precision, self.seed) == (other.layers, other.precision, other.seed)

    def timing_key(self) -> Hashable:
        """See `Detector.speed`. The number of neighbours concerns a single patch of an image."""
        return self.name, self.coreset_sampling_ratio, self.upsampling

    def state_warnings(self) -> list[str]:
        """See `Detector.shortfalls`."""
        size = len(self.fitted()["bank"])
        text = f"num_neighbors: {self.num_neighbors} asked for, {size} used: the coreset has no more patches"
        return [text] if size < self.num_neighbors else []

    def fit_stage(self, group: Sequence[Detector]) -> Stage:
        """See `Detector.fit_stage`."""
        return BankState(self._bank(group), self.coreset_sampling_ratio)

    def score_stage(self, role: str, group: Sequence[Detector]) -> Stage:
        """See `Detector.score_stage`."""
        k = max(one.num_neighbors for one in group if isinstance(one, PatchCore) and one.shares_patches_with(self))
        bank = self._bank(group)
        around = Neighbourhoods(bank, Embedding(self.features(role, group), self.layers), k)
        maps = PatchMaps(around, self.coreset_sampling_ratio, self.upsampling)
        return PatchCoreScores(maps, around, self.coreset_sampling_ratio, self.num_neighbors)

    def head(self) -> nn.Module:
        """See `Detector.head`."""
        return PatchCoreHead(
            self.fitted()["bank"], self.layers, self.num_neighbors, self.view.input_size, self.upsampling
        )

    def score(self, state: State, features: FeatureMaps, size: tuple[int, int]) -> Scores:
        """See `Detector.score`."""
        maps = embed(features, self.layers)
        patches = Patches(rows(maps), (maps.shape[2], maps.shape[3]))
        bank = state["bank"]
        nearest = nearest_in_prefixes(patches.vectors, bank, [len(bank)])[0]
        around = neighbourhood(patches, bank, nearest, self.num_neighbors)
        return Scores(
            image_scores(around.support, self.num_neighbors), blur(upsample(around.distances, size, self.upsampling))
        )


class PatchCoreHead(nn.Module):
    """See `Detector.head`: equations 5 to 7, the bank worked off in blocks so that little memory is needed.

    Args:
        bank: (m, d).
        layers: in the order of the concatenation.
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
        """Features by layer -> scores (n,), maps (n, height, width)."""
        maps, bank = embed(features, self._layers), self.get_buffer("bank")
        grid = maps.shape[2:]
        vectors = maps.flatten(2).mT
        halves = bank.square().sum(dim=1) * 0.5
        least, rows_ = (halves[: self.BLOCK] - vectors @ bank[: self.BLOCK].T).min(dim=2)
        for left in range(self.BLOCK, len(bank), self.BLOCK):
            block = slice(left, left + self.BLOCK)
            found, where = (halves[block] - vectors @ bank[block].T).min(dim=2)
            rows_ = torch.where(found < least, where + left, rows_)
            least = torch.minimum(found, least)
        distances = torch.sqrt((vectors - bank[rows_]).square().sum(dim=2))
        patches = upsample(distances.reshape(-1, *grid), self._size, self._upsampling)
        return self._scores(vectors, distances, rows_, halves), blur(patches)

    def _scores(
        self, vectors: torch.Tensor, distances: torch.Tensor, rows_: torch.Tensor, halves: torch.Tensor
    ) -> torch.Tensor:
        bank = self.get_buffer("bank")
        largest, farthest = distances.max(dim=1)
        if self._k == 1:
            return largest
        star = rows_.gather(1, farthest[:, None])[:, 0]
        near = halves - bank[star] @ bank.T
        # m* itself is the nearest, whatever rounding says.
        own = torch.arange(len(bank), device=bank.device)[None] == star[:, None]
        near = torch.where(own, -1e30, near)
        beside = near.topk(min(self._k, len(bank)), dim=1, largest=False).indices
        patch = vectors.gather(1, farthest[:, None, None].expand(-1, 1, vectors.shape[2]))
        support = torch.sqrt((patch - bank[beside]).square().sum(dim=2))
        return image_scores(support, self._k)


@dataclass(frozen=True)
class BankState(Stage):
    """What a fitted PatchCore keeps."""

    bank: Bank
    ratio: float

    title: ClassVar[str] = "bank"

    def compute(self, context: StageContext, *inputs: Any) -> State:
        """The bank of one ratio."""
        del context
        bank, sizes = inputs[0]
        return {"bank": bank[: sizes[self.ratio]]}

    def uses(self, part: Hashable = None) -> Sequence[tuple[Stage, Hashable]]:
        """Only its own part of the bank."""
        del part
        return [(self.bank, self.ratio)]


@dataclass(frozen=True)
class Neighbourhood:
    """Of n images, against one bank.

    Attributes:
        distances: (n, h, w) of each patch to its nearest neighbour in the bank.
        support: (n, k) distances of each image's farthest patch to its nearest neighbour m* and to m*'s own nearest
            neighbours in the bank, m* first.
    """

    distances: torch.Tensor
    support: torch.Tensor


def neighbourhood(patches: Patches, bank: torch.Tensor, nearest: Nearest, k: int) -> Neighbourhood:
    """Equation 6: the farthest patch of each image, and what equation 7 weighs it by."""
    distances = nearest.distances.reshape(-1, patches.per_image)
    farthest = distances.argmax(dim=1)
    images = torch.arange(len(distances), device=distances.device)
    flat = images * patches.per_image + farthest
    star = nearest.rows[flat]
    beside = k_nearest(bank[star], bank, k, star)
    vectors = patches.vectors[flat.to(patches.vectors.device)].to(bank.device)
    support = torch.linalg.vector_norm(vectors[:, None] - bank[beside], dim=2)
    return Neighbourhood(distances.reshape(-1, *patches.grid), support)


def image_scores(support: torch.Tensor, k: int) -> torch.Tensor:
    """Equation 7: the largest patch scores, each weighted down where its neighbourhood in the bank is sparse.

    Args:
        support: (n, k or more) distances of each image's farthest patch; see `Neighbourhood`.
        k: number of neighbours; with 1 there is no weight.

    Returns:
        (n,) image scores.
    """
    largest = support[:, 0]
    if k == 1:
        return largest
    return (1 - torch.softmax(support[:, :k], dim=1)[:, 0]) * largest


@dataclass(frozen=True)
class Neighbourhoods(Stage):
    """Nearest neighbours in the banks of all ratios, in one pass.

    Attributes:
        bank: the largest.
        embedding: of the images to be judged.
        k: the largest number of neighbours that is asked for.
    """

    bank: Bank
    embedding: Embedding
    k: int

    title: ClassVar[str] = "neighbours"

    def compute(self, context: StageContext, *inputs: Any) -> dict[float, Neighbourhood]:
        """By ratio."""
        (bank, sizes), patches = inputs
        found: dict[float, Neighbourhood] = {}

        def keep(size: int, nearest: Nearest) -> None:
            around = neighbourhood(patches, bank[:size], nearest, self.k)
            around = Neighbourhood(around.distances.cpu(), around.support.cpu())
            for ratio, length in sizes.items():
                if length == size:
                    found[ratio] = around
                    context.mark_time(ratio)
            context.at(size, len(bank))

        nearest_in_prefixes(patches.vectors, bank, sorted(set(sizes.values())), keep)
        return found

    def uses(self, part: Hashable = None) -> Sequence[tuple[Stage, Hashable]]:
        """A part is a ratio."""
        return [(self.bank, part), (self.embedding, None)]


@dataclass(frozen=True)
class PatchMaps(Stage):
    """Anomaly maps of one ratio; the same for all `num_neighbors`."""

    around: Neighbourhoods
    ratio: float
    upsampling: str

    title: ClassVar[str] = "maps"

    def compute(self, context: StageContext, *inputs: Any) -> torch.Tensor:
        """(n, height, width)."""
        size = context.images[self.around.embedding.features.role].view.input_size
        return blur(upsample(inputs[0][self.ratio].distances, size, self.upsampling))

    def uses(self, part: Hashable = None) -> Sequence[tuple[Stage, Hashable]]:
        """Only its own ratio."""
        del part
        return [(self.around, self.ratio)]


@dataclass(frozen=True)
class PatchCoreScores(Stage):
    """What one PatchCore says."""

    maps: PatchMaps
    around: Neighbourhoods
    ratio: float
    num_neighbors: int

    title: ClassVar[str] = "scores"

    def compute(self, context: StageContext, *inputs: Any) -> Scores:
        """Equation 7 over the shared maps."""
        del context
        maps, around = inputs
        return Scores(image_scores(around[self.ratio].support, self.num_neighbors), maps)

    def uses(self, part: Hashable = None) -> Sequence[tuple[Stage, Hashable]]:
        """Only its own ratio."""
        del part
        return [(self.maps, None), (self.around, self.ratio)]
