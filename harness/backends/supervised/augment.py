"""Augmentation of training images; validation and test images never come here."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from PIL import Image
from timm.data.auto_augment import auto_augment_transform, rand_augment_transform
from torchvision.transforms import v2

# A picture, (3, height, width) of uint8, -> one of the same shape.
Augment = Callable[[torch.Tensor], torch.Tensor]
RANDAUGMENT = "rand-m7-mstd0.5-inc1"


def augmentation(name: str, fill: tuple[int, int, int] = (124, 116, 104)) -> Augment | None:
    """The augmentation of that name; None for `none`.

    Args:
        name: see `harness.backends.supervised.settings.CHOICES`.
        fill: colour of what a turned or moved image leaves empty.
    """
    flips = [v2.RandomHorizontalFlip(), v2.RandomVerticalFlip()]
    smooth: dict[str, Any] = {"interpolation": v2.InterpolationMode.BILINEAR, "fill": list(fill)}
    if name == "none":
        return None
    if name == "flips":
        more: list[torch.nn.Module] = []
    elif name == "rotate45":
        more = [v2.RandomRotation(45, **smooth)]
    elif name == "heavy":
        more = [
            v2.RandomAffine(45, translate=(0.06, 0.06), scale=(0.9, 1.1), **smooth),
            v2.RandomApply([v2.ColorJitter(brightness=0.2, contrast=0.2)], p=0.7),
            v2.RandomApply([_Gamma(0.8, 1.25)], p=0.3),
            v2.RandomApply([v2.GaussianBlur(3, sigma=(0.1, 1.0))], p=0.2),
            v2.RandomApply([_Noise(0.02)], p=0.3),
        ]
    else:
        options: dict[str, Any] = {"img_mean": fill}
        automatic = name == "autoaugment"
        made = (
            auto_augment_transform("original", options) if automatic else rand_augment_transform(RANDAUGMENT, options)
        )
        more = [_Pillow(made)]
    composed: Augment = v2.Compose([*flips, *more])
    return composed


class _Gamma(torch.nn.Module):
    """A gamma drawn from a range."""

    def __init__(self, low: float, high: float) -> None:
        super().__init__()
        self._low, self._high = low, high

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        gamma = self._low + (self._high - self._low) * float(torch.rand(()))
        found: torch.Tensor = v2.functional.adjust_gamma(image, gamma)
        return found


class _Noise(torch.nn.Module):
    """Gaussian noise; `sigma` is a share of full scale."""

    def __init__(self, sigma: float) -> None:
        super().__init__()
        self._sigma = 255 * sigma

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        noisy = image.float() + self._sigma * torch.randn(image.shape)
        return noisy.round().clamp(0, 255).to(torch.uint8)


class _Pillow(torch.nn.Module):
    """One of timm's policies, which work on Pillow's images."""

    def __init__(self, policy: Callable[[Image.Image], Image.Image]) -> None:
        super().__init__()
        self._policy = policy

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        changed = self._policy(Image.fromarray(image.permute(1, 2, 0).numpy()))
        return torch.from_numpy(np.array(changed, dtype=np.uint8)).permute(2, 0, 1)


def mixing(name: str, alpha: float, labels: int) -> Callable[[torch.Tensor, torch.Tensor], Any] | None:
    """Of a batch (n, 3, height, width) and its labels (n,): mixed images and shares of labels; None for `none`."""
    if name == "none":
        return None
    kind = v2.MixUp if name == "mixup" else v2.CutMix
    mixer: Callable[[torch.Tensor, torch.Tensor], Any] = kind(alpha=alpha, num_classes=labels)
    return mixer
