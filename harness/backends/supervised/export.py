"""Export of a classification to one file: the folds with pre-processing and averages."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from harness.backends.formats import Format, write_module
from harness.backends.graph import triangles

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


class WholeClassifier(nn.Module):
    """A classification as one module.

    Args:
        by_fold: returns probabilities (n, folds, labels) of images (n, 3, height, width) in [0, 1]; on the cpu.
        size: (height, width) of these images.
    """

    def __init__(self, by_fold: nn.Module, size: tuple[int, int]) -> None:
        super().__init__()
        self.resize, self.by_fold = EightBitResize(size), by_fold
        self.eval().requires_grad_(False)

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Predict for RGB images in [0, 1], (n, 3, any, any).

        Returns:
            Probabilities (n, labels), averaged over folds, and (n, folds, labels).
        """
        by_fold = self.by_fold(self.resize(images)).float()
        return by_fold.mean(dim=1), by_fold


def export(by_fold: nn.Module, size: tuple[int, int], file_format: Format, file: Path) -> list[str]:
    """Write a classification to one file.

    Args:
        by_fold: see `WholeClassifier`.
        size: (height, width) of its images.
        file_format: the file's format.
        file: path with the format's suffix, in an existing folder.

    Returns:
        The names of the outputs.
    """
    write_module(WholeClassifier(by_fold, size), file_format, file, OUTPUTS)
    return list(OUTPUTS)
