"""Augmentation of training images. Validation and test images are never augmented."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from PIL import Image
from timm.data.auto_augment import auto_augment_transform, rand_augment_transform
from torchvision.transforms import v2

# Maps an image, (3, height, width) of uint8, to an image of the same shape.
Augment = Callable[[torch.Tensor], torch.Tensor]
MIXERS = {"mixup": v2.MixUp, "cutmix": v2.CutMix}
RANDAUGMENT = "rand-m7-mstd0.5-inc1"


def augmentation(name: str, fill: tuple[int, int, int] = (124, 116, 104)) -> Augment | None:
    """Return an augmentation, or None for `none`.

    Args:
        name: see `harness.backends.supervised.settings.CHOICES`.
        fill: RGB colour of the pixels that a rotation or translation leaves empty.
    """
    flips = [v2.RandomHorizontalFlip(), v2.RandomVerticalFlip()]
    smooth: dict[str, Any] = {"interpolation": v2.InterpolationMode.BILINEAR, "fill": list(fill)}
    if name == "none":
        return None
    if name == "flips":
        transforms: list[torch.nn.Module] = []
    elif name == "rotate45":
        transforms = [v2.RandomRotation(45, **smooth)]
    elif name == "heavy":
        transforms = [
            _Rotate90(),
            v2.RandomAffine(45, translate=(0.06, 0.06), scale=(0.9, 1.1), **smooth),
            v2.RandomApply([v2.ColorJitter(brightness=0.2, contrast=0.2)], p=0.7),
            v2.RandomApply([_Gamma(0.8, 1.25)], p=0.3),
            v2.RandomApply([v2.GaussianBlur(3, sigma=(0.1, 1.0))], p=0.2),
            v2.RandomApply([_Noise(0.02)], p=0.3),
        ]
    else:
        options: dict[str, Any] = {"img_mean": fill}
        automatic = name == "autoaugment"
        policy = (
            auto_augment_transform("original", options) if automatic else rand_augment_transform(RANDAUGMENT, options)
        )
        transforms = [_Pillow(policy)]
    composed: Augment = v2.Compose([*flips, *transforms])
    return composed


class _Rotate90(torch.nn.Module):
    """Rotates a square image by 0, 90, 180 or 270 degrees, and another image by 0 or 180 degrees."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        step = 1 if image.shape[-2] == image.shape[-1] else 2
        return torch.rot90(image, k=step * int(torch.randint(4 // step, ())), dims=(-2, -1))


class _Gamma(torch.nn.Module):
    """Applies a random gamma."""

    def __init__(self, low: float, high: float) -> None:
        super().__init__()
        self._low, self._high = low, high

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        gamma = self._low + (self._high - self._low) * float(torch.rand(()))
        adjusted: torch.Tensor = v2.functional.adjust_gamma(image, gamma)
        return adjusted


class _Noise(torch.nn.Module):
    """Adds Gaussian noise; `sigma` is relative to the full scale."""

    def __init__(self, sigma: float) -> None:
        super().__init__()
        self._sigma = 255 * sigma

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        noisy = image.float() + self._sigma * torch.randn(image.shape)
        return noisy.round().clamp(0, 255).to(torch.uint8)


class _Pillow(torch.nn.Module):
    """Applies one of timm's policies, which need Pillow's images."""

    def __init__(self, policy: Callable[[Image.Image], Image.Image]) -> None:
        super().__init__()
        self._policy = policy

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        augmented = self._policy(Image.fromarray(image.permute(1, 2, 0).numpy()))
        return torch.from_numpy(np.array(augmented, dtype=np.uint8)).permute(2, 0, 1)


def mixing(
    name: str, alpha: float, probability: float, labels: int
) -> Callable[[torch.Tensor, torch.Tensor], Any] | None:
    """Return a function that mixes the images of a batch, or None for `none`.

    Args:
        name: none, mixup (Zhang et al., 2018), cutmix (Yun et al., 2019), or mixup+cutmix for one of both at random.
        alpha: parameter of the Beta distribution of the mixing ratio.
        probability: probability that a batch is mixed.
        labels: number of labels.

    Returns:
        A function of images (n, 3, height, width) and labels (n,). The function returns the mixed images, and the
        shares of labels, (n, labels); or the same images and labels.
    """
    if name == "none":
        return None
    mixers: list[torch.nn.Module] = [MIXERS[part](alpha=alpha, num_classes=labels) for part in name.split("+")]
    mixer = mixers[0] if len(mixers) == 1 else v2.RandomChoice(mixers)
    # Without this condition, a probability of 1 would draw one more random number than earlier versions.
    chosen: Callable[[torch.Tensor, torch.Tensor], Any] = (
        mixer if probability == 1 else v2.RandomApply([mixer], probability)
    )
    return chosen
