"""The command: images in, one row and a few pictures each out; what can't be read is a row with its error."""

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
from harness.common.tables import guarded_path
from harness.data.images import MAX_PIXELS, Reading, read
from harness.inference.classifier import Classifier, ClassResult
from harness.inference.model import Model
from harness.inference.pictures import MapFormat, stems, write_pictures
from harness.inference.result import Result
from harness.inference.rows import COLUMNS

THREADS = 4  # that read and write; the network has the cores
SHOWN = 5  # kinds of images that the sentence counts
OWN = len(COLUMNS) - 4  # columns that are the task's own


class Rows(Protocol):
    """Where rows go."""

    def write(self, text: str, /) -> object:
        """A row."""

    def flush(self) -> object:
        """Have them where others can read them."""


@dataclass
class Counts:
    """How many images were found to be what.

    Attributes:
        kinds: those that are named even where there are none.
        found: how many of each kind.
        failed: images without an answer, or without their pictures.
    """

    kinds: Sequence[str] = ()
    found: Counter[str] = field(default_factory=Counter)
    failed: int = 0

    def add(self, row: Row) -> None:
        """One more."""
        if row.error or row.result is None:
            self.failed += 1
        else:
            self.found[row.result.kind] += 1

    def sentence(self) -> str:
        """For a person."""
        total = self.found.total() + self.failed
        always = self.kinds if any(self.found[kind] for kind in self.kinds) else ()
        parts = [f"{self.found[kind]} {kind}" for kind in always]
        rest = [(kind, count) for kind, count in self.found.most_common() if kind not in self.kinds]
        parts += [f"{count} {kind}" for kind, count in rest[:SHOWN]]
        parts += [f"{sum(count for _, count in rest[SHOWN:])} others"] if len(rest) > SHOWN else []
        parts += [f"{self.failed} failed (see their rows)"] if self.failed else []
        return f"{total} image{'' if total == 1 else 's'}: {', '.join(parts)}."


@dataclass(frozen=True)
class Row:
    """What came of one image.

    Attributes:
        path: of the image.
        result: None where it could not be judged.
        seconds: reading and preparing it, and its share of its batch's scoring.
        error: why it failed, or its pictures.
    """

    path: Path
    result: Result | ClassResult | None
    seconds: float
    error: str = ""

    def cells(self, columns: Sequence[str]) -> list[str]:
        """In the order of `columns`; blank where there is nothing to say."""
        result = self.result
        cells = [
            guarded_path(str(self.path)),
            *(result.cells() if result else [""] * OWN),
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
    tell: Callable[[Row], None] = lambda _: None,
    max_pixels: int | None = None,
) -> Counts:
    """Judge images; rows are written as they are known, in the order of `paths`.

    Args:
        model: loaded.
        paths: of the images.
        rows: where the rows go.
        batch_size: images that the network sees at a time.
        out: where pictures go, None for nowhere.
        map_format: of the maps there.
        tell: called with each row.
        max_pixels: that an image may have; None for `harness.data.images.MAX_PIXELS`.

    Raises:
        StoreError: pictures can't be written.
    """
    writer = CsvRows(rows)
    writer.write(model.columns)
    counts = Counts(model.kinds)
    names = stems(paths) if out is not None else {}
    with ThreadPoolExecutor(THREADS) as pool:
        for batch in _batches(
            _read_ahead(pool, partial(_prepare, model, max_pixels), paths, batch_size + THREADS), batch_size
        ):
            judged = list(_judge(model, batch))
            if out is not None:
                draw = partial(_with_pictures, out, names, map_format)
                judged = list(pool.map(draw, judged))
            for row, _ in judged:
                writer.write(row.cells(model.columns))
                counts.add(row)
                tell(row)
            rows.flush()
    return counts


def _with_pictures(
    out: Path, names: Mapping[Path, str], map_format: MapFormat, judged: tuple[Row, Reading | None]
) -> tuple[Row, Reading | None]:
    """The row, with its error where its pictures could not be made; a folder that nothing can be written to is one."""
    row, reading = judged
    if not isinstance(row.result, Result) or reading is None:
        return judged
    try:
        write_pictures(out, names[row.path], reading.pixels, row.result, map_format)
    except StoreError:
        raise
    except Exception as error:  # noqa: BLE001
        return replace(row, error=_said(error, row.path)), reading
    return judged


def _read_ahead(
    pool: ThreadPoolExecutor, prepare: Callable[[Path], _Prepared], paths: Sequence[Path], ahead: int
) -> Iterator[_Prepared]:
    waiting: deque[Future[_Prepared]] = deque()
    left = iter(paths)
    while True:
        waiting.extend(pool.submit(prepare, path) for path in islice(left, ahead - len(waiting)))
        if not waiting:
            return
        yield waiting.popleft().result()


def _prepare(model: Model | Classifier, max_pixels: int | None, path: Path) -> _Prepared:
    start = time.perf_counter()
    try:
        reading = read(path, max_pixels or MAX_PIXELS)
        tensor = model.prepare(reading)
    except Exception as error:  # noqa: BLE001
        # One image of a pixel's height, say, may be too small for a model: that image's failure alone.
        return _Prepared(path, None, None, time.perf_counter() - start, _said(error, path))
    return _Prepared(path, reading, tensor, time.perf_counter() - start)


def _batches(prepared: Iterator[_Prepared], size: int) -> Iterator[list[_Prepared]]:
    while batch := list(islice(prepared, size)):
        yield batch


def _judge(model: Model | Classifier, batch: Sequence[_Prepared]) -> Iterator[tuple[Row, Reading | None]]:
    """A row for each image of a batch; what fails together is tried alone."""
    good = [one for one in batch if one.reading is not None]
    answers: dict[Path, Row] = {}
    try:
        answers = _score(model, good)
    except Exception:  # noqa: BLE001
        for one in good:
            try:
                answers |= _score(model, [one])
            except Exception as error:  # noqa: BLE001
                answers[one.path] = Row(one.path, None, one.seconds, _said(error, one.path))
    for one in batch:
        yield answers.get(one.path) or Row(one.path, None, one.seconds, one.error), one.reading


def _score(model: Model | Classifier, images: Sequence[_Prepared]) -> dict[Path, Row]:
    if not images:
        return {}
    start = time.perf_counter()
    given = [(str(one.path), one.reading) for one in images if one.reading is not None]
    results: Sequence[Result | ClassResult] = model.results(given, [one.tensor for one in images])
    share = (time.perf_counter() - start) / len(images)
    return {one.path: Row(one.path, result, one.seconds + share) for one, result in zip(images, results, strict=True)}


def _said(error: Exception, path: Path) -> str:
    """An error without the path, which the row has already."""
    text = str(error) if isinstance(error, HarnessError) else f"{type(error).__name__}: {error}"
    return text.removeprefix(f"{path}: ").replace("\n", " ")
