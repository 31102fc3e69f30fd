"""PatchCore's memory bank from one pass over the images, for more patches than memory or disk hold.

Each block of images is reduced to a coreset by greedy k-center. The bank is a coreset of all these patches. No patch is
farther from the bank than the covering radius of its block and that of the last selection together. This bound is
measured in each fit.

Malkomes et al., Fast Distributed k-Center Clustering with Outliers on Massive Data, NeurIPS 2015, algorithm 1.
"""

from __future__ import annotations

import time
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any, ClassVar

import numpy as np
import torch

from harness.detectors.bank import SelectedBank, coreset_size
from harness.detectors.context import StageContext
from harness.detectors.coreset import Floats, KCenter, k_center, start_row
from harness.detectors.embedding import embed, rows
from harness.detectors.features import Features
from harness.detectors.stages import Stage

IMAGES_PER_BLOCK = 32
# A block keeps this many times its share of the bank: the bank needs more patches of some blocks than of others.
KEPT = 4


@dataclass(frozen=True)
class Block:
    """The first patches of the greedy selection from one block of images.

    Attributes:
        patches: number of all patches of the block.
        vectors: (m, d), in the order of the selection.
        radii: distance of each selected patch to the nearest earlier one, also of the next one where there is one. So
            the covering radius of the first j patches is `radii[j]`.
    """

    patches: int
    vectors: torch.Tensor
    radii: Floats

    def kept(self, ratio: float) -> int:
        """Number of patches that the block keeps for a bank.

        Args:
            ratio: coreset ratio of the bank.
        """
        return min(len(self.vectors), ceil(KEPT * ratio * self.patches))

    def radius(self, ratio: float) -> float:
        """Covering radius of the patches that the block keeps."""
        return _radius(self.radii, self.kept(ratio))


def _radius(radii: Floats, size: int) -> float:
    """The covering radius of the first centers of a selection; 0 where no other distinct point is left."""
    return float(radii[size]) if size < len(radii) else 0.0


@dataclass(frozen=True)
class Blocks(Stage):
    """The patches that the blocks keep for the largest bank of a group; a smaller bank takes the first ones.

    Attributes:
        features: features of the training images; they are computed block by block, and not stored.
        layers: layers of the patches, in the order of the concatenation.
        seed: seed of the first patch.
        ratio: largest coreset ratio.
    """

    features: Features
    layers: tuple[str, ...]
    seed: int
    ratio: float

    title: ClassVar[str] = "blocks"

    def uses(self, key: Hashable = None) -> Sequence[tuple[Stage, Hashable]]:
        """No stage, because stored features would need memory for all images."""
        del key
        return []

    def compute(self, context: StageContext, *inputs: Any) -> list[Block]:
        """Read the patches from the cache, or select them.

        Args:
            context: images, device, memory and cache.
            inputs: none.
        """
        del inputs
        entry = context.recall(self._key(context))
        if entry is not None:
            tensors, context.cached_seconds = entry
            return _unpacked(tensors)
        start = time.perf_counter()
        images = len(self.features.positions_of(len(context.images[self.features.role])))
        blocks = []
        for vectors in self._vectors(context):
            size = min(len(vectors), ceil(KEPT * self.ratio * len(vectors)))
            order = k_center(vectors, min(size + 1, len(vectors)), start_row(vectors, self.seed))
            chosen = torch.from_numpy(order.rows[:size])
            kept = context.memory.tensor(len(chosen), vectors.shape[1])
            kept[:] = vectors[chosen.to(vectors.device)]
            blocks.append(Block(len(vectors), kept, order.radii))
            context.report(min(len(blocks) * IMAGES_PER_BLOCK, images), images)
        if context.cache is not None:
            # A copy of all blocks, which a run without a cache has no use for.
            context.remember(self._key(context), _packed(blocks), time.perf_counter() - start)
        return blocks

    def _key(self, context: StageContext) -> dict[str, Any]:
        features = self.features
        return {"stage": "blocks", "layers": self.layers, "ratio": self.ratio, "seed": self.seed,
                "precision": features.precision, "init": features.seed, "engine": context.device.torch.type,
                **context.images[features.role].key(), **features.subset()}  # fmt: skip

    def _vectors(self, context: StageContext) -> Iterator[torch.Tensor]:
        """Vectors (n, d) of `IMAGES_PER_BLOCK` images at a time."""
        chunks: list[torch.Tensor] = []
        images = 0
        for maps in self.features.batches(context, self.layers):
            embedded = embed(maps, self.layers)
            while len(embedded):
                chunk, embedded = embedded.tensor_split([IMAGES_PER_BLOCK - images])
                chunks.append(rows(chunk))
                images += len(chunk)
                if images == IMAGES_PER_BLOCK:
                    yield torch.cat(chunks)
                    chunks, images = [], 0
        if chunks:
            yield torch.cat(chunks)


def _packed(blocks: Sequence[Block]) -> dict[str, Any]:
    """Blocks as arrays, for the cache."""
    return {
        "vectors": torch.cat([block.vectors for block in blocks]).numpy(),
        "radii": np.concatenate([block.radii for block in blocks]),
        "numbers": np.array([(block.patches, len(block.vectors), len(block.radii)) for block in blocks]),
    }


def _unpacked(tensors: Mapping[str, torch.Tensor]) -> list[Block]:
    numbers = tensors["numbers"].tolist()
    vectors = torch.split(tensors["vectors"], [kept for _, kept, _ in numbers])
    radii = torch.split(tensors["radii"], [count for _, _, count in numbers])
    return [
        Block(patches, kept, distances.numpy())
        for (patches, _, _), kept, distances in zip(numbers, vectors, radii, strict=True)
    ]


@dataclass(frozen=True)
class StreamedBank(Stage):
    """The bank of one ratio. It does not depend on the other ratios of a group.

    Attributes:
        blocks: patches that the blocks keep.
        ratio: coreset ratio.
    """

    blocks: Blocks
    ratio: float

    title: ClassVar[str] = "bank"

    def compute(self, context: StageContext, *inputs: Any) -> SelectedBank:
        """Select the bank from the patches of all blocks.

        Args:
            context: device and memory.
            inputs: the blocks.
        """
        blocks: list[Block] = inputs[0]
        size = coreset_size(sum(block.patches for block in blocks), self.ratio)
        lengths = [block.kept(self.ratio) for block in blocks]
        kept = context.memory.tensor(sum(lengths), blocks[0].vectors.shape[1])
        torch.cat([block.vectors[:length] for block, length in zip(blocks, lengths, strict=True)], out=kept)
        vectors = context.to_device(kept)
        selection = KCenter(vectors, start_row(vectors, self.blocks.seed), allocate=context.memory.tensor)
        order = selection.extend(
            min(size + 1, len(vectors)), lambda count: context.report(count, min(size, len(vectors)))
        )
        bank = vectors[torch.from_numpy(order.rows[:size]).to(vectors.device)]
        if size > len(bank):
            distinct = f"the blocks keep {len(bank)} distinct patches, and these are used"
            context.warn(f"coreset: {size} patches expected; {distinct}")
        return SelectedBank(
            bank, {self.ratio: len(bank)}, {self.ratio: self._covering_radius(blocks, order.radii, size)}
        )

    def _covering_radius(self, blocks: Sequence[Block], radii: Floats, size: int) -> float:
        if len(blocks) == 1:
            # The selection from the first patches of a greedy selection repeats it.
            return _radius(blocks[0].radii, size)
        return max(block.radius(self.ratio) for block in blocks) + _radius(radii, size)
