"""The Python face of a classification: load it, hand it images, read what they are."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from harness import registry
from harness.backends.base import Backend
from harness.common.errors import DataError, StoreError
from harness.config.spec import RunSpec
from harness.data.images import Reading
from harness.data.labelled.base import LabelSpec
from harness.inference.find import SavedRun, find_run
from harness.inference.model import BATCH, is_one, is_unchanged, open_image
from harness.inference.rows import CLASS_COLUMNS

if TYPE_CHECKING:
    from harness.backends.supervised.classifier import SupervisedScorer

CLASSIFICATION = "classification"


@dataclass(frozen=True)
class ClassResult:
    """The prediction of a classifier for one image.

    Attributes:
        labels: all labels.
        label_specs: class and condition of each label.
        probabilities: shape (labels,), with sum 1; averaged over folds and views.
        path: of the image; None for an image in memory.
        reading: changes to the image in reading, a few words each.
    """

    labels: tuple[str, ...]
    label_specs: tuple[LabelSpec, ...]
    probabilities: npt.NDArray[np.float64]
    path: str | None = None
    reading: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        """The label with the largest probability."""
        return self.labels[int(self.probabilities.argmax())]

    @property
    def probability(self) -> float:
        """The probability of `label`."""
        return float(self.probabilities.max())

    @property
    def part(self) -> str:
        """The class of `label`."""
        return self.label_specs[int(self.probabilities.argmax())][0]

    @property
    def state(self) -> str:
        """The condition of `label`."""
        return self.label_specs[int(self.probabilities.argmax())][1]

    @property
    def kind(self) -> str:
        """The same as `label`."""
        return self.label

    def cells(self) -> list[str]:
        """The columns of the rows that are the task's own."""
        first, second = np.argsort(-self.probabilities, kind="stable")[:2]
        return [
            self.labels[first],
            f"{self.probabilities[first]:.6f}",
            self.labels[second],
            f"{self.probabilities[second]:.6f}",
        ]


class Classifier:
    """A trained classification with all its folds. Any number of threads may call `predict` at once.

    Args:
        scorer: computes probabilities.
        run: the run that trained it.

    Attributes:
        scorer: computes probabilities.
        run: the run that trained it.
    """

    columns = CLASS_COLUMNS
    kinds: tuple[str, ...] = ()

    def __init__(self, scorer: SupervisedScorer, run: SavedRun) -> None:
        self.scorer, self.run = scorer, run
        self._lock = Lock()

    @property
    def labels(self) -> tuple[str, ...]:
        """All labels, in the order of the probabilities."""
        return self.scorer.labels

    @property
    def notes(self) -> tuple[str, ...]:
        """Warnings about the predictions, one sentence each."""
        return self.run.doubts

    def prepare(self, reading: Reading) -> Any:
        """An image as `results` takes it; called by several threads at once."""
        return self.scorer.prepare(reading.pixels)

    def results(self, batch: Sequence[tuple[str | None, Reading]], prepared: Sequence[Any]) -> list[ClassResult]:
        """Classify images that are read and prepared already.

        Args:
            batch: path or None, and the image as read.
            prepared: what `prepare` made of each.
        """
        with self._lock:
            found = self.scorer.probabilities(prepared)
        return [
            ClassResult(self.scorer.labels, self.scorer.label_specs, one, path, reading.notes)
            for one, (path, reading) in zip(found, batch, strict=True)
        ]

    def predict(self, images: Any, batch_size: int = BATCH) -> ClassResult | list[ClassResult]:
        """Classify one image, or several.

        Args:
            images: as for `Model.predict`.
            batch_size: number of images in a batch.

        Returns:
            A `ClassResult` for one image; a list of them in the same order for several.

        Raises:
            DataError: something is no image, or can't be read.
        """
        if batch_size < 1:
            raise DataError(f"batch_size: {batch_size} found, 1 or more expected.")
        if is_one(images):
            return next(self._named([images], 1))
        if not isinstance(images, Iterable):
            raise DataError(
                f"image: {type(images).__name__} found; expected a path, a PIL image, an array or a tensor."
            )
        return list(self._named(images, batch_size))

    def _named(self, images: Iterable[Any], batch_size: int) -> Iterator[ClassResult]:
        batch: list[tuple[str | None, Reading]] = []
        for image in images:
            batch.append(open_image(image))
            if len(batch) == batch_size:
                yield from self.results(batch, [self.prepare(reading) for _, reading in batch])
                batch = []
        if batch:
            yield from self.results(batch, [self.prepare(reading) for _, reading in batch])


def load_classifier(path: str | Path, *, device: str = "auto") -> Classifier:
    """Load a trained classification.

    Args:
        path: a run's folder, or a sweep's folder (its best run).
        device: auto, cpu, cuda, cuda:N or mps.

    Raises:
        StoreError: there is no run or no model, the record is damaged, or the task is another one.
        WeightsError: the model's file is damaged or has changed.
        ConfigError: this machine has no such device.
    """
    return classifier_of(find_run(Path(path)), device)


def classifier_of(run: SavedRun, device: str) -> Classifier:
    """Of a run that was found; see `load_classifier`."""
    if run.record.task != CLASSIFICATION:
        raise StoreError(
            f"{run.folder}: a run of task {run.record.task} found; expected a classification (load_model)."
        )
    is_unchanged(run)
    try:
        spec = RunSpec.from_dict(run.record.spec)
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise StoreError(f"{run.folder}: its record can't be used ({type(error).__name__}: {error}).") from error
    backend: Backend = registry.lookup(registry.BACKENDS, "backend", spec.backend)()
    return Classifier(backend.load(spec, run.file, device, trust=False), run)
