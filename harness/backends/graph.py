"""The exported model as one module: pre-processing, network, scoring, normalisation and thresholds.

All operations exist in TorchScript, ONNX and OpenVINO. The number and the size of the images are free.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import nn

from harness.predictions.decision import Thresholds, normalize
from harness.predictions.detection import centre


class Answers(NamedTuple):
    """Outputs of an exported model, in this order; an exported model has no output for a field that is None.

    Attributes:
        score: (n,) raw scores.
        normalized_score: (n,) normalised scores; see `harness.predictions.decision.normalize`.
        label: (n,) whether the score is above the image threshold.
        anomaly_map: (n, height, width) raw maps, at the size of the network's input.
        mask: (n, height, width) whether the map is above the pixel threshold.
    """

    score: torch.Tensor
    normalized_score: torch.Tensor | None
    label: torch.Tensor | None
    anomaly_map: torch.Tensor | None
    mask: torch.Tensor | None


class Decision(nn.Module):
    """Turns raw scores and maps into `Answers`.

    Args:
        thresholds: see `harness.predictions.decision.Thresholds`.
    """

    def __init__(self, thresholds: Thresholds) -> None:
        super().__init__()
        self.thresholds = thresholds

    def forward(self, scores: torch.Tensor, maps: torch.Tensor | None) -> Answers:
        """Apply normalisation and thresholds.

        Args:
            scores: (n,) raw scores.
            maps: (n, height, width) raw maps, or None.
        """
        image, scale = self.thresholds.image, self.thresholds.image_scale
        return Answers(
            score=scores,
            normalized_score=None if image is None or scale is None else normalize(scores, image, scale),
            label=None if image is None else scores > image,
            anomaly_map=maps,
            mask=None if maps is None or self.thresholds.pixel is None else maps > self.thresholds.pixel,
        )


class Resize(nn.Module):
    """Antialiased bilinear resizing as two matrix products; equal to Torch's resizing up to rounding.

    OpenVINO does not reproduce ONNX's resizing. anomalib exports without antialiasing, which changes scores.

    Args:
        size: (height, width) of the output.
    """

    def __init__(self, size: tuple[int, int]) -> None:
        super().__init__()
        self.size = size

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Resize (n, channels, any, any) to (n, channels, height, width)."""
        down = triangles(images.shape[2], self.size[0], images.device)
        across = triangles(images.shape[3], self.size[1], images.device)
        return down @ (images @ across.T)


def triangles(length: int, size: int, device: torch.device) -> torch.Tensor:
    """Weights of bilinear resizing with antialiasing, in one direction.

    Args:
        length: number of input pixels.
        size: number of output pixels.
        device: of the weights.

    Returns:
        (size, length); rows sum to 1.
    """
    weights = whole_triangles(length, size, device).float()
    return weights / weights.sum(dim=1, keepdim=True)


def whole_triangles(length: int, size: int, device: torch.device) -> torch.Tensor:
    """The weights of `triangles` as whole numbers, before the division by their sum.

    The weights of an output pixel are a triangle around its centre, scaled by the resizing factor. The distances are
    whole numbers, because runtimes with 16-bit arithmetic represent them exactly.

    Args:
        length: number of input pixels.
        size: number of output pixels.
        device: of the weights.

    Returns:
        (size, length).
    """
    inputs, outputs = torch.arange(length, device=device), torch.arange(size, device=device)
    reach = 2 * (inputs[-1:] + 1).clamp(min=size)
    distance = ((2 * inputs[None] + 1) * size - (2 * outputs[:, None] + 1) * (inputs[-1:] + 1)).abs()
    return (reach - distance).clamp(min=0)


class Prepare(nn.Module):
    """Resizes, crops and normalises images in [0, 1].

    Args:
        size: (height, width) of the resized images.
        crop: (height, width) of the centre crop, or None.
        mean: mean of each channel.
        std: standard deviation of each channel.
    """

    def __init__(
        self,
        size: tuple[int, int],
        crop: tuple[int, int] | None,
        mean: tuple[float, ...],
        std: tuple[float, ...],
    ) -> None:
        super().__init__()
        self.resize = Resize(size)
        self.crop = crop
        self.register_buffer("mean", torch.tensor(mean)[:, None, None])
        self.register_buffer("std", torch.tensor(std)[:, None, None])

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Convert (n, 3, any, any) to the network's input, (n, 3, height, width)."""
        images = self.resize(images)
        if self.crop is not None:
            images = centre_crop(images, self.resize.size, self.crop)
        return (images - self.get_buffer("mean")) / self.get_buffer("std")


def centre_crop(images: torch.Tensor, size: tuple[int, int], crop: tuple[int, int]) -> torch.Tensor:
    """Cut out the centre of images, as torchvision does.

    Args:
        images: (n, channels, height, width).
        size: (height, width) of the images.
        crop: (height, width) of the centre.
    """
    top, left = centre(size, crop)
    return images[:, :, top : top + crop[0], left : left + crop[1]]


class Whole(nn.Module):
    """A detector as one module.

    Args:
        prepare: pre-processing.
        scoring: module that turns prepared images into raw scores and maps.
        decision: module that turns scores and maps into `Answers`.
    """

    def __init__(self, prepare: nn.Module, scoring: nn.Module, decision: Decision) -> None:
        super().__init__()
        self.prepare, self.scoring, self.decision = prepare, scoring, decision
        self.eval().requires_grad_(False)

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Predict for RGB images in [0, 1], (n, 3, any, any).

        Returns:
            The fields of `Answers` that are not None.
        """
        answers = self.decision(*self.scoring(self.prepare(images)))
        return tuple(output for output in answers if output is not None)


def output_names(thresholds: Thresholds, maps: bool) -> list[str]:
    """Return the fields of `Answers` that an exported model has.

    Args:
        thresholds: thresholds of the model.
        maps: whether the model gives anomaly maps.
    """
    score = torch.zeros(1)
    answers = Decision(thresholds)(score, score.reshape(1, 1, 1) if maps else None)
    return [name for name, value in answers._asdict().items() if value is not None]
