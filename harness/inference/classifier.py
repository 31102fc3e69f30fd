"""The Python interface of a trained classification: load the networks, predict labels of images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from harness.backends.base import LabelScorer
from harness.data.images import Reading
from harness.data.labelled.base import LabelSpec
from harness.inference.find import SavedRun, find_run
from harness.inference.predictor import BATCH, Predictor, load_saved
from harness.inference.rows import CLASS_COLUMNS

if TYPE_CHECKING:
    pass


@dataclass(frozen=True)
class ClassResult:
    """The prediction of a classifier for one image.

    Attributes:
        labels: all labels of the run.
        label_specs: class and condition of each label.
        probabilities: shape (labels,), summing to 1; averaged over folds and test-time augmentation.
        path: path of the image; None for an image in memory.
        reading: conversions during reading, a few words each.
    """

    labels: tuple[str, ...]
    label_specs: tuple[LabelSpec, ...]
    probabilities: npt.NDArray[np.float64]
    path: str | None = None
    reading: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        """The most probable label."""
        return self.labels[int(self.probabilities.argmax())]

    @property
    def probability(self) -> float:
        """The probability of the most probable label."""
        return float(self.probabilities.max())

    @property
    def part(self) -> str:
        """The class of the most probable label."""
        return self.label_specs[int(self.probabilities.argmax())][0]

    @property
    def state(self) -> str:
        """The condition of the most probable label."""
        return self.label_specs[int(self.probabilities.argmax())][1]

    @property
    def kind(self) -> str:
        """The group in which the command `predict` counts this image: its label."""
        return self.label

    def cells(self) -> list[str]:
        """The cells of a row that depend on the task: the two most probable labels with their probabilities."""
        first, second = np.argsort(-self.probabilities, kind="stable")[:2]
        return [
            self.labels[first],
            f"{self.probabilities[first]:.6f}",
            self.labels[second],
            f"{self.probabilities[second]:.6f}",
        ]


class Classifier(Predictor[ClassResult]):
    """A trained classification with the networks of all folds. Any number of threads may call `predict` at once.

    Args:
        scorer: computes the probabilities.
        run: the run of the networks.

    Attributes:
        scorer: computes the probabilities.
        run: the run of the networks.
    """

    task = "classification"
    columns = CLASS_COLUMNS

    def __init__(self, scorer: LabelScorer, run: SavedRun) -> None:
        super().__init__(run)
        self.scorer = scorer

    @property
    def labels(self) -> tuple[str, ...]:
        """All labels, in the order of the probabilities."""
        return self.scorer.labels

    def prepare(self, reading: Reading) -> Any:
        """Turn an image into the input of `results`. Several threads may call this method at once."""
        return self.scorer.prepare(reading.pixels)

    def results(self, batch: Sequence[tuple[str | None, Reading]], prepared: Sequence[Any]) -> list[ClassResult]:
        """Predict the labels of prepared images.

        Args:
            batch: for each image its path, or None, and the image as read.
            prepared: for each image the output of `prepare`.

        Returns:
            One result for each image, in the same order.
        """
        with self._lock:
            probabilities = self.scorer.probabilities(prepared)
        return [
            ClassResult(self.scorer.labels, self.scorer.label_specs, row, path, reading.notes)
            for row, (path, reading) in zip(probabilities, batch, strict=True)
        ]

    def predict(self, images: Any, batch_size: int = BATCH) -> ClassResult | list[ClassResult]:
        """Predict the label of one image, or of several.

        Args:
            images: one image or several, in the forms that `harness.inference.model.Model.predict` takes.
            batch_size: images in one pass of the networks.

        Returns:
            A `ClassResult` for one image; for several images a list in their order.

        Raises:
            DataError: an image can't be read, or a value is no image.
        """
        return self.predict_any(images, batch_size)


def load_classifier(path: str | Path, *, device: str = "auto") -> Classifier:
    """Load a trained classification.

    Args:
        path: a run's folder, or a sweep's folder for its best run.
        device: auto, cpu, cuda, cuda:N or mps.

    Returns:
        The classifier, ready to predict.

    Raises:
        StoreError: there is no run or no saved model, the record is damaged, or the run has another task.
        WeightsError: the model's file is damaged or was changed.
        ConfigError: this machine has no such device.
    """
    return classifier_of(find_run(Path(path)), device)


def classifier_of(run: SavedRun, device: str) -> Classifier:
    """Load the classification of a run that `find_run` returned.

    Args:
        run: a run of task classification.
        device: auto, cpu, cuda, cuda:N or mps.

    Returns:
        The classifier, ready to predict.

    Raises:
        StoreError: the record is damaged, or the run has another task.
        WeightsError: the model's file is damaged or was changed.
        ConfigError: this machine has no such device.
    """
    scorer, _ = load_saved(run, Classifier.task, device, False, "Use load_model for this run.")
    return Classifier(scorer, run)
