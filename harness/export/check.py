"""An exported file against the model that it was made of, on real images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from harness.common.errors import DataError, ExportError
from harness.data.images import RGB, read
from harness.inference.exported import ExportedFile, as_input
from harness.inference.find import SavedRun
from harness.inference.model import Model
from harness.inference.result import Result
from harness.predictions.detection import Floats
from harness.results.scores import read_scores

TOLERANCE = 1e-3  # of a score, relative
MAP_TOLERANCE = 1e-2  # of a map's range: a single patch may find another neighbour that is as near
IMAGES = 20
BATCH = 4


@dataclass(frozen=True)
class Check:
    """What a comparison found.

    Attributes:
        images: how many were compared, alone and in batches.
        largest_relative_difference: of a score.
        largest_difference_of_maps: of a value, relative to the range of its map; None for a model without maps.
    """

    images: int
    largest_relative_difference: float
    largest_difference_of_maps: float | None


def test_images(run: SavedRun, count: int = IMAGES) -> list[Path]:
    """Test images of a run that are still there, spread evenly over scores.csv.

    Raises:
        DataError: none is there.
    """
    root = Path(str(run.record.data.get("root", "")))
    scores = read_scores(run.folder)
    names = scores.names if scores is not None else ()
    there = [root / name for name in names if (root / name).is_file()]
    if not there:
        raise DataError(
            f"export: none of the {len(names)} test images of the run found below {root}; a file that can't be checked "
            "is not written. Name other images with --check PATH."
        )
    picked = np.linspace(0, len(there) - 1, min(count, len(there))).round().astype(int)
    return [there[index] for index in picked]


test_images.__test__ = False  # type: ignore[attr-defined]  # no test, whatever pytest makes of its name


def compare(model: Model, exported: ExportedFile, images: Sequence[Path]) -> Check:
    """Judge images with both, one by one and in batches of one size.

    Raises:
        ExportError: a score differs by more than a thousandth, a map by a hundredth of its range, or a label at all.
        DataError: an image can't be read.
    """
    readings = [read(path, max_pixels=None) for path in images]
    worst, worst_map = 0.0, None
    for group in [*([index] for index in range(len(images))), *_batches([one.pixels.shape for one in readings])]:
        # The same batches: some models' scores depend on the images beside.
        expected = model.predict([readings[index].pixels for index in group], batch_size=len(group))
        answers = _answers(exported, [readings[index].pixels for index in group], images[group[0]])
        for place, index in enumerate(group):
            score = float(answers["score"][place])
            worst = max(worst, _score(images[index], expected[place], score))
            if "label" in answers:
                _label(images[index], expected[place], bool(answers["label"][place]))
            if "normalized_score" in answers:
                _normalized(images[index], expected[place], float(answers["normalized_score"][place]))
            true_map = expected[place].anomaly_map
            if true_map is not None:
                worst_map = max(worst_map or 0.0, _map(images[index], true_map, answers["anomaly_map"][place]))
    return Check(len(images), worst, worst_map)


def _answers(exported: ExportedFile, images: Sequence[RGB], first: Path) -> Mapping[str, npt.NDArray[Any]]:
    try:
        return exported.answers(as_input(images))
    # Whatever the runtime raises: a traced model may hold sizes of the example that it was traced with, say.
    except Exception as error:
        said = next((line for line in reversed(str(error).splitlines()) if line.strip()), "")[:200]
        raise ExportError(
            f"{first}: the exported file fails on {len(images)} image{'' if len(images) == 1 else 's'} of this size "
            f"({type(error).__name__}: {said}); the file was removed. Try another --format."
        ) from error


def _batches(shapes: Sequence[tuple[int, ...]]) -> list[list[int]]:
    found = []
    for shape in dict.fromkeys(shapes):
        alike = [index for index, other in enumerate(shapes) if other == shape]
        found += [alike[first : first + BATCH] for first in range(0, len(alike), BATCH)]
    # Where no two have one size, one image twice: a batch must have been tried.
    return [group for group in found if len(group) > 1] or [[0, 0]]


def _score(path: Path, expected: Result, score: float) -> float:
    difference = abs(score - expected.score) / max(abs(expected.score), 1e-12)
    if not difference <= TOLERANCE:
        raise ExportError(
            f"{path}: score {score:.6g} in the exported file, {expected.score:.6g} in Torch, a relative difference of "
            f"{difference:.1e} where {TOLERANCE:g} is allowed; the file was removed. Try another --format."
        )
    return difference


def _normalized(path: Path, expected: Result, value: float) -> None:
    if expected.normalized_score is None or not abs(value - expected.normalized_score) <= TOLERANCE:
        raise ExportError(
            f"{path}: normalised score {value:.6g} in the exported file, {expected.normalized_score} in Torch; the "
            "file was removed. Try another --format."
        )


def _map(path: Path, expected: Floats, found: Floats) -> float:
    span = float(expected.max() - expected.min()) or 1.0
    difference = float(np.abs(found - expected).max()) / span if found.shape == expected.shape else np.inf
    if not difference <= MAP_TOLERANCE:
        raise ExportError(
            f"{path}: the anomaly map in the exported file differs from Torch's by {difference:.1e} of its range, "
            f"where {MAP_TOLERANCE:g} is allowed; the file was removed. Try another --format."
        )
    return difference


def _label(path: Path, expected: Result, label: bool) -> None:
    if label != expected.label:
        words = {True: "anomalous", False: "normal", None: "none"}
        raise ExportError(
            f"{path}: {words[label]} in the exported file, {words[expected.label]} in Torch (score "
            f"{expected.score:.8g}, threshold {expected.threshold:.8g}); the file was removed. Try another --format, "
            "or fix another threshold."
        )
