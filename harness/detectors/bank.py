"""The stages that make PatchCore's memory: one selection at the largest ratio, whose first parts serve the others."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch

from harness.common.errors import ConfigError
from harness.detectors.context import StageContext
from harness.detectors.coreset import KCenter, Order, start_row
from harness.detectors.embedding import Embedding, Patches
from harness.detectors.stages import Stage

# The order, and the size of the coreset for each ratio.
Selected = tuple[Order, dict[float, int]]


def coreset_size(patches: int, ratio: float) -> int:
    """How many patches a ratio is.

    Raises:
        ConfigError: not even one.
    """
    size = int(patches * ratio)
    if size < 1:
        raise ConfigError(
            f"coreset_sampling_ratio: {ratio} of {patches} patches leaves an empty coreset; "
            f"expected at least {1 / patches:.2g}."
        )
    return size


@dataclass(frozen=True)
class CoresetOrder(Stage):
    """The greedy selection (algorithm 1 of the paper), up to the largest ratio.

    Attributes:
        embedding: of the training images.
        seed: draws the first patch.
        ratios: ascending.
    """

    embedding: Embedding
    seed: int
    ratios: tuple[float, ...]

    title: ClassVar[str] = "coreset"

    def compute(self, context: StageContext, *inputs: Any) -> Selected:
        """From the cache, as far as it goes; a part is a ratio."""
        patches: Patches = inputs[0]
        sizes = {ratio: coreset_size(len(patches.vectors), ratio) for ratio in self.ratios}
        vectors = context.to_device(patches.vectors)
        key = self._key(context, vectors)
        order, clock = _recalled(context.recall(key))
        if order is None or len(order.rows) < max(sizes.values()):
            order = self._select(context, vectors, sizes, order, clock)
            context.remember(key, clock.arrays(order), clock.seconds[-1])
        else:
            context.cached_seconds = clock.at(max(sizes.values()))
        for ratio, size in sizes.items():
            context.part_seconds.setdefault(ratio, clock.at(size))
            if size > len(order.rows):
                found = f"only {len(order.rows)} distinct ones found and used"
                context.warn(f"coreset: {size} patches asked for, {found}", ratio)
        return order, {ratio: min(size, len(order.rows)) for ratio, size in sizes.items()}

    def _key(self, context: StageContext, vectors: torch.Tensor) -> dict[str, Any]:
        features = self.embedding.features
        return {
            "stage": "coreset",
            "layers": self.embedding.layers,
            "precision": features.precision,
            "init": features.seed,
            "seed": self.seed,
            # Two engines may order points differently that are equally far but for rounding.
            "engine": vectors.device.type,
            **context.images["train"].key(),
        }

    def _select(
        self, context: StageContext, vectors: torch.Tensor, sizes: dict[float, int], known: Order | None, clock: _Clock
    ) -> Order:
        context.cached_seconds = clock.seconds[-1]
        selection = KCenter(vectors, start_row(vectors, self.seed), known, context.memory.tensor)
        there = 0 if known is None else len(known.rows)
        order = Order(np.zeros(0, np.int64), np.zeros(0, np.float32))
        for ratio, size in sizes.items():
            order = selection.extend(size, lambda count: context.at(count, max(sizes.values())))
            if len(order.rows) > there:
                context.mark_time(ratio)
                clock.add(len(order.rows), context.part_seconds[ratio])
        return order


class _Clock:
    """Seconds that a selection took up to some sizes; between them it is interpolated."""

    def __init__(self, sizes: Sequence[int] = (0,), seconds: Sequence[float] = (0.0,)) -> None:
        self.sizes, self.seconds = list(sizes), list(seconds)

    def add(self, size: int, seconds: float) -> None:
        self.sizes.append(size)
        self.seconds.append(seconds)

    def at(self, size: int) -> float:
        return float(np.interp(size, self.sizes, self.seconds))

    def arrays(self, order: Order) -> dict[str, Any]:
        """For the cache."""
        clock = {"sizes": np.array(self.sizes), "seconds": np.array(self.seconds)}
        return {"rows": order.rows, "radii": order.radii, **clock}


def _recalled(known: tuple[Mapping[str, torch.Tensor], float] | None) -> tuple[Order | None, _Clock]:
    if known is None:
        return None, _Clock()
    kept, _ = known
    return Order(kept["rows"].numpy(), kept["radii"].numpy()), _Clock(kept["sizes"].tolist(), kept["seconds"].tolist())


@dataclass(frozen=True)
class Bank(Stage):
    """The largest coreset's vectors; a smaller one is the first part of it."""

    order: CoresetOrder
    embedding: Embedding

    title: ClassVar[str] = "bank"

    def compute(self, context: StageContext, *inputs: Any) -> tuple[torch.Tensor, dict[float, int]]:
        """(m, d), and the size for each ratio."""
        (order, sizes), patches = inputs
        bank = context.memory.tensor(len(order.rows), patches.vectors.shape[1])
        torch.index_select(patches.vectors, 0, torch.from_numpy(order.rows), out=bank)
        return context.to_device(bank), sizes

    def uses(self, part: Hashable = None) -> Sequence[tuple[Stage, Hashable]]:
        """A part is a ratio."""
        return [(self.order, part), (self.embedding, None)]
