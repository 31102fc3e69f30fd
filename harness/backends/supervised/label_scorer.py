"""Prediction, file and export of a trained classification: all folds are one module of Torch."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from harness.backends.scorers import LabelScorer
from harness.backends.supervised.decoding import Pixels, to_size
from harness.backends.supervised.fold_data import as_images
from harness.backends.supervised.model_file import write_model
from harness.common.devices import Device
from harness.data.images import RGB
from harness.data.labelled.base import LabelSpec

if TYPE_CHECKING:
    from harness.backends.formats import Format


class TrainedScorer(LabelScorer):
    """A scorer whose model this process holds, and can save."""

    metadata: ClassVar[str]  # name of the header in the metadata of the file

    @abstractmethod
    def to_cpu(self) -> None:
        """Move the model to the cpu, to free the memory of the device."""

    @abstractmethod
    def contents(self) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        """Return the tensors of the file by name, and its header."""

    def save(self, folder: Path) -> None:
        """Write the model, with all that loading needs, to `model.safetensors` in a folder.

        Args:
            folder: an existing folder.
        """
        write_model(folder, self.metadata, *self.contents())

    @contextmanager
    def on_device(self) -> Iterator[Self]:
        """Yield this scorer, and move it to the cpu afterwards."""
        try:
            yield self
        finally:
            self.to_cpu()


class TorchLabelScorer(TrainedScorer):
    """Predicts the class and condition of images by one module of all folds.

    Args:
        module: returns probabilities (n, folds, labels) of images (n, 3, height, width) in [0, 1].
        image_size: (height, width) of the module's images.
        labels: all labels, in the order of the probabilities.
        label_specs: class and condition of each label.
        device: the device of the prediction.

    Attributes:
        image_size: (height, width) of the read images.
        torch_device: the device of the prediction.
    """

    def __init__(
        self,
        module: nn.Module,
        image_size: tuple[int, int],
        labels: Sequence[str],
        label_specs: Sequence[LabelSpec],
        device: Device,
    ) -> None:
        self._module, self.image_size, self.torch_device = module.eval(), image_size, device
        self.labels, self.label_specs, self.device = tuple(labels), tuple(label_specs), device.description

    def prepare(self, pixels: RGB) -> Pixels:
        """Convert an image to the input of `by_fold`. Several threads may call this method at once."""
        return to_size(pixels, self.image_size)

    def by_fold(self, prepared: Sequence[Pixels]) -> npt.NDArray[np.float64]:
        """Return probabilities (folds, n, labels); see `harness.backends.scorers.LabelScorer.by_fold`."""
        self._module.to(self.torch_device.torch)
        with torch.inference_mode():
            probabilities = self._module(self.images(prepared)).double().cpu().numpy()
        return np.ascontiguousarray(probabilities.transpose(1, 0, 2))

    def images(self, prepared: Sequence[Pixels]) -> torch.Tensor:
        """Return the input of the module, on the device.

        Args:
            prepared: n images.
        """
        return as_images(torch.from_numpy(np.stack(prepared)).to(self.torch_device.torch))

    def export(self, file_format: Format, file: Path) -> list[str]:
        """Write the module with pre-processing and averages to one file.

        Args:
            file_format: the file's format.
            file: path with the format's suffix, in an existing folder.

        Returns:
            The names of the outputs.
        """
        from harness.backends.supervised.export import export

        self.to_cpu()
        return export(self._module, self.image_size, file_format, file)

    def to_cpu(self) -> None:
        """Move the module to the cpu, to free the memory of the device."""
        self._module.cpu()
