"""Test-time augmentation: views of an image whose probabilities are averaged."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch

View = Callable[[torch.Tensor], torch.Tensor]
FACTORS = (0.9, 1.1)


def views(kinds: Sequence[str]) -> list[View]:
    """The image itself, and of each kind its views; images are (n, 3, height, width) in [0, 1].

    Args:
        kinds: of `flips` (left-right, up-down), `rotations` (90, 180, 270 degrees) and `brightness` (times 0.9, 1.1).
    """
    found: list[View] = [_same]
    if "flips" in kinds:
        found += [partial(torch.flip, dims=(3,)), partial(torch.flip, dims=(2,))]
    if "rotations" in kinds:
        found += [partial(torch.rot90, k=k, dims=(2, 3)) for k in (1, 2, 3)]
    if "brightness" in kinds:
        found += [partial(_brighter, factor=factor) for factor in FACTORS]
    return found


def _same(images: torch.Tensor) -> torch.Tensor:
    return images


def _brighter(images: torch.Tensor, factor: float) -> torch.Tensor:
    return (images * factor).clamp(0, 1)


def probabilities(network: torch.nn.Module, images: torch.Tensor, chosen: Sequence[View]) -> torch.Tensor:
    """Mean over views of the softmax, (n, labels), in double precision on the cpu."""
    total = torch.stack([network(view(images)).double().softmax(dim=1) for view in chosen]).mean(dim=0)
    return total.cpu()
