"""Export of a detector: the facts of its JSON file, and the comparison of the file with the model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from harness.backends.formats import Format
from harness.common.errors import ExportError
from harness.export.check import batches, outputs_of
from harness.inference.exported import OUTPUTS, ExportedFile
from harness.inference.find import SavedRun
from harness.inference.model import Model
from harness.inference.result import Result
from harness.predictions.detection import Floats
from harness.results.scores import read_scores

TOLERANCE = 1e-3  # relative difference of scores
MAP_TOLERANCE = 1e-2  # of a map's range; a patch may have two nearest neighbours at the same distance


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

    def sentence(self) -> str:
        """The result in one sentence."""
        return (
            f"Checked on {self.images} image{'' if self.images == 1 else 's'}: scores differ by at most "
            f"{self.largest_relative_difference:.1e} (relative), no label differs."
        )


def image_names(run: SavedRun) -> list[str]:
    """The names of the run's test images, in the order of scores.csv."""
    scores = read_scores(run.folder)
    return list(scores.names) if scores is not None else []


def write(model: Model, file_format: Format, file: Path) -> list[str]:
    """Write the model file and return the names of its outputs.

    Args:
        model: the model.
        file_format: format of the file.
        file: path of the file.
    """
    return model.scorer.export(model.thresholds, file_format, file)


def facts(model: Model, outputs: Sequence[str]) -> dict[str, Any]:
    """The entries of the JSON file that only a detector has.

    Args:
        model: the model.
        outputs: names of the file's outputs.
    """
    crop = list(model.scorer.input_size or (0, 0))
    return {
        "preprocessing": {"resized_to": list(model.scorer.resized or crop), "cut_to": crop},
        "outputs": {name: OUTPUTS[name] for name in outputs},
        "thresholds": asdict(model.thresholds),
    }


def load(file: Path) -> Model:
    """Load the exported model, which this process wrote, so that it is safe to execute.

    Args:
        file: the exported model.
    """
    exported = ExportedFile(file, trust=True)
    return Model(exported, exported.thresholds)


def compare(model: Model, exported: Model, images: Sequence[Path]) -> Check:
    """Predict images with model and file, one by one and in batches of one size, and compare the predictions.

    Args:
        model: the original model.
        exported: result of `load`.
        images: paths of images.

    Returns:
        The number of images and the largest differences.

    Raises:
        ExportError: a score differs by more than a thousandth, a map by a hundredth of its range, or a label differs.
        DataError: an image can't be read.
    """
    assert isinstance(exported.scorer, ExportedFile)
    expected = Model(model.scorer.as_exported(), model.thresholds)
    score_difference, map_difference = 0.0, None
    # Both get the same batches, because in some models a score depends on the other images of its batch.
    for paths, batch in batches(images):
        results = expected.predict(batch, batch_size=len(batch))
        outputs = outputs_of(exported.scorer, batch, paths[0])
        for row, (path, result) in enumerate(zip(paths, results, strict=True)):
            score_difference = max(score_difference, _compare_score(path, result, float(outputs["score"][row])))
            if "label" in outputs:
                _compare_label(path, result, bool(outputs["label"][row]))
            if "normalized_score" in outputs:
                _compare_normalized(path, result, float(outputs["normalized_score"][row]))
            if result.anomaly_map is not None:
                difference = _compare_map(path, result.anomaly_map, outputs["anomaly_map"][row])
                map_difference = max(map_difference or 0.0, difference)
    return Check(len(images), score_difference, map_difference)


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
