"""Out-of-fold scores: each training image is scored by a model that did not learn from the image.

The training images are in folds. For each fold, the stages of a detector run once more on the images of the other
folds. All folds share the features of the training images, so a fold costs only its own model.

Vovk, Cross-conformal predictors, Annals of Mathematics and Artificial Intelligence, 2015 (arXiv:1208.0806).
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, TypeVar, cast

import numpy as np
import numpy.typing as npt
import torch

from harness.detectors.context import StageContext
from harness.detectors.features import FeatureMaps, Features
from harness.detectors.stages import Stage

AnyStage = TypeVar("AnyStage", bound=Stage)


@dataclass(frozen=True)
class Fold:
    """One fold of the training images.

    Attributes:
        number: of the fold, from 0.
        folds: number of all folds.
        seed: chooses the images of each fold.
    """

    number: int
    folds: int
    seed: int = 0

    def images(self, count: int) -> npt.NDArray[np.bool_]:
        """Which images are in the fold.

        The folds are a random partition. Their sizes differ by at most one image.

        Args:
            count: number of training images.

        Returns:
            Shape (count,).
        """
        numbers = np.random.default_rng(self.seed).permutation(count) % self.folds
        selection: npt.NDArray[np.bool_] = numbers == self.number
        return selection


@dataclass(frozen=True)
class FoldFeatures(Features):
    """Features of the training images inside or outside a fold.

    Attributes:
        source: features of all training images.
        fold: the fold.
        inside: whether the images are those of the fold, or those of the other folds.
    """

    source: Features
    fold: Fold
    inside: bool

    def compute(self, context: StageContext, *inputs: Any) -> FeatureMaps:
        """Select images. Each access to a layer copies its features of these images.

        Args:
            context: memory for the copies.
            inputs: features of all training images, by layer.
        """
        maps: FeatureMaps = inputs[0]
        positions = self._in_source(len(next(iter(maps.values()))) // self.rotations)
        return _Selection(maps, self.of_images(torch.from_numpy(positions)), context)

    def positions_of(self, count: int) -> npt.NDArray[np.int64]:
        """Positions of the images among all training images; see `Features.positions_of`.

        Args:
            count: number of all training images.
        """
        of_source = self.source.positions_of(count)
        return of_source[self._in_source(len(of_source))]

    def _in_source(self, count: int) -> npt.NDArray[np.int64]:
        return np.flatnonzero(self.fold.images(count) == self.inside)

    def subset(self) -> dict[str, Any]:
        """The fold and the side, for the key of a cached result."""
        fold = self.fold
        return {**self.source.subset(), "fold": [fold.number, fold.folds, fold.seed], "inside": self.inside}


@dataclass(frozen=True)
class SubsetFeatures(Features):
    """Features of some images of a role.

    Attributes:
        source: features of all images of the role.
        positions: positions of the chosen images, in order.
    """

    source: Features
    positions: tuple[int, ...]

    def uses(self, key: Hashable = None) -> Sequence[tuple[Stage, Hashable]]:
        """The features of as many images as are chosen, whose time is a share of that of all images."""
        del key
        return [(self.source, len(self.positions))]

    def compute(self, context: StageContext, *inputs: Any) -> FeatureMaps:
        """Select images. Each access to a layer copies its features of these images.

        Args:
            context: memory for the copies.
            inputs: features of all images of the role, by layer.
        """
        return _Selection(inputs[0], self.of_images(torch.tensor(self.positions, dtype=torch.long)), context)

    def positions_of(self, count: int) -> npt.NDArray[np.int64]:
        """Positions of the images among all images of the role; see `Features.positions_of`.

        Args:
            count: number of all images of the role.
        """
        return self.source.positions_of(count)[np.array(self.positions, np.int64)]

    def subset(self) -> dict[str, Any]:
        """The positions, for the key of a cached result."""
        return {"positions": list(self.positions)}


class _Selection(Mapping[str, torch.Tensor]):
    """Features of some images by layer. Nothing is copied before the access, since copies of all folds need memory."""

    def __init__(self, maps: FeatureMaps, indices: torch.Tensor, context: StageContext) -> None:
        self._maps, self._indices, self._context = maps, indices, context

    def __getitem__(self, layer: str) -> torch.Tensor:
        features = self._maps[layer]
        copy = self._context.memory.tensor(len(self._indices), *features.shape[1:])
        return torch.index_select(features, 0, self._indices, out=copy)

    def __iter__(self) -> Iterator[str]:
        return iter(self._maps)

    def __len__(self) -> int:
        return len(self._maps)


def in_fold(stage: AnyStage, fold: Fold) -> AnyStage:
    """The same stage for one fold, whatever the detector.

    Args:
        stage: a stage whose sources are features of the roles train and val.
        fold: the fold.

    Returns:
        The stage with the images of the other folds in the role train, and the images of the fold in the role val.
    """

    def of_fold(features: Features) -> Features:
        source = replace(features, role="train")
        return FoldFeatures(**vars(source), source=source, fold=fold, inside=features.role == "val")

    return with_features(stage, of_fold)


def on_images(stage: AnyStage, learnt: Sequence[int], scored: Sequence[int]) -> AnyStage:
    """The same stage for chosen images of the role train, whatever the detector.

    Args:
        stage: a stage whose sources are features of the roles train and val.
        learnt: positions of the images that take the role train.
        scored: positions of the images that take the role val.
    """

    def of_images(features: Features) -> Features:
        source = replace(features, role="train")
        positions = tuple(scored if features.role == "val" else learnt)
        return SubsetFeatures(**vars(source), source=source, positions=positions)

    return with_features(stage, of_images)


def on_positions(stage: AnyStage, positions: Mapping[str, Sequence[int]]) -> AnyStage:
    """The same stage for chosen images of some roles, also a stage of a fold: the fold is then of these images.

    Args:
        stage: a stage that uses features.
        positions: positions of the chosen images, by role; other roles keep all images.
    """

    def of_role(features: Features) -> Features:
        if features.role not in positions:
            return features
        return SubsetFeatures(**vars(features), source=features, positions=tuple(positions[features.role]))

    return with_features(stage, of_role)


def with_features(stage: AnyStage, substitute: Callable[[Features], Features]) -> AnyStage:
    """The same stage on other images.

    Args:
        stage: a stage that uses features, directly or through other stages.
        substitute: function from the features of all images of a role to the features in their place.
    """
    if type(stage) is Features:
        return cast(AnyStage, substitute(cast(Features, stage)))
    sources = {field.name: getattr(stage, field.name) for field in fields(stage)}
    changed = {name: with_features(value, substitute) for name, value in sources.items() if isinstance(value, Stage)}
    return replace(stage, **changed)
