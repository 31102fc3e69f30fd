"""Which image is judged in which fold: stratified, held out once, or as a file says."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from harness.common.errors import DataError
from harness.data.labelled.base import ALWAYS_TRAINED, LabelledSample, listed

Folds = npt.NDArray[np.int64]
MAGIC = b"\x93NUMPY"


def assign_folds(
    samples: Sequence[LabelledSample], how: int | float | str, seed: int, rows: int
) -> tuple[Folds, list[str]]:
    """The fold of each sample, and what must be said of it.

    A label with a single image is trained on in every fold and judged in none: judged, it could only be wrong, since
    nothing of its label would have been learnt.

    Args:
        samples: those that are used; each knows its row of the table.
        how: a number of folds, a share to hold out (fold 0), or an .npy file.
        seed: which images go where.
        rows: of the table, which folds from a file are about.

    Raises:
        DataError: too few images, or a file that does not fit.
    """
    labels = np.array([sample.label for sample in samples])
    counts = Counter(labels.tolist())
    single = sorted(label for label, count in counts.items() if count == 1)
    usable = np.flatnonzero(~np.isin(labels, single))
    folds = np.full(len(samples), ALWAYS_TRAINED, dtype=np.int64)
    notes: list[str] = []
    if isinstance(how, str):
        folds[usable] = read_folds(Path(how), rows)[[samples[int(i)].row for i in usable]]
        _checked(Path(how), folds)
    elif isinstance(how, float):
        _hold_out(labels, usable, how, seed, folds)
    else:
        notes = _stratified(labels, usable, counts, how, seed, folds)
    return folds, [*_says(single), *notes, *_lacking(labels, folds)]


def _stratified(
    labels: npt.NDArray[np.str_], usable: npt.NDArray[np.intp], counts: Counter[str], how: int, seed: int, folds: Folds
) -> list[str]:
    """Equal shares of each label in each fold, as far as that goes."""
    most = max(counts.values())
    if most < how:
        raise DataError(
            f"data.folds: {how} found, but no label has more than {most} images; expected at most {max(most, 2)} folds"
            + ("." if most > 1 else ", and labels with several images.")
        )
    from sklearn.model_selection import StratifiedKFold

    with warnings.catch_warnings():
        # It warns of labels with fewer images than folds; said below, in our words.
        warnings.simplefilter("ignore", UserWarning)
        parts = StratifiedKFold(how, shuffle=True, random_state=seed).split(usable, labels[usable])
        for fold, (_, judged) in enumerate(parts):
            folds[usable[judged]] = fold
    few = sorted(label for label, count in counts.items() if 1 < count < how)
    if not few:
        return []
    return [f"{len(few)} labels have fewer images than folds ({listed(few)}): some folds judge none of theirs."]


def _checked(file: Path, folds: Folds) -> None:
    there = set(folds.tolist()) - {ALWAYS_TRAINED}
    if not there:
        raise DataError(f"data.folds: {file} leaves no image to be judged; expected some in each fold.")
    for fold in sorted(there):
        if (folds == fold).all():
            raise DataError(
                f"data.folds: {file} puts every image into fold {fold}, which leaves none to learn from; expected "
                "several folds, or -1 for images that are only learnt from."
            )


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


def read_folds(file: Path, rows: int) -> Folds:
    """Folds from an .npy file: one number a row of the table, or one row of judged positions a fold.

    Nothing in the file is executed: pickled arrays, of folds of unequal length, say, are refused.

    Args:
        file: of whole numbers.
        rows: of the table.

    Raises:
        DataError: it can't be read so, or does not fit the table.
    """
    found = _numbers(file, rows)
    if not np.issubdtype(found.dtype, np.integer) or found.ndim not in {1, 2}:
        raise DataError(
            f"data.folds: {file} holds {found.dtype} of shape {found.shape}; expected whole numbers: one fold a row of "
            f"the table ({rows},), or a row of positions a fold."
        )
    folds: Folds = found.astype(np.int64)
    if folds.ndim == 2:
        flat = folds.ravel()
        if flat.size and (flat.min() < 0 or flat.max() >= rows or len(set(flat.tolist())) < flat.size):
            raise DataError(
                f"data.folds: {file} holds positions from {flat.min()} to {flat.max()}, some of them twice or beyond "
                f"the table; expected each of 0 to {rows - 1} at most once."
            )
        parts, folds = folds, np.full(rows, ALWAYS_TRAINED, dtype=np.int64)
        for fold, judged in enumerate(parts):
            folds[judged] = fold
    if len(folds) != rows:
        raise DataError(f"data.folds: {file} holds {len(folds)} numbers, {rows} expected, one a row of the table.")
    if folds.min() < ALWAYS_TRAINED:
        raise DataError(
            f"data.folds: {file} holds folds {sorted(set(folds.tolist()))[:5]}; expected numbers from 0, and -1 for "
            "images that are never judged."
        )
    return folds


def _numbers(file: Path, rows: int) -> npt.NDArray[Any]:
    """What the file holds, whatever its numbers are.

    Raises:
        DataError: it can't be read without executing something, or at all.
    """
    try:
        with file.open("rb") as stream:
            begins = stream.read(len(MAGIC))
        if begins != MAGIC:
            raise DataError(f"data.folds: {file} is no .npy file (it does not begin as one); expected one.")
        found: npt.NDArray[Any] = np.load(file, allow_pickle=False)
    except FileNotFoundError:
        raise DataError(f"data.folds: no file found at {file.absolute()}; expected an .npy file.") from None
    # A header may promise more numbers than there is memory for.
    except (OSError, ValueError, EOFError, MemoryError) as error:
        if "pickle" not in str(error).lower():
            raise DataError(f"data.folds: {file} can't be read as an .npy file ({error}).") from error
        raise DataError(
            f"data.folds: {file} holds pickled objects, which are not loaded since loading them could run code; "
            "expected plain numbers. Where you trust the file, convert it once in Python: parts = [v for _, v in "
            f"numpy.load({str(file)!r}, allow_pickle=True)]; folds = numpy.full({rows}, -1); "
            "[folds.__setitem__(v, i) for i, v in enumerate(parts)]; numpy.save('folds.npy', folds)"
        ) from error
    return found
