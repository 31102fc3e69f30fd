"""Out-of-fold scores: who scores whom, and the rate of false alarms that follows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.trust_false_alarms import SPLITS_OF_TRAININGS, Method, Pool
from harness import registry
from harness.data.listing import list_images
from harness.detectors.base import Detector
from harness.detectors.folds import Fold, in_fold
from harness.detectors.group import Group
from harness.detectors.stages import Stages
from tests.detectors.cases import make

# `python -m benchmarks trust` has 1,000 random splits; fewer have a larger standard error.
SPLITS = 50
NAMES = list(registry.DETECTORS)
OUT_OF_FOLD = [name for name in NAMES if registry.load(registry.DETECTORS[name]).default_folds is not None]


def test_folds_are_a_partition() -> None:
    folds = np.stack([Fold(number, 4, seed=3).images(10) for number in range(4)])
    assert (folds.sum(axis=0) == 1).all()
    assert set(folds.sum(axis=1).tolist()) == {2, 3}
    assert not np.array_equal(folds[0], Fold(0, 4, seed=4).images(10))


@pytest.mark.parametrize("name", NAMES)
def test_a_fold_is_scored_by_a_model_of_the_other_images(name: str, toy_tree: Path) -> None:
    """The stages of a fold give the numbers of a detector that was fitted on the other images."""
    paths = list_images(toy_tree / "plate" / "train" / "good")
    detector = make(name)
    fold = Fold(1, 3)
    stage = in_fold(detector.score_stage("val", Group([detector])), fold)
    context = detector.stage_context({"train": paths}, lambda text: None, None)
    fold_scores = Stages([stage], context).value(stage)
    inside = fold.images(len(paths))
    alone: Detector = make(name).fit([path for path, held in zip(paths, inside, strict=True) if not held])
    expected = [alone.predict(path) for path, held in zip(paths, inside, strict=True) if held]
    assert fold_scores.images.tolist() == pytest.approx([one.score for one in expected], rel=1e-3, abs=1e-4)
    assert fold_scores.maps.shape == (int(inside.sum()), 64, 64)


@pytest.mark.slow
@pytest.mark.parametrize("folds", [3])  # the benchmark has 5 and 10 too
@pytest.mark.parametrize("name", OUT_OF_FOLD)
def test_new_images_give_no_more_false_alarms_than_estimated(name: str, folds: int) -> None:
    rate = Pool(name).rate(Method.with_folds(folds), SPLITS)
    assert rate.realised <= rate.expected + 3 * rate.error


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_new_images_give_no_more_false_alarms_than_promised(name: str) -> None:
    pool = Pool(name)
    rate = pool.rate(Method.with_held_out(), SPLITS_OF_TRAININGS if pool.detector.trains_in_epochs else SPLITS)
    assert rate.realised <= rate.expected + 3 * rate.error
