"""The validation fold of each image: stratified, held out once, or from a file."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from harness.common.errors import DataError
from harness.data.base import listed
from harness.data.labelled.base import ALWAYS_TRAINED, LabelledSample
from harness.data.labelled.fold_files import Folds, read_folds
from harness.data.labelled.groups import Texts, check_together, held_out_groups, stratified_groups


def assign_folds(
    samples: Sequence[LabelledSample],
    folds: int | float | str,
    seed: int,
    rows: int,
    groups: Sequence[str] | None = None,
) -> tuple[Folds, list[str]]:
    """The validation fold of each sample.

    The image of a label with a single image is a training image in every fold. As a validation image it would always be
    wrong, because the networks of its fold would not know its label. In the same way, a group is a training group in
    every fold if no other group has any of its labels. Without groups, each image is a group of its own.

    Args:
        samples: n labelled images, each with its row of the table.
        folds: number of folds, a share to hold out (fold 0), or an .npy file.
        seed: of the random assignment.
        rows: number of rows of the table, for folds from a file.
        groups: shape (n,), images of one group stay in one fold; None without groups.

    Returns:
        The folds, shape (n,), and warnings.

    Raises:
        DataError: a label has too few images, there are too few groups, or the file does not fit the table or the
            groups.
    """
    labels = np.array([sample.label for sample in samples])
    units = np.array([str(i) for i in range(len(samples))] if groups is None else groups)
    single = {label for label, count in _groups_by_label(labels, units).items() if count == 1}
    usable = np.flatnonzero(np.isin(units, units[~np.isin(labels, list(single))]))
    if groups is not None and not usable.size:
        raise DataError(
            "data.group: no label is in two groups; expected labels in several groups, since a network can't predict a "
            "label that it has not seen. Choose smaller groups."
        )
    assigned = np.full(len(samples), ALWAYS_TRAINED, dtype=np.int64)
    notes: list[str] = []
    if isinstance(folds, str):
        assigned[usable] = read_folds(Path(folds), rows)[[samples[int(i)].row for i in usable]]
        _check(Path(folds), assigned)
        if groups is not None:
            check_together(units, assigned, folds)
        notes = _never_validated([samples[int(i)].name for i in usable if assigned[i] == ALWAYS_TRAINED], folds)
    elif groups is not None:
        assigned[usable], notes = _of_groups(labels[usable], units[usable], folds, seed)
    elif isinstance(folds, float):
        _hold_out(labels, usable, folds, seed, assigned)
    else:
        counts = Counter(labels.tolist())
        _check_number(counts, folds)
        _stratified(labels, usable, folds, seed, assigned)
        notes = _few(counts, folds, "have fewer images")
    never = sorted(single - set(labels[usable].tolist()))
    return assigned, [*_single_note(never, groups is not None), *notes, *_lacking(labels, assigned)]


def _of_groups(labels: Texts, groups: Texts, folds: int | float, seed: int) -> tuple[Folds, list[str]]:
    """Folds that keep groups together, and warnings."""
    if isinstance(folds, float):
        held, notes = held_out_groups(labels, groups, folds, seed)
        return np.where(held, 0, ALWAYS_TRAINED), notes
    _check_number(Counter(labels.tolist()), folds)
    notes = _few(_groups_by_label(labels, groups), folds, "are in fewer groups")
    return stratified_groups(labels, groups, folds, seed), notes


def _groups_by_label(labels: Texts, groups: Texts) -> Counter[str]:
    """Label -> number of groups with the label."""
    return Counter(label for label, _ in set(zip(labels.tolist(), groups.tolist(), strict=True)))


def _check_number(counts: Counter[str], k: int) -> None:
    """Check that a label has as many images as there are folds."""
    most = max(counts.values())
    if most < k:
        raise DataError(
            f"data.folds: {k} found, but no label has more than {most} images; expected at most {max(most, 2)} folds"
            + ("." if most > 1 else ", and labels with several images.")
        )


def _stratified(labels: Texts, usable: npt.NDArray[np.intp], k: int, seed: int, folds: Folds) -> None:
    """Assign stratified folds."""
    from sklearn.model_selection import StratifiedKFold

    with warnings.catch_warnings():
        # A note replaces scikit-learn's warning about labels with fewer images than folds.
        warnings.simplefilter("ignore", UserWarning)
        splits = StratifiedKFold(k, shuffle=True, random_state=seed).split(usable, labels[usable])
        for fold, (_, validation) in enumerate(splits):
            folds[usable[validation]] = fold


def _few(counts: Counter[str], k: int, problem: str) -> list[str]:
    few = sorted(label for label, n in counts.items() if 1 < n < k)
    return [f"{len(few)} labels {problem} than folds ({listed(few)}): some folds do not validate them."] if few else []


def _check(file: Path, folds: Folds) -> None:
    numbers = set(folds.tolist()) - {ALWAYS_TRAINED}
    if not numbers:
        raise DataError(f"data.folds: {file} has no validation image; expected at least one in each fold.")
    for fold in sorted(numbers):
        if (folds == fold).all():
            raise DataError(
                f"data.folds: {file} puts every image into fold {fold} and leaves no training image; expected "
                "several folds, or -1 for images that are always trained."
            )


def _never_validated(names: list[str], file: str) -> list[str]:
    if not names:
        return []
    return [
        f"{Path(file).name}: {len(names)} images are in no validation fold ({listed(names)}): the networks of every "
        "fold train on them, and the metrics do not cover them."
    ]


def _hold_out(labels: Texts, usable: npt.NDArray[np.intp], share: float, seed: int, folds: Folds) -> None:
    """Assign a share of each label to fold 0: at least one of its images, and never all."""
    if not usable.size:
        raise DataError(
            f"data.folds: {share} found, but each label has a single image; expected labels with several images. Add "
            "images."
        )
    rng = np.random.default_rng(seed)
    for label in np.unique(labels[usable]):
        members = usable[labels[usable] == label]
        count = min(max(1, round(share * len(members))), len(members) - 1)
        folds[rng.permutation(members)[:count]] = 0


def _single_note(single: list[str], grouped: bool) -> list[str]:
    if not single:
        return []
    where = f"are in one group only ({listed(single)}), a training group"
    if not grouped:
        where = f"have a single image ({listed(single)}), a training image"
    return [f"{len(single)} labels {where} in every fold: the metrics do not cover these labels."]


def _lacking(labels: Texts, folds: Folds) -> list[str]:
    """A warning about labels with validation images but without training images in a fold."""
    untrained = [
        f"{label} (fold {fold})"
        for fold in sorted(set(folds.tolist()) - {ALWAYS_TRAINED})
        for label in sorted(set(labels[folds == fold]) - set(labels[folds != fold]))
    ]
    if not untrained:
        return []
    return [
        f"{len(untrained)} labels have no training image in a fold: {listed(untrained)}. The fold's networks "
        "can't predict them."
    ]
