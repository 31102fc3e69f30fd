"""PatchCore: Roth et al., Towards Total Recall in Industrial Anomaly Detection, CVPR 2022 (arXiv:2106.08265).

A memory bank has a coreset of the patches of normal images. The score of a patch is its distance to the nearest patch
in the bank.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from copy import copy
from typing import Any, ClassVar, Self, Unpack

import torch
from torch import nn

from harness.backbones.layers import chosen_layers
from harness.common.errors import ConfigError
from harness.detectors.arguments import check_number, check_whole
from harness.detectors.bank import BANKS, EXACT, Bank, CoresetOrder, rounded_up
from harness.detectors.base import Detector, State
from harness.detectors.embedding import Embedding, Patches, embed, rows
from harness.detectors.faiss_index import EXACT_SEARCH, FaissIndex, bank_problems, check_neighbours
from harness.detectors.features import FeatureMaps
from harness.detectors.group import Group
from harness.detectors.maps import Scores, smooth
from harness.detectors.memory import BYTES
from harness.detectors.neighbours import Nearest, nearest_in_prefixes
from harness.detectors.options import Options
from harness.detectors.patchcore_stages import (
    COVERING_RADIUS,
    BankIndex,
    BankState,
    IndexedNeighbourhoods,
    Neighbourhoods,
    PatchCoreScores,
    PatchMaps,
    find_neighbourhood,
    image_scores,
)
from harness.detectors.stages import Stage
from harness.detectors.streamed_bank import Blocks, StreamedBank


class PatchCore(Detector):
    """PatchCore (Roth et al., CVPR 2022): a patch is as anomalous as it is far from the nearest patch in the bank.

    The bank holds a coreset of the patches of normal images.

    Args:
        backbone: a name of timm.
        layers: of the patch features; the first layer gives the grid.
        coreset_sampling_ratio: the share of all patches in the bank, above 0 and up to 1.
        num_neighbors: b of equation 7; with 1 the image score is the largest patch score, without a weight.
        upsampling: from patch scores to the map: `nearest` as anomalib, `bilinear` as the paper.
        bank: `exact` for a selection from all patches at once; `merge_reduce` for one pass over blocks of images, in
            memory that does not grow with all patches.
        neighbours: search for the nearest patch in the bank: `exact`; or an index of FAISS, which is faster in a large
            bank: `faiss_flat` (exact up to rounding), `hnsw` (a graph) or `ivf` (lists). A saved model has no index:
            a loaded one builds it again.
        options: see `Options`.
    """

    name = "patchcore"
    uses_seed = True
    implied: ClassVar = {"bank": "exact", "neighbours": "exact"}

    def __init__(
        self,
        backbone: str = "wide_resnet50_2",
        layers: Sequence[str] = ("layer2", "layer3"),
        coreset_sampling_ratio: float = 0.1,
        num_neighbors: int = 9,
        upsampling: str = "nearest",
        bank: str = "exact",
        neighbours: str = "exact",
        **options: Unpack[Options],
    ) -> None:
        super().__init__(backbone, layers, **options)
        check_number("coreset_sampling_ratio", coreset_sampling_ratio, "a share above 0 and up to 1", 0, 1)
        check_whole("num_neighbors", num_neighbors)
        if upsampling not in {"nearest", "bilinear"}:
            raise ConfigError(f"upsampling: found {upsampling!r}, expected nearest or bilinear.")
        if bank not in BANKS:
            raise ConfigError(f"bank: found {bank!r}, expected {' or '.join(BANKS)}.")
        check_neighbours(neighbours)
        self.coreset_sampling_ratio, self.bank = coreset_sampling_ratio, bank
        self.num_neighbors = num_neighbors
        self.upsampling, self.neighbours = upsampling, neighbours
        self._index: FaissIndex | None = None

    def parameters(self) -> dict[str, Any]:
        """The method's constructor arguments."""
        return {"coreset_sampling_ratio": self.coreset_sampling_ratio, "num_neighbors": self.num_neighbors,
                "upsampling": self.upsampling, "bank": self.bank, "neighbours": self.neighbours}  # fmt: skip

    def _bank(self, group: Group) -> Bank | StreamedBank:
        """The largest bank of the detectors with the same patches, of which the bank of this detector is a prefix.

        A bank from blocks is not a prefix of a larger one, so each ratio has its own.
        """
        ratios = tuple(sorted({other.coreset_sampling_ratio for other in group.alike(self)}))
        features = self.features("train", group)
        if self.bank != EXACT:
            blocks = Blocks(features, self.layers, self.seed, ratios[-1])
            return StreamedBank(blocks, self.coreset_sampling_ratio)
        embedding = Embedding(features, self.layers)
        return Bank(CoresetOrder(embedding, self.seed, ratios), embedding)

    def sharing_key(self) -> Hashable:
        """Detectors with equal keys have banks that are prefixes of one bank."""
        return super().sharing_key(), self.seed, self.bank

    def timing_key(self) -> Hashable:
        """The parameters that affect the time of an image; the number of neighbours only concerns one patch."""
        return self.name, self.coreset_sampling_ratio, self.upsampling, self.neighbours

    def limits(self) -> list[str]:
        """A sentence about an index, which an exported file does not have."""
        if self.neighbours == EXACT_SEARCH:
            return []
        return [
            f"neighbours: {self.neighbours}: an index chooses the nearest patch. An exported file searches the whole "
            "bank exactly, so its scores may differ a little"
        ]

    def problems(self, train_images: int) -> list[str]:
        """Reasons why `fit` would fail; see `Detector.problems`.

        Args:
            train_images: number of normal training images.
        """
        problems = super().problems(train_images)
        # An empty bank has a sentence of its own.
        if size := int(self.patches(train_images) * self.coreset_sampling_ratio):
            problems += bank_problems(self.neighbours, size)
        return problems

    def bytes_of_all_patches(self, train_images: int) -> int:
        """Bytes of all patches, for `bank: exact`; see `Detector.bytes_of_all_patches`.

        Args:
            train_images: number of normal training images.
        """
        if self.bank != EXACT:
            return 0
        channels = sum(layer.channels for layer in chosen_layers(self.backbone, self.layers))
        return BYTES * channels * self.patches(train_images)

    def state_warnings(self) -> list[str]:
        """A warning if the bank has fewer patches than neighbours."""
        size = len(self.fitted()["bank"])
        text = f"num_neighbors: {self.num_neighbors} expected, {size} used: the coreset has no more patches"
        return [text] if size < self.num_neighbors else []

    def notes(self, state: State) -> list[str]:
        """The covering radius of a bank from blocks of images.

        Args:
            state: the fitted state.
        """
        if COVERING_RADIUS not in state:
            return []
        radius = rounded_up(float(state[COVERING_RADIUS]))
        return [f"bank: {self.bank}: no training patch is farther than {radius:.4g} from the bank"]

    def fit_stage(self, group: Group) -> Stage:
        """The stage that selects the bank; see `Detector.fit_stage`.

        Args:
            group: detectors that share stages.
        """
        return BankState(self._bank(group), self.coreset_sampling_ratio, self._bank_index(group))

    def _bank_index(self, group: Group) -> BankIndex | None:
        if self.neighbours == EXACT_SEARCH:
            return None
        return BankIndex(self._bank(group), self.coreset_sampling_ratio, self.neighbours)

    def score_stage(self, role: str, group: Group) -> Stage:
        """The stage that computes the scores; see `Detector.score_stage`.

        Args:
            role: train, val or test.
            group: detectors that share stages.
        """
        embedding = Embedding(self.features(role, group), self.layers)
        k = max(other.num_neighbors for other in group.alike(self))
        index = self._bank_index(group)
        neighbourhoods: Neighbourhoods | IndexedNeighbourhoods
        if index is None:
            neighbourhoods = Neighbourhoods(self._bank(group), embedding, k)
        else:
            neighbourhoods = IndexedNeighbourhoods(index, embedding, k)
        maps = PatchMaps(neighbourhoods, self.coreset_sampling_ratio, self.upsampling)
        return PatchCoreScores(maps, neighbourhoods, self.coreset_sampling_ratio, self.num_neighbors)

    def head(self) -> nn.Module:
        """The bank as a module for export."""
        return PatchCoreHead(
            self.fitted()["bank"], self.layers, self.num_neighbors, self.preprocessing.input_size, self.upsampling
        )

    def as_exported(self) -> Self:
        """The detector with an exact search."""
        exact = copy(self)
        exact.neighbours, exact._index = EXACT_SEARCH, None
        return exact

    def prepare(self) -> State:
        """Build the index, too; see `Detector.prepare`."""
        state = super().prepare()
        if self.neighbours != EXACT_SEARCH:
            self._index_of(state["bank"])
        return state

    def forget(self) -> None:
        """Delete the index, too; see `Detector.forget`."""
        super().forget()
        self._index = None

    def _index_of(self, bank: torch.Tensor) -> FaissIndex:
        if self._index is None or self._index.bank is not bank:
            self._index = FaissIndex(bank, self.neighbours)
        return self._index

    def _nearest(self, vectors: torch.Tensor, bank: torch.Tensor) -> Nearest:
        if self.neighbours == EXACT_SEARCH:
            return nearest_in_prefixes(vectors, bank, [len(bank)])[0]
        return self._index_of(bank).nearest(vectors)

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
        nearest = self._nearest(patches.vectors, bank)
        neighbourhood = find_neighbourhood(patches, bank, nearest, self.num_neighbors)
        anomaly_maps = smooth(neighbourhood.distances, size, self.upsampling)
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
        anomaly_maps = smooth(distances.reshape(-1, *grid), self._size, self._upsampling)
        return self._scores(vectors, distances, nearest, halves), anomaly_maps

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
