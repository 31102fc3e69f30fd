"""The Python interface of a trained detector: load the model, predict scores and maps of images."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, overload

import numpy as np
import numpy.typing as npt
from PIL import Image

from harness import registry
from harness.backends.base import Backend, Scorer
from harness.common.errors import ConfigError, DataError, StoreError, WeightsError
from harness.common.files import file_hash
from harness.config.spec import RunSpec
from harness.data.images import RGB, Reading, from_array, from_pil, read
from harness.inference.find import SavedRun, find_run
from harness.inference.result import ANOMALOUS, NORMAL, Result
from harness.inference.rows import COLUMNS
from harness.predictions.decision import Thresholds
from harness.results.store import MODELS, RECORD

if TYPE_CHECKING:
    import torch

EXPORTED = {".onnx", ".xml", ".pt"}
BATCH = 8  # larger batches do not fit the caches of a cpu


class Model:
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

    columns = COLUMNS
    kinds = (NORMAL, ANOMALOUS)

    def __init__(self, scorer: Scorer, thresholds: Thresholds, run: SavedRun | None = None) -> None:
        self.scorer, self.thresholds, self.run = scorer, thresholds, run
        self._lock = Lock()

    @property
    def notes(self) -> tuple[str, ...]:
        """Limits of the predictions that a user must know, one sentence each."""
        return (*(self.run.warnings if self.run else ()), *self.scorer.notes, *self.thresholds.notes())

    def prepare(self, reading: Reading) -> Any:
        """Turn an image into the input of `results`. Several threads may call this method at once."""
        return self.scorer.prepare(reading.pixels)

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
        if batch_size < 1:
            raise DataError(f"batch_size: {batch_size} found; expected 1 or more.")
        if is_single_image(images):
            return next(self._predicted([images], 1))
        if not isinstance(images, Iterable):
            raise DataError(
                f"image: {type(images).__name__} found; expected a path, a PIL image, an array or a tensor."
            )
        return list(self._predicted(images, batch_size))

    def _predicted(self, images: Iterable[Any], batch_size: int) -> Iterator[Result]:
        opened = map(open_image, images)
        while batch := list(islice(opened, batch_size)):
            yield from self.results(batch, [self.prepare(reading) for _, reading in batch])

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
        # Networks may store values in their layers during a pass.
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
        path: a run's folder, a sweep's folder for its best run, an exported file, or a file of `Detector.save` (without
            thresholds). The model's file in a run's folder stands for that run.
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
    if run.record.task != "detection":
        raise StoreError(
            f"{run.folder}: a run of task {run.record.task} found; expected a detection. Use load_classifier in "
            "Python, or predict and submit on the command line."
        )
    try:
        unchanged = is_unchanged(run)
        spec = RunSpec.from_dict(run.record.spec)
        thresholds = Thresholds.from_dict(run.record.thresholds)
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise StoreError(
            f"{run.folder}: its record can't be used ({type(error).__name__}: {error}). "
            "Make the run again with --fresh."
        ) from error
    backend: Backend = registry.lookup(registry.BACKENDS, "backend", spec.backend)()
    scorer = backend.load(spec, run.file, device, trust)
    return Model(scorer if unchanged else _tested(scorer, run.file), thresholds, run)


def _from_file(path: Path, device: str, trust: bool) -> Model:
    if path.suffix in EXPORTED:
        if device not in {"auto", "cpu"}:
            raise ConfigError(f"device: {device} found; expected auto or cpu: an exported file runs on the cpu.")
        from harness.inference.exported import ExportedFile

        exported = ExportedFile(path, trust)
        return Model(exported, exported.thresholds)
    if path.suffix != ".safetensors":
        raise StoreError(
            f"{path}: a file {path.suffix or 'without a suffix'} found; expected a run's folder, a sweep's, an "
            "exported model with its .json beside it, or a .safetensors file that harness saved."
        )
    from harness.backends.native.scorer import NativeScorer

    return Model(_tested(NativeScorer.from_file(path, device), path), Thresholds())


def _tested(scorer: Scorer, file: Path) -> Scorer:
    """Test a model without a checksum on a blank image: a model may load and still fail."""
    try:
        scorer.score([scorer.prepare(np.zeros((64, 64, 3), dtype=np.uint8))])
    # Tensors of wrong shapes can make Torch raise any exception.
    except Exception as error:
        raise WeightsError(f"{file}: loads, but can't score an image ({type(error).__name__}: {error}).") from error
    return scorer


def is_unchanged(run: SavedRun) -> bool:
    """Whether the model's checksum equals that of the record; False for records of older versions without one.

    Raises:
        WeightsError: the checksums differ.
    """
    expected = run.record.model.get("sha256")
    if not expected:
        return False
    if file_hash(run.file) != expected:
        raise WeightsError(
            f"{run.file}: not the file that the run wrote (SHA-256 {file_hash(run.file)[:12]}... found; expected "
            f"{expected[:12]}...): the file was changed or is damaged. Make the run again with --fresh, or restore the "
            "file."
        )
    return True


def is_single_image(images: Any) -> bool:
    """Whether the value is one image, not several images."""
    if isinstance(images, str | Path | Image.Image):
        return True
    return getattr(images, "ndim", 4) < 4


def open_image(image: Any) -> tuple[str | None, Reading]:
    """Read one image.

    Returns:
        The path, or None for an image in memory, and the image as read.

    Raises:
        DataError: the image can't be read, or the value is no image.
    """
    if isinstance(image, str | Path):
        return str(image), read(image)
    if isinstance(image, Image.Image):
        return getattr(image, "filename", None) or None, from_pil(image)
    if isinstance(image, np.ndarray):
        return None, from_array(image)
    return None, Reading(_from_tensor(image))


def _from_tensor(image: Any) -> RGB:
    import torch

    from harness.detectors.sources import check_tensor

    if not isinstance(image, torch.Tensor):
        raise DataError(f"image: {type(image).__name__} found; expected a path, a PIL image, an array or a tensor.")
    check_tensor(image)
    if not image.numel() or not (float(image.min()) >= 0 and float(image.max()) <= 1):
        content = f"values from {float(image.min()):g} to {float(image.max()):g}" if image.numel() else "no pixels"
        raise DataError(f"image: a tensor with {content} found; expected values in [0, 1].")
    pixels: RGB = (image.detach().cpu().permute(1, 2, 0) * 255).round().to(torch.uint8).numpy()
    return pixels
