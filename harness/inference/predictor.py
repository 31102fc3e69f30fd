"""The part that all trained models share: images in any form, batches, threads, and a run's saved model."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from threading import Lock
from typing import Any, ClassVar, Generic, TypeVar

import numpy as np
from PIL import Image

from harness import registry
from harness.backends.base import Backend
from harness.backends.scorers import LabelScorer, Scorer
from harness.common.compiler import without_compiler
from harness.common.errors import DataError, StoreError, WeightsError
from harness.common.files import file_hash
from harness.common.garbage import collector_paused
from harness.config.spec import RunSpec
from harness.data.images import RGB, Reading, from_array, from_pil, read
from harness.inference.find import SavedRun

BATCH = 8  # larger batches do not fit the caches of a cpu
# What loading a damaged record may raise.
DAMAGED = (AttributeError, IndexError, KeyError, TypeError, ValueError)

R = TypeVar("R")
S = TypeVar("S", bound=Scorer | LabelScorer)


class Predictor(ABC, Generic[R, S]):
    """A trained model. Any number of threads may call `predict` at once.

    Attributes:
        task: the task of its runs.
        columns: names of the cells that the command `predict` writes for an image.
        kinds: the groups in which the command `predict` counts images; empty for groups by label.
        scorer: computes the predictions of prepared images.
        run: the run of the model; None for a model without a run.
    """

    task: ClassVar[str]
    columns: ClassVar[tuple[str, ...]]
    kinds: ClassVar[tuple[str, ...]] = ()

    def __init__(self, scorer: S, run: SavedRun | None) -> None:
        self.scorer = scorer
        self.run = run
        # Networks may store values in their layers during a pass.
        self._lock = Lock()

    @property
    def notes(self) -> tuple[str, ...]:
        """Limits of the predictions that a user must know, one sentence each."""
        return self.run.warnings if self.run else ()

    def prepare(self, reading: Reading) -> Any:
        """Turn an image into the input of `results`. Several threads may call this method at once."""
        return self.scorer.prepare(reading.pixels)

    @abstractmethod
    def results(self, batch: Sequence[tuple[str | None, Reading]], prepared: Sequence[Any]) -> list[R]:
        """Predict prepared images.

        Args:
            batch: for each image its path, or None, and the image as read.
            prepared: for each image the output of `prepare`.

        Returns:
            One result for each image, in the same order.

        Raises:
            DataError: the model gives no finite score for an image.
        """

    def predict_any(self, images: Any, batch_size: int) -> R | list[R]:
        """Predict one image, or several; the typed `predict` of each model calls this method.

        Args:
            images: see `harness.inference.model.Model.predict`.
            batch_size: images in one pass of the network.

        Returns:
            A result for one image; for several images a list in their order.

        Raises:
            DataError: an image can't be read, or a value is no image.
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

    def _predicted(self, images: Iterable[Any], batch_size: int) -> Iterator[R]:
        opened = map(open_image, images)
        while batch := list(islice(opened, batch_size)):
            yield from self.results(batch, [self.prepare(reading) for _, reading in batch])


def load_saved(run: SavedRun, task: str, device: str, trust: bool, other: str) -> tuple[Any, bool]:
    """Load the model of a run, and check its checksum.

    Args:
        run: the saved run.
        task: the task that the run must have.
        device: auto, cpu, cuda, cuda:N or mps.
        trust: whether code in the file may be executed.
        other: the advice for a run of another task.

    Returns:
        A `Scorer` or `LabelScorer`, by the task; and whether the record has the file's checksum.

    Raises:
        StoreError: the record is damaged, or the run has another task.
        WeightsError: the model's file is damaged, was changed, or would execute code without `trust`.
        ConfigError: this machine has no such device.
    """
    if run.record.task != task:
        raise StoreError(f"{run.folder}: a run of task {run.record.task} found; expected a {task}. {other}")
    try:
        unchanged = is_unchanged(run)
        spec = RunSpec.from_dict(run.record.spec)
    except DAMAGED as error:
        raise damaged(run, error) from error
    backend: Backend = registry.lookup(registry.BACKENDS, "backend", spec.backend)()
    with without_compiler(), collector_paused():
        scorer = backend.load(spec, run.file, device, trust)
    return scorer, unchanged


def damaged(run: SavedRun, error: Exception) -> StoreError:
    """The error for a record that can't be used.

    Args:
        run: the run of the record.
        error: the reason.
    """
    return StoreError(
        f"{run.folder}: its record can't be used ({type(error).__name__}: {error}). Make the run again with --fresh."
    )


def tested(scorer: Scorer, file: Path) -> Scorer:
    """Test a model without a checksum on a blank image: a model may load and still fail.

    Args:
        scorer: the model.
        file: its file, for the error message.

    Returns:
        The same model.

    Raises:
        WeightsError: the model can't score an image.
    """
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
