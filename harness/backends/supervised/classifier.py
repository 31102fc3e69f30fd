"""Prediction of a trained classification: the networks of all folds, averaged over folds and views."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from harness.backends.supervised.network import Classifier, build
from harness.backends.supervised.one_class import classes, merge
from harness.backends.supervised.pictures import Pixels, to_size
from harness.backends.supervised.settings import Settings
from harness.backends.supervised.views import probabilities, views
from harness.common.devices import Device, pick
from harness.common.errors import HarnessError, WeightsError
from harness.data.images import RGB
from harness.data.labelled.base import LabelSpec

MODEL = "model.safetensors"
FORMAT = 1
METADATA = "harness-classifier"


@dataclass(frozen=True)
class Member:
    """One network of a run.

    Attributes:
        fold: number of the fold that is the network's validation subset.
        part: class of a one-class network; "" for a network of all labels.
        own: positions of the network's labels.
        network: the network, in evaluation mode.
    """

    fold: int
    part: str
    own: tuple[int, ...]
    network: Classifier


class SupervisedScorer:
    """Predicts the class and condition of images.

    Args:
        model: baseline or one_class.
        labels: all labels, in the order of the probabilities.
        label_specs: class and condition of each label.
        settings: settings of the run, with the views to average.
        members: all networks.
        backbone: timm's name.
        device: the device of the prediction.

    Attributes:
        model: baseline or one_class.
        labels: all labels, in the order of the probabilities.
        label_specs: class and condition of each label.
        settings: settings of the run.
        members: all networks.
        backbone: timm's name.
        torch_device: the device of the prediction.
    """

    def __init__(
        self,
        model: str,
        labels: Sequence[str],
        label_specs: Sequence[LabelSpec],
        settings: Settings,
        members: Sequence[Member],
        backbone: str,
        device: Device,
    ) -> None:
        self.model, self.labels, self.settings = model, tuple(labels), settings
        self.label_specs = tuple(label_specs)
        self.members, self.backbone, self.torch_device = tuple(members), backbone, device
        self._views, self._positions = views(settings.views), classes(label_specs)

    @property
    def name(self) -> str:
        """Readable name of the model."""
        folds = len({member.fold for member in self.members})
        return f"{self.model} {self.backbone}, {folds} fold{'' if folds == 1 else 's'}"

    @property
    def device(self) -> str:
        """Readable description of the device."""
        return self.torch_device.description

    def prepare(self, pixels: RGB) -> Pixels:
        """Convert an image to the input of `probabilities`. Several threads may call this method at once."""
        return to_size(pixels, self.settings.image_size)

    def probabilities(self, prepared: Sequence[Pixels]) -> npt.NDArray[np.float64]:
        """Return probabilities (n, labels), averaged over folds. Only one thread at a time may call this method."""
        device = self.torch_device.torch
        images = torch.from_numpy(np.stack(prepared)).to(device).float() / 255
        folds = []
        with torch.inference_mode():
            for fold in dict.fromkeys(member.fold for member in self.members):
                by_class = {
                    member.part: probabilities(member.network.to(device), images, self._views).numpy()
                    for member in self.members
                    if member.fold == fold
                }
                folds.append(by_class[""] if "" in by_class else merge(by_class, self._positions, len(self.labels))[0])
        mean: npt.NDArray[np.float64] = np.mean(folds, axis=0)
        return mean

    def to_cpu(self) -> None:
        """Move all networks to the cpu, to free the memory of the device."""
        for member in self.members:
            member.network.cpu()

    def save(self, folder: Path) -> None:
        """Write all networks, and the header that `from_file` needs, to `model.safetensors` in a folder."""
        tensors = {
            f"{number}.{name}": tensor.detach().cpu().contiguous().clone()
            for number, member in enumerate(self.members)
            for name, tensor in member.network.state_dict().items()
        }
        header = {
            "format": FORMAT,
            "model": self.model,
            "backbone": self.backbone,
            "labels": list(self.labels),
            "meanings": [list(label_spec) for label_spec in self.label_specs],
            "settings": self.settings.as_dict(),
            "members": [{"fold": m.fold, "part": m.part, "own": list(m.own)} for m in self.members],
        }
        save_file(tensors, folder / MODEL, {METADATA: json.dumps(header)})

    @classmethod
    def from_file(cls, path: Path, device: str) -> SupervisedScorer:
        """Load a saved model, without executing code.

        Args:
            path: file that `save` wrote.
            device: auto, cpu, cuda, cuda:N or mps.

        Raises:
            WeightsError: the file is damaged or no such file, or its tensors do not fit the network.
            ConfigError: this machine has no such device.
        """
        hardware = pick(device)
        try:
            with safe_open(path, framework="pt") as file:
                header: dict[str, Any] = json.loads((file.metadata() or {})[METADATA])
                # The copies are aligned in memory; tensors inside a file may not be.
                tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118 (not a dict)
            if header["format"] > FORMAT:
                raise WeightsError(f"{path}: format {header['format']} is newer than {FORMAT}; update harness.")
            settings = Settings.from_dict(header["settings"])
            members = []
            for number, entry in enumerate(header["members"]):
                outputs = len(entry["own"]) + bool(entry["part"])
                network = build(header["backbone"], outputs, settings, None, 0)
                prefix = f"{number}."
                state = {key.removeprefix(prefix): v for key, v in tensors.items() if key.startswith(prefix)}
                network.load_state_dict(state)
                members.append(Member(entry["fold"], entry["part"], tuple(entry["own"]), network.eval()))
            specs = [(class_name, condition) for class_name, condition in header["meanings"]]
            return cls(header["model"], header["labels"], specs, settings, members, header["backbone"], hardware)
        except HarnessError:
            raise
        # For a damaged or foreign file, the libraries may raise any error.
        except Exception as error:
            raise WeightsError(f"{path}: not a saved classification ({type(error).__name__}: {error}).") from error
