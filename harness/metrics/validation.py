"""Labelled images taken out of the test set: the validation set of `f1_on_val`, and the held-out images of a search."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from harness.common.errors import DataError
from harness.data.samples import Sample

LEAST_HELD_OUT = 2  # images of each class; a single one says nothing about a metric


def stratified_part(samples: Sequence[Sample], share: float, seed: int) -> npt.NDArray[np.bool_]:
    """Select a share of each type of defect and of the normal images.

    The selection depends on the samples and the seed only, so it is the same in all runs on the same test images. A
    type with one image is not selected. Of every other type, the selection and the rest have at least one image.

    Args:
        samples: all test images.
        share: of each type, between 0 and 1.
        seed: of the selection.

    Returns:
        Shape (n,), True is selected.
    """
    selection = np.zeros(len(samples), dtype=np.bool_)
    rng = np.random.default_rng(seed)
    types = [(sample.label, sample.defect) for sample in samples]
    for defect_type in sorted(set(types)):
        members = np.flatnonzero([sample_type == defect_type for sample_type in types])
        count = min(max(1, round(share * len(members))), len(members) - 1)
        selection[rng.permutation(members)[:count]] = True
    return selection


def validation_part(samples: Sequence[Sample], share: float, seed: int) -> npt.NDArray[np.bool_]:
    """Select the validation samples of `threshold: f1_on_val`, see `stratified_part`.

    Args:
        samples: all test images.
        share: of each type, between 0 and 1.
        seed: of the selection.

    Returns:
        Shape (n,), True is validation.

    Raises:
        DataError: the validation set would have no normal or no anomalous images.
    """
    selection = stratified_part(samples, share, seed)
    for name, of_class in _classes(samples):
        if not (selection & of_class).any():
            raise DataError(
                f"threshold f1_on_val: {int(of_class.sum())} {name} test images found, too few for a validation set; "
                "expected at least 2 (of one type of defect). Add images, or choose another method."
            )
    return selection


def holdout_part(samples: Sequence[Sample], share: float, seed: int) -> npt.NDArray[np.bool_]:
    """Select the images that no trial of a search sees, see `stratified_part`.

    Args:
        samples: all test images.
        share: of each type, between 0 and 1.
        seed: of the selection.

    Returns:
        Shape (n,), True is held out.

    Raises:
        DataError: fewer than `LEAST_HELD_OUT` images of a class would be held out, or would remain.
    """
    selection = stratified_part(samples, share, seed)
    for name, of_class in _classes(samples):
        held_out, total = int((selection & of_class).sum()), int(of_class.sum())
        if min(held_out, total - held_out) < LEAST_HELD_OUT:
            raise DataError(
                f"search.holdout: {share:g} found, which holds out {held_out} of {total} {name} test images; expected "
                f"at least {LEAST_HELD_OUT} held out and {LEAST_HELD_OUT} for the search. Add images, choose another "
                "share, or set search.holdout to 0."
            )
    return selection


def samples_of_trials(samples: Sequence[Sample], holdout: Mapping[str, Any]) -> list[Sample]:
    """The test images that the trials of a search may see.

    Args:
        samples: all test images.
        holdout: `share` and `seed` of the held-out images; empty without such images.

    Returns:
        The labelled images that are not held out.

    Raises:
        DataError: see `holdout_part`.
    """
    labelled = [sample for sample in samples if not sample.unlabelled]
    if not holdout:
        return labelled
    selection = holdout_part(labelled, **holdout)
    return [sample for sample, held_out in zip(labelled, selection, strict=True) if not held_out]


def _classes(samples: Sequence[Sample]) -> tuple[tuple[str, npt.NDArray[np.bool_]], ...]:
    labels = np.array([sample.label == 1 for sample in samples], dtype=np.bool_)
    return ("normal", ~labels), ("anomalous", labels)
