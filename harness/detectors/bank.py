"""The stages of PatchCore's memory bank: one selection at the largest ratio; smaller ratios use its first patches."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from math import ceil, floor, log10
from types import MappingProxyType
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch

from harness.common.errors import ConfigError
from harness.detectors.context import StageContext
from harness.detectors.coreset import KCenter, Order, start_row
from harness.detectors.embedding import Embedding, Patches
from harness.detectors.stages import Stage

EXACT, MERGE_REDUCE = "exact", "merge_reduce"
BANKS = (MERGE_REDUCE, EXACT)  # ways to select the patches of a bank

# The order of the patches, and the size of the coreset for each ratio.
Selection = tuple[Order, dict[float, int]]


class SelectedBank(NamedTuple):
    """The largest bank of a group.

    Attributes:
        vectors: (m, d); the first rows are the smaller banks.
        sizes: number of patches for each ratio.
        covering_radius: for each ratio, a distance to the bank that no training patch exceeds; empty if not known.
    """

    vectors: torch.Tensor
    sizes: dict[float, int]
    covering_radius: Mapping[float, float] = MappingProxyType({})


def coreset_size(patches: int, ratio: float) -> int:
    """The number of patches in the coreset.

    Args:
        patches: number of all patches.
        ratio: `coreset_sampling_ratio`.

    Raises:
        ConfigError: the coreset would be empty.
    """
    size = int(patches * ratio)
    if size < 1:
        raise ConfigError(
            f"coreset_sampling_ratio: {ratio} of {patches} patches leaves an empty coreset; "
            f"expected at least {1 / patches:.2g}."
        )
    return size


def rounded_up(value: float) -> float:
    """The next larger number of four digits, for an upper bound in a sentence."""
    step = 10.0 ** (floor(log10(value)) - 3) if value > 0 else 1.0
    return ceil(value / step) * step


@dataclass(frozen=True)
class CoresetOrder(Stage):
    """The greedy selection (algorithm 1 of the paper), up to the largest ratio. The keys of its subsets are ratios.

    Attributes:
        embedding: patches of the training images.
        seed: seed of the first patch.
        ratios: coreset ratios, ascending.
    """

    embedding: Embedding
    seed: int
    ratios: tuple[float, ...]

    title: ClassVar[str] = "coreset"

    def compute(self, context: StageContext, *inputs: Any) -> Selection:
        """Read the selection from the cache, and extend a selection that is too short.

        Args:
            context: context of the stage.
            inputs: patches of the training images.
        """
        patches: Patches = inputs[0]
        sizes = {ratio: coreset_size(len(patches.vectors), ratio) for ratio in self.ratios}
        vectors = context.to_device(patches.vectors)
        key = self._key(context, vectors)
        order, times = _from_cache(context.recall(key))
        if order is None or len(order.rows) < max(sizes.values()):
            order = self._select(context, vectors, sizes, order, times)
            context.remember(key, times.arrays(order), times.seconds[-1])
        else:
            context.cached_seconds = times.at(max(sizes.values()))
        for ratio, size in sizes.items():
            context.seconds_by_key.setdefault(ratio, times.at(size))
            if size > len(order.rows):
                distinct = f"only {len(order.rows)} distinct patches exist and are used"
                context.warn(f"coreset: {size} patches expected, {distinct}", ratio)
        return order, {ratio: min(size, len(order.rows)) for ratio, size in sizes.items()}

    def _key(self, context: StageContext, vectors: torch.Tensor) -> dict[str, Any]:
        features = self.embedding.features
        return {
            "stage": "coreset",
            "layers": self.embedding.layers,
            "precision": features.precision,
            "init": features.seed,
            "seed": self.seed,
            # Rounding differs between devices and may exchange two patches at almost the same distance.
            "engine": vectors.device.type,
            **context.images["train"].key(),
            **features.subset(),
        }

    def _select(
        self, context: StageContext, vectors: torch.Tensor, sizes: dict[float, int], cached: Order | None, times: _Times
    ) -> Order:
        context.cached_seconds = times.seconds[-1]
        selection = KCenter(vectors, start_row(vectors, self.seed), cached, context.memory.tensor)
        cached_size = 0 if cached is None else len(cached.rows)
        order = Order(np.zeros(0, np.int64), np.zeros(0, np.float32))
        for ratio, size in sizes.items():
            order = selection.extend(size, lambda count: context.report(count, max(sizes.values())))
            if len(order.rows) > cached_size:
                context.mark_time(ratio)
                times.add(len(order.rows), context.seconds_by_key[ratio])
        return order


class _Times:
    """Seconds that the selection took up to measured sizes; the time of other sizes is interpolated."""

    def __init__(self, sizes: Sequence[int] = (0,), seconds: Sequence[float] = (0.0,)) -> None:
        self.sizes, self.seconds = list(sizes), list(seconds)

    def add(self, size: int, seconds: float) -> None:
        """Add a measured size.

        Args:
            size: number of selected patches.
            seconds: time of their selection.
        """
        self.sizes.append(size)
        self.seconds.append(seconds)

    def at(self, size: int) -> float:
        """Seconds up to a size, interpolated."""
        return float(np.interp(size, self.sizes, self.seconds))

    def arrays(self, order: Order) -> dict[str, Any]:
        """The selection and its times, for the cache."""
        times = {"sizes": np.array(self.sizes), "seconds": np.array(self.seconds)}
        return {"rows": order.rows, "radii": order.radii, **times}


def _from_cache(entry: tuple[Mapping[str, torch.Tensor], float] | None) -> tuple[Order | None, _Times]:
    if entry is None:
        return None, _Times()
    arrays = {name: tensor.numpy() for name, tensor in entry[0].items()}
    return Order(arrays["rows"], arrays["radii"]), _Times(arrays["sizes"].tolist(), arrays["seconds"].tolist())


@dataclass(frozen=True)
class Bank(Stage):
    """The vectors of the largest coreset; the first rows are the smaller coresets.

    Attributes:
        order: selection of the patches.
        embedding: patches of the training images.
    """

    order: CoresetOrder
    embedding: Embedding

    title: ClassVar[str] = "bank"

    def compute(self, context: StageContext, *inputs: Any) -> SelectedBank:
        """Copy the selected patches.

        Args:
            context: context of the stage.
            inputs: the selection with its sizes, and patches of the training images.
        """
        (order, sizes), patches = inputs
        bank = context.memory.tensor(len(order.rows), patches.vectors.shape[1])
        torch.index_select(patches.vectors, 0, torch.from_numpy(order.rows), out=bank)
        return SelectedBank(context.to_device(bank), sizes)

    def uses(self, key: Hashable = None) -> Sequence[tuple[Stage, Hashable]]:
        """The selection up to the ratio `key`, and all patches."""
        return [(self.order, key), (self.embedding, None)]
