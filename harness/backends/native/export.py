"""A native detector as a file that other programs run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import nn

from harness.backends.formats import Format, onnx_to_openvino, write_onnx, write_torchscript
from harness.backends.graph import Decision, Prepare, Whole, output_names
from harness.detectors.base import Detector
from harness.predictions.decision import Thresholds


class Scoring(nn.Module):
    """Prepared images -> raw scores and maps.

    Args:
        network: images -> layer -> features.
        head: features -> scores and maps.
    """

    def __init__(self, network: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.network, self.head = network, head

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(n, 3, height, width) -> (n,), (n, height, width)."""
        features: Mapping[str, torch.Tensor] = self.network(images)
        found: tuple[torch.Tensor, torch.Tensor] = self.head(features)
        return found


def whole(detector: Detector, thresholds: Thresholds) -> Whole:
    """On the cpu."""
    view = detector.view
    prepare = Prepare(view.size, view.crop, view.normalization.mean, view.normalization.std)
    return Whole(prepare, Scoring(detector.extractor(), detector.head()), Decision(thresholds)).cpu()


def export(detector: Detector, thresholds: Thresholds, chosen: Format, file: Path) -> list[str]:
    """See `harness.backends.base.Scorer.export`."""
    module, names = whole(detector, thresholds), output_names(thresholds, maps=True)
    if chosen == "torchscript":
        write_torchscript(module, file)
    elif chosen == "onnx":
        write_onnx(module, file, names)
    else:
        between = file.with_suffix(".onnx")
        write_onnx(module, between, names)
        onnx_to_openvino(between, file)
        between.unlink()
    return names
