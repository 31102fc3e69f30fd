"""PatchCore: Roth et al., Towards Total Recall in Industrial Anomaly Detection, CVPR 2022 (arXiv:2106.08265).

Patches of normal images are remembered, thinned out to a coreset; a patch is as anomalous as it is far from the
nearest one remembered.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Unpack

import numpy as np
import torch

from harness.detectors.base import Detector, Options, State
from harness.detectors.coreset import KCenter, Order, start_row
from harness.detectors.embedding import Embedding, Patches, embed, rows
from harness.detectors.features import FeatureMaps
from harness.detectors.maps import Scores, blur, upsample
from harness.detectors.neighbours import Nearest, k_nearest, nearest_in_prefixes
from harness.detectors.stages import Stage
from harness.detectors.workbench import Workbench
from harness.errors import ConfigError


class PatchCore(Detector):
    """See the module.

    Args:
        backbone: timm's name.
        layers: of the patch features; the first gives the grid.
        coreset_sampling_ratio: share of all patches that is remembered, above 0 and up to 1.
        num_neighbors: b of equation 7; with 1 the image score is the largest patch score, without a weight.
        upsampling: of the patch scores to the map: nearest, as anomalib does it, or bilinear, as the paper.
        options: see `Options`.
    """

    name = "patchcore"

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
        if not 0 < coreset_sampling_ratio <= 1:
            raise ConfigError(
                f"coreset_sampling_ratio: found {coreset_sampling_ratio}, expected a share above 0 and up to 1."
            )
        if num_neighbors < 1:
            raise ConfigError(f"num_neighbors: found {num_neighbors}, expected at least 1.")
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

    def score(self, state: State, features: FeatureMaps, size: tuple[int, int]) -> Scores:
        """See `Detector.score`."""
        maps = embed(features, self.layers)
        patches = Patches(rows(maps), (maps.shape[2], maps.shape[3]))
        bank = state["bank"]
        nearest = nearest_in_prefixes(patches.vectors, bank, [len(bank)])[0]
        around = neighbourhood(patches, bank, nearest, self.num_neighbors)
        return Scores(image_scores(around, self.num_neighbors), blur(upsample(around.distances, size, self.upsampling)))


@dataclass(frozen=True)
class CoresetOrder(Stage):
    """The greedy selection (algorithm 1), up to the largest ratio.

    Attributes:
        embedding: of the training images.
        seed: draws the first patch.
        ratios: ascending.
    """

    embedding: Embedding
    seed: int
    ratios: tuple[float, ...]

    title: ClassVar[str] = "coreset"

    def compute(self, bench: Workbench, *inputs: Any) -> tuple[Order, dict[float, int]]:
        """The order, and the size of the coreset for each ratio."""
        patches: Patches = inputs[0]
        n = len(patches.vectors)
        sizes = {ratio: coreset_size(n, ratio) for ratio in self.ratios}
        largest = max(sizes.values())
        key = {"stage": "coreset", "layers": self.embedding.layers, "precision": self.embedding.features.precision,
               "init": self.embedding.features.seed, "seed": self.seed, "grid": patches.grid,
               "view": [bench.images["train"].view.size, bench.images["train"].view.crop]}  # fmt: skip
        order, clock = _recalled(bench.recall(key))
        if order is None or len(order.rows) < largest:
            bench.saved = clock.seconds[-1]
            vectors = bench.to_device(patches.vectors)
            selection = KCenter(vectors, start_row(vectors, self.seed), order, bench.memory.tensor)
            for ratio, size in sizes.items():
                found = selection.extend(size, lambda count: bench.at(count, largest))
                if order is None or len(found.rows) > len(order.rows):
                    bench.lap(ratio)
                    clock.add(len(found.rows), bench.laps[ratio])
                if len(found.rows) < size:
                    bench.warn(
                        f"coreset: {size} patches asked for, only {len(found.rows)} distinct ones found and used"
                    )
            if order is None or len(found.rows) > len(order.rows):
                order = found
                bench.remember(key, clock.arrays(order), clock.seconds[-1])
        else:
            bench.saved = clock.at(largest)
        for ratio, size in sizes.items():
            bench.laps.setdefault(ratio, clock.at(size))
        return order, {ratio: min(size, len(order.rows)) for ratio, size in sizes.items()}


class _SelectionClock:
    """Seconds that a selection took up to some sizes; between them it is interpolated."""

    def __init__(self, sizes: Sequence[int] = (0,), seconds: Sequence[float] = (0.0,)) -> None:
        self.sizes, self.seconds = list(sizes), list(seconds)

    def add(self, size: int, seconds: float) -> None:
        self.sizes.append(size)
        self.seconds.append(seconds)

    def at(self, size: int) -> float:
        return float(np.interp(size, self.sizes, self.seconds))

    def arrays(self, order: Order) -> dict[str, Any]:
        return {"rows": order.rows, "radii": order.radii,
                "sizes": np.array(self.sizes), "seconds": np.array(self.seconds)}  # fmt: skip


def _recalled(known: tuple[Mapping[str, Any], float] | None) -> tuple[Order | None, _SelectionClock]:
    if known is None:
        return None, _SelectionClock()
    arrays, _ = known
    clock = _SelectionClock(arrays["sizes"].tolist(), arrays["seconds"].tolist())
    return Order(arrays["rows"], arrays["radii"]), clock


def coreset_size(patches: int, ratio: float) -> int:
    """How many patches a ratio is.

    Raises:
        ConfigError: none.
    """
    size = int(patches * ratio)
    if size < 1:
        raise ConfigError(
            f"coreset_sampling_ratio: {ratio} of {patches} patches leaves an empty coreset; "
            f"expected at least {1 / patches:.2g}."
        )
    return size


@dataclass(frozen=True)
class Bank(Stage):
    """The largest coreset's vectors; a smaller one is the first part of it."""

    order: CoresetOrder
    embedding: Embedding

    title: ClassVar[str] = "bank"

    def compute(self, bench: Workbench, *inputs: Any) -> tuple[torch.Tensor, dict[float, int]]:
        """(m, d), and the size for each ratio."""
        (order, sizes), patches = inputs
        bank = bench.memory.tensor(len(order.rows), patches.vectors.shape[1])
        torch.index_select(patches.vectors, 0, torch.from_numpy(order.rows), out=bank)
        return bench.to_device(bank), sizes

    def uses(self, part: Hashable = None) -> Sequence[tuple[Stage, Hashable]]:
        """A part is a ratio."""
        return [(self.order, part), (self.embedding, None)]


@dataclass(frozen=True)
class BankState(Stage):
    """What a fitted PatchCore keeps."""

    bank: Bank
    ratio: float

    title: ClassVar[str] = "bank"

    def compute(self, bench: Workbench, *inputs: Any) -> State:
        """The bank of one ratio."""
        del bench
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


def image_scores(around: Neighbourhood, k: int) -> torch.Tensor:
    """Equation 7: (n,) largest patch scores, each weighted down where its neighbourhood in the bank is sparse."""
    largest = around.support[:, 0]
    if k == 1:
        return largest
    return (1 - torch.softmax(around.support[:, :k], dim=1)[:, 0]) * largest


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

    def compute(self, bench: Workbench, *inputs: Any) -> dict[float, Neighbourhood]:
        """By ratio."""
        (bank, sizes), patches = inputs
        found: dict[float, Neighbourhood] = {}

        def keep(size: int, nearest: Nearest) -> None:
            around = neighbourhood(patches, bank[:size], nearest, self.k)
            around = Neighbourhood(around.distances.cpu(), around.support.cpu())
            for ratio, length in sizes.items():
                if length == size:
                    found[ratio] = around
                    bench.lap(ratio)
            bench.at(size, len(bank))

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

    def compute(self, bench: Workbench, *inputs: Any) -> torch.Tensor:
        """(n, height, width)."""
        size = bench.images[self.around.embedding.features.role].view.seen
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

    def compute(self, bench: Workbench, *inputs: Any) -> Scores:
        """Equation 7 over the shared maps."""
        del bench
        maps, around = inputs
        return Scores(image_scores(around[self.ratio], self.num_neighbors), maps)

    def uses(self, part: Hashable = None) -> Sequence[tuple[Stage, Hashable]]:
        """Only its own ratio."""
        del part
        return [(self.maps, None), (self.around, self.ratio)]
