"""False alarms: the rate that a threshold was fixed for, and the rate on new normal images.

Random images are exchangeable, so the rate of a conformal threshold must hold in the mean over random splits. The
stages of each registered detector run on features of one pool of small images, computed once.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
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
from harness.detectors.stages import Stage, Stages
from harness.metrics.false_alarms import conformal_threshold

POOL, TRAIN, TEST, SIZE = 400, 30, 60, 32
HELD_OUT = 10  # of the images of `TRAIN`
RATE = 0.1
NUMBERS_OF_FOLDS = (3, 5, 10)
SPLITS, SPLITS_OF_TRAININGS, QUICK_SPLITS = 1000, 50, 5
# Small values of parameters, for each detector that has such a parameter.
SMALL = {
    "n_features": 20, "num_neighbors": 3, "coreset_sampling_ratio": 0.1,
    "max_epochs": 30, "coupling_blocks": 2, "condition_vector": 16, "memory_bank_size": 40,
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
        features = self.detector.features("train", [self.detector])
        self._pool: FeatureMaps = Stages([features], self._context).value(features)

    def rate(self, folds: int | None, splits: int) -> Rate:
        """The rates of `cross_conformal`, or of `held_out`.

        Args:
            folds: number of folds; None for held-out images.
            splits: number of random splits.
        """
        expected, rates = 0.0, []
        for split in range(splits):
            order = np.random.default_rng([1, split]).permutation(POOL)
            calibration, test = self._scores(order, folds)
            threshold, expected = conformal_threshold(calibration, RATE)
            rates.append(float((test > threshold).mean()))
        return Rate(expected, float(np.mean(rates)), float(np.std(rates) / np.sqrt(splits)))

    def _scores(
        self, order: npt.NDArray[np.int64], folds: int | None
    ) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Scores of the calibration images and of the test images."""
        held_out = HELD_OUT if folds is None else 0
        roles = {"val": order[:held_out], "train": order[held_out:TRAIN], "test": order[TRAIN : TRAIN + TEST]}

        def choose(features: Features) -> Features:
            return Chosen(**vars(features), indices=tuple(roles[features.role].tolist()), pool=self._pool)

        group = [self.detector]
        parts: list[Stage] = [self.detector.score_stage("val", group)]
        if folds is not None:
            parts = [in_fold(parts[0], Fold(number, folds)) for number in range(folds)]
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
    torch.set_num_threads(1)
    return list(_rows(detector, quick))


def _rows(name: str, quick: bool) -> Iterator[dict[str, Any]]:
    pool = Pool(name)
    splits = SPLITS_OF_TRAININGS if pool.detector.trains_in_epochs else SPLITS
    numbers = NUMBERS_OF_FOLDS[:1] if pool.detector.trains_in_epochs else NUMBERS_OF_FOLDS
    for folds in (None, *numbers):
        rate = pool.rate(folds, QUICK_SPLITS if quick else splits)
        yield {
            "method": "held_out" if folds is None else f"cross_conformal, {folds} folds",
            "offered": folds is None or pool.detector.default_folds is not None,
            "splits": QUICK_SPLITS if quick else splits,
            "expected": round(rate.expected, 4),
            "realised": round(rate.realised, 4),
            "standard_error": round(rate.error, 4),
        }


def _ignore(text: str) -> None:
    del text
