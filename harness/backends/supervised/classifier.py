"""A saved classification at work: every network of the run, averaged over folds and views."""

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
        fold: that judged it.
        part: the class whose states it tells apart; "" for all labels.
        own: positions of its labels.
        network: in evaluation.
    """

    fold: int
    part: str
    own: tuple[int, ...]
    network: Classifier


class SupervisedScorer:
    """Names the state of parts.

    Args:
        model: baseline or one_class.
        labels: in the order of probabilities.
        meanings: class and state of each.
        settings: of the run; its views are averaged.
        members: all networks.
        backbone: timm's name.
        device: what it runs on.

    Attributes:
        model, labels, meanings, settings, members, backbone: as given.
        torch_device: as given.
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
        self._views, self._parts = views(settings.views), classes(label_specs)

    @property
    def name(self) -> str:
        """What it is, for a person."""
        folds = len({member.fold for member in self.members})
        return f"{self.model} {self.backbone}, {folds} fold{'' if folds == 1 else 's'}"

    @property
    def device(self) -> str:
        """What it runs on, for a person."""
        return self.torch_device.description

    def prepare(self, pixels: RGB) -> Pixels:
        """An image as `probabilities` takes it; called by several threads at once."""
        return to_size(pixels, self.settings.image_size)

    def probabilities(self, prepared: Sequence[Pixels]) -> npt.NDArray[np.float64]:
        """(n, labels), averaged over folds; called by one thread at a time."""
        device = self.torch_device.torch
        images = torch.from_numpy(np.stack(prepared)).to(device).float() / 255
        found = []
        with torch.inference_mode():
            for fold in dict.fromkeys(member.fold for member in self.members):
                answers = {
                    member.part: probabilities(member.network.to(device), images, self._views).numpy()
                    for member in self.members
                    if member.fold == fold
                }
                found.append(answers[""] if "" in answers else merge(answers, self._parts, len(self.labels))[0])
        mean: npt.NDArray[np.float64] = np.mean(found, axis=0)
        return mean

    def to_cpu(self) -> None:
        """Leave the device's memory."""
        for member in self.members:
            member.network.cpu()

    def save(self, folder: Path) -> None:
        """All networks as one safetensors file, with what `from_file` needs to make them again.

        Args:
            folder: where to, as model.safetensors.
        """
        tensors = {
            f"{number}.{name}": tensor.detach().cpu().contiguous().clone()
            for number, member in enumerate(self.members)
            for name, tensor in member.network.state_dict().items()
        }
        about = {
            "format": FORMAT,
            "model": self.model,
            "backbone": self.backbone,
            "labels": list(self.labels),
            "meanings": [list(meaning) for meaning in self.label_specs],
            "settings": self.settings.as_dict(),
            "members": [{"fold": m.fold, "part": m.part, "own": list(m.own)} for m in self.members],
        }
        save_file(tensors, folder / MODEL, {METADATA: json.dumps(about)})

    @classmethod
    def from_file(cls, path: Path, device: str) -> SupervisedScorer:
        """From a file that a run wrote. Nothing in it is executed.

        Args:
            path: the file.
            device: auto, cpu, cuda, cuda:N or mps.

        Raises:
            WeightsError: it is no such file, or does not fit the network that it names.
            ConfigError: this machine has no such device.
        """
        picked = pick(device)
        try:
            with safe_open(path, framework="pt") as file:
                about: dict[str, Any] = json.loads((file.metadata() or {})[METADATA])
                # Copied, since tensors of a file begin anywhere.
                tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118 (not a dict)
            if about["format"] > FORMAT:
                raise WeightsError(f"{path}: written by a newer harness (format {about['format']}, {FORMAT} known).")
            settings = Settings.from_dict(about["settings"])
            members = []
            for number, one in enumerate(about["members"]):
                outputs = len(one["own"]) + bool(one["part"])
                network = build(about["backbone"], outputs, settings, None, 0)
                prefix = f"{number}."
                state = {key.removeprefix(prefix): v for key, v in tensors.items() if key.startswith(prefix)}
                network.load_state_dict(state)
                members.append(Member(one["fold"], one["part"], tuple(one["own"]), network.eval()))
            label_specs = [(part, state) for part, state in about["meanings"]]
            return cls(about["model"], about["labels"], label_specs, settings, members, about["backbone"], picked)
        except HarnessError:
            raise
        # Whatever a damaged or foreign file makes the libraries raise.
        except Exception as error:
            raise WeightsError(f"{path}: no saved classification ({type(error).__name__}: {error}).") from error
