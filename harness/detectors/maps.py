"""Patch scores -> anomaly maps: brought to the size of the network's input, and smoothed."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.nn import functional as F

SIGMA = 4.0  # pixels; of SPADE, PaDiM and PatchCore alike


@dataclass(frozen=True)
class Scores:
    """What a detector says of n images; larger is more anomalous.

    Attributes:
        images: (n,) raw image scores.
        maps: (n, height, width) raw anomaly maps, at the size of the network's input.
    """

    images: torch.Tensor
    maps: torch.Tensor


def upsample(
    patches: torch.Tensor, size: tuple[int, int], mode: str = "bilinear", corners: bool = False
) -> torch.Tensor:
    """(n, h, w) -> (n, height, width).

    Args:
        patches: one value a patch.
        size: (height, width).
        mode: bilinear or nearest.
        corners: bilinear with the corners of both grids in the same place.
    """
    aligned = corners if mode == "bilinear" else None
    return F.interpolate(patches[:, None].float(), size=size, mode=mode, align_corners=aligned)[:, 0]


def blur(maps: torch.Tensor, sigma: float = SIGMA) -> torch.Tensor:
    """Gaussian smoothing of (n, height, width), reflected at the borders.

    Args:
        maps: one or more.
        sigma: pixels; the kernel reaches 4 sigma, or as far as the map is large.
    """
    wanted = int(4 * sigma + 0.5)
    for dimension in (1, 2):
        radius = min(wanted, maps.shape[dimension] - 1)
        offsets = torch.arange(-radius, radius + 1, device=maps.device, dtype=torch.float32)
        weights = torch.exp(-(offsets**2) / (2 * sigma**2))
        down = dimension == 1
        kernel = (weights / weights.sum()).reshape((1, 1, -1, 1) if down else (1, 1, 1, -1))
        pad = (0, 0, radius, radius) if down else (radius, radius, 0, 0)
        maps = F.conv2d(F.pad(maps[:, None], pad, mode="reflect"), kernel)[:, 0]
    return maps
