"""The command `predict`: one row and some pictures for each image. An image that fails has a row with its error."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

from harness.common.errors import HarnessError, StoreError
from harness.common.tables import Rows as CsvRows
from harness.common.tables import csv_text, guarded_path
from harness.common.threads import count
from harness.data.images import MAX_PIXELS, Reading, read
from harness.inference.class_result import ClassResult
from harness.inference.classifier import Classifier
from harness.inference.model import Model
from harness.inference.pictures import MapFormat, stems, write_pictures
from harness.inference.result import Result

THREADS = 4  # largest number of threads that read and write; the network needs the cores
SHOWN = 5  # labels that the sentence counts
COMMON = ("path", "seconds", "reading", "error")  # columns of every task


class Rows(Protocol):
    """A text stream for rows."""

    def write(self, text: str, /) -> object:
        """Write the text of a row."""

    def flush(self) -> object:
        """Make all rows visible to other programs."""


@dataclass
class Counts:
    """Numbers of images by their predicted label.

    Attributes:
        kinds: labels that the sentence names even with a count of 0.
        by_kind: number of images of each label.
        failed: number of images without a prediction, or without their pictures.
    """

    kinds: Sequence[str] = ()
    by_kind: Counter[str] = field(default_factory=Counter)
    failed: int = 0

    def add(self, row: Row) -> None:
        """Count one image."""
        if row.error or row.result is None:
            self.failed += 1
        else:
            self.by_kind[row.result.kind] += 1

    def sentence(self) -> str:
        """The counts as a sentence for the user."""
        total = self.by_kind.total() + self.failed
        always = self.kinds if any(self.by_kind[kind] for kind in self.kinds) else ()
        parts = [f"{self.by_kind[kind]} {kind}" for kind in always]
        rest = [(kind, count) for kind, count in self.by_kind.most_common() if kind not in self.kinds]
        parts += [f"{count} {kind}" for kind, count in rest[:SHOWN]]
        parts += [f"{sum(count for _, count in rest[SHOWN:])} others"] if len(rest) > SHOWN else []
        parts += [f"{self.failed} failed (see their rows)"] if self.failed else []
        return f"{total} image{'' if total == 1 else 's'}: {', '.join(parts)}."


@dataclass(frozen=True)
class Row:
    """The outcome for one image.

    Attributes:
        path: path of the image.
        result: the prediction; None after a failure.
        seconds: time to read and prepare the image, plus the image's share of the time to score the batch.
        error: why the image or its pictures failed; empty after success.
    """

    path: Path
    result: Result | ClassResult | None
    seconds: float
    error: str = ""

    def cells(self, columns: Sequence[str]) -> list[str]:
        """The cells in the order of `columns`; blank without a value."""
        result = self.result
        cells = [
            guarded_path(str(self.path)),
            *(result.cells() if result else [""] * (len(columns) - len(COMMON))),
            "; ".join(result.reading) if result else "",
            self.error,
        ]
        cells.insert(columns.index("seconds"), f"{self.seconds:.4f}")
        return cells


@dataclass(frozen=True)
class _Prepared:
    path: Path
    reading: Reading | None
    tensor: Any
    seconds: float
    error: str = ""


def predict_images(
    model: Model | Classifier,
    paths: Sequence[Path],
    rows: Rows,
    batch_size: int,
    out: Path | None = None,
    map_format: MapFormat = "tiff",
    on_row: Callable[[Row], None] = lambda _: None,
    max_pixels: int | None = None,
) -> Counts:
    """Predict images and write one row each, in the order of `paths`, after each batch.

    Args:
        model: a detector or a classifier.
        paths: paths of the images.
        rows: stream for the rows.
        batch_size: images in one pass of the network.
        out: folder for pictures; None for no pictures.
        map_format: format of the maps, tiff or png.
        on_row: called with each row.
        max_pixels: largest number of pixels of an image; None for `harness.data.images.MAX_PIXELS`.

    Returns:
        Numbers of images by label, and of failed images.

    Raises:
        StoreError: the folder for pictures can't be written.
    """
    writer = CsvRows(rows)
    writer.write(model.columns)
    counts = Counts(model.kinds)
    names = stems(paths) if out is not None else {}
    with ThreadPoolExecutor(min(THREADS, count())) as pool:
        for batch in _batches(
            _read_ahead(pool, partial(_prepare, model, max_pixels), paths, batch_size + THREADS), batch_size
        ):
            predicted = list(_predicted(model, batch))
            if out is not None:
                draw = partial(_with_pictures, out, names, map_format)
                predicted = list(pool.map(draw, predicted))
            for row, _ in predicted:
                writer.write(row.cells(model.columns))
                counts.add(row)
                on_row(row)
            rows.flush()
    return counts


def predict_reading(model: Model | Classifier, path: Path, reading: Reading) -> Row:
    """Predict an image in memory. An image that fails has a row with its error.

    Args:
        model: a detector or a classifier.
        path: names the image in its row.
        reading: the image as read.
    """
    ((row, _),) = _predicted(model, [_prepared(model, path, lambda: reading)])
    return row


def rows_csv(model: Model | Classifier, rows: Sequence[Row]) -> str:
    """Rows as the text of the file that `predict_images` writes.

    Args:
        model: the model of the rows.
        rows: in the order of the text.
    """
    return csv_text([model.columns, *(row.cells(model.columns) for row in rows)])


def _with_pictures(
    out: Path, names: Mapping[Path, str], map_format: MapFormat, predicted: tuple[Row, Reading | None]
) -> tuple[Row, Reading | None]:
    """Write the pictures of one image. If the pictures of this image fail, its row gets the error."""
    row, reading = predicted
    if not isinstance(row.result, Result) or reading is None:
        return predicted
    try:
        write_pictures(out, names[row.path], reading.pixels, row.result, map_format)
    except StoreError:
        raise
    except Exception as error:  # noqa: BLE001
        return replace(row, error=_message(error, row.path)), reading
    return predicted


def _read_ahead(
    pool: ThreadPoolExecutor, prepare: Callable[[Path], _Prepared], paths: Sequence[Path], ahead: int
) -> Iterator[_Prepared]:
    pending: deque[Future[_Prepared]] = deque()
    remaining = iter(paths)
    while True:
        pending.extend(pool.submit(prepare, path) for path in islice(remaining, ahead - len(pending)))
        if not pending:
            return
        yield pending.popleft().result()


def _prepare(model: Model | Classifier, max_pixels: int | None, path: Path) -> _Prepared:
    return _prepared(model, path, partial(read, path, max_pixels or MAX_PIXELS))


def _prepared(model: Model | Classifier, path: Path, read_image: Callable[[], Reading]) -> _Prepared:
    start = time.perf_counter()
    try:
        reading = read_image()
        tensor = model.prepare(reading)
    except Exception as error:  # noqa: BLE001
        # Only this image fails, for example because one pixel of height is too small for the model.
        return _Prepared(path, None, None, time.perf_counter() - start, _message(error, path))
    return _Prepared(path, reading, tensor, time.perf_counter() - start)


def _batches(prepared: Iterator[_Prepared], size: int) -> Iterator[list[_Prepared]]:
    while batch := list(islice(prepared, size)):
        yield batch


def _predicted(model: Model | Classifier, batch: Sequence[_Prepared]) -> Iterator[tuple[Row, Reading | None]]:
    """A row for each image of a batch. If the batch fails, the images are predicted one by one."""
    readable = [image for image in batch if image.reading is not None]
    rows: dict[Path, Row] = {}
    try:
        rows = _score(model, readable)
    except Exception:  # noqa: BLE001
        for image in readable:
            try:
                rows |= _score(model, [image])
            except Exception as error:  # noqa: BLE001
                rows[image.path] = Row(image.path, None, image.seconds, _message(error, image.path))
    for image in batch:
        yield rows.get(image.path) or Row(image.path, None, image.seconds, image.error), image.reading


def _score(model: Model | Classifier, images: Sequence[_Prepared]) -> dict[Path, Row]:
    if not images:
        return {}
    start = time.perf_counter()
    batch = [(str(image.path), image.reading) for image in images if image.reading is not None]
    results: Sequence[Result | ClassResult] = model.results(batch, [image.tensor for image in images])
    share = (time.perf_counter() - start) / len(images)
    return {image.path: Row(image.path, r, image.seconds + share) for image, r in zip(images, results, strict=True)}


def _message(error: Exception, path: Path) -> str:
    """The error's text without the path, which the row has already."""
    text = str(error) if isinstance(error, HarnessError) else f"{type(error).__name__}: {error}"
    return text.removeprefix(f"{path}: ").replace("\n", " ")
