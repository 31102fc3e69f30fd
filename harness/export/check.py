"""Compare an exported file with its original model, on real images."""

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

TOLERANCE = 1e-3  # relative difference of scores
MAP_TOLERANCE = 1e-2  # of a map's range; a patch may have two nearest neighbours at the same distance
IMAGES = 20
BATCH = 4


@dataclass(frozen=True)
class Check:
    """The result of a comparison.

    Attributes:
        images: number of compared images, alone and in batches.
        largest_relative_difference: largest relative difference of two scores.
        largest_difference_of_maps: largest difference of two map values, relative to the range of the map; None for a
            model without maps.
    """

    images: int
    largest_relative_difference: float
    largest_difference_of_maps: float | None


def test_images(run: SavedRun, count: int = IMAGES) -> list[Path]:
    """Select test images of a run that still exist, spread evenly over scores.csv.

    Args:
        run: a run with a saved model.
        count: largest number of images.

    Raises:
        DataError: no test image exists any more.
    """
    root = Path(str(run.record.data.get("root", "")))
    scores = read_scores(run.folder)
    names = scores.names if scores is not None else ()
    paths = [root / name for name in names if (root / name).is_file()]
    if not paths:
        raise DataError(
            f"export: none of the {len(names)} test images of the run found below {root}; expected images to check the "
            "file. Name other images with --check PATH."
        )
    indices = np.linspace(0, len(paths) - 1, min(count, len(paths))).round().astype(int)
    return [paths[index] for index in indices]


test_images.__test__ = False  # type: ignore[attr-defined]  # pytest takes this name for a test


def compare(model: Model, exported: ExportedFile, images: Sequence[Path]) -> Check:
    """Predict images with model and file, one by one and in batches of one size, and compare the predictions.

    Args:
        model: the original model.
        exported: the exported file.
        images: paths of images.

    Returns:
        The number of images and the largest differences.

    Raises:
        ExportError: a score differs by more than a thousandth, a map by a hundredth of its range, or a label differs.
        DataError: an image can't be read.
    """
    pixels = [read(path, max_pixels=None).pixels for path in images]
    score_difference, map_difference = 0.0, None
    for group in [*([index] for index in range(len(images))), *_batches([image.shape for image in pixels])]:
        # Both get the same batches, because in some models a score depends on the other images of its batch.
        batch = [pixels[index] for index in group]
        results = model.predict(batch, batch_size=len(group))
        outputs = _outputs(exported, batch, images[group[0]])
        for row, (path, result) in enumerate(zip((images[index] for index in group), results, strict=True)):
            score_difference = max(score_difference, _compare_score(path, result, float(outputs["score"][row])))
            if "label" in outputs:
                _compare_label(path, result, bool(outputs["label"][row]))
            if "normalized_score" in outputs:
                _compare_normalized(path, result, float(outputs["normalized_score"][row]))
            if result.anomaly_map is not None:
                difference = _compare_map(path, result.anomaly_map, outputs["anomaly_map"][row])
                map_difference = max(map_difference or 0.0, difference)
    return Check(len(images), score_difference, map_difference)


def _outputs(exported: ExportedFile, images: Sequence[RGB], first: Path) -> Mapping[str, npt.NDArray[Any]]:
    try:
        return exported.answers(as_input(images))
    # A runtime can raise any exception, for example because a traced model holds the sizes of its example.
    except Exception as error:
        message = next((line for line in reversed(str(error).splitlines()) if line.strip()), "")[:200]
        raise ExportError(
            f"{first}: the exported file fails on {len(images)} image{'' if len(images) == 1 else 's'} of this size "
            f"({type(error).__name__}: {message}); the file was removed. Try another --format."
        ) from error


def _batches(shapes: Sequence[tuple[int, ...]]) -> list[list[int]]:
    batches = []
    for shape in dict.fromkeys(shapes):
        indices = [index for index, other in enumerate(shapes) if other == shape]
        batches += [indices[first : first + BATCH] for first in range(0, len(indices), BATCH)]
    # The comparison needs a batch. If all sizes differ, one image twice is a batch.
    return [batch for batch in batches if len(batch) > 1] or [[0, 0]]


def _compare_score(path: Path, expected: Result, score: float) -> float:
    difference = abs(score - expected.score) / max(abs(expected.score), 1e-12)
    if not difference <= TOLERANCE:
        raise ExportError(
            f"{path}: score {score:.6g} in the exported file, {expected.score:.6g} in Torch: relative difference "
            f"{difference:.1e}, at most {TOLERANCE:g} expected; the file was removed. Try another --format."
        )
    return difference


def _compare_normalized(path: Path, expected: Result, value: float) -> None:
    if expected.normalized_score is None or not abs(value - expected.normalized_score) <= TOLERANCE:
        raise ExportError(
            f"{path}: normalised score {value:.6g} in the exported file, {expected.normalized_score} in Torch; the "
            "file was removed. Try another --format."
        )


def _compare_map(path: Path, expected: Floats, exported: Floats) -> float:
    span = float(expected.max() - expected.min()) or 1.0
    difference = float(np.abs(exported - expected).max()) / span if exported.shape == expected.shape else np.inf
    if not difference <= MAP_TOLERANCE:
        raise ExportError(
            f"{path}: the anomaly map in the exported file differs from Torch's by {difference:.1e} of its range, "
            f"at most {MAP_TOLERANCE:g} expected; the file was removed. Try another --format."
        )
    return difference


def _compare_label(path: Path, expected: Result, label: bool) -> None:
    if label != expected.label:
        words = {True: "anomalous", False: "normal", None: "none"}
        raise ExportError(
            f"{path}: {words[label]} in the exported file, {words[expected.label]} in Torch (score "
            f"{expected.score:.8g}, threshold {expected.threshold:.8g}); the file was removed. Try another --format, "
            "or set another threshold."
        )
