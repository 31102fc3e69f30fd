"""The validation fold of each row of a table, from an .npy file in one of three forms. Nothing of the file is executed.

numbers    shape (rows,): the fold of each row
positions  shape (folds, n): each row has the positions of the validation images of one fold
pairs      the list of (training positions, validation positions) that scikit-learn's splitters give, saved with
           `numpy.save(file, list(splitter.split(...)))`; the parts have different lengths, so NumPy saves objects
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from harness.common.errors import DataError, StoreError
from harness.common.reading import MB, read_bytes
from harness.data.base import listed
from harness.data.labelled.base import ALWAYS_TRAINED
from harness.data.labelled.object_arrays import ObjectArray, ObjectArrayError, indices, read_object_array

Folds = npt.NDArray[np.int64]
Pair = tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]
MAGIC = b"\x93NUMPY"
VERSIONS = ((1, 0), (2, 0), (3, 0))
LIMIT = 64 * MB


def read_folds(file: Path, rows: int) -> Folds:
    """Read the fold of each row of the table.

    Args:
        file: its path; see the forms above.
        rows: number of rows of the table.

    Returns:
        Shape (rows,); `ALWAYS_TRAINED` for rows without a fold.

    Raises:
        DataError: the file can't be read, could run code, or does not fit the table.
    """
    content = _content(file)
    array = _array(file, content)
    try:
        if isinstance(array, ObjectArray):
            return _of_pairs(file, _pairs(array, rows), rows)
        if array.ndim == 3 and array.shape[1] == 2 and array.dtype.kind in "iu":
            # Two folds of equal size: all parts have the same length, so NumPy saves no objects.
            return _of_pairs(file, ((train, val) for train, val in array.astype(np.int64)), rows)
    except ObjectArrayError as error:
        raise _refused(file, error) from error
    return _of_numbers(file, array, rows)


def _content(file: Path) -> bytes:
    try:
        # The user may link to a file elsewhere.
        content = read_bytes(file.resolve(), LIMIT)
    except FileNotFoundError:
        raise DataError(f"data.folds: no file found at {file.absolute()}; expected an .npy file.") from None
    except StoreError as error:
        raise DataError(f"data.folds: {error} Expected an .npy file with folds.") from error
    if not content.startswith(MAGIC):
        raise DataError(f"data.folds: {file} is no .npy file (its first bytes differ); expected an .npy file.")
    return content


def _array(file: Path, content: bytes) -> npt.NDArray[Any] | ObjectArray:
    """The array of the file; an array of objects is not executed."""
    stream = io.BytesIO(content)
    try:
        version = np.lib.format.read_magic(stream)
        if version not in VERSIONS:
            raise ValueError(f"version {version} found, 1 to 3 expected")
        # Version 3 differs from version 2 only in the encoding of names, which folds don't have.
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read(stream)
        if dtype != np.dtype(object):
            stream.seek(0)
            array: npt.NDArray[Any] = np.load(stream, allow_pickle=False)
            return array
    # A header may declare more numbers than fit into memory; a damaged one raises many types of exceptions.
    except Exception as error:
        raise DataError(
            f"data.folds: {file} can't be read as an .npy file ({error}); expected numbers. Save the file again."
        ) from error
    try:
        objects = read_object_array(content[stream.tell() :])
        if objects.shape != shape:
            raise ObjectArrayError(f"an array of shape {objects.shape} under a header of shape {str(shape)[:40]}")
    except ObjectArrayError as error:
        raise _refused(file, error) from error
    return objects


def _refused(file: Path, error: ObjectArrayError) -> DataError:
    return DataError(
        f"data.folds: {file} refused: {error} found. Expected pairs of training and validation positions: arrays, "
        "lists and tuples of whole numbers. Nothing of the file was executed. Save the fold of each row of the table "
        "instead, as whole numbers of shape (rows,)."
    )


def _pairs(array: ObjectArray, rows: int) -> Iterator[Pair]:
    """Training and validation positions of each fold."""
    folds = array.shape[0]
    if folds > rows:
        raise ObjectArrayError(f"{folds} pairs for {rows} rows")
    items = iter(array.items)
    pairs: Iterable[Any] = zip(items, items, strict=True) if array.shape[1:] == (2,) else array.items
    if len(array.shape) == 2 and array.shape[1] != 2:
        raise ObjectArrayError(f"an array of shape {array.shape}")
    for pair in pairs:
        if not isinstance(pair, list | tuple) or len(pair) != 2:
            raise ObjectArrayError("an item that is no pair")
        yield indices(pair[0], rows), indices(pair[1], rows)


def _of_pairs(file: Path, pairs: Iterable[Pair], rows: int) -> Folds:
    """Folds from pairs. Each training part must be all rows without the validation part: this is what trains."""
    folds = np.full(rows, ALWAYS_TRAINED, dtype=np.int64)
    for fold, (train, val) in enumerate(pairs):
        place = f"data.folds: {file}, pair {fold}"
        for name, part in (("training", train), ("validation", val)):
            if not part.size:
                raise DataError(f"{place}: the {name} part is empty; expected positions of rows. Correct it.")
            _check_positions(f"{place}, {name} part", part, rows)
        again = val[folds[val] != ALWAYS_TRAINED]
        if again.size:
            raise DataError(
                f"{place}: rows {_rows(again)} are validation rows of an earlier pair too; expected each row at most "
                "once. Remove pairs, such as those of a repeated split."
            )
        shared = np.intersect1d(train, val)
        if shared.size:
            raise DataError(
                f"{place}: rows {_rows(shared)} are in the training part and in the validation part; expected each row "
                "in one of them. Correct the file."
            )
        absent = np.setdiff1d(np.arange(rows), np.concatenate([train, val]))
        if absent.size:
            raise DataError(
                f"{place}: rows {_rows(absent)} of {rows} are in neither part; expected that all rows outside of the "
                "validation part train. Correct the file, or save the fold of each row instead."
            )
        folds[val] = fold
    return folds


def _of_numbers(file: Path, array: npt.NDArray[Any], rows: int) -> Folds:
    """Folds from numbers or positions."""
    if not np.issubdtype(array.dtype, np.integer) or array.ndim not in {1, 2}:
        raise DataError(
            f"data.folds: {file} holds {array.dtype} of shape {array.shape}; expected whole numbers: a fold for each "
            f"row of the table ({rows},), or a row of positions for each fold."
        )
    folds: Folds = array.astype(np.int64)
    if folds.ndim == 2:
        _check_positions(f"data.folds: {file}", folds.ravel(), rows)
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


def _check_positions(place: str, positions: Folds, rows: int) -> None:
    if positions.size and (
        positions.min() < 0 or positions.max() >= rows or len(np.unique(positions)) < positions.size
    ):
        raise DataError(
            f"{place} holds positions from {positions.min()} to {positions.max()}, some of them twice or beyond the "
            f"table; expected each of 0 to {rows - 1} at most once. Make the file from this table."
        )


def _rows(positions: Folds) -> str:
    return listed([str(position) for position in positions.tolist()])
