"""The stages of AnomalyDINO: directions of patches, a bank of them, distances for several detectors, and scores."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch.nn import functional as F

from harness.common.errors import DataError
from harness.detectors.base import State
from harness.detectors.context import StageContext
from harness.detectors.embedding import Embedding, ImagePatches, PatchPasses
from harness.detectors.features import FeatureMaps
from harness.detectors.foreground import Foreground
from harness.detectors.maps import Scores, mean_of_largest, smooth
from harness.detectors.neighbours import largest_products_in_prefixes
from harness.detectors.stages import Stage


def patch_scores(distances: torch.Tensor, size: tuple[int, int]) -> Scores:
    """The scores of a batch: the mean of the largest 1% of the patches, and smoothed maps.

    Args:
        distances: (n, h, w) of the patches.
        size: (height, width) of the maps.
    """
    return Scores(mean_of_largest(distances.flatten(1)), smooth(distances, size))


@dataclass(frozen=True)
class Directions(Embedding):
    """The features of all patches of a role, each of length 1."""

    def embed(self, maps: FeatureMaps) -> torch.Tensor:
        """Normalise the features of a batch.

        Args:
            maps: features by layer.
        """
        return F.normalize(maps[self.layers[0]], dim=1)


@dataclass(frozen=True)
class DirectionBank(Stage):
    """All patches of the training images; those of the object come first, so that their bank is a prefix.

    Attributes:
        patches: patches of the training images.
        foreground: which patches show the object.
    """

    patches: PatchPasses
    foreground: Foreground

    title: ClassVar[str] = "bank"

    def compute(self, context: StageContext, *inputs: Any) -> tuple[torch.Tensor, int]:
        """The bank (m, d), and the number of its patches that show the object.

        Args:
            context: memory and device.
            inputs: patches of the training images, and the masks of the object.
        """
        patches: ImagePatches = inputs[0]
        masks = inputs[1].flatten()
        order = torch.cat([torch.nonzero(masks)[:, 0], torch.nonzero(~masks)[:, 0]])
        places = torch.empty_like(order)
        places[order] = torch.arange(len(order))
        bank = context.memory.tensor(*patches.shape)
        images = zip(patches.of_each_image(), torch.split(places, patches.per_image), strict=True)
        for image, (vectors, of_image) in enumerate(images, 1):
            bank[of_image] = vectors
            context.report(image * patches.per_image, len(bank))
        return context.to_device(bank), int(masks.sum())


def _no_object() -> DataError:
    return DataError(
        "masking: no patch of the training images shows an object; expected features of DINOv2, or a lower "
        "foreground_threshold. Set masking to none or test."
    )


@dataclass(frozen=True)
class DirectionState(Stage):
    """The state of one AnomalyDINO.

    Attributes:
        bank: the bank of all patches.
        masked: whether the bank leaves out the background.
    """

    bank: DirectionBank
    masked: bool

    title: ClassVar[str] = "bank"

    def compute(self, context: StageContext, *inputs: Any) -> State:
        """Select the bank.

        Args:
            context: context of the stage.
            inputs: the bank of all patches, and the number of those that show the object.
        """
        del context
        bank, of_object = inputs[0]
        if self.masked and not of_object:
            raise _no_object()
        return {"bank": bank[:of_object] if self.masked else bank}


@dataclass(frozen=True)
class Distances(Stage):
    """Cosine distances to the nearest patches of both banks, in one pass. The keys of the subsets are `masked`.

    Attributes:
        bank: the bank of all patches.
        patches: patches of the scored images.
        banks: `masked` of the needed banks, the smaller bank first.
        k: largest number of neighbours.
    """

    bank: DirectionBank
    patches: PatchPasses
    banks: tuple[bool, ...]
    k: int

    title: ClassVar[str] = "neighbours"

    def compute(self, context: StageContext, *inputs: Any) -> tuple[dict[bool, torch.Tensor], tuple[int, int]]:
        """Find the distances (images * h * w, k) for each bank, nearest first, and the grid.

        Args:
            context: progress.
            inputs: the bank with the number of patches that show the object, and patches of the scored images.
        """
        (bank, of_object), patches = inputs
        # Without an object, only the runs that need its bank fail.
        banks = [masked for masked in self.banks if of_object or not masked]
        sizes = [of_object if masked else len(bank) for masked in banks]
        distances: dict[bool, list[torch.Tensor]] = {masked: [] for masked in banks}
        for image, vectors in enumerate(patches.of_each_image(), 1):
            products = largest_products_in_prefixes(vectors, bank, sizes, self.k)
            for masked, largest in zip(banks, products, strict=True):
                distances[masked].append((1 - largest).cpu())
            context.report(image * patches.per_image, patches.shape[0])
        return {masked: torch.cat(parts) for masked, parts in distances.items()}, patches.grid

    def uses(self, key: Hashable = None) -> Sequence[tuple[Stage, Hashable]]:
        """The bank and the patches, whatever the key."""
        del key
        return [(self.bank, None), (self.patches, None)]


@dataclass(frozen=True)
class DirectionScores(Stage):
    """The scores of one AnomalyDINO.

    Attributes:
        distances: distances to the nearest patches.
        masked: whether the bank leaves out the background.
        num_neighbors: number of neighbours of this detector.
        foreground: which patches of the scored images show the object; None without masking.
    """

    distances: Distances
    masked: bool
    num_neighbors: int
    foreground: Foreground | None

    title: ClassVar[str] = "scores"

    def compute(self, context: StageContext, *inputs: Any) -> Scores:
        """Compute maps and image scores.

        Args:
            context: size of the maps, and warnings.
            inputs: distances with the grid, and the masks of the object, if there are any.
        """
        distances, grid = inputs[0]
        if self.masked not in distances:
            raise _no_object()
        nearest = distances[self.masked][:, : self.num_neighbors].mean(dim=1).reshape(-1, *grid)
        if self.foreground is not None:
            masks = inputs[1]
            nearest = nearest * masks
            empty = int((~masks.flatten(1).any(dim=1)).sum())
            if empty:
                context.warn(f"masking: no object found in {empty} of {len(masks)} images; their scores are 0")
        size = context.images[self.distances.patches.embedding.features.role].input_size
        return patch_scores(nearest, size)
