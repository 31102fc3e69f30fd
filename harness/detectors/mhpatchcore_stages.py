"""The stages of MH-PatchCore: whitened components, bank, neighbourhoods and scores."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, ClassVar

import numpy as np
import torch

from harness.detectors.base import State
from harness.detectors.context import StageContext
from harness.detectors.coreset import KCenter
from harness.detectors.embedding import ImagePatches, Patches, PatchPasses
from harness.detectors.maps import Scores, smooth
from harness.detectors.merge_reduce import MergeReduce
from harness.detectors.moments import Components, Moments
from harness.detectors.patchcore_stages import Neighbourhood, image_scores, neighbourhoods_in_prefixes
from harness.detectors.stages import Stage

FLOOR = 1e-8  # smallest variance after shrinkage, relative to the mean variance
IMAGES_PER_BLOCK = 32  # of merge-and-reduce; the batch size of anomalib's training


def squared_scores(neighbourhood: Neighbourhood, k: int, size: tuple[int, int]) -> Scores:
    """The scores of a batch from squared distances.

    Args:
        neighbourhood: distances of the images to the bank.
        k: number of neighbours in the weight of an image score.
        size: (height, width) of the maps.
    """
    maps = smooth(neighbourhood.distances.square(), size)
    return Scores(image_scores(neighbourhood.support.square(), k), maps)


def whitening(components: Components, ratio: float, shrinkage: float) -> torch.Tensor:
    """The matrix from centred vectors to whitened components.

    Args:
        components: of the training images.
        ratio: share of the variance that the components explain.
        shrinkage: weight of the mean variance in each variance.

    Returns:
        (d, k), double precision.
    """
    number = components.number(ratio)
    variances = components.variances[:number]
    mean = variances.mean()
    shrunk = ((1 - shrinkage) * variances + shrinkage * mean).clamp_min(FLOOR * float(mean))
    return components.axes[:, :number] / shrunk.sqrt()


@dataclass(frozen=True)
class Whitening(Stage):
    """The projection of patches to whitened principal components.

    Attributes:
        moments: components of the training images.
        ratio: share of the variance that the components explain.
        shrinkage: weight of the mean variance in each variance.
    """

    moments: Moments
    ratio: float
    shrinkage: float

    title: ClassVar[str] = "whitening"

    def compute(self, context: StageContext, *inputs: Any) -> State:
        """Scale the first components.

        Args:
            context: context of the stage.
            inputs: all components.

        Returns:
            `mean` (1024,) and `whitening` (1024, k).
        """
        del context
        components: Components = inputs[0]
        matrix = whitening(components, self.ratio, self.shrinkage).float()
        return {"mean": components.mean.float(), "whitening": matrix.contiguous()}


def whitened_images(state: State, patches: ImagePatches, context: StageContext) -> Iterator[torch.Tensor]:
    """The whitened components (height * width, k) of one image after another, on the device.

    Args:
        state: `mean` and `whitening`.
        patches: patches of the images.
        context: device and progress.
    """
    device = context.device.torch
    mean, projection = state["mean"].to(device), state["whitening"].to(device)
    for image, vectors in enumerate(patches.of_each_image(), 1):
        yield (vectors.to(device) - mean) @ projection
        context.report(image * patches.per_image, patches.shape[0])


@dataclass(frozen=True)
class WhitenedPatches(Stage):
    """Whitened principal components of all patches of a role.

    Attributes:
        whitening: the projection.
        patches: patches of the role.
    """

    whitening: Whitening
    patches: PatchPasses

    title: ClassVar[str] = "whitening"

    def compute(self, context: StageContext, *inputs: Any) -> Patches:
        """Project the patches image by image.

        Args:
            context: device, memory and progress.
            inputs: the projection, and patches of the role.
        """
        state, patches = inputs
        projected = context.memory.tensor(patches.shape[0], state["whitening"].shape[1])
        for first, image in enumerate(whitened_images(state, patches, context)):
            projected[first * patches.per_image : (first + 1) * patches.per_image] = image
        return Patches(projected, patches.grid)


@dataclass(frozen=True)
class WhitenedBank(Stage):
    """The largest bank; the first rows are the smaller banks. The keys of its subsets are sizes.

    Attributes:
        whitened: whitened patches of the training images. A selection block by block does not store them.
        local: number of patches that a block leaves; 0 for a selection from all patches at once.
        sizes: numbers of patches of the banks, ascending.
    """

    whitened: WhitenedPatches
    local: int
    sizes: tuple[int, ...]

    title: ClassVar[str] = "bank"

    def compute(self, context: StageContext, *inputs: Any) -> State:
        """Select the patches.

        Args:
            context: memory, device and progress.
            inputs: the projection; and the patches, whitened for a selection from all of them at once.

        Returns:
            `mean` and `whitening` of the projection, and `bank` (m, k).
        """
        state, patches = inputs
        if self.local:
            images = (image.cpu() for image in whitened_images(state, patches, context))
            return {**state, "bank": context.to_device(self._of_blocks(images))}
        vectors = patches.vectors
        center = vectors.double().mean(dim=0).float()
        start = int(torch.linalg.vector_norm(vectors - center, dim=1).argmax())
        order = KCenter(vectors, start, allocate=context.memory.tensor).extend(self.sizes[-1])
        return {**state, "bank": context.to_device(vectors[torch.from_numpy(order.rows.astype(np.int64))])}

    def _of_blocks(self, images: Iterator[torch.Tensor]) -> torch.Tensor:
        stream = MergeReduce(self.local)
        while block := list(islice(images, IMAGES_PER_BLOCK)):
            stream.add(torch.cat(block))
            # The next block must not lie beside this one in memory.
            del block
        return stream.coreset(self.sizes[-1])

    def uses(self, key: Hashable = None) -> Sequence[tuple[Stage, Hashable]]:
        """The projection, and the patches."""
        del key
        whitened = self.whitened
        return [(whitened.whitening, None), (whitened.patches if self.local else whitened, None)]


@dataclass(frozen=True)
class WhitenedState(Stage):
    """The state of one MH-PatchCore.

    Attributes:
        bank: the largest bank.
        size: largest number of patches in the bank of this detector.
    """

    bank: WhitenedBank
    size: int

    title: ClassVar[str] = "bank"

    def compute(self, context: StageContext, *inputs: Any) -> State:
        """Select the bank of one size.

        Args:
            context: context of the stage.
            inputs: the largest bank with the projection.
        """
        del context
        state: State = inputs[0]
        return {**state, "bank": state["bank"][: self.size]}


@dataclass(frozen=True)
class WhitenedNeighbourhoods(Stage):
    """Nearest neighbours in the banks of all sizes, in one pass. The keys of the subsets are sizes.

    Attributes:
        bank: the largest bank.
        whitened: whitened patches of the scored images.
        k: largest number of neighbours of the detectors.
    """

    bank: WhitenedBank
    whitened: WhitenedPatches
    k: int

    title: ClassVar[str] = "neighbours"

    def compute(self, context: StageContext, *inputs: Any) -> dict[int, Neighbourhood]:
        """Find the neighbourhood of each image, by the size of the bank.

        Args:
            context: timings and progress.
            inputs: the largest bank, and whitened patches of the scored images.
        """
        bank, patches = inputs[0]["bank"], inputs[1]
        # A bank with fewer distinct patches than asked for serves several sizes.
        lengths = {size: min(size, len(bank)) for size in self.bank.sizes}
        return neighbourhoods_in_prefixes(patches, bank, lengths, self.k, context)


@dataclass(frozen=True)
class WhitenedScores(Stage):
    """The scores of one MH-PatchCore.

    Attributes:
        neighbourhoods: neighbourhoods for several sizes of the bank.
        size: largest number of patches in the bank of this detector.
        num_neighbors: number of neighbours of this detector.
    """

    neighbourhoods: WhitenedNeighbourhoods
    size: int
    num_neighbors: int

    title: ClassVar[str] = "scores"

    def compute(self, context: StageContext, *inputs: Any) -> Scores:
        """Compute maps and image scores.

        Args:
            context: size of the maps.
            inputs: neighbourhoods by size of the bank.
        """
        role = self.neighbourhoods.whitened.patches.embedding.features.role
        return squared_scores(inputs[0][self.size], self.num_neighbors, context.images[role].input_size)

    def uses(self, key: Hashable = None) -> Sequence[tuple[Stage, Hashable]]:
        """The neighbourhoods in the bank of one size."""
        del key
        return [(self.neighbourhoods, self.size)]
