"""Test-time augmentation: the mean probabilities of several views of an image."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch

View = Callable[[torch.Tensor], torch.Tensor]
FACTORS = (0.9, 1.1)


def views(kinds: Sequence[str]) -> list[View]:
    """Return the views of images (n, 3, height, width) in [0, 1]: the images themselves, then the views of each kind.

    Args:
        kinds: some of `flips` (left-right, up-down), `rotations` (90, 180, 270 degrees), `brightness` (0.9, 1.1 times).
    """
    transforms: list[View] = [_same]
    if "flips" in kinds:
        transforms += [partial(torch.flip, dims=(3,)), partial(torch.flip, dims=(2,))]
    if "rotations" in kinds:
        transforms += [partial(torch.rot90, k=k, dims=(2, 3)) for k in (1, 2, 3)]
    if "brightness" in kinds:
        transforms += [partial(_brighter, factor=factor) for factor in FACTORS]
    return transforms


def _same(images: torch.Tensor) -> torch.Tensor:
    return images


def _brighter(images: torch.Tensor, factor: float) -> torch.Tensor:
    return (images * factor).clamp(0, 1)


def probabilities(network: torch.nn.Module, images: torch.Tensor, image_views: Sequence[View]) -> torch.Tensor:
    """Return the mean probabilities over views, in double precision on the cpu.

    Args:
        network: classifier with logits (n, outputs).
        images: (n, 3, height, width) in [0, 1].
        image_views: the views.

    Returns:
        (n, outputs).
    """
    mean = torch.stack([network(view(images)).double().softmax(dim=1) for view in image_views]).mean(dim=0)
    return mean.cpu()
