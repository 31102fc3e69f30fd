"""Which image is judged in which fold: stratified, held out once, or as a file says."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from harness.datasets.labelled import ALWAYS_TRAINED, LabelledSample, listed
from harness.errors import DataError

Folds = npt.NDArray[np.int64]


def assign_folds(samples: Sequence[LabelledSample], how: int | float | str, seed: int) -> tuple[Folds, list[str]]:
    """The fold of each sample, and what must be said of it.

    A label with a single image is trained on in every fold and judged in none: judged, it could only be wrong, since
    nothing of its label would have been learnt.

    Args:
        samples: in the order of the table.
        how: a number of folds, a share to hold out (fold 0), or an .npy file.
        seed: which images go where.

    Raises:
        DataError: too few images, or a file that does not fit.
    """
    labels = np.array([sample.label for sample in samples])
    counts = Counter(labels.tolist())
    single = sorted(label for label, count in counts.items() if count == 1)
    if isinstance(how, str):
        folds = read_folds(Path(how), len(samples))
        alone = np.isin(labels, single)
        notes = _says(single) if (folds[alone] != ALWAYS_TRAINED).any() else []
        folds[alone] = ALWAYS_TRAINED
        return folds, [*notes, *_lacking(labels, folds)]
    folds = np.full(len(samples), ALWAYS_TRAINED, dtype=np.int64)
    usable = np.flatnonzero(~np.isin(labels, single))
    if isinstance(how, float):
        _hold_out(labels, usable, how, seed, folds)
    else:
        if len(usable) < how:
            raise DataError(
                f"data.folds: {how} found, but only {len(usable)} images have a label that others have too; expected "
                "at most as many folds."
            )
        from sklearn.model_selection import StratifiedKFold

        with warnings.catch_warnings():
            # It warns of labels with fewer images than folds; said below, in our words.
            warnings.simplefilter("ignore", UserWarning)
            parts = StratifiedKFold(how, shuffle=True, random_state=seed).split(usable, labels[usable])
            for fold, (_, judged) in enumerate(parts):
                folds[usable[judged]] = fold
        few = sorted(label for label, count in counts.items() if 1 < count < how)
        notes = [f"{len(few)} labels have fewer images than folds ({listed(few)}): some folds judge none of theirs."]
        return folds, [*_says(single), *(notes if few else [])]
    return folds, _says(single)


def _hold_out(
    labels: npt.NDArray[np.str_], usable: npt.NDArray[np.intp], share: float, seed: int, folds: Folds
) -> None:
    """A share of each label into fold 0: at least one of its images, and never all."""
    rng = np.random.default_rng(seed)
    for label in np.unique(labels[usable]):
        members = usable[labels[usable] == label]
        count = min(max(1, round(share * len(members))), len(members) - 1)
        folds[rng.permutation(members)[:count]] = 0


def _says(single: list[str]) -> list[str]:
    if not single:
        return []
    return [
        f"{len(single)} labels have a single image ({listed(single)}): it is trained on in every fold and judged in "
        "none; the figures do not cover these labels."
    ]


def _lacking(labels: npt.NDArray[np.str_], folds: Folds) -> list[str]:
    """Labels that a fold judges without having learnt any of them."""
    found = [
        f"{label} (fold {fold})"
        for fold in sorted(set(folds.tolist()) - {ALWAYS_TRAINED})
        for label in sorted(set(labels[folds == fold]) - set(labels[folds != fold]))
    ]
    return [f"{len(found)} labels are judged in a fold that learns none of them: {listed(found)}."] if found else []


def read_folds(file: Path, images: int) -> Folds:
    """Folds from an .npy file: one number a row of the table, or one row of judged positions a fold.

    Nothing in the file is executed: pickled arrays, of folds of unequal length, say, are refused.

    Raises:
        DataError: it can't be read so, or does not fit the table.
    """
    try:
        found = np.load(file, allow_pickle=False)
    except FileNotFoundError:
        raise DataError(f"data.folds: no file found at {file.absolute()}; expected an .npy file.") from None
    except (OSError, ValueError, EOFError) as error:
        if "pickle" not in str(error).lower():
            raise DataError(f"data.folds: {file} can't be read as an .npy file ({error}).") from error
        raise DataError(
            f"data.folds: {file} holds pickled objects, which are not loaded since loading them could run code; "
            "expected plain numbers. Where you trust the file, convert it once in Python: parts = [v for _, v in "
            f"numpy.load({str(file)!r}, allow_pickle=True)]; folds = numpy.full({images}, -1); "
            "[folds.__setitem__(v, i) for i, v in enumerate(parts)]; numpy.save('folds.npy', folds)"
        ) from error
    if not np.issubdtype(found.dtype, np.integer) or found.ndim not in {1, 2}:
        raise DataError(
            f"data.folds: {file} holds {found.dtype} of shape {found.shape}; expected whole numbers: one fold a row of "
            f"the table ({images},), or a row of positions a fold."
        )
    folds: Folds = found.astype(np.int64)
    if folds.ndim == 2:
        flat = folds.ravel()
        if flat.size and (flat.min() < 0 or flat.max() >= images or len(set(flat.tolist())) < flat.size):
            raise DataError(
                f"data.folds: {file} holds positions from {flat.min()} to {flat.max()}, some of them twice or beyond "
                f"the table; expected each of 0 to {images - 1} at most once."
            )
        rows, folds = folds, np.full(images, ALWAYS_TRAINED, dtype=np.int64)
        for fold, judged in enumerate(rows):
            folds[judged] = fold
    if len(folds) != images:
        raise DataError(f"data.folds: {file} holds {len(folds)} numbers, {images} expected, one a row of the table.")
    if folds.min() < ALWAYS_TRAINED or len(set(folds.tolist()) - {ALWAYS_TRAINED}) < 1:
        raise DataError(
            f"data.folds: {file} holds folds {sorted(set(folds.tolist()))[:5]}; expected numbers from 0, and -1 for "
            "images that are never judged."
        )
    return folds
