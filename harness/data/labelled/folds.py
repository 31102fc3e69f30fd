"""The validation fold of each image: stratified, held out once, or from a file."""

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
    samples: Sequence[LabelledSample], folds: int | float | str, seed: int, rows: int
) -> tuple[Folds, list[str]]:
    """The validation fold of each sample.

    The image of a label with a single image is a training image in every fold. As a validation image it would always be
    wrong, because the networks of its fold would not know its label.

    Args:
        samples: n labelled images, each with its row of the table.
        folds: number of folds, a share to hold out (fold 0), or an .npy file.
        seed: of the random assignment.
        rows: number of rows of the table, for folds from a file.

    Returns:
        The folds, shape (n,), and warnings.

    Raises:
        DataError: a label has too few images, or the file does not fit the table.
    """
    labels = np.array([sample.label for sample in samples])
    counts = Counter(labels.tolist())
    single = sorted(label for label, count in counts.items() if count == 1)
    usable = np.flatnonzero(~np.isin(labels, single))
    assigned = np.full(len(samples), ALWAYS_TRAINED, dtype=np.int64)
    notes: list[str] = []
    if isinstance(folds, str):
        assigned[usable] = read_folds(Path(folds), rows)[[samples[int(i)].row for i in usable]]
        _check(Path(folds), assigned)
    elif isinstance(folds, float):
        _hold_out(labels, usable, folds, seed, assigned)
    else:
        notes = _stratified(labels, usable, counts, folds, seed, assigned)
    return assigned, [*_single_note(single), *notes, *_lacking(labels, assigned)]


def _stratified(
    labels: npt.NDArray[np.str_], usable: npt.NDArray[np.intp], counts: Counter[str], k: int, seed: int, folds: Folds
) -> list[str]:
    """Assign stratified folds, and return warnings."""
    most = max(counts.values())
    if most < k:
        raise DataError(
            f"data.folds: {k} found, but no label has more than {most} images; expected at most {max(most, 2)} folds"
            + ("." if most > 1 else ", and labels with several images.")
        )
    from sklearn.model_selection import StratifiedKFold

    with warnings.catch_warnings():
        # The note below replaces scikit-learn's warning about labels with fewer images than folds.
        warnings.simplefilter("ignore", UserWarning)
        splits = StratifiedKFold(k, shuffle=True, random_state=seed).split(usable, labels[usable])
        for fold, (_, validation) in enumerate(splits):
            folds[usable[validation]] = fold
    few = sorted(label for label, n in counts.items() if 1 < n < k)
    if not few:
        return []
    return [f"{len(few)} labels have fewer images than folds ({listed(few)}): some folds do not validate them."]


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


def _hold_out(
    labels: npt.NDArray[np.str_], usable: npt.NDArray[np.intp], share: float, seed: int, folds: Folds
) -> None:
    """Assign a share of each label to fold 0: at least one of its images, and never all."""
    rng = np.random.default_rng(seed)
    for label in np.unique(labels[usable]):
        members = usable[labels[usable] == label]
        count = min(max(1, round(share * len(members))), len(members) - 1)
        folds[rng.permutation(members)[:count]] = 0


def _single_note(single: list[str]) -> list[str]:
    if not single:
        return []
    return [
        f"{len(single)} labels have a single image ({listed(single)}), a training image in every fold: the metrics do "
        "not cover these labels."
    ]


def _lacking(labels: npt.NDArray[np.str_], folds: Folds) -> list[str]:
    """A warning about labels with validation images but without training images in a fold."""
    untrained = [
        f"{label} (fold {fold})"
        for fold in sorted(set(folds.tolist()) - {ALWAYS_TRAINED})
        for label in sorted(set(labels[folds == fold]) - set(labels[folds != fold]))
    ]
    return [f"{len(untrained)} labels have no training image in a fold: {listed(untrained)}."] if untrained else []


def read_folds(file: Path, rows: int) -> Folds:
    """Folds from an .npy file of whole numbers.

    The file has shape (rows,) with a fold for each row of the table. Or each of its rows has the positions of the
    validation images of one fold. Reading executes nothing of the file: pickled arrays are refused.

    Args:
        file: its path.
        rows: number of rows of the table.

    Returns:
        Shape (rows,); `ALWAYS_TRAINED` for rows without a fold.

    Raises:
        DataError: the file can't be read, or does not fit the table.
    """
    array = _numbers(file, rows)
    if not np.issubdtype(array.dtype, np.integer) or array.ndim not in {1, 2}:
        raise DataError(
            f"data.folds: {file} holds {array.dtype} of shape {array.shape}; expected whole numbers: a fold for each "
            f"row of the table ({rows},), or a row of positions for each fold."
        )
    folds: Folds = array.astype(np.int64)
    if folds.ndim == 2:
        flat = folds.ravel()
        if flat.size and (flat.min() < 0 or flat.max() >= rows or len(set(flat.tolist())) < flat.size):
            raise DataError(
                f"data.folds: {file} holds positions from {flat.min()} to {flat.max()}, some of them twice or beyond "
                f"the table; expected each of 0 to {rows - 1} at most once."
            )
        positions_by_fold, folds = folds, np.full(rows, ALWAYS_TRAINED, dtype=np.int64)
        for fold, positions in enumerate(positions_by_fold):
            folds[positions] = fold
    if len(folds) != rows:
        raise DataError(f"data.folds: {file} holds {len(folds)} numbers, {rows} expected, one for each row.")
    if folds.min() < ALWAYS_TRAINED:
        raise DataError(
            f"data.folds: {file} holds folds {sorted(set(folds.tolist()))[:5]}; expected numbers from 0, and -1 for "
            "images that are always trained."
        )
    return folds


def _numbers(file: Path, rows: int) -> npt.NDArray[Any]:
    """The array in an .npy file.

    Raises:
        DataError: the file can't be read, or can't be read without executing code.
    """
    try:
        with file.open("rb") as stream:
            first_bytes = stream.read(len(MAGIC))
        if first_bytes != MAGIC:
            raise DataError(f"data.folds: {file} is no .npy file (its first bytes differ); expected an .npy file.")
        array: npt.NDArray[Any] = np.load(file, allow_pickle=False)
    except FileNotFoundError:
        raise DataError(f"data.folds: no file found at {file.absolute()}; expected an .npy file.") from None
    # A header may declare more numbers than fit into memory.
    except (OSError, ValueError, EOFError, MemoryError) as error:
        if "pickle" not in str(error).lower():
            raise DataError(f"data.folds: {file} can't be read as an .npy file ({error}).") from error
        raise DataError(
            f"data.folds: {file} holds pickled objects, and loading them could run code; expected plain numbers. "
            "If you trust the file, convert it once in Python: parts = [v for _, v in "
            f"numpy.load({str(file)!r}, allow_pickle=True)]; folds = numpy.full({rows}, -1); "
            "[folds.__setitem__(v, i) for i, v in enumerate(parts)]; numpy.save('folds.npy', folds)"
        ) from error
    return array
