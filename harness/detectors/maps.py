"""Anomaly maps from patch scores: upsampling to the size of the network's input, and Gaussian smoothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch.nn import functional as F

SIGMA = 4.0  # pixels; SPADE, PaDiM and PatchCore use the same value
LARGEST_SHARE = 0.01  # share of the values that make an image score (Damm et al., 2025, section 3.1)


@dataclass(frozen=True)
class Scores:
    """Scores of n images; larger values are more anomalous.

    Attributes:
        images: (n,) raw image scores.
        maps: (n, height, width) raw anomaly maps, at the size of the network's input.
    """

    images: torch.Tensor
    maps: torch.Tensor


def concatenate(batches: Sequence[Scores]) -> Scores:
    """Concatenate the scores of several batches of images."""
    return Scores(torch.cat([batch.images for batch in batches]), torch.cat([batch.maps for batch in batches]))


def upsample(
    patches: torch.Tensor, size: tuple[int, int], mode: str = "bilinear", corners: bool = False
) -> torch.Tensor:
    """Interpolate patch scores to the size of the anomaly map.

    Args:
        patches: (n, h, w), one value for each patch.
        size: (height, width) of the result.
        mode: bilinear or nearest.
        corners: whether bilinear interpolation aligns the corners of both grids.

    Returns:
        (n, height, width) float32.
    """
    aligned = corners if mode == "bilinear" else None
    return F.interpolate(patches[:, None].float(), size=size, mode=mode, align_corners=aligned)[:, 0]


def mean_of_largest(values: torch.Tensor, share: float = LARGEST_SHARE) -> torch.Tensor:
    """The mean of the largest values of each image: the tail value at risk at the quantile 1 - share.

    Args:
        values: (n, m) patch scores or pixels of n images.
        share: share of the m values; at least one value counts.

    Returns:
        (n,) image scores.
    """
    return values.topk(max(int(values.shape[1] * share), 1), dim=1).values.mean(dim=1)


def blur(maps: torch.Tensor, sigma: float = SIGMA, radius: int | None = None) -> torch.Tensor:
    """Smooth maps with a Gaussian kernel; the borders are reflected.

    Args:
        maps: (n, height, width).
        sigma: standard deviation in pixels.
        radius: of the kernel in pixels, by default 4 sigma; the kernel never exceeds the map.

    Returns:
        (n, height, width).
    """
    full_radius = int(4 * sigma + 0.5) if radius is None else radius
    for dimension in (1, 2):
        radius = min(full_radius, maps.shape[dimension] - 1)
        offsets = torch.arange(-radius, radius + 1, device=maps.device, dtype=torch.float32)
        weights = torch.exp(-(offsets**2) / (2 * sigma**2))
        vertical = dimension == 1
        kernel = (weights / weights.sum()).reshape((1, 1, -1, 1) if vertical else (1, 1, 1, -1))
        padding = (0, 0, radius, radius) if vertical else (radius, radius, 0, 0)
        maps = F.conv2d(F.pad(maps[:, None], padding, mode="reflect"), kernel)[:, 0]
    return maps
