"""The contract between the harness and trained models: scorers of images, and classifiers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from harness.common.errors import ConfigError
from harness.data.images import RGB
from harness.data.labelled.base import LabelSpec
from harness.predictions.detection import Floats

if TYPE_CHECKING:
    from harness.backends.formats import Format
    from harness.predictions.decision import Thresholds


class Scorer(Protocol):
    """A trained model that gives raw scores and maps of images; a scorer has no thresholds."""

    @property
    def name(self) -> str:
        """Readable name of the model."""

    @property
    def device(self) -> str:
        """Readable description of the device."""

    @property
    def resized(self) -> tuple[int, int] | None:
        """(height, width) of the resized images before the centre crop; None for a model without a crop."""

    @property
    def input_size(self) -> tuple[int, int] | None:
        """(height, width) of the network's input; None for a network that takes any size."""

    @property
    def notes(self) -> tuple[str, ...]:
        """Notes on the model's scores that a user must know, one sentence each."""

    def prepare(self, pixels: RGB) -> Any:
        """Convert an image to the input of `score`. Several threads may call this method at once."""

    def score(self, prepared: Sequence[Any]) -> tuple[npt.NDArray[np.float64], Floats | None]:
        """Score images. Only one thread at a time may call this method.

        Returns:
            Scores (n,), and maps (n, height, width) or None for a model without maps.
        """

    def as_exported(self) -> Scorer:
        """The scorer that an exported file agrees with: this one, unless the file computes in another way."""

    def export(self, thresholds: Thresholds, file_format: Format, file: Path) -> list[str]:
        """Write the model with pre-processing, normalisation and thresholds to one file.

        The exported model takes RGB images in [0, 1], (n, 3, any, any). Its outputs are the available fields of
        `harness.backends.graph.Answers`.

        Args:
            thresholds: see `harness.predictions.decision.Thresholds`.
            file_format: the file's format.
            file: path with the format's suffix, in an existing folder.

        Returns:
            The names of the outputs.

        Raises:
            Exception: any error of the export libraries, for a model that they cannot export.
        """


class LabelScorer(ABC):
    """A trained classification that gives probabilities of labels.

    Attributes:
        name: readable name of the model.
        device: readable description of the device.
        notes: notes on the model's predictions that a user must know, one sentence each.
        labels: all labels, in the order of the probabilities.
        label_specs: class and condition of each label.
    """

    name: str
    device: str
    notes: tuple[str, ...] = ()
    labels: tuple[str, ...]
    label_specs: tuple[LabelSpec, ...]

    @abstractmethod
    def prepare(self, pixels: RGB) -> Any:
        """Convert an image to the input of `by_fold`. Several threads may call this method at once."""

    @abstractmethod
    def by_fold(self, prepared: Sequence[Any]) -> npt.NDArray[np.float64]:
        """Return probabilities of each fold (folds, n, labels). Only one thread at a time may call this method.

        Args:
            prepared: n images.
        """

    def probabilities(self, prepared: Sequence[Any]) -> npt.NDArray[np.float64]:
        """Return probabilities (n, labels), averaged over folds; see `by_fold`.

        Args:
            prepared: n images.
        """
        mean: npt.NDArray[np.float64] = self.by_fold(prepared).mean(axis=0)
        return mean

    @abstractmethod
    def at_image_size(self, size: tuple[int, int]) -> LabelScorer:
        """Return a scorer that reads images at another size; this scorer for its own size.

        Args:
            size: (height, width) of the read images.

        Raises:
            ConfigError: the model predicts at its own size only.
        """

    @property
    @abstractmethod
    def map_note(self) -> str:
        """Why there are no maps of Grad-CAM; empty where there are."""

    def grad_cam(self, prepared: Sequence[Any], labels: Sequence[int], fold: int | None = None) -> Floats | None:
        """Return the pixels that make the networks predict labels. Only one thread at a time may call this method.

        Args:
            prepared: n images.
            labels: for each image the position of a label.
            fold: number of the fold whose networks make the maps; None for the mean over all folds.

        Returns:
            (n, height, width) of the network's last feature map, from 0 to 1; None without maps, see `map_note`.
        """
        del prepared, labels, fold
        return None

    @abstractmethod
    def export(self, file_format: Format, file: Path) -> list[str]:
        """Write the classification with pre-processing to one file.

        The exported model takes RGB images in [0, 1], (n, 3, any, any). Its outputs are `probabilities` (n, labels) and
        `probabilities_by_fold` (n, folds, labels).

        Args:
            file_format: the file's format.
            file: path with the format's suffix, in an existing folder.

        Returns:
            The names of the outputs.

        Raises:
            Exception: any error of the export libraries, for a model that they cannot export.
        """


def size_refused(size: tuple[int, int], reason: str, expected: str, advice: str) -> ConfigError:
    """Return the error of a scorer that reads images at its own size only.

    Args:
        size: (height, width) that the user asks for.
        reason: the kind of model, and why it has no other size.
        expected: the possible size, in words.
        advice: what to do.
    """
    return ConfigError(f"image_size: {size[0]} x {size[1]} found with {reason}; expected {expected}. {advice}")
