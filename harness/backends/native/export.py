"""Export of a native detector to one file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import nn

from harness.backends.formats import Format, write_module
from harness.backends.graph import Decision, Prepare, Whole, output_names
from harness.detectors.base import Detector
from harness.predictions.decision import Thresholds


class Scoring(nn.Module):
    """Predicts raw scores and maps of prepared images.

    Args:
        network: module that turns images into features by layer.
        head: module that turns features into scores and maps.
    """

    def __init__(self, network: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.network, self.head = network, head

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Predict scores (n,) and maps (n, height, width) of images (n, 3, height, width)."""
        features: Mapping[str, torch.Tensor] = self.network(images)
        scores_and_maps: tuple[torch.Tensor, torch.Tensor] = self.head(features)
        return scores_and_maps


def whole(detector: Detector, thresholds: Thresholds) -> Whole:
    """Return a detector as one module on the cpu.

    Args:
        detector: the fitted detector.
        thresholds: see `harness.predictions.decision.Thresholds`.
    """
    view = detector.preprocessing
    prepare = Prepare(view.size, view.crop, view.normalization.mean, view.normalization.std)
    return Whole(prepare, Scoring(detector.extractor(), detector.head()), Decision(thresholds)).cpu()


def export(detector: Detector, thresholds: Thresholds, file_format: Format, file: Path) -> list[str]:
    """Write a detector with preprocessing, normalisation and thresholds to one file.

    Args:
        detector: the fitted detector.
        thresholds: see `harness.predictions.decision.Thresholds`.
        file_format: the file's format.
        file: path with the format's suffix, in an existing folder.

    Returns:
        The names of the outputs.
    """
    module, names = whole(detector, thresholds), output_names(thresholds, maps=True)
    write_module(module, file_format, file, names)
    return names
