"""What goes into an exported file: pre-processing, network, scoring, normalisation and threshold as one module.

Made of operations that TorchScript, ONNX and OpenVINO all have, with images of any number and size.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import nn

from harness.predictions.decision import Thresholds, normalize
from harness.predictions.detection import centre


class Answers(NamedTuple):
    """Outputs of an exported model, in this order; those that a model or a run does not have are left out.

    Attributes:
        score: (n,) raw.
        normalized_score: (n,) see `harness.predictions.decision.normalize`.
        label: (n,) whether the score is above the threshold.
        anomaly_map: (n, height, width) raw, at the size of the network's input.
        mask: (n, height, width) whether the map is above the pixel threshold.
    """

    score: torch.Tensor
    normalized_score: torch.Tensor | None
    label: torch.Tensor | None
    anomaly_map: torch.Tensor | None
    mask: torch.Tensor | None


class Decision(nn.Module):
    """Raw scores and maps -> `Answers`.

    Args:
        thresholds: see `harness.predictions.decision.Thresholds`.
    """

    def __init__(self, thresholds: Thresholds) -> None:
        super().__init__()
        self.thresholds = thresholds

    def forward(self, scores: torch.Tensor, maps: torch.Tensor | None) -> Answers:
        """(n,) and (n, height, width)."""
        image, scale = self.thresholds.image, self.thresholds.image_scale
        return Answers(
            score=scores,
            normalized_score=None if image is None or scale is None else normalize(scores, image, scale),
            label=None if image is None else scores > image,
            anomaly_map=maps,
            mask=None if maps is None or self.thresholds.pixel is None else maps > self.thresholds.pixel,
        )


class Resize(nn.Module):
    """Antialiased bilinear resizing as two matrix products; equal to Torch's but for rounding.

    ONNX's own is not what OpenVINO makes of it, and anomalib leaves antialiasing out, which changes scores.

    Args:
        size: (height, width).
    """

    def __init__(self, size: tuple[int, int]) -> None:
        super().__init__()
        self.size = size

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """(n, channels, any, any) -> (n, channels, height, width)."""
        down = _triangles(images.shape[2], self.size[0], images.device)
        across = _triangles(images.shape[3], self.size[1], images.device)
        return down @ (images @ across.T)


def _triangles(length: int, size: int, device: torch.device) -> torch.Tensor:
    """(size, length) weights: a triangle around each output pixel's centre, as wide as what it stands for.

    In whole numbers, which runtimes that compute with 16 bits keep.
    """
    inputs, outputs = torch.arange(length, device=device), torch.arange(size, device=device)
    reach = 2 * (inputs[-1:] + 1).clamp(min=size)
    distance = ((2 * inputs[None] + 1) * size - (2 * outputs[:, None] + 1) * (inputs[-1:] + 1)).abs()
    weights = (reach - distance).clamp(min=0).float()
    return weights / weights.sum(dim=1, keepdim=True)


class Prepare(nn.Module):
    """Images in [0, 1] as a network takes them.

    Args:
        size: (height, width) they are brought to.
        crop: (height, width) of the centre that is kept, or None.
        mean, std: of the channels.
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
        """(n, 3, any, any) -> (n, 3, height, width)."""
        images = self.resize(images)
        if self.crop is not None:
            images = centre_crop(images, self.resize.size, self.crop)
        return (images - self.get_buffer("mean")) / self.get_buffer("std")


def centre_crop(images: torch.Tensor, size: tuple[int, int], crop: tuple[int, int]) -> torch.Tensor:
    """The centre, as torchvision cuts it out of images of that size."""
    top, left = centre(size, crop)
    return images[:, :, top : top + crop[0], left : left + crop[1]]


class Whole(nn.Module):
    """A detector as one module.

    Args:
        prepare: pre-processing.
        scoring: prepared images -> raw scores and maps.
        decision: scores and maps -> answers.
    """

    def __init__(self, prepare: nn.Module, scoring: nn.Module, decision: Decision) -> None:
        super().__init__()
        self.prepare, self.scoring, self.decision = prepare, scoring, decision
        self.eval().requires_grad_(False)

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """(n, 3, any, any) RGB in [0, 1] -> those of `Answers` that there are."""
        answers = self.decision(*self.scoring(self.prepare(images)))
        return tuple(one for one in answers if one is not None)


def output_names(thresholds: Thresholds, maps: bool) -> list[str]:
    """Which of `Answers` an exported model has."""
    one = torch.zeros(1)
    answers = Decision(thresholds)(one, one.reshape(1, 1, 1) if maps else None)
    return [name for name, value in answers._asdict().items() if value is not None]
