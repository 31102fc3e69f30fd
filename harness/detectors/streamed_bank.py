"""PatchCore's memory bank from one pass over the images, for more patches than memory or disk hold.

Each block of images is reduced to a coreset by greedy k-center. The bank is a coreset of all these patches. No patch is
farther from the bank than the covering radius of its block and that of the last selection together. This bound is
measured in each fit.

Malkomes et al., Fast Distributed k-Center Clustering with Outliers on Massive Data, NeurIPS 2015, algorithm 1.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
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
# A block keeps this many times its share of the largest bank, because blocks differ in the number of patches that the
# bank needs from them.
KEPT = 4


@dataclass(frozen=True)
class StreamedBank(Stage):
    """The largest bank; the first rows are the smaller banks. The keys of its subsets are ratios.

    Attributes:
        features: features of the training images; they are computed block by block, and not stored.
        layers: layers of the patches, in the order of the concatenation.
        seed: seed of the first patch.
        ratios: coreset ratios, ascending.
    """

    features: Features
    layers: tuple[str, ...]
    seed: int
    ratios: tuple[float, ...]

    title: ClassVar[str] = "bank"

    def uses(self, key: Hashable = None) -> Sequence[tuple[Stage, Hashable]]:
        """No stage, because stored features would need memory for all images."""
        del key
        return []

    def compute(self, context: StageContext, *inputs: Any) -> SelectedBank:
        """Read the bank from the cache, or select it.

        Args:
            context: images, device, memory and cache.
            inputs: none.
        """
        del inputs
        entry = context.recall(self._key(context))
        if entry is None:
            patches, kept, block_radius = self._kept(context)
            bank, radii = self._reduced(context, kept, [coreset_size(patches, ratio) for ratio in self.ratios])
            arrays = {"bank": bank.cpu().numpy(), "radii": radii, "block_radius": np.array([block_radius]),
                      "patches": np.array([patches])}  # fmt: skip
            context.remember(self._key(context), arrays, max(context.seconds_by_key.values()))
        else:
            tensors, context.cached_seconds = entry
            bank, radii = context.to_device(tensors["bank"]), tensors["radii"].numpy()
            block_radius, patches = float(tensors["block_radius"]), int(tensors["patches"])
        sizes = {ratio: coreset_size(patches, ratio) for ratio in self.ratios}
        for ratio, size in sizes.items():
            if size > len(bank):
                distinct = f"the blocks keep {len(bank)} distinct patches, and these are used"
                context.warn(f"coreset: {size} patches expected; {distinct}", ratio)
        # The distance of the next center is the covering radius of all centers before it.
        radius = {
            ratio: block_radius + (float(radii[size]) if size < len(radii) else 0.0) for ratio, size in sizes.items()
        }
        return SelectedBank(bank, {ratio: min(size, len(bank)) for ratio, size in sizes.items()}, radius)

    def _key(self, context: StageContext) -> dict[str, Any]:
        features = self.features
        return {"stage": "streamed bank", "layers": self.layers, "ratios": self.ratios, "seed": self.seed,
                "precision": features.precision, "init": features.seed, "engine": context.device.torch.type,
                **context.images[features.role].key(), **features.subset()}  # fmt: skip

    def _kept(self, context: StageContext) -> tuple[int, torch.Tensor, float]:
        """The number of all patches, the patches that the blocks keep, and the largest covering radius of a block."""
        images = len(self.features.positions_of(len(context.images[self.features.role])))
        kept, count, patches, radius = torch.empty(0), 0, 0, 0.0
        for number, block in enumerate(self._blocks(context)):
            size = min(len(block), ceil(KEPT * self.ratios[-1] * len(block)))
            # The radius of the last center is the covering radius of the others.
            order = k_center(block, min(size + 1, len(block)), start_row(block, self.seed))
            radius = max(radius, float(order.radii[size]) if len(order.rows) > size else 0.0)
            chosen = block[torch.from_numpy(order.rows[:size])]
            if not number:
                blocks = ceil(images / IMAGES_PER_BLOCK)
                kept = context.memory.tensor(blocks * size, block.shape[1])
            kept[count : count + len(chosen)] = chosen
            count, patches = count + len(chosen), patches + len(block)
            context.report(min((number + 1) * IMAGES_PER_BLOCK, images), images)
        return patches, kept[:count], radius

    def _blocks(self, context: StageContext) -> Iterator[torch.Tensor]:
        """Vectors (n, d) of `IMAGES_PER_BLOCK` images at a time."""
        batches: list[torch.Tensor] = []
        images = 0
        for maps in self.features.batches(context, self.layers):
            for first in range(0, len(next(iter(maps.values()))), IMAGES_PER_BLOCK):
                part = embed({layer: values[first:][:IMAGES_PER_BLOCK] for layer, values in maps.items()}, self.layers)
                batches.append(rows(part))
                images += len(part)
                if images >= IMAGES_PER_BLOCK:
                    yield torch.cat(batches)
                    batches, images = [], 0
        if batches:
            yield torch.cat(batches)

    def _reduced(self, context: StageContext, kept: torch.Tensor, sizes: list[int]) -> tuple[torch.Tensor, Floats]:
        """The bank, and the distance of each patch to the nearest earlier one, also of the first patch beyond."""
        vectors = context.to_device(kept)
        selection = KCenter(vectors, start_row(vectors, self.seed), allocate=context.memory.tensor)
        for ratio, size in zip(self.ratios, sizes, strict=True):
            order = selection.extend(min(size + 1, len(vectors)))
            context.mark_time(ratio)
        return vectors[torch.from_numpy(order.rows[: sizes[-1]]).to(vectors.device)], order.radii
