"""Export of a probe to one file: the frozen network and the heads of all folds, with pre-processing and averages."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from harness.backends.formats import Format, write_module
from harness.backends.supervised.export import OUTPUTS, EightBitResize
from harness.backends.supervised.network import Classifier
from harness.backends.supervised.probe.settings import ProbeSettings


class WholeProbe(nn.Module):
    """A probe as one module.

    Args:
        settings: settings of the run.
        network: the frozen network, on the cpu.
        heads: the classifier of each fold, on the cpu.
    """

    def __init__(self, settings: ProbeSettings, network: Classifier, heads: nn.ModuleList) -> None:
        super().__init__()
        self.resize, self.network, self.heads = EightBitResize(settings.image_size), network, heads
        self.eval().requires_grad_(False)

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Predict for RGB images in [0, 1], (n, 3, any, any).

        Returns:
            Probabilities (n, labels), averaged over folds, and (n, folds, labels).
        """
        features = self.network.embed(self.resize(images))
        by_fold = torch.stack([head(features) for head in self.heads], dim=1)
        return by_fold.mean(dim=1), by_fold


def export(module: WholeProbe, file_format: Format, file: Path) -> list[str]:
    """Write a probe to one file.

    Args:
        module: the probe.
        file_format: the file's format.
        file: path with the format's suffix, in an existing folder.

    Returns:
        The names of the outputs.
    """
    write_module(module, file_format, file, OUTPUTS)
    return list(OUTPUTS)
