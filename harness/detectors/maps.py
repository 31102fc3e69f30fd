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


def smooth(
    patches: torch.Tensor,
    size: tuple[int, int],
    mode: str = "bilinear",
    sigma: float = SIGMA,
    radius: int | None = None,
) -> torch.Tensor:
    """Interpolate patch scores to the size of the anomaly map, and smooth the map with a Gaussian kernel.

    Both steps are linear, for rows and columns alike. So one matrix on each side does both, in place of convolutions of
    the large map. A patch that is not finite makes its whole map NaN.

    Args:
        patches: (n, h, w), one value for each patch.
        size: (height, width) of the result.
        mode: bilinear or nearest.
        sigma: standard deviation in pixels.
        radius: of the kernel in pixels, by default 4 sigma; the kernel never exceeds the map. Borders are reflected.

    Returns:
        (n, height, width) float32.
    """
    images, height, width = patches.shape
    full_radius = int(4 * sigma + 0.5) if radius is None else radius
    rows = _weights(height, size[0], mode, sigma, full_radius, patches.device)
    columns = _weights(width, size[1], mode, sigma, full_radius, patches.device)
    # Each image has its own products: the last bits of a common one would depend on the number of images.
    wide = torch.bmm(patches.float(), columns.T.expand(images, -1, -1))
    return torch.bmm(rows.expand(images, -1, -1), wide)


def _weights(patches: int, pixels: int, mode: str, sigma: float, radius: int, device: torch.device) -> torch.Tensor:
    """The weight (pixels, patches) of each patch in each pixel of one row of a smoothed map."""
    interpolated = upsample(torch.eye(patches, device=device)[None], (pixels, patches), mode)[0].T
    radius = min(radius, pixels - 1)
    offsets = torch.arange(-radius, radius + 1, device=device, dtype=torch.float32)
    kernel = torch.exp(-(offsets**2) / (2 * sigma**2))
    padded = F.pad(interpolated[:, None], (radius, radius), mode="reflect")
    return F.conv1d(padded, (kernel / kernel.sum())[None, None])[:, 0].T
