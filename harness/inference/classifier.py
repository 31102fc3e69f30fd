"""The Python interface of a trained classification: load the networks, predict labels of images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harness.backends.scorers import LabelScorer
from harness.common.errors import ConfigError, DataError, StoreError, unknown_name
from harness.config.axes import SMALLEST_SIDE
from harness.config.coverage import checked_coverage
from harness.data.images import Reading
from harness.inference.class_result import ClassResult
from harness.inference.find import SavedRun, find_run
from harness.inference.predictor import BATCH, Predictor, load_saved, open_image
from harness.inference.promise import Promise
from harness.inference.rows import CLASS_COLUMNS
from harness.metrics.temperature import Temperature
from harness.predictions.classification import ClassPredictions
from harness.predictions.detection import Floats
from harness.predictions.drawing import at_image_size
from harness.results.exported import EXPORTED_FILES
from harness.results.temperature import temperature_of


class Classifier(Predictor[ClassResult, LabelScorer]):
    """A trained classification with the networks of all folds. Any number of threads may call `predict` at once.

    Args:
        scorer: computes the probabilities.
        run: the run of the networks; None for an exported file.
        promise: makes the label sets, from raw probabilities.
        temperature: calibrates the probabilities.
        reading: conversions of all images, for `ClassResult.reading`.

    Attributes:
        scorer: computes the probabilities.
        run: the run of the networks; None for an exported file.
        promise: makes the label sets, from raw probabilities.
        temperature: calibrates the probabilities.
    """

    task = "classification"
    columns = CLASS_COLUMNS

    def __init__(
        self,
        scorer: LabelScorer,
        run: SavedRun | None,
        promise: Promise,
        temperature: Temperature,
        reading: tuple[str, ...] = (),
    ) -> None:
        super().__init__(scorer, run)
        self.promise, self.temperature = promise, temperature
        self._reading = reading

    @property
    def notes(self) -> tuple[str, ...]:
        """Limits of the predictions that a user must know, one sentence each."""
        return (*super().notes, *self.scorer.notes, self.temperature.sentence, self.promise.note)

    @property
    def labels(self) -> tuple[str, ...]:
        """All labels, in the order of the probabilities."""
        return self.scorer.labels

    def results(self, batch: Sequence[tuple[str | None, Reading]], prepared: Sequence[Any]) -> list[ClassResult]:
        """Predict the labels of prepared images.

        Args:
            batch: for each image its path, or None, and the image as read.
            prepared: for each image the output of `prepare`.

        Returns:
            One result for each image, in the same order.
        """
        with self._lock:
            by_fold = self.scorer.by_fold(prepared)
        sets = self.promise.label_sets(by_fold, self.labels)
        raw = by_fold.mean(axis=0)
        calibrated = self.temperature.apply(raw)
        read = [(path, (*reading.notes, *self._reading)) for path, reading in batch]
        return [
            ClassResult(self.labels, self.scorer.label_specs, row, raw_row, path, notes, label_set)
            for row, raw_row, label_set, (path, notes) in zip(calibrated, raw, sets, read, strict=True)
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

    def at_image_size(self, side: int) -> Classifier:
        """Return this classifier for images that are read at another size.

        The label sets and the temperature of a run hold for its own size. So at another size there are no label sets,
        and the probabilities are raw.

        Args:
            side: height and width of the read images, in pixels.

        Raises:
            ConfigError: the model predicts at its own size only, or the side is no whole number from 16 up.
        """
        if isinstance(side, bool) or not isinstance(side, int) or side < SMALLEST_SIDE:
            raise ConfigError(
                f"image_size: {side!r} found; expected a whole number of pixels, {SMALLEST_SIDE} or more."
            )
        scorer = self.scorer.at_image_size((side, side))
        if scorer is self.scorer:
            return self
        size = f"{side} x {side} pixels"
        why = f"images are read at {size}, which is not the size of the run"
        promise = Promise(self.promise.coverage, None, f"there are no label sets and no answers: {why}")
        return Classifier(scorer, self.run, promise, Temperature(note=why), (f"at {size}",))

    def grad_cam(self, image: Any, label: str | None = None) -> Floats | None:
        """Show which pixels make the networks predict a label: Grad-CAM, the mean over the folds' networks.

        Args:
            image: one image, in the forms that `harness.inference.model.Model.predict` takes.
            label: the label; None for the most probable one.

        Returns:
            (height, width) of the image, from 0 to 1; None where the networks have no maps, see `scorer.map_note`.

        Raises:
            DataError: the image can't be read, or the run has no such label.
        """
        _, reading = open_image(image)
        prepared = [self.prepare(reading)]
        if label is not None and label not in self.labels:
            raise DataError(unknown_name("label", label, self.labels))
        with self._lock:
            position = self.scorer.probabilities(prepared)[0].argmax() if label is None else self.labels.index(label)
            maps = self.scorer.grad_cam(prepared, [int(position)])
        size = (reading.pixels.shape[0], reading.pixels.shape[1])
        return None if maps is None else at_image_size(maps[0], size, None)


def load_classifier(
    path: str | Path,
    *,
    device: str = "auto",
    coverage: float | None = None,
    trust: bool = False,
    image_size: int | None = None,
) -> Classifier:
    """Load a trained classification.

    Args:
        path: a run's folder, a sweep's folder for its best run, or an exported file.
        device: auto, cpu, cuda, cuda:N or mps.
        coverage: promised coverage of the label sets; None for that of the sweep.
        trust: whether a TorchScript file may be executed.
        image_size: height and width of the read images, in pixels; None for those of the run. See
            `Classifier.at_image_size`.

    Returns:
        The classifier, ready to predict.

    Raises:
        StoreError: there is no run or no saved model, the record is damaged, or the run has another task.
        WeightsError: the model's file is damaged or was changed.
        ConfigError: this machine has no such device, the coverage is no number between 0 and 1, or the model predicts
            at its own size only.
    """
    path = Path(path)
    if path.is_file() and path.suffix in EXPORTED_FILES:
        return _resized(_from_file(path, device, coverage, trust), image_size, coverage)
    return classifier_of(find_run(path), device, coverage, image_size)


def _resized(classifier: Classifier, image_size: int | None, coverage: float | None) -> Classifier:
    if image_size is None:
        return classifier
    resized = classifier.at_image_size(image_size)
    if coverage is not None and resized is not classifier:
        raise ConfigError(
            f"coverage: {coverage:g} found with image_size {image_size}, which is not the size of the run; expected "
            "one of both, since the promise holds for the size of the run only. Remove one."
        )
    return resized


def _from_file(path: Path, device: str, coverage: float | None, trust: bool) -> Classifier:
    from harness.inference.exported import check_device
    from harness.inference.exported_classifier import ExportedClassifier

    check_device(device)
    exported = ExportedClassifier(path, trust)
    promised = exported.coverage if coverage is None else checked_coverage(coverage)
    promise = Promise(promised, None, "there are no label sets: the file has no calibration")
    if exported.calibration is not None:
        promise = Promise.by(exported.calibration, promised)
    return Classifier(exported, None, promise, exported.temperature)


def classifier_of(
    run: SavedRun, device: str, coverage: float | None = None, image_size: int | None = None
) -> Classifier:
    """Load the classification of a run that `find_run` returned.

    Args:
        run: a run of task classification.
        device: auto, cpu, cuda, cuda:N or mps.
        coverage: promised coverage of the label sets; None for that of the sweep.
        image_size: see `load_classifier`.

    Returns:
        The classifier, ready to predict.

    Raises:
        StoreError: the record is damaged, or the run has another task.
        WeightsError: the model's file is damaged or was changed.
        ConfigError: this machine has no such device, the coverage is no number between 0 and 1, or the model predicts
            at its own size only.
    """
    scorer, _ = load_saved(run, Classifier.task, device, False, "Use load_model for this run.")
    classifier = Classifier(scorer, run, Promise.of(run, coverage), _temperature(run))
    return _resized(classifier, image_size, coverage)


def _temperature(run: SavedRun) -> Temperature:
    try:
        return temperature_of(run.record, lambda: ClassPredictions.load(run.folder))
    except StoreError as error:
        return Temperature(note=str(error))
