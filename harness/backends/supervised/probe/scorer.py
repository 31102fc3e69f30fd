"""Prediction of a probe: one frozen network, and the heads of all folds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from harness.backends import cost
from harness.backends.scorers import size_refused
from harness.backends.supervised.label_scorer import TorchLabelScorer
from harness.backends.supervised.model_file import ModelFile, opened
from harness.backends.supervised.network import Classifier, build
from harness.backends.supervised.probe.heads import HEADS, ProbeHead
from harness.backends.supervised.probe.settings import MODEL, ProbeSettings
from harness.common.devices import Device, pick
from harness.data.labelled.base import LabelSpec

FORMAT = 1
METADATA = "harness-probe"
NETWORK = "network."


class Probe(nn.Module):
    """The frozen network, whose features all folds share, and the classifier of each fold.

    Args:
        network: the frozen network; its head is not used.
        heads: the classifier of each fold.
    """

    def __init__(self, network: Classifier, heads: Sequence[ProbeHead]) -> None:
        super().__init__()
        self.network, self.heads = network, nn.ModuleList(heads)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return probabilities (n, folds, labels) of images (n, 3, height, width) in [0, 1]."""
        features = self.network.embed(images)
        return torch.stack([head(features) for head in self.heads], dim=1)


class ProbeScorer(TorchLabelScorer):
    """Predicts the class and condition of images by a probe.

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
        settings: settings of the run.
        size: total size of the saved tensors, in bytes.
        map_note: why a probe has no Grad-CAM.
    """

    metadata = METADATA
    map_note = "a probe has a frozen network, which did not learn the labels"

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
        self._probe = Probe(network, heads)
        super().__init__(self._probe, settings.image_size, labels, label_specs, device)
        self.settings, self._backbone, self._folds = settings, backbone, list(folds)
        self.name = f"{MODEL} {settings.probe_head} {backbone}, {len(folds)} fold{'' if len(folds) == 1 else 's'}"
        self.size = cost.size(self._tensors().values())

    def at_image_size(self, size: tuple[int, int]) -> ProbeScorer:
        """Refuse every size but that of the run, since the heads learned from features at this size.

        Args:
            size: (height, width) of the read images.

        Raises:
            ConfigError: the size is another one.
        """
        own = self.image_size
        if size == own:
            return self
        reason = "a probe, which learned from features of images of its own size"
        raise size_refused(size, reason, f"{own[0]} x {own[1]}", "Make a run of the probe with this image_size.")

    def _tensors(self) -> dict[str, torch.Tensor]:
        state = self._probe.network.features.state_dict()
        return {f"{NETWORK}{name}": tensor for name, tensor in state.items()} | self._probe.heads.state_dict()

    def contents(self) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        """Return the tensors of network and heads by name, and the header that `from_file` needs."""
        header = {
            "format": FORMAT,
            "backbone": self._backbone,
            "labels": list(self.labels),
            "label_specs": [list(label_spec) for label_spec in self.label_specs],
            "settings": self.settings.as_dict(),
            "folds": self._folds,
        }
        return self._tensors(), header

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
        specs = file.label_specs("label_specs")
        return cls(header["backbone"], network, heads, header["folds"], labels, specs, settings, device)
