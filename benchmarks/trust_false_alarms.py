"""False alarms: the rate that a threshold was fixed for, and the rate on new normal images.

Random images are exchangeable, so the rate of a conformal threshold must hold in the mean over random splits. The
stages of each registered detector run on features of one pool of small images, computed once.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from harness import registry
from harness.detectors.base import Detector
from harness.detectors.context import StageContext
from harness.detectors.features import FeatureMaps, Features
from harness.detectors.folds import Fold, in_fold, with_features
from harness.detectors.group import Group
from harness.detectors.stages import Stage, Stages
from harness.metrics.false_alarms import conformal_threshold

POOL, TEST, SIZE = 400, 60, 32
SPLITS, SPLITS_BEFORE, SPLITS_OF_TRAININGS, QUICK_SPLITS = 1000, 200, 50, 5
# Detectors for the table of small rates, which needs many images.
FAST = ("padim", "subspacead")
QUANTILE = 0.99  # of `normal_quantile`, as the harness had it by default
# Small values of parameters, for each detector that has such a parameter.
SMALL = {
    "n_features": 20, "num_neighbors": 3, "coreset_sampling_ratio": 0.1,
    "max_epochs": 30, "coupling_blocks": 2, "condition_vector": 16, "memory_bank_size": 40,
    "decoder_depth": 2, "max_steps": 15,
}  # fmt: skip


@dataclass(frozen=True)
class Chosen(Features):
    """Features of some images of the pool, in the place of a role.

    Attributes:
        indices: of the images.
        pool: features of all images.
    """

    indices: tuple[int, ...] = ()
    pool: FeatureMaps = field(default_factory=dict, compare=False, repr=False)

    def compute(self, context: StageContext, *inputs: Any) -> FeatureMaps:
        """Select the images.

        Args:
            context: unused.
            inputs: none.
        """
        del context, inputs
        indices = torch.tensor(self.indices)
        return {layer: features[indices] for layer, features in self.pool.items()}


Scores = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Method:
    """A way to fix a threshold.

    Attributes:
        name: shown in the table.
        fix: maps the scores of normal images to the threshold and to the rate that it is fixed for.
        images: number of normal images, for training and threshold.
        held_out: how many of them the training does not see.
        folds: number of folds of the training images; None for held-out images.
    """

    name: str
    fix: Callable[[Scores], tuple[float, float]]
    images: int
    held_out: int = 0
    folds: int | None = None

    @classmethod
    def with_held_out(cls, rate: float = 0.1, images: int = 30, held_out: int = 10) -> Method:
        """`held_out`."""
        return cls("held_out", lambda scores: conformal_threshold(scores, rate), images, held_out)

    @classmethod
    def with_folds(cls, folds: int, rate: float = 0.1, images: int = 30) -> Method:
        """`cross_conformal`."""
        name = f"cross_conformal, {folds} folds"
        return cls(name, lambda scores: conformal_threshold(scores, rate), images, folds=folds)


METHODS = (Method.with_held_out(), *map(Method.with_folds, (3, 5, 10)))
# 99 images are the least for a rate of 0.01.
SMALL_RATES = (
    Method.with_held_out(0.01, images=129, held_out=99),
    Method.with_folds(3, 0.01, images=99),
    Method.with_folds(5, 0.01, images=99),
)
BEFORE = Method(
    "normal_quantile, 2 held-out images",
    lambda scores: (float(np.quantile(scores, QUANTILE, method="higher")), 1 - QUANTILE),
    images=30,
    held_out=2,
)


@dataclass(frozen=True)
class Rate:
    """The rates of one method, over random splits.

    Attributes:
        expected: rate for which the thresholds were fixed.
        realised: mean rate on new normal images.
        error: standard error of `realised`.
    """

    expected: float
    realised: float
    error: float


class Pool:
    """A detector with the features of random images.

    Args:
        name: of the detector.
    """

    def __init__(self, name: str) -> None:
        cls = registry.lookup(registry.DETECTORS, "detector", name)
        own = {key: value for key, value in SMALL.items() if key in inspect.signature(cls.__init__).parameters}
        backbone, layers = ("test_vit", ["blocks.2"]) if cls.only_transformers else ("test_resnet", ["layer2"])
        self.detector: Detector = cls(backbone=backbone, layers=layers, weights="random", image_size=SIZE,
                                      progress=False, device="cpu", **own)  # fmt: skip
        pictures = random_images(np.random.default_rng(0))
        self._context = self.detector.stage_context(dict.fromkeys(("train", "val", "test"), pictures), _ignore, None)
        features = self.detector.features("train", Group([self.detector]))
        self._pool: FeatureMaps = Stages([features], self._context).value(features)

    def rate(self, method: Method, splits: int) -> Rate:
        """The rates of a method.

        Args:
            method: fixes the thresholds.
            splits: number of random splits.
        """
        expected, rates = 0.0, []
        for split in range(splits):
            order = np.random.default_rng([1, split]).permutation(POOL)
            calibration, test = self._scores(order, method)
            threshold, expected = method.fix(calibration)
            rates.append(float((test > threshold).mean()))
        return Rate(expected, float(np.mean(rates)), float(np.std(rates) / np.sqrt(splits)))

    def _scores(self, order: npt.NDArray[np.int64], method: Method) -> tuple[Scores, Scores]:
        """Scores of the calibration images and of the test images."""
        ends = (method.held_out, method.images, method.images + TEST)
        val, train, test_images, _ = np.split(order, ends)
        roles = {"val": val, "train": train, "test": test_images}

        def choose(features: Features) -> Features:
            return Chosen(**vars(features), indices=tuple(roles[features.role].tolist()), pool=self._pool)

        group = Group([self.detector])
        parts: list[Stage] = [self.detector.score_stage("val", group)]
        if method.folds is not None:
            parts = [in_fold(parts[0], Fold(number, method.folds)) for number in range(method.folds)]
        roots = [with_features(root, choose) for root in (*parts, self.detector.score_stage("test", group))]
        stages = Stages(roots, self._context)
        *calibration, test = [stages.value(root).images.double().numpy() for root in roots]
        return np.concatenate(calibration), test


def random_images(rng: np.random.Generator) -> list[npt.NDArray[np.uint8]]:
    """Images with random patterns, contrasts and brightness."""
    pattern = np.kron(rng.normal(size=(POOL, 8, 8, 3)), np.ones((1, SIZE // 8, SIZE // 8, 1)))
    contrast, brightness = rng.uniform(8, 40, size=(POOL, 1, 1, 1)), rng.normal(128, 15, size=(POOL, 1, 1, 1))
    noise = rng.normal(size=pattern.shape) * rng.uniform(2, 10, size=(POOL, 1, 1, 1))
    return list(np.clip(pattern * contrast + brightness + noise, 0, 255).astype(np.uint8))


def false_alarms(quick: bool, detector: str) -> list[dict[str, Any]]:
    """The table of a detector: a row for held-out images, and one for each number of folds.

    Args:
        quick: fewer splits.
        detector: its name.
    """
    pool = Pool(detector)
    return _rows(pool, METHODS[:2] if pool.detector.trains_in_epochs else METHODS, quick)


def small_rates(quick: bool) -> list[dict[str, Any]]:
    """The table of a rate of 0.01, with as many images as such a promise needs.

    Args:
        quick: fewer splits.
    """
    return [{"detector": name} | row for name in FAST for row in _rows(Pool(name), SMALL_RATES, quick)]


def before(quick: bool) -> list[dict[str, Any]]:
    """The table of the default of earlier versions, for each detector.

    Args:
        quick: fewer splits.
    """
    return [
        {"detector": name} | row
        for name in registry.DETECTORS
        for row in _rows(Pool(name), [BEFORE], quick, SPLITS_BEFORE)
    ]


def _rows(pool: Pool, methods: Sequence[Method], quick: bool, splits: int = SPLITS) -> list[dict[str, Any]]:
    torch.set_num_threads(1)
    splits = QUICK_SPLITS if quick else SPLITS_OF_TRAININGS if pool.detector.trains_in_epochs else splits
    rows = []
    for method in methods:
        rate = pool.rate(method, splits)
        rows.append({
            "method": method.name,
            "offered": method.folds is None or pool.detector.default_folds is not None,
            "splits": splits,
            "expected": round(rate.expected, 4),
            "realised": round(rate.realised, 4),
            "standard_error": round(rate.error, 4),
        })  # fmt: skip
    return rows


def _ignore(text: str) -> None:
    del text
