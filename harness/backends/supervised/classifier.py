"""Prediction of a trained classification: the networks of all folds, averaged over folds and views."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import save_file

from harness.backends.cost import size
from harness.backends.supervised.grad_cam import maps_of_labels, obstacle
from harness.backends.supervised.model_file import opened
from harness.backends.supervised.network import Member, build, refusal
from harness.backends.supervised.one_class import classes, merge
from harness.backends.supervised.pictures import Pixels, to_size
from harness.backends.supervised.settings import Settings
from harness.backends.supervised.views import probabilities
from harness.common.devices import Device, pick
from harness.common.errors import ConfigError
from harness.data.images import RGB
from harness.data.labelled.base import LabelSpec
from harness.predictions.detection import Floats

if TYPE_CHECKING:
    from harness.backends.formats import Format

MODEL = "model.safetensors"
FORMAT = 2
NETWORKS_ONLY = 1  # format of a file without detectors, which earlier versions read too
DETECTORS = "detectors."  # prefix of the tensors of detectors, see detector_scorer.py
KIND = "classification"
METADATA = "harness-classifier"


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
        self._views, self._positions = settings.views, classes(label_specs, settings.only_classes)

    @property
    def name(self) -> str:
        """Readable name of the model."""
        folds = len({member.fold for member in self.members})
        return f"{self.model} {self.backbone}, {folds} fold{'' if folds == 1 else 's'}"

    @property
    def device(self) -> str:
        """Readable description of the device."""
        return self.torch_device.description

    @property
    def size(self) -> float:
        """Size of all networks, in bytes."""
        return sum(size(member.network.state_dict().values()) for member in self.members)

    @property
    def notes(self) -> tuple[str, ...]:
        """Notes on the predictions."""
        if not self.settings.only_classes:
            return ()
        return (
            f"The model has networks for {', '.join(self._positions)} only. An image of another class gets a label "
            "with a small probability.",
        )

    def prepare(self, pixels: RGB) -> Pixels:
        """Convert an image to the input of `probabilities`. Several threads may call this method at once."""
        return to_size(pixels, self.settings.eval_size)

    def probabilities(self, prepared: Sequence[Pixels]) -> npt.NDArray[np.float64]:
        """Return probabilities (n, labels), averaged over folds. Only one thread at a time may call this method."""
        mean: npt.NDArray[np.float64] = self.by_fold(prepared).mean(axis=0)
        return mean

    def by_fold(self, prepared: Sequence[Pixels]) -> npt.NDArray[np.float64]:
        """Return probabilities (folds, n, labels) of the folds' networks. Only one thread at a time may call this."""
        images, device, folds = self._images(prepared), self.torch_device.torch, []
        size = self.settings.eval_size
        with torch.inference_mode():
            for members in self.members_of_folds():
                outputs = [
                    (member.part, probabilities(member.network.to(device), images, self._views, size).numpy())
                    for member in members
                ]
                merged, _ = merge(outputs, self._positions, len(self.labels), self.settings.combine_repeats)
                folds.append(merged)
        return np.stack(folds).astype(np.float64)

    @cached_property
    def map_note(self) -> str:
        """Why there are no maps of Grad-CAM; empty where there are."""
        return obstacle(self.members[0].network.to(self.torch_device.torch), self.settings.eval_size)

    def grad_cam(self, prepared: Sequence[Pixels], labels: Sequence[int], fold: int | None = None) -> Floats | None:
        """Return the maps of labels; see `harness.backends.scorers.LabelScorer.grad_cam`."""
        if self.map_note:
            return None
        folds = [members for members in self.members_of_folds() if fold is None or members[0].fold == fold]
        for member in (member for members in folds for member in members):
            member.network.to(self.torch_device.torch)
        maps: Floats = maps_of_labels(folds, self._images(prepared), labels).numpy()
        return maps

    def at_image_size(self, size: tuple[int, int]) -> SupervisedScorer:
        """Return the same networks for images of another size; see `harness.backends.scorers.LabelScorer`."""
        if size == self.settings.eval_size:
            return self
        settings = replace(self.settings, eval_image_size=size)
        if problems := settings.problems():
            raise ConfigError(problems)
        own = " x ".join(map(str, self.settings.eval_size))
        for height, width in dict.fromkeys(view.sides(size) for view in settings.views.views):
            if reason := refusal(self.members[0].network, (height, width)):
                raise ConfigError(
                    f"image_size: {height} x {width} found, which backbone {self.backbone} does not take after its "
                    f"training ({reason}); expected {own}, the size of the run."
                )
        arguments = self.members, self.backbone, self.torch_device
        return SupervisedScorer(self.model, self.labels, self.label_specs, settings, *arguments)

    def _images(self, prepared: Sequence[Pixels]) -> torch.Tensor:
        return torch.from_numpy(np.stack(prepared)).to(self.torch_device.torch).float() / 255

    def members_of_folds(self) -> list[list[Member]]:
        """The networks of each fold, in the order of the folds."""
        folds: dict[int, list[Member]] = {}
        for member in self.members:
            folds.setdefault(member.fold, []).append(member)
        return list(folds.values())

    def export(self, file_format: Format, file: Path) -> list[str]:
        """Write all networks with pre-processing, views and averages to one file.

        Args:
            file_format: the file's format.
            file: path with the format's suffix, in an existing folder.

        Returns:
            The names of the outputs.
        """
        from harness.backends.supervised.export import WholeClassifier, export

        self.to_cpu()
        module = WholeClassifier(self.settings, self.label_specs, self.members_of_folds())
        return export(module, file_format, file)

    def to_cpu(self) -> None:
        """Move all networks to the cpu, to free the memory of the device."""
        for member in self.members:
            member.network.cpu()

    def save(self, folder: Path) -> None:
        """Write all networks, and the header that `from_file` needs, to `model.safetensors` in a folder."""
        tensors, header = self.contents()
        save_file(tensors, folder / MODEL, {METADATA: json.dumps(header)})

    def contents(self) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        """Return the tensors of all networks by name, and the header that `from_file` needs."""
        tensors = {
            f"{number}.{name}": tensor.detach().cpu().contiguous().clone()
            for number, member in enumerate(self.members)
            for name, tensor in member.network.state_dict().items()
        }
        header = {
            "format": NETWORKS_ONLY,
            "model": self.model,
            "backbone": self.backbone,
            "labels": list(self.labels),
            "meanings": [list(label_spec) for label_spec in self.label_specs],
            "settings": self.settings.as_dict(),
            "members": [{"fold": m.fold, "part": m.part, "own": list(m.own), "repeat": m.repeat} for m in self.members],
        }
        return tensors, header

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
        with opened(path, METADATA, FORMAT, KIND) as file:
            header, members = file.header, []
            settings = Settings.from_dict(header["settings"])
            for number, entry in enumerate(header["members"]):
                outputs = len(entry["own"]) + bool(entry["part"])
                network = build(header["backbone"], outputs, settings, None, 0)
                network.load_state_dict(file.tensors(f"{number}."))
                repeat = entry.get("repeat", 0)  # absent in files of earlier versions
                members.append(Member(entry["fold"], entry["part"], tuple(entry["own"]), network.eval(), repeat))
            specs = [(class_name, condition) for class_name, condition in header["meanings"]]
            return cls(header["model"], header["labels"], specs, settings, members, header["backbone"], hardware)
