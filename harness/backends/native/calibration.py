"""Predictions for the normal images that fix the threshold.

The images are held out, or they are the training images. Then a model of the other folds scores each image.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import ceil

import numpy as np

from harness.config.spec import RunSpec
from harness.config.threshold import CROSS_CONFORMAL
from harness.data.samples import Sample, Split
from harness.detectors.base import Detector
from harness.detectors.folds import Fold, in_fold
from harness.detectors.group import Group
from harness.detectors.maps import Scores
from harness.detectors.memory import Memory
from harness.detectors.stages import Stage, Stages
from harness.predictions.detection import Predictions

# From samples and their scores to checked predictions.
Checked = Callable[[Sequence[Sample], Scores], Predictions]


def folds_of(spec: RunSpec, images: int, least: int) -> list[Fold]:
    """Return the folds of the training images; none if the threshold comes from other images.

    The smallest subsets of a learning curve have no folds, and so no threshold.

    Args:
        spec: the run.
        images: number of training images.
        least: smallest number of images that the detector can learn from.
    """
    policy = dict(spec.threshold)
    if policy.get("method") != CROSS_CONFORMAL:
        return []
    count = min(policy["folds"], images)
    if spec.n_train is not None and images - ceil(images / count) < least:
        return []
    return [Fold(number, count, policy["seed"]) for number in range(count)]


def fold_problems(spec: RunSpec, images: int, least: int) -> list[str]:
    """Return a problem if a fold leaves too few images for the training.

    Args:
        spec: the run.
        images: number of training images.
        least: smallest number of images that the detector can learn from.
    """
    rest = images_of_smallest_training(spec, images, least)
    if rest >= least:
        return []
    return [
        f"threshold.method: {CROSS_CONFORMAL} found, with {images} normal training image{'s' if images > 1 else ''}; "
        f"the largest fold leaves {rest} for training, and {spec.model} expects {least} or more. Add images, or set "
        "threshold.method to none."
    ]


def images_of_smallest_training(spec: RunSpec, images: int, least: int) -> int:
    """Return the number of training images without the largest fold; all images without folds.

    Args:
        spec: the run.
        images: number of training images.
        least: smallest number of images that the detector can learn from.
    """
    folds = folds_of(spec, images, least)
    return images - ceil(images / len(folds)) if folds else images


def fold_warnings(spec: RunSpec, images: int, least: int) -> list[str]:
    """Return a warning if there are fewer training images than folds.

    Args:
        spec: the run.
        images: number of training images.
        least: smallest number of images that the detector can learn from.
    """
    used, expected = len(folds_of(spec, images, least)), dict(spec.threshold).get("folds", 0)
    if expected and not used:
        return [
            f"threshold.folds: {expected} expected, none used: {images} training images are too few, so no threshold"
        ]
    return (
        [f"threshold.folds: {expected} expected, {used} used: there are no more training images"]
        if used < expected
        else []
    )


def calibration_stages(spec: RunSpec, detector: Detector, group: Group, split: Split) -> list[Stage]:
    """Return the stage of the held-out images, or a stage for each fold; empty without calibration images.

    Args:
        spec: the run.
        detector: its detector.
        group: all detectors of the group.
        split: data of the group.
    """
    folds = folds_of(spec, len(split.train), detector.least_images)
    if not folds and (not split.val or dict(spec.threshold).get("method") == CROSS_CONFORMAL):
        return []
    held_out = detector.score_stage("val", group)
    return [in_fold(held_out, fold) for fold in folds] or [held_out]


def calibrate(
    folds: Sequence[Fold], split: Split, pending: list[Stage], stages: Stages, memory: Memory, checked: Checked
) -> Predictions:
    """Predict the calibration images.

    Args:
        folds: of the run; empty for held-out images.
        split: data of the run.
        pending: begins with the result of `calibration_stages`, which is not empty. Each of these stages leaves the
            list and its memory after its result is copied.
        stages: computes the stages.
        memory: for the maps of all folds. They may be many, so they lie in a memory-mapped file beyond the limit.
        checked: checks the predictions of some samples.
    """
    if not folds:
        return checked(split.val, _take(pending, stages))
    scores, maps, resized = np.empty(len(split.train)), None, None
    for fold in folds:
        inside = fold.images(len(split.train))
        samples = [sample for sample, included in zip(split.train, inside, strict=True) if included]
        of_fold = checked(samples, _take(pending, stages))
        assert of_fold.maps is not None
        if maps is None:
            maps, resized = memory.tensor(len(split.train), *of_fold.maps.shape[1:]).numpy(), of_fold.resized
        scores[inside], maps[inside] = of_fold.scores, of_fold.maps
    return Predictions(split.train, scores, maps, masks=None, resized=resized)


def _take(pending: list[Stage], stages: Stages) -> Scores:
    """The result of the first stage, which the stages may then delete."""
    stage = pending.pop(0)
    try:
        scores: Scores = stages.value(stage)
        return scores
    finally:
        stages.release(stage)
