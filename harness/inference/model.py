"""The Python face of a trained model: load it, hand it images, read what it says."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
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
BATCH = 8  # on a cpu more no longer fit its caches


class Model:
    """A trained model with its thresholds. Any number of threads may call `predict` at once.

    Args:
        scorer: computes scores and maps.
        thresholds: see `harness.predictions.decision.Thresholds`.
        run: the run that trained it; None for a file without a run.

    Attributes:
        scorer: computes scores and maps.
        thresholds: of images and pixels.
        run: the run that trained it; None for a file without a run.
    """

    columns = COLUMNS
    kinds = (NORMAL, ANOMALOUS)

    def __init__(self, scorer: Scorer, thresholds: Thresholds, run: SavedRun | None = None) -> None:
        self.scorer, self.thresholds, self.run = scorer, thresholds, run
        self._lock = Lock()

    @property
    def notes(self) -> tuple[str, ...]:
        """Warnings about the predictions, one sentence each."""
        return (*(self.run.doubts if self.run else ()), *self.scorer.notes, *self.thresholds.notes())

    def prepare(self, reading: Reading) -> Any:
        """An image as `results` takes it; called by several threads at once."""
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
            images: one image, or several: any iterable of images, or a stack with four dimensions. An image is a path,
                a PIL image, an array or a tensor. An array is uint8 or uint16, (height, width, 3) RGB or
                (height, width) grey. A tensor is float, (3, height, width), in [0, 1]; it becomes 8 bits.
            batch_size: number of images in a batch.

        Returns:
            A `Result` for one image; a list of them in the same order for several.

        Raises:
            DataError: something is no image, or can't be read.
        """
        if batch_size < 1:
            raise DataError(f"batch_size: {batch_size} found, 1 or more expected.")
        if is_one(images):
            return next(self._judge([images], 1))
        if not isinstance(images, Iterable):
            raise DataError(
                f"image: {type(images).__name__} found; expected a path, a PIL image, an array or a tensor."
            )
        return list(self._judge(images, batch_size))

    def _judge(self, images: Iterable[Any], batch_size: int) -> Iterator[Result]:
        batch: list[tuple[str | None, Reading]] = []
        for image in images:
            batch.append(open_image(image))
            if len(batch) == batch_size:
                yield from self._results(batch)
                batch = []
        if batch:
            yield from self._results(batch)

    def _results(self, batch: Sequence[tuple[str | None, Reading]]) -> list[Result]:
        prepared = [self.prepare(reading) for _, reading in batch]
        return self.results(batch, prepared)

    def results(self, batch: Sequence[tuple[str | None, Reading]], prepared: Sequence[Any]) -> list[Result]:
        """Predict images that are read and prepared already.

        Args:
            batch: path or None, and the image as read.
            prepared: what `prepare` made of each.

        Raises:
            DataError: the model gives no finite score for one.
        """
        # Networks may keep things in their layers while they work.
        with self._lock:
            scores, maps = self.scorer.score(prepared)
        found = []
        for index, (path, reading) in enumerate(batch):
            score = float(scores[index])
            if not np.isfinite(score):
                raise DataError(f"{path or 'image'}: the model's score is {score}.")
            size = (reading.pixels.shape[0], reading.pixels.shape[1])
            one = None if maps is None else maps[index]
            found.append(Result(score, one, self.thresholds, size, self.scorer.resized, path, reading.notes))
        return found


def load_model(path: str | Path, *, category: str | None = None, device: str = "auto", trust: bool = False) -> Model:
    """Load a trained model.

    Args:
        path: a run's folder, a sweep's folder (its best run), an exported file, or a file of `Detector.save` (without
            thresholds). The model's file in a run's folder also stands for this run.
        category: of a sweep with several categories.
        device: auto, cpu, cuda, cuda:N or mps.
        trust: whether code in the file may be executed: in TorchScript, or in a checkpoint that needs code.

    Raises:
        StoreError: there is no run or no model, or the record is damaged.
        WeightsError: the model's file is damaged, has changed, or needs code and is not trusted.
        ConfigError: this machine has no such device.
    """
    path = Path(path)
    if path.is_file() and not (path.name in MODELS and (path.parent / RECORD).is_file()):
        return _from_file(path, device, trust)
    return model_of(find_run(path.parent if path.is_file() else path, category), device, trust)


def model_of(run: SavedRun, device: str, trust: bool) -> Model:
    """Of a run that was found; see `load_model`."""
    if run.record.task != "detection":
        raise StoreError(
            f"{run.folder}: a run of task {run.record.task} found; expected a detection. From Python, load_classifier "
            "takes it; on the command line, predict and submit do."
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
    return Model(scorer if unchanged else _tried(scorer, run.file), thresholds, run)


def _from_file(path: Path, device: str, trust: bool) -> Model:
    if path.suffix in EXPORTED:
        if device not in {"auto", "cpu"}:
            raise ConfigError(f"device: {device} found; an exported file runs on the cpu here; expected auto or cpu.")
        from harness.inference.exported import ExportedFile

        exported = ExportedFile(path, trust)
        return Model(exported, exported.thresholds)
    if path.suffix != ".safetensors":
        raise StoreError(
            f"{path}: a file {path.suffix or 'without a suffix'} found; expected a run's folder, a sweep's, an "
            "exported model with its .json beside it, or a .safetensors that harness saved."
        )
    from harness.backends.native.scorer import NativeScorer

    return Model(_tried(NativeScorer.from_file(path, device), path), Thresholds())


def _tried(scorer: Scorer, file: Path) -> Scorer:
    """A model that nothing vouches for is tried on a blank image: what loads need not work."""
    try:
        scorer.score([scorer.prepare(np.zeros((64, 64, 3), dtype=np.uint8))])
    # Whatever tensors of the wrong shapes make Torch raise.
    except Exception as error:
        raise WeightsError(f"{file}: loads, but does not work ({type(error).__name__}: {error}).") from error
    return scorer


def is_unchanged(run: SavedRun) -> bool:
    """Whether the model's checksum is the record's; records of older versions have none."""
    expected = run.record.model.get("sha256")
    if not expected:
        return False
    if file_hash(run.file) != expected:
        raise WeightsError(
            f"{run.file}: not the file that the run wrote (its SHA-256 begins with {file_hash(run.file)[:12]}, the "
            f"record says {expected[:12]}): it was changed or is damaged. Make the run again with --fresh, or restore "
            "the file."
        )
    return True


def is_one(images: Any) -> bool:
    """Whether it is one image, and not several."""
    if isinstance(images, str | Path | Image.Image):
        return True
    return getattr(images, "ndim", 4) < 4


def open_image(image: Any) -> tuple[str | None, Reading]:
    """Path or None, and the image as read.

    Raises:
        DataError: it can't be read, or is none.
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
        found = f"values from {float(image.min()):g} to {float(image.max()):g}" if image.numel() else "no pixels"
        raise DataError(f"image: a tensor with {found} found; expected values in [0, 1].")
    pixels: RGB = (image.detach().cpu().permute(1, 2, 0) * 255).round().to(torch.uint8).numpy()
    return pixels
