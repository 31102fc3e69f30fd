"""Prediction of a probe: one frozen network, and the heads of all folds."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import save_file
from torch import nn

from harness.backends import cost
from harness.backends.supervised.model_file import ModelFile, opened
from harness.backends.supervised.network import Classifier, build
from harness.backends.supervised.pictures import Pixels, to_size
from harness.backends.supervised.probe.features import embed
from harness.backends.supervised.probe.heads import HEADS, ProbeHead
from harness.backends.supervised.probe.settings import MODEL, ProbeSettings
from harness.common.devices import Device, pick
from harness.common.errors import ConfigError
from harness.data.images import RGB
from harness.data.labelled.base import LabelSpec
from harness.predictions.detection import Floats

if TYPE_CHECKING:
    from harness.backends.formats import Format

FILE = "model.safetensors"
FORMAT = 1
METADATA = "harness-probe"
NETWORK = "network."


class ProbeScorer:
    """Predicts the class and condition of images.

    Args:
        backbone: timm's name.
        network: the frozen network; its head is not used.
        heads: the classifier of each fold.
        folds: the number of each fold.
        labels: all labels, in the order of the probabilities.
        label_specs: class and condition of each label.
        settings: settings of the run.
        device: the device of the prediction.

    Attributes:
        labels: all labels, in the order of the probabilities.
        label_specs: class and condition of each label.
        settings: settings of the run.
        size: total size of the saved tensors, in bytes.
    """

    def __init__(
        self,
        backbone: str,
        network: Classifier,
        heads: Sequence[ProbeHead],
        folds: Sequence[int],
        labels: Sequence[str],
        label_specs: Sequence[LabelSpec],
        settings: ProbeSettings,
        device: Device,
    ) -> None:
        self.labels, self.label_specs, self.settings = tuple(labels), tuple(label_specs), settings
        self._backbone, self._network, self._device = backbone, network.eval(), device
        self._heads, self._folds = nn.ModuleList(heads), list(folds)
        self.size = cost.size(self._tensors().values())

    @property
    def name(self) -> str:
        """Readable name of the model."""
        folds = len(self._folds)
        return f"{MODEL} {self.settings.probe_head} {self._backbone}, {folds} fold{'' if folds == 1 else 's'}"

    @property
    def device(self) -> str:
        """Readable description of the device."""
        return self._device.description

    @property
    def notes(self) -> tuple[str, ...]:
        """Notes on the predictions: none."""
        return ()

    def prepare(self, pixels: RGB) -> Pixels:
        """Convert an image to the input of `probabilities`. Several threads may call this method at once."""
        return to_size(pixels, self.settings.image_size)

    def probabilities(self, prepared: Sequence[Pixels]) -> npt.NDArray[np.float64]:
        """Return probabilities (n, labels), averaged over folds. Only one thread at a time may call this method."""
        mean: npt.NDArray[np.float64] = self.by_fold(prepared).mean(axis=0)
        return mean

    def by_fold(self, prepared: Sequence[Pixels]) -> npt.NDArray[np.float64]:
        """Return probabilities (folds, n, labels) of the folds' heads. Only one thread at a time may call this."""
        self._network.to(self._device.torch)
        self._heads.to(self._device.torch)
        features = embed(self._network, np.stack(prepared), self._device)
        with torch.inference_mode():
            found: npt.NDArray[np.float64] = (
                torch.stack([head(features) for head in self._heads]).double().cpu().numpy()
            )
        return found

    def at_image_size(self, size: tuple[int, int]) -> ProbeScorer:
        """Refuse every size but that of the run, since the heads learned from features at this size.

        Args:
            size: (height, width) of the read images.

        Raises:
            ConfigError: the size is another one.
        """
        own = self.settings.image_size
        if size == own:
            return self
        raise ConfigError(
            f"image_size: {size[0]} x {size[1]} found with a probe, which learned from features of images of its own "
            f"size; expected {own[0]} x {own[1]}. Make a run of the probe with this image_size."
        )

    @property
    def map_note(self) -> str:
        """Why a probe has no Grad-CAM."""
        return "a probe has a frozen network, which did not learn the labels"

    def grad_cam(self, prepared: Sequence[Pixels], labels: Sequence[int], fold: int | None = None) -> Floats | None:
        """Return None: see `map_note`.

        Args:
            prepared: unused.
            labels: unused.
            fold: unused.
        """
        del prepared, labels, fold
        return None

    def export(self, file_format: Format, file: Path) -> list[str]:
        """Write network and heads with pre-processing and averages to one file.

        Args:
            file_format: the file's format.
            file: path with the format's suffix, in an existing folder.

        Returns:
            The names of the outputs.
        """
        from harness.backends.supervised.probe.export import WholeProbe, export

        self.to_cpu()
        return export(WholeProbe(self.settings, self._network, self._heads), file_format, file)

    def to_cpu(self) -> None:
        """Move network and heads to the cpu, to free the memory of the device."""
        self._network.cpu()
        self._heads.cpu()

    def _tensors(self) -> dict[str, torch.Tensor]:
        state = {f"{NETWORK}{name}": tensor for name, tensor in self._network.features.state_dict().items()}
        return state | dict(self._heads.state_dict())

    def save(self, folder: Path) -> None:
        """Write network and heads, and the header that `from_file` needs, to `model.safetensors` in a folder."""
        header = {
            "format": FORMAT,
            "backbone": self._backbone,
            "labels": list(self.labels),
            "label_specs": [list(label_spec) for label_spec in self.label_specs],
            "settings": self.settings.as_dict(),
            "folds": self._folds,
        }
        tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in self._tensors().items()}
        save_file(tensors, folder / FILE, {METADATA: json.dumps(header)})

    @classmethod
    def from_file(cls, path: Path, device: str) -> ProbeScorer:
        """Load a saved probe, without executing code.

        Args:
            path: file that `save` wrote.
            device: auto, cpu, cuda, cuda:N or mps.

        Raises:
            WeightsError: the file is damaged or no such file, or its tensors do not fit the network.
            ConfigError: this machine has no such device.
        """
        hardware = pick(device)
        with opened(path, METADATA, FORMAT, MODEL) as file:
            return cls._of(file, hardware)

    @classmethod
    def _of(cls, file: ModelFile, device: Device) -> ProbeScorer:
        header = file.header
        settings = ProbeSettings.from_dict(header["settings"])
        network = build(header["backbone"], 1, settings.of_network, None, 0)
        network.features.load_state_dict(file.tensors(NETWORK))
        head_type, labels = HEADS[settings.probe_head], header["labels"]
        heads = [head_type(file.tensors(f"{number}."), settings, len(labels)) for number in range(len(header["folds"]))]
        specs = [(class_name, condition) for class_name, condition in header["label_specs"]]
        return cls(header["backbone"], network, heads, header["folds"], labels, specs, settings, device)
