"""Prediction of a trained classification: the networks of all folds, averaged over folds and views."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import nn

from harness.backends.cost import size
from harness.backends.supervised.decoding import Pixels
from harness.backends.supervised.grad_cam import maps_of_labels, obstacle
from harness.backends.supervised.label_scorer import TorchLabelScorer
from harness.backends.supervised.model_file import opened
from harness.backends.supervised.network import Member, build, refusal
from harness.backends.supervised.one_class import classes, merge_tensors
from harness.backends.supervised.settings import Settings
from harness.backends.supervised.views import probabilities
from harness.common.devices import Device, pick
from harness.common.errors import ConfigError
from harness.data.labelled.base import LabelSpec
from harness.predictions.detection import Floats

FORMAT = 2
NETWORKS_ONLY = 1  # format of a file without detectors, which earlier versions read too
DETECTORS = "detectors."  # prefix of the tensors of detectors, see detector_scorer.py
KIND = "classification"
METADATA = "harness-classifier"


class Fold(nn.Module):
    """The networks of one fold: one for all labels, or one or more for each class.

    Args:
        members: the networks.
        settings: settings of the run.
        positions: positions of the labels of each class.
        labels: number of all labels.
    """

    def __init__(
        self,
        members: Sequence[Member],
        settings: Settings,
        positions: Mapping[str, Sequence[int]],
        labels: int,
    ) -> None:
        super().__init__()
        self.parts = [member.part for member in members]
        self.networks = nn.ModuleList(member.network for member in members)
        self._views, self._size, self._combination = settings.views, settings.eval_size, settings.combine_repeats
        self._positions, self._labels = positions, labels

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return probabilities (n, labels) of images (n, 3, height, width) in [0, 1]."""
        outputs = [
            (part, probabilities(network, images, self._views, self._size))
            for part, network in zip(self.parts, self.networks, strict=True)
        ]
        return merge_tensors(outputs, self._positions, self._labels, self._combination)[0]


class Folds(nn.Module):
    """The networks of all folds.

    Args:
        folds: of each fold.
    """

    def __init__(self, folds: Sequence[Fold]) -> None:
        super().__init__()
        self.folds = nn.ModuleList(folds)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return probabilities (n, folds, labels) of images (n, 3, height, width) in [0, 1]."""
        return torch.stack([fold(images) for fold in self.folds], dim=1)


class SupervisedScorer(TorchLabelScorer):
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
        settings: settings of the run.
        members: all networks.
        backbone: timm's name.
    """

    metadata = METADATA

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
        self.model, self.settings, self.backbone = model, settings, backbone
        self.members, positions = tuple(members), classes(label_specs, settings.only_classes)
        folds = [Fold(fold, settings, positions, len(labels)) for fold in self.members_of_folds()]
        super().__init__(Folds(folds), settings.eval_size, labels, label_specs, device)
        self.name = f"{model} {backbone}, {len(folds)} fold{'' if len(folds) == 1 else 's'}"
        if settings.only_classes:
            self.notes = (
                f"The model has networks for {', '.join(positions)} only. An image of another class gets a label "
                "with a small probability.",
            )

    @property
    def size(self) -> float:
        """Size of all networks, in bytes."""
        return sum(size(member.network.state_dict().values()) for member in self.members)

    @cached_property
    def map_note(self) -> str:
        """Why there are no maps of Grad-CAM; empty where there are."""
        return obstacle(self.members[0].network.to(self.torch_device.torch), self.image_size)

    def grad_cam(self, prepared: Sequence[Pixels], labels: Sequence[int], fold: int | None = None) -> Floats | None:
        """Return the maps of labels; see `harness.backends.scorers.LabelScorer.grad_cam`."""
        if self.map_note:
            return None
        folds = [members for members in self.members_of_folds() if fold is None or members[0].fold == fold]
        for member in (member for members in folds for member in members):
            member.network.to(self.torch_device.torch)
        maps: Floats = maps_of_labels(folds, self.images(prepared), labels).numpy()
        return maps

    def at_image_size(self, size: tuple[int, int]) -> SupervisedScorer:
        """Return the same networks for images of another size; see `harness.backends.scorers.LabelScorer`."""
        if size == self.image_size:
            return self
        settings = replace(self.settings, eval_image_size=size)
        if problems := settings.problems():
            raise ConfigError(problems)
        own = " x ".join(map(str, self.image_size))
        for height, width in dict.fromkeys(view.sides(size) for view in settings.views.views):
            if reason := refusal(self.members[0].network, (height, width)):
                raise ConfigError(
                    f"image_size: {height} x {width} found, which backbone {self.backbone} does not take after its "
                    f"training ({reason}); expected {own}, the size of the run."
                )
        arguments = self.members, self.backbone, self.torch_device
        return SupervisedScorer(self.model, self.labels, self.label_specs, settings, *arguments)

    def members_of_folds(self) -> list[list[Member]]:
        """The networks of each fold, in the order of the folds."""
        folds: dict[int, list[Member]] = {}
        for member in self.members:
            folds.setdefault(member.fold, []).append(member)
        return list(folds.values())

    def contents(self) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        """Return the tensors of all networks by name, and the header that `from_file` needs; see `save`."""
        tensors = {
            f"{number}.{name}": tensor
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
            specs = file.label_specs("meanings")
            return cls(header["model"], header["labels"], specs, settings, members, header["backbone"], hardware)
