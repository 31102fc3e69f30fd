"""One Gaussian for each position (Defard et al., 2021, section III-B).

The computation goes through blocks of positions, and through the images of a block in parts. So its temporary arrays
have the same size, however many positions and images there are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch

EPSILON = 0.01  # added to the diagonal of the covariance (equation 1)
BLOCK = 64 * 2**20  # bytes of one block of covariances
VECTORS = 128 * 2**20  # bytes of the vectors of some images in one block


@dataclass(frozen=True)
class Vectors:
    """The vectors of all positions of the first map's grid, with the selected channels of all maps.

    A position takes the nearest position of the other maps: index floor(i * in / out), as in Torch's `nearest`.

    Attributes:
        maps: (n, c, h, w) each; the first has the finest grid.
        channels: (c,) numbers of channels in the concatenation of all maps.
    """

    maps: Sequence[torch.Tensor]
    channels: torch.Tensor

    @property
    def images(self) -> int:
        """Number of images."""
        return len(self.maps[0])

    def parts(self, first: int, last: int) -> Iterator[tuple[slice, torch.Tensor]]:
        """The vectors of a block of positions, some images at a time.

        Args:
            first, last: first position and end of the block.

        Returns:
            The images, and their vectors (positions, images, channels).
        """
        step = max(1, VECTORS // (4 * (last - first) * len(self.channels)))
        for image in range(0, self.images, step):
            images = slice(image, min(image + step, self.images))
            yield images, self.block(first, last, images)

    def block(self, first: int, last: int, images: slice) -> torch.Tensor:
        """The vectors (positions, images, channels) of a block of positions.

        Args:
            first, last: first position and end of the block.
            images: some of the images.
        """
        height, width = self.maps[0].shape[-2:]
        positions = torch.arange(first, last)
        values, places, offset = [], [], 0
        for layer in self.maps:
            row = (positions // width) * layer.shape[2] // height
            column = (positions % width) * layer.shape[3] // width
            place = torch.nonzero((self.channels >= offset) & (self.channels < offset + layer.shape[1]))[:, 0]
            # One index for channels and positions: two steps would copy whole maps for each block.
            values.append(layer[images, (self.channels[place] - offset)[:, None], row, column])
            places.append(place)
            offset += layer.shape[1]
        order = torch.argsort(torch.cat(places))
        return torch.cat(values, dim=1)[:, order].permute(2, 0, 1).contiguous()


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
    vectors: Vectors,
    mean: torch.Tensor,
    factor: torch.Tensor,
    device: torch.device,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Estimate one Gaussian for each position.

    Args:
        vectors: of the training images.
        mean: (positions, channels), filled with the means.
        factor: (positions, channels, channels), filled with the lower Cholesky factors L of the covariances L L^T.
        device: device of the computation.
        progress: called with the number of finished positions and of all positions.
    """
    positions, channels = mean.shape
    identity = EPSILON * torch.eye(channels, device=device)
    for first, last in blocks(positions, channels):
        parts = (part.to(device) for _, part in vectors.parts(first, last))
        block_mean, covariance = _moments(parts, vectors.images)
        mean[first:last] = block_mean
        factor[first:last] = cholesky(covariance + identity)
        if progress is not None:
            progress(last, positions)


def _moments(parts: Iterable[torch.Tensor], images: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Means (positions, channels) and covariances (positions, channels, channels) from the vectors of all images.

    The sums are those of the deviations from the mean of the first part, so that they lose few digits.
    """
    rest = iter(parts)
    part = next(rest)
    shift = part.mean(dim=1, keepdim=True)
    deviations = part - shift
    products, total = torch.bmm(deviations.mT, deviations), torch.zeros_like(shift)
    for part in rest:
        deviations = part - shift
        products.baddbmm_(deviations.mT, deviations)
        total += deviations.sum(dim=1, keepdim=True)
    # The deviations of the first part have the sum 0.
    products -= torch.bmm(total.mT, total) / images
    return (shift + total / images)[:, 0], products / (images - 1)


def cholesky(covariance: torch.Tensor) -> torch.Tensor:
    """Lower Cholesky factors of (n, c, c) matrices, in double precision where single precision fails."""
    factor, failed = torch.linalg.cholesky_ex(covariance)
    if bool(failed.any()):
        # Not every accelerator has double precision.
        factor = torch.linalg.cholesky(covariance.cpu().double()).float().to(covariance.device)
    lower: torch.Tensor = factor
    return lower


def mahalanobis(vectors: Vectors, mean: torch.Tensor, factor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Mahalanobis distances (equation 2): the length of the solution z of L z = x - mean.

    Args:
        vectors: of the scored images.
        mean, factor: Gaussians of `fit_gaussians`.
        device: device of the computation.

    Returns:
        (images, positions) on the cpu.
    """
    distances = torch.empty(vectors.images, len(mean))
    for first, last in blocks(*mean.shape):
        block_mean, block_factor = mean[first:last].to(device)[:, None], factor[first:last].to(device)
        for images, part in vectors.parts(first, last):
            delta = part.to(device) - block_mean
            solution = torch.linalg.solve_triangular(block_factor, delta.mT, upper=False)
            distances[images, first:last] = torch.linalg.vector_norm(solution, dim=1).T
    return distances
