"""A share of the normal images for the test, for data without normal test images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from harness.data.samples import Sample, SampleLists


def _alone(sample: Sample) -> str:
    return sample.path


def take_test_images(
    normal: Sequence[Sample], share: float, seed: int, unit: Callable[[Sample], str] = _alone
) -> tuple[list[Sample], list[Sample]]:
    """Separate normal images into training and test images.

    Args:
        normal: the images.
        share: of the test, between 0 and 1.
        seed: of the selection.
        unit: images with the same value stay together; by default each image is alone.

    Returns:
        The training images, and the test images.
    """
    units = list(dict.fromkeys(unit(sample) for sample in normal))
    count = round(len(units) * share)
    chosen = {units[index] for index in np.random.default_rng(seed).permutation(len(units))[:count].tolist()}
    train = [sample for sample in normal if unit(sample) not in chosen]
    return train, [sample for sample in normal if unit(sample) in chosen]


def without_split(
    root: Path, samples: Sequence[Sample], share: float, seed: int, unit: Callable[[Sample], str] = _alone
) -> SampleLists:
    """The samples of data without a split: all anomalous images, and a share of the normal images, are for the test.

    Args:
        root: sample names are relative to this folder.
        samples: all images.
        share, seed, unit: see `take_test_images`.
    """
    train, test = take_test_images([sample for sample in samples if not sample.label], share, seed, unit)
    return SampleLists(root, tuple(train), (*test, *(sample for sample in samples if sample.label)))
