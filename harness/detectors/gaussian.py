"""One Gaussian a position, worked off in blocks of positions (Defard et al., 2021, section III-B)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch

EPSILON = 0.01  # added to the covariance's diagonal (equation 1)
BLOCK = 64 * 2**20  # bytes that one block of covariances may take

# (first position, one after the last) -> (positions, images, channels)
Block = Callable[[int, int], torch.Tensor]


def blocks(positions: int, channels: int) -> Iterator[tuple[int, int]]:
    """Ranges of positions whose covariances are worked on together."""
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
    """Fill in one Gaussian a position.

    Args:
        vectors: gives the training vectors of a block of positions.
        mean: (positions, channels), filled.
        factor: (positions, channels, channels), filled with the covariances' Cholesky factors L, lower: the
            covariance is L times its transpose.
        device: what computes.
        progress: called with (positions done, in all).
    """
    positions, channels = mean.shape
    identity = EPSILON * torch.eye(channels, device=device)
    for first, last in blocks(positions, channels):
        block = vectors(first, last).to(device)
        centre = block.mean(dim=1, keepdim=True)
        centred = block - centre
        covariance = torch.bmm(centred.mT, centred) / (block.shape[1] - 1) + identity
        mean[first:last] = centre[:, 0]
        factor[first:last] = cholesky(covariance)
        if progress is not None:
            progress(last, positions)


def cholesky(covariance: torch.Tensor) -> torch.Tensor:
    """(n, c, c) lower factors; in double precision where single does not suffice."""
    factor, failed = torch.linalg.cholesky_ex(covariance)
    if bool(failed.any()):
        # On the cpu, since not every accelerator has double precision.
        factor = torch.linalg.cholesky(covariance.cpu().double()).float().to(covariance.device)
    lower: torch.Tensor = factor
    return lower


def mahalanobis(
    vectors: Block, mean: torch.Tensor, factor: torch.Tensor, images: int, device: torch.device
) -> torch.Tensor:
    """(images, positions) Mahalanobis distances (equation 2): the length of the solution z of L z = x - mean.

    Args:
        vectors: gives the images' vectors of a block of positions.
        mean, factor: of `fit_gaussians`.
        images: how many.
        device: what computes.
    """
    found = torch.empty(images, len(mean))
    for first, last in blocks(*mean.shape):
        delta = vectors(first, last).to(device) - mean[first:last].to(device)[:, None]
        solved = torch.linalg.solve_triangular(factor[first:last].to(device), delta.mT, upper=False)
        found[:, first:last] = torch.linalg.vector_norm(solved, dim=1).T
    return found


def gather(maps: Sequence[torch.Tensor], channels: torch.Tensor, first: int, last: int) -> torch.Tensor:
    """(positions, images, channels) of a block of positions of the first map's grid, the others brought to it.

    Args:
        maps: (n, c, h, w) each, the first with the finest grid; a position of it takes the nearest of another
            (index floor(i * in / out), Torch's `nearest`).
        channels: (c,) chosen from the concatenation of all maps' channels.
        first, last: the block.
    """
    height, width = maps[0].shape[-2:]
    positions = torch.arange(first, last)
    parts, order, offset = [], [], 0
    for one in maps:
        down = (positions // width) * one.shape[2] // height
        across = (positions % width) * one.shape[3] // width
        mine = torch.nonzero((channels >= offset) & (channels < offset + one.shape[1]))[:, 0]
        # In one step: first the channels and then the positions would copy whole maps for each block.
        parts.append(one[:, (channels[mine] - offset)[:, None], down, across])
        order.append(mine)
        offset += one.shape[1]
    back = torch.argsort(torch.cat(order))
    return torch.cat(parts, dim=1)[:, back].permute(2, 0, 1).contiguous()
