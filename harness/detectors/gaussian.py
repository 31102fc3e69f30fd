"""One Gaussian for each position, computed in blocks of positions (Defard et al., 2021, section III-B)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch

EPSILON = 0.01  # added to the diagonal of the covariance (equation 1)
BLOCK = 64 * 2**20  # bytes of one block of covariances

# From (first position, end) to the vectors (positions, images, channels).
Block = Callable[[int, int], torch.Tensor]


def blocks(positions: int, channels: int) -> Iterator[tuple[int, int]]:
    """Split the positions into blocks whose covariances are computed together.

    Args:
        positions: number of positions.
        channels: length of a vector.

    Returns:
        (first position, end) of each block.
    """
    step = max(1, BLOCK // (4 * channels * channels))
    for first in range(0, positions, step):
        yield first, min(first + step, positions)


def fit_gaussians(
    vectors: Block,
    mean: torch.Tensor,
    factor: torch.Tensor,
    device: torch.device,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Estimate one Gaussian for each position.

    Args:
        vectors: returns the training vectors of a block of positions.
        mean: (positions, channels), filled with the means.
        factor: (positions, channels, channels), filled with the lower Cholesky factors L of the covariances L L^T.
        device: device of the computation.
        progress: called with the number of finished positions and of all positions.
    """
    positions, channels = mean.shape
    identity = EPSILON * torch.eye(channels, device=device)
    for first, last in blocks(positions, channels):
        block = vectors(first, last).to(device)
        block_mean = block.mean(dim=1, keepdim=True)
        centred = block - block_mean
        covariance = torch.bmm(centred.mT, centred) / (block.shape[1] - 1) + identity
        mean[first:last] = block_mean[:, 0]
        factor[first:last] = cholesky(covariance)
        if progress is not None:
            progress(last, positions)


def cholesky(covariance: torch.Tensor) -> torch.Tensor:
    """Lower Cholesky factors of (n, c, c) matrices, in double precision where single precision fails."""
    factor, failed = torch.linalg.cholesky_ex(covariance)
    if bool(failed.any()):
        # Not every accelerator has double precision.
        factor = torch.linalg.cholesky(covariance.cpu().double()).float().to(covariance.device)
    lower: torch.Tensor = factor
    return lower


def mahalanobis(
    vectors: Block, mean: torch.Tensor, factor: torch.Tensor, images: int, device: torch.device
) -> torch.Tensor:
    """Mahalanobis distances (equation 2): the length of the solution z of L z = x - mean.

    Args:
        vectors: returns the images' vectors of a block of positions.
        mean, factor: Gaussians of `fit_gaussians`.
        images: number of images.
        device: device of the computation.

    Returns:
        (images, positions) on the cpu.
    """
    distances = torch.empty(images, len(mean))
    for first, last in blocks(*mean.shape):
        delta = vectors(first, last).to(device) - mean[first:last].to(device)[:, None]
        solution = torch.linalg.solve_triangular(factor[first:last].to(device), delta.mT, upper=False)
        distances[:, first:last] = torch.linalg.vector_norm(solution, dim=1).T
    return distances


def gather(maps: Sequence[torch.Tensor], channels: torch.Tensor, first: int, last: int) -> torch.Tensor:
    """Vectors of a block of positions of the first map's grid, with the selected channels of all maps.

    A position takes the nearest position of the other maps: index floor(i * in / out), as in Torch's `nearest`.

    Args:
        maps: (n, c, h, w) each; the first has the finest grid.
        channels: (c,) numbers of channels in the concatenation of all maps.
        first, last: first position and end of the block.

    Returns:
        (positions, images, channels).
    """
    height, width = maps[0].shape[-2:]
    positions = torch.arange(first, last)
    values, places, offset = [], [], 0
    for layer in maps:
        row = (positions // width) * layer.shape[2] // height
        column = (positions % width) * layer.shape[3] // width
        place = torch.nonzero((channels >= offset) & (channels < offset + layer.shape[1]))[:, 0]
        # One index for channels and positions: two steps would copy whole maps for each block.
        values.append(layer[:, (channels[place] - offset)[:, None], row, column])
        places.append(place)
        offset += layer.shape[1]
    order = torch.argsort(torch.cat(places))
    return torch.cat(values, dim=1)[:, order].permute(2, 0, 1).contiguous()
