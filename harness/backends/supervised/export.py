"""Export of a classification to one file: the folds with pre-processing and averages."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from harness.backends.formats import Format, write_module
from harness.backends.graph import whole_triangles

OUTPUTS = ("probabilities", "probabilities_by_fold")
STEP = 2**11  # the value of the last upper bit of a weight


class EightBitResize(nn.Module):
    """Bilinear resizing with antialiasing as in Pillow, which resizes the images of a training.

    Pillow resizes the columns first and rounds to 8 bits after each of the two directions. Its weights are whole
    numbers of 22 bits. This module computes with the upper and the lower 11 bits of a weight separately. All sums are
    then whole numbers below 2 ** 24, which 32 bits hold exactly in any order of the additions.

    Some versions of Pillow take the other order of directions for images twice as high as wide. Then a value may differ
    by one step of 8 bits.

    Args:
        size: (height, width) of the output.
    """

    def __init__(self, size: tuple[int, int]) -> None:
        super().__init__()
        self.size = size

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Resize (n, channels, any, any) in [0, 1] to (n, channels, height, width) in [0, 1]."""
        across = _resized_rows((images * 255).round(), images.shape[3], self.size[1])
        down = _resized_rows(across.transpose(2, 3), images.shape[2], self.size[0])
        return down.transpose(2, 3) / 255


def _resized_rows(images: torch.Tensor, length: int, size: int) -> torch.Tensor:
    """Resize the last direction of images from one number of pixels to another, in values from 0 to 255."""
    upper, lower = _split_weights(length, size, images.device)
    carry = ((images @ lower.T) / STEP).floor()
    # Half of the last bit that stays, so that halves are rounded up.
    return ((images @ upper.T + STEP / 2 + carry) / STEP).floor().clamp(0, 255)


def _split_weights(length: int, size: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """The upper and the lower 11 bits of Pillow's weights, each (size, length)."""
    weights = whole_triangles(length, size, device)
    total = weights.sum(dim=1, keepdim=True)
    upper = (weights * STEP / total).floor()
    rest = weights * STEP - upper.to(weights.dtype) * total
    return upper, (rest / total * STEP + 0.5).floor()


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
