"""Probabilities from outside the harness: CSV or NPY files, joined to the images of a blend by file name."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path, PurePosixPath

import numpy as np
import numpy.typing as npt

from harness.common.errors import StoreError
from harness.common.reading import MB, read_bytes, read_rows, read_text
from harness.common.tables import unguarded
from harness.ensemble.combine import softmax
from harness.ensemble.recipe import Source
from harness.predictions.classification import Probabilities

KEY = "file_name"  # the first column of a CSV file
LIMIT = 1024 * MB
TOLERANCE = 1e-3  # of the sum of a row of probabilities

Values = npt.NDArray[np.float64]


def read_outside(
    source: Source, names: Sequence[str], test_names: Sequence[str], labels: Sequence[str]
) -> tuple[tuple[str, ...], Probabilities, Probabilities]:
    """Read the files of a source from outside, in the order of the images of a blend.

    Args:
        source: a source with `out_of_fold`.
        names: names of n training images.
        test_names: names of m test images.
        labels: the labels of the blend, in order.

    Returns:
        The labels of the columns, k in number; probabilities of shape (n, k); probabilities of shape (m, k).

    Raises:
        StoreError: a file is missing or damaged, or its images, labels or values do not fit.
    """
    assert source.out_of_fold is not None
    columns, rows = _read(Path(source.out_of_fold), source, names, labels)
    if source.test is None:
        if test_names:
            raise StoreError(
                f"{source.out_of_fold}: no file for the {len(test_names)} test images found; expected the key `test` "
                "beside `out_of_fold`. Add it."
            )
        return columns, rows, np.zeros((0, len(columns)), dtype=np.float32)
    test_columns, test_rows = _read(Path(source.test), source, test_names, labels)
    if test_columns != columns:
        raise StoreError(f"{source.test}: other labels than in {source.out_of_fold} found; expected the same columns.")
    return columns, rows, test_rows


def fingerprint(source: Source) -> str:
    """Hash of the files of a source from outside, with the names of an NPY file."""
    files = [Path(name) for name in (source.out_of_fold, source.test) if name is not None]
    files += [_names_file(file) for file in files if _is_npy(file)]
    return sha256(b"".join(sha256(read_bytes(file, LIMIT)).digest() for file in files)).hexdigest()[:16]


def _read(
    file: Path, source: Source, names: Sequence[str], labels: Sequence[str]
) -> tuple[tuple[str, ...], Probabilities]:
    try:
        read = _read_npy if _is_npy(file) else _read_csv
        keys, columns, values = read(file, source, labels)
    except FileNotFoundError as error:
        raise StoreError(f"{error.filename or file}: nothing found; expected a file with predictions.") from None
    if not source.own_labels:
        order = _order_of_labels(file, columns, labels)
        columns, values = tuple(labels), values[:, order]
    values = values[_order_of_images(file, keys, names)]
    _check_values(file, source, values, names)
    return columns, np.asarray(softmax(values) if source.values == "logits" else values, dtype=np.float32)


def _is_npy(file: Path) -> bool:
    return file.suffix.lower() == ".npy"


def _names_file(file: Path) -> Path:
    return file.with_suffix(".txt")


def _read_csv(file: Path, source: Source, labels: Sequence[str]) -> tuple[list[str], tuple[str, ...], Values]:
    """Names of the rows, labels of the columns, and values of a CSV file."""
    header, *rows = [[unguarded(cell.strip()) for cell in row] for row in read_rows(file, LIMIT) if row] or [[]]
    if header[:1] != [KEY]:
        raise StoreError(f"{file}: first column {header[0] if header else 'none'} found; expected {KEY}.")
    for number, row in enumerate(rows, 2):
        if len(row) != len(header):
            raise StoreError(f"{file}: row {number} has {len(row)} cells; expected {len(header)}, as in the first row.")
    try:
        values = np.array([[float(cell) for cell in row[1:]] for row in rows], dtype=np.float64)
    except ValueError as error:
        raise StoreError(f"{file}: a cell is no number ({error}); expected a number for each label.") from error
    return [row[0] for row in rows], tuple(header[1:]), values.reshape(len(rows), len(header) - 1)


def _read_npy(file: Path, source: Source, labels: Sequence[str]) -> tuple[list[str], tuple[str, ...], Values]:
    """The same of an NPY file. Names are in a text file beside it, labels in the recipe or in the blend."""
    content = read_bytes(file, LIMIT)
    try:
        values = np.load(io.BytesIO(content), allow_pickle=False)
    # NumPy raises many types of exceptions for a damaged file.
    except Exception as error:
        raise StoreError(
            f"{file}: can't be read ({error}); expected an array of numbers, without Python objects. Save it with "
            "numpy.save(file, array.astype('float32'))."
        ) from error
    columns = tuple(source.labels or labels)
    keys = [line for line in read_text(_names_file(file), LIMIT).splitlines() if line]
    expected = (len(keys), len(columns))
    if not isinstance(values, np.ndarray) or values.dtype.kind not in "fiu" or values.shape != expected:
        kind = f"{values.dtype} of shape {values.shape}" if isinstance(values, np.ndarray) else "an archive"
        raise StoreError(
            f"{file}: {kind} found; expected numbers of shape {expected}: the rows of {_names_file(file).name} and a "
            "column for each label."
        )
    return keys, columns, values.astype(np.float64)


def _order_of_labels(file: Path, columns: Sequence[str], labels: Sequence[str]) -> list[int]:
    missing, extra = sorted(set(labels) - set(columns)), sorted(set(columns) - set(labels))
    twice = [name for name, count in Counter(columns).items() if count > 1]
    if missing or extra or twice:
        raise StoreError(
            f"{file}: columns do not fit the labels: {_some(missing)} missing, {_some(extra)} unknown, {_some(twice)} "
            "more than once; expected each label of the runs once. For other labels set `own_labels: true`."
        )
    return [columns.index(label) for label in labels]


def _order_of_images(file: Path, keys: Sequence[str], names: Sequence[str]) -> list[int]:
    """The row of each image. Names without folders join by the last part of an image's name, if that is unique."""
    bare = [PurePosixPath(name).name for name in names]
    without_folders = not any("/" in key for key in keys)
    expected = bare if without_folders and len(set(bare)) == len(bare) else list(names)
    position = {key: index for index, key in enumerate(keys)}
    missing, extra = sorted(set(expected) - set(keys)), sorted(set(keys) - set(expected))
    twice = [key for key, count in Counter(keys).items() if count > 1]
    if missing or extra or twice:
        raise StoreError(
            f"{file}: rows do not fit the images: {_some(missing)} missing, {_some(extra)} unknown, {_some(twice)} "
            f"more than once; expected one row for each of {len(names)} images."
        )
    return [position[key] for key in expected]


def _check_values(file: Path, source: Source, values: Values, names: Sequence[str]) -> None:
    def refuse(fine: npt.ArrayLike, problem: str) -> None:
        wrong = ~np.asarray(fine, dtype=np.bool_)
        if wrong.any():
            first = names[int(np.flatnonzero(wrong)[0])]
            raise StoreError(f"{file}: {problem} (first: {first}; {int(wrong.sum())} rows). Correct the file.")

    refuse(np.isfinite(values).all(axis=1), "NaN or infinite values found; expected finite numbers")
    if source.values == "probabilities":
        refuse((values >= 0).all(axis=1), "negative values found; expected probabilities, or set `values: logits`")
        refuse(
            np.abs(values.sum(axis=1) - 1) <= TOLERANCE,
            "rows found that do not sum to 1; expected probabilities, or set `values: logits`",
        )


def _some(names: Sequence[str]) -> str:
    return f"{len(names)} ({', '.join(names[:3])})" if names else "0"
