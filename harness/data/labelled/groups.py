"""Groups of images, such as the images of one part, and folds that keep each group together."""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from harness.common.errors import DataError
from harness.data.base import listed
from harness.data.labelled.base import EXAMPLE, Group, LabelledSample
from harness.data.labelled.fold_files import Folds

Texts = npt.NDArray[np.str_]
# A share to hold out is a number of folds; with more folds than this, each has too few groups to be stratified.
MOST_FOLDS = 10
CLOSE = 0.02  # a share that differs by less than this from `data.folds` needs no note


def groups_of(group: Group, samples: Sequence[LabelledSample]) -> tuple[str, ...]:
    """The group of each training image.

    Args:
        group: `data.group`.
        samples: n labelled images.

    Returns:
        Shape (n,).

    Raises:
        DataError: an image has no group, or all images have the same.
    """
    names = [_group(group, sample) for sample in samples]
    without = [sample.name for sample, name in zip(samples, names, strict=True) if not name]
    if group.column is not None and len(without) == len(samples):
        raise DataError(
            f"data.group: column {group.column!r} found, but the data has no table; expected a pattern of the path, "
            f"such as {EXAMPLE}. Write group: {{pattern: ...}}."
        )
    if without:
        raise DataError(
            f"data.group: {len(without)} images have no group by {group.text} ({listed(without)}); expected one for "
            "each image. Change data.group: a pattern must match the path of each image."
        )
    if len(set(names)) == 1:
        raise DataError(
            f"data.group: all {len(names)} images are in one group ({names[0]!r}) by {group.text}; expected several "
            "groups. Choose a group that differs between parts, or remove the key."
        )
    return tuple(names)


def group_notes(group: Group, groups: Sequence[str], test: Sequence[LabelledSample]) -> list[str]:
    """What a reader of the metrics must know about the groups.

    Args:
        group: `data.group`.
        groups: shape (n,), the group of each training image.
        test: images to classify.
    """
    sizes = np.unique(groups, return_counts=True)[1]
    notes = [
        f"The folds keep {len(sizes)} groups of {sizes.min()} to {sizes.max()} images together ({group.text}). "
        "Intervals and prediction sets treat images as independent, so with groups they may be too narrow."
    ]
    known = set(groups)
    shared = [sample.name for sample in test if _group(group, sample) in known]
    if shared:
        notes.append(
            f"{len(shared)} test images are in groups of training images ({listed(shared)}): metrics on the test may "
            "be too good."
        )
    return notes


def _group(group: Group, sample: LabelledSample) -> str:
    """The group of an image; "" without one."""
    if group.pattern is None:
        return sample.group
    match = re.search(group.pattern, sample.name)
    return (match.group(1) or "") if match else ""


def stratified_groups(labels: Texts, groups: Texts, k: int, seed: int) -> Folds:
    """Stratified folds that keep groups together, by scikit-learn's `StratifiedGroupKFold`.

    Args:
        labels: shape (n,).
        groups: shape (n,).
        k: number of folds.
        seed: of the random order of the groups.

    Returns:
        Shape (n,), from 0 to k - 1.

    Raises:
        DataError: there are fewer groups than folds.
    """
    count = len(set(groups.tolist()))
    if count < k:
        raise DataError(
            f"data.folds: {k} found, but data.group gives {count} groups that folds can validate; expected at most "
            f"{count} folds. Choose fewer folds, or smaller groups."
        )
    from sklearn.model_selection import StratifiedGroupKFold

    folds = np.zeros(len(labels), dtype=np.int64)
    with warnings.catch_warnings():
        # A note replaces scikit-learn's warning about labels with fewer images than folds.
        warnings.simplefilter("ignore", UserWarning)
        splits = StratifiedGroupKFold(k, shuffle=True, random_state=seed).split(labels, labels, groups)
        for fold, (_, validation) in enumerate(splits):
            folds[validation] = fold
    return folds


def held_out_groups(labels: Texts, groups: Texts, share: float, seed: int) -> tuple[npt.NDArray[np.bool_], list[str]]:
    """Hold out whole groups with about a share of the images.

    The share becomes a fraction, such as 1 of 5 stratified folds for 0.2.

    Args:
        labels: shape (n,).
        groups: shape (n,), at least two different ones.
        share: of the images, above 0 and below 1.
        seed: of the random order of the groups.

    Returns:
        Whether an image is held out, shape (n,), and warnings.
    """
    # StratifiedGroupKFold needs a label with as many images as folds.
    images = int(np.unique(labels, return_counts=True)[1].max())
    most = min(MOST_FOLDS, len(set(groups.tolist())), images)
    fraction = Fraction(share).limit_denominator(most)
    k = fraction.denominator if fraction.denominator > 1 else most
    count = min(max(1, round(fraction * k)), k - 1)
    folds = stratified_groups(labels, groups, k, seed)
    # Groups have different sizes, and so have folds. Those of the wanted size come first.
    sizes = np.bincount(folds, minlength=k) / len(folds)
    held = np.isin(folds, np.argsort(np.abs(sizes - share / count), kind="stable")[:count])
    notes = []
    if abs(held.mean() - share) > CLOSE:
        notes.append(
            f"{held.mean():.0%} of the images are held out, and data.folds asks for {share:.0%}: groups stay together."
        )
    unseen = sorted(set(labels.tolist()) - set(labels[held].tolist()))
    if unseen:
        notes.append(
            f"{len(unseen)} labels have no held-out image ({listed(unseen)}), because groups stay together: the "
            "metrics do not cover these labels."
        )
    return held, notes


def check_together(groups: Texts, folds: Folds, file: str) -> None:
    """Check that folds from a file keep each group in one fold.

    Args:
        groups: shape (n,).
        folds: shape (n,).
        file: of the folds, for the message.

    Raises:
        DataError: a group is in several folds.
    """
    parts: dict[str, set[int]] = {}
    for group, fold in zip(groups.tolist(), folds.tolist(), strict=True):
        parts.setdefault(group, set()).add(fold)
    torn = [f"{group!r}: {sorted(numbers)}" for group, numbers in parts.items() if len(numbers) > 1]
    if torn:
        raise DataError(
            f"data.folds: {file} puts {len(torn)} groups of data.group into several folds ({listed(torn)}; -1 is "
            "always trained); expected each group in one fold. Correct the file, or remove data.group."
        )
