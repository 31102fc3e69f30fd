"""Export of a classification to one file: the networks of all folds with pre-processing, views and averages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import nn

from harness.backends.formats import Format, write_module
from harness.backends.graph import triangles
from harness.backends.supervised.network import Member
from harness.backends.supervised.one_class import classes, merge_tensors
from harness.backends.supervised.settings import Settings
from harness.backends.supervised.views import probabilities
from harness.data.labelled.base import LabelSpec

OUTPUTS = ("probabilities", "probabilities_by_fold")


class EightBitResize(nn.Module):
    """Bilinear resizing with antialiasing, with the rounding of Pillow, which resizes the images of a training.

    Pillow resizes the columns first. It rounds to 8 bits after each of the two directions. Some versions take the other
    order for tall images. A value may therefore differ by one step of 8 bits.

    Args:
        size: (height, width) of the output.
    """

    def __init__(self, size: tuple[int, int]) -> None:
        super().__init__()
        self.size = size

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Resize (n, channels, any, any) in [0, 1] to (n, channels, height, width) in [0, 1]."""
        across = triangles(images.shape[3], self.size[1], images.device)
        down = triangles(images.shape[2], self.size[0], images.device)
        return _rounded(down @ _rounded(images @ across.T))


def _rounded(images: torch.Tensor) -> torch.Tensor:
    # Pillow rounds halves up. In floating point a half may be a little too small.
    return (images * 255 + (0.5 + 1e-3)).floor().clamp(0, 255) / 255


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


class WholeClassifier(nn.Module):
    """A classification as one module.

    Args:
        settings: settings of the run.
        label_specs: class and condition of each label.
        folds: the networks of each fold, on the cpu.
    """

    def __init__(self, settings: Settings, label_specs: Sequence[LabelSpec], folds: Sequence[Sequence[Member]]) -> None:
        super().__init__()
        self.resize = EightBitResize(settings.eval_size)
        positions = classes(label_specs, settings.only_classes)
        self.folds = nn.ModuleList(Fold(members, settings, positions, len(label_specs)) for members in folds)
        self.eval().requires_grad_(False)

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Predict for RGB images in [0, 1], (n, 3, any, any).

        Returns:
            Probabilities (n, labels), averaged over folds, and (n, folds, labels).
        """
        resized = self.resize(images)
        by_fold = torch.stack([fold(resized) for fold in self.folds], dim=1).float()
        return by_fold.mean(dim=1), by_fold


def export(module: WholeClassifier, file_format: Format, file: Path) -> list[str]:
    """Write a classification to one file.

    Args:
        module: the classification.
        file_format: the file's format.
        file: path with the format's suffix, in an existing folder.

    Returns:
        The names of the outputs.
    """
    write_module(module, file_format, file, OUTPUTS)
    return list(OUTPUTS)
