"""The stages of PatchCore that a group of detectors shares: bank, neighbourhoods, maps and scores."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

import torch

from harness.detectors.bank import Bank, SelectedBank
from harness.detectors.base import State
from harness.detectors.context import StageContext
from harness.detectors.embedding import Embedding, Patches
from harness.detectors.faiss_index import FaissIndex
from harness.detectors.maps import Scores, smooth
from harness.detectors.neighbours import Nearest, k_nearest, nearest_in_prefixes
from harness.detectors.stages import Stage
from harness.detectors.streamed_bank import StreamedBank

COVERING_RADIUS = "covering_radius"  # in the state; see `SelectedBank`
Key = TypeVar("Key", bound=Hashable)  # of a bank


@dataclass(frozen=True)
class BankIndex(Stage):
    """The index over the bank of one ratio. A prefix of a bank needs an index of its own.

    Attributes:
        bank: the largest bank.
        ratio: coreset ratio.
        neighbours: kind of the index; see `FaissIndex`.
    """

    bank: Bank | StreamedBank
    ratio: float
    neighbours: str

    title: ClassVar[str] = "index"

    def compute(self, context: StageContext, *inputs: Any) -> FaissIndex:
        """Build the index.

        Args:
            context: context of the stage.
            inputs: the largest bank with the sizes of all ratios.
        """
        del context
        bank: SelectedBank = inputs[0]
        return FaissIndex(bank.vectors[: bank.sizes[self.ratio]], self.neighbours)

    def uses(self, key: Hashable = None) -> Sequence[tuple[Stage, Hashable]]:
        """The prefix of the bank for one ratio."""
        del key
        return [(self.bank, self.ratio)]


@dataclass(frozen=True)
class BankState(Stage):
    """The state of one PatchCore.

    Attributes:
        bank: the largest bank.
        ratio: coreset ratio of this detector.
        index: index over the bank, None for an exact search. It is no part of the state, but its time is one of the
            training, and a bank that is too small for it fails here.
    """

    bank: Bank | StreamedBank
    ratio: float
    index: BankIndex | None = None

    title: ClassVar[str] = "bank"

    def compute(self, context: StageContext, *inputs: Any) -> State:
        """Select the bank of one ratio.

        Args:
            context: context of the stage.
            inputs: the largest bank with the sizes of all ratios.
        """
        del context
        bank: SelectedBank = inputs[0]
        state = {"bank": bank.vectors[: bank.sizes[self.ratio]]}
        if self.ratio in bank.covering_radius:
            state[COVERING_RADIUS] = torch.tensor([bank.covering_radius[self.ratio]])
        return state

    def uses(self, key: Hashable = None) -> Sequence[tuple[Stage, Hashable]]:
        """The prefix of the bank for one ratio, and the index over it."""
        del key
        return [(self.bank, self.ratio), *([(self.index, None)] if self.index else [])]


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


def neighbourhoods_in_prefixes(
    patches: Patches, bank: torch.Tensor, sizes: Mapping[Key, int], k: int, context: StageContext
) -> dict[Key, Neighbourhood]:
    """Find the neighbourhoods in several banks, each a prefix of the largest, in one pass.

    Args:
        patches: patches of the scored images.
        bank: (m, d), the largest bank.
        sizes: length of the prefix for each key of a bank.
        k: number of neighbours.
        context: gets the time of each key, and the progress.
    """
    neighbourhoods: dict[Key, Neighbourhood] = {}

    def on_result(size: int, nearest: Nearest) -> None:
        neighbourhood = find_neighbourhood(patches, bank[:size], nearest, k)
        neighbourhood = Neighbourhood(neighbourhood.distances.cpu(), neighbourhood.support.cpu())
        for key, length in sizes.items():
            if length == size:
                neighbourhoods[key] = neighbourhood
                context.mark_time(key)
        context.report(size, len(bank))

    nearest_in_prefixes(patches.vectors, bank, sorted(set(sizes.values())), on_result)
    return neighbourhoods


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

    bank: Bank | StreamedBank
    embedding: Embedding
    k: int

    title: ClassVar[str] = "neighbours"

    def compute(self, context: StageContext, *inputs: Any) -> dict[float, Neighbourhood]:
        """Find the neighbourhood of each image, by ratio.

        Args:
            context: context of the stage.
            inputs: the largest bank with the sizes of all ratios, and patches of the scored images.
        """
        bank, patches = inputs
        return neighbourhoods_in_prefixes(patches, bank.vectors, bank.sizes, self.k, context)

    def uses(self, key: Hashable = None) -> Sequence[tuple[Stage, Hashable]]:
        """The bank of the ratio `key`, and all patches."""
        return [(self.bank, key), (self.embedding, None)]


@dataclass(frozen=True)
class IndexedNeighbourhoods(Stage):
    """Near neighbours in the bank of one ratio, from an index. The key of the subset is the ratio.

    Attributes:
        index: index over the bank.
        embedding: patches of the scored images.
        k: largest number of neighbours of the detectors.
    """

    index: BankIndex
    embedding: Embedding
    k: int

    title: ClassVar[str] = "neighbours"

    def compute(self, context: StageContext, *inputs: Any) -> dict[float, Neighbourhood]:
        """Find the neighbourhood of each image, by ratio. For test images, measure the recall of the index too.

        Args:
            context: context of the stage.
            inputs: the index, and patches of the scored images.
        """
        index, patches = inputs
        neighbourhood = find_neighbourhood(patches, index.bank, index.nearest(patches.vectors), self.k)
        ratio = self.index.ratio
        context.mark_time(ratio)
        if self.embedding.features.role == "test":
            context.warn(index.note(patches.vectors), ratio)
        return {ratio: Neighbourhood(neighbourhood.distances.cpu(), neighbourhood.support.cpu())}

    def uses(self, key: Hashable = None) -> Sequence[tuple[Stage, Hashable]]:
        """The index, and all patches."""
        del key
        return [(self.index, None), (self.embedding, None)]


@dataclass(frozen=True)
class PatchMaps(Stage):
    """Anomaly maps of one ratio; they do not depend on `num_neighbors`.

    Attributes:
        neighbourhoods: neighbourhoods for several ratios.
        ratio: coreset ratio of the maps.
        upsampling: nearest or bilinear.
    """

    neighbourhoods: Neighbourhoods | IndexedNeighbourhoods
    ratio: float
    upsampling: str

    title: ClassVar[str] = "maps"

    def compute(self, context: StageContext, *inputs: Any) -> torch.Tensor:
        """Compute the maps (n, height, width).

        Args:
            context: context of the stage.
            inputs: neighbourhoods by ratio.
        """
        size = context.images[self.neighbourhoods.embedding.features.role].input_size
        return smooth(inputs[0][self.ratio].distances, size, self.upsampling)

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
    neighbourhoods: Neighbourhoods | IndexedNeighbourhoods
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
