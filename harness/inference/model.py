"""The Python interface of a trained detector: load the model, predict scores and maps of images."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import numpy as np
import numpy.typing as npt
from PIL import Image

from harness.backends.scorers import Scorer
from harness.common.compiler import without_compiler
from harness.common.errors import DataError, StoreError
from harness.common.garbage import collector_paused
from harness.data.images import Reading
from harness.inference.find import SavedRun, find_run
from harness.inference.predictor import BATCH, DAMAGED, Predictor, damaged, load_saved, tested
from harness.inference.result import ANOMALOUS, NORMAL, Result
from harness.inference.rows import COLUMNS
from harness.predictions.decision import Thresholds
from harness.results.exported import EXPORTED_FILES
from harness.results.run_folder import MODELS, RECORD
from harness.results.thresholds import thresholds_of

if TYPE_CHECKING:
    import torch


class Model(Predictor[Result, Scorer]):
    """A trained model with its thresholds. Any number of threads may call `predict` at once.

    Args:
        scorer: computes raw scores and maps.
        thresholds: raw thresholds and scales.
        run: the run of the model; None for a model without a run.

    Attributes:
        scorer: computes raw scores and maps.
        thresholds: raw thresholds and scales.
        run: the run of the model; None for a model without a run.
    """

    task = "detection"
    columns = COLUMNS
    kinds = (NORMAL, ANOMALOUS)

    def __init__(self, scorer: Scorer, thresholds: Thresholds, run: SavedRun | None = None) -> None:
        super().__init__(scorer, run)
        self.thresholds = thresholds

    @property
    def notes(self) -> tuple[str, ...]:
        """Limits of the predictions that a user must know, one sentence each."""
        return (*super().notes, *self.scorer.notes, *self.thresholds.notes())

    @overload
    def predict(self, images: str | Path | Image.Image, batch_size: int = BATCH) -> Result: ...

    @overload
    def predict(  # type: ignore[overload-overlap]  # an array is iterable too
        self, images: npt.NDArray[np.uint8] | npt.NDArray[np.uint16] | torch.Tensor, batch_size: int = BATCH
    ) -> Result | list[Result]: ...

    @overload
    def predict(self, images: Iterable[Any], batch_size: int = BATCH) -> list[Result]: ...

    def predict(self, images: Any, batch_size: int = BATCH) -> Result | list[Result]:
        """Predict one image, or several.

        Args:
            images: one image, an iterable of images, or a stack with four dimensions. An image is a path, a PIL image,
                an array or a tensor. Arrays are uint8 or uint16, (height, width, 3) RGB or (height, width) grey.
                Tensors are float, (3, height, width) in [0, 1], and are rounded to 8 bits.
            batch_size: images in one pass of the network.

        Returns:
            A `Result` for one image; for several images a list in their order.

        Raises:
            DataError: an image can't be read, a value is no image, or the model gives no finite score.
        """
        return self.predict_any(images, batch_size)

    def results(self, batch: Sequence[tuple[str | None, Reading]], prepared: Sequence[Any]) -> list[Result]:
        """Predict prepared images.

        Args:
            batch: for each image its path, or None, and the image as read.
            prepared: for each image the output of `prepare`.

        Returns:
            One result for each image, in the same order.

        Raises:
            DataError: the model gives no finite score for an image.
        """
        with self._lock:
            scores, maps = self.scorer.score(prepared)
        results = []
        for index, (path, reading) in enumerate(batch):
            score = float(scores[index])
            if not np.isfinite(score):
                raise DataError(f"{path or 'image'}: score {score} found; expected a finite number from the model.")
            size = (reading.pixels.shape[0], reading.pixels.shape[1])
            anomaly_map = None if maps is None else maps[index]
            results.append(Result(score, anomaly_map, self.thresholds, size, self.scorer.resized, path, reading.notes))
        return results


def load_model(path: str | Path, *, category: str | None = None, device: str = "auto", trust: bool = False) -> Model:
    """Load a trained detector.

    Args:
        path: a run's folder, a sweep's folder for its recommended run, an exported file, or a file of `Detector.save`
            (without thresholds). The model's file in a run's folder stands for that run.
        category: category of the run; needed for a sweep with several categories.
        device: auto, cpu, cuda, cuda:N or mps.
        trust: whether code in the file may be executed: TorchScript, or a checkpoint that needs code.

    Returns:
        The model, ready to predict.

    Raises:
        StoreError: there is no run or no saved model, or the record is damaged.
        WeightsError: the model's file is damaged, was changed, or would execute code without `trust`.
        ConfigError: this machine has no such device.
    """
    path = Path(path)
    if path.is_file() and not (path.name in MODELS and (path.parent / RECORD).is_file()):
        return _from_file(path, device, trust)
    return model_of(find_run(path.parent if path.is_file() else path, category), device, trust)


def model_of(run: SavedRun, device: str, trust: bool) -> Model:
    """Load the detector of a run that `find_run` returned.

    Args:
        run: a run of task detection.
        device: auto, cpu, cuda, cuda:N or mps.
        trust: whether code in the file may be executed.

    Returns:
        The model, ready to predict.

    Raises:
        StoreError: the record is damaged, or the run has another task.
        WeightsError: the model's file is damaged, was changed, or would execute code without `trust`.
        ConfigError: this machine has no such device.
    """
    advice = "Use load_classifier in Python, or predict and submit on the command line."
    scorer, unchanged = load_saved(run, Model.task, device, trust, advice)
    try:
        thresholds = thresholds_of(run.folder, run.record)
    except DAMAGED as error:
        raise damaged(run, error) from error
    return Model(scorer if unchanged else tested(scorer, run.file), thresholds, run)


def _from_file(path: Path, device: str, trust: bool) -> Model:
    if path.suffix in EXPORTED_FILES:
        from harness.inference.exported import ExportedFile, check_device

        check_device(device)
        exported = ExportedFile(path, trust)
        return Model(exported, exported.thresholds)
    if path.suffix != ".safetensors":
        raise StoreError(
            f"{path}: a file {path.suffix or 'without a suffix'} found; expected a run's folder, a sweep's, an "
            "exported model with its .json beside it, or a .safetensors file that harness saved."
        )
    with without_compiler(), collector_paused():
        from harness.backends.native.scorer import NativeScorer

        scorer = NativeScorer.from_file(path, device)
    return Model(tested(scorer, path), Thresholds())
