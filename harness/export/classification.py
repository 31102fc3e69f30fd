"""Export of a classification: the facts of its JSON file, and the comparison of the file with the networks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from harness.backends.formats import Format
from harness.common.errors import ExportError
from harness.export.check import batches, outputs_of
from harness.inference.classifier import Classifier, load_classifier
from harness.inference.exported_classifier import BY_FOLD, OUTPUTS, ExportedClassifier
from harness.inference.find import SavedRun
from harness.predictions.classification import ClassPredictions

TOLERANCE = 5e-3  # of a probability; Pillow may resize a tall image with other rounding


@dataclass(frozen=True)
class Check:
    """The result of a comparison.

    Attributes:
        images: number of compared images, alone and in batches.
        largest_difference: largest difference of two probabilities.
    """

    images: int
    largest_difference: float

    def sentence(self) -> str:
        """The result in one sentence."""
        return (
            f"Checked on {self.images} image{'' if self.images == 1 else 's'}: probabilities differ by at most "
            f"{self.largest_difference:.1e}, no label differs."
        )


def image_names(run: SavedRun) -> list[str]:
    """The names of the run's test images, or of its training images where there is no test."""
    predictions = ClassPredictions.load(run.folder)
    return list(predictions.test_names or predictions.names)


def write(classifier: Classifier, file_format: Format, file: Path) -> list[str]:
    """Write the model file and return the names of its outputs.

    Args:
        classifier: the classification.
        file_format: format of the file.
        file: path of the file.
    """
    return classifier.scorer.export(file_format, file)


def facts(classifier: Classifier, outputs: Sequence[str]) -> dict[str, Any]:
    """The entries of the JSON file that only a classification has.

    Args:
        classifier: the classification.
        outputs: names of the file's outputs.
    """
    scorer, promise = classifier.scorer, classifier.promise
    calibration = promise.calibration
    return {
        "task": Classifier.task,
        "outputs": {name: OUTPUTS[name] for name in outputs},
        "labels": [
            {"label": label, "class": class_name, "condition": condition}
            for label, (class_name, condition) in zip(scorer.labels, scorer.label_specs, strict=True)
        ],
        "coverage": promise.coverage,
        "temperature": vars(classifier.temperature),
        "calibration": None if calibration is None else [scores.tolist() for scores in calibration.scores],
    }


def load(file: Path) -> Classifier:
    """Load the exported classification, which this process wrote, so that it is safe to execute.

    Args:
        file: the exported classification.
    """
    return load_classifier(file, trust=True)


def compare(classifier: Classifier, exported: Classifier, images: Sequence[Path]) -> Check:
    """Predict images with networks and file, one by one and in batches of one size, and compare the probabilities.

    Args:
        classifier: the original networks.
        exported: result of `load`.
        images: paths of images.

    Returns:
        The number of images and the largest difference.

    Raises:
        ExportError: a probability differs by more than 0.005, or a label differs.
        DataError: an image can't be read.
    """
    assert isinstance(exported.scorer, ExportedClassifier)
    largest = 0.0
    for paths, batch in batches(images):
        expected = classifier.scorer.by_fold([classifier.scorer.prepare(pixels) for pixels in batch])
        written = outputs_of(exported.scorer, batch, paths[0])[BY_FOLD].transpose(1, 0, 2)
        difference = (
            np.abs(written - expected).max(axis=(0, 2)) if written.shape == expected.shape else np.array([np.inf])
        )
        if not difference.max() <= TOLERANCE:
            raise ExportError(
                f"{paths[int(difference.argmax())]}: the probabilities in the exported file differ from Torch's by "
                f"{difference.max():.1e}, at most {TOLERANCE:g} expected; the file was removed. Try another --format."
            )
        _compare_labels(paths, classifier.labels, expected.mean(axis=0), written.mean(axis=0))
        largest = max(largest, float(difference.max()))
    return Check(len(images), largest)


def _compare_labels(paths: Sequence[Path], labels: Sequence[str], expected: Any, actual: Any) -> None:
    for path, one, other in zip(paths, expected, actual, strict=True):
        # Labels with almost equal probabilities may change places.
        if one.max() - one[int(other.argmax())] > 2 * TOLERANCE:
            raise ExportError(
                f"{path}: {labels[int(other.argmax())]} in the exported file, {labels[int(one.argmax())]} in Torch; "
                "the file was removed. Try another --format."
            )
