"""Mean and principal components of all patches, from one pass over the images and one matrix of second moments.

The matrix has one row for each channel, so its size does not depend on the number of images. It serves every number of
components.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Any, ClassVar

import numpy as np
import torch

from harness.common.errors import DataError
from harness.detectors.arguments import check_number
from harness.detectors.context import StageContext
from harness.detectors.embedding import ImagePatches, PatchPasses
from harness.detectors.stages import Stage

ROWS = 8192  # vectors in a block
CHANNELS = 256  # channels in a block of the second moments


@dataclass(frozen=True)
class Components:
    """The principal components of n vectors of d channels, in double precision on the cpu.

    Attributes:
        mean: (d,).
        variances: (r,) along the components, largest first; with n - 1 in the denominator. r is the smaller of n and d.
        axes: (d, r); the columns are the components, of length 1.
    """

    mean: torch.Tensor
    variances: torch.Tensor
    axes: torch.Tensor

    def number(self, share: float) -> int:
        """The smallest number of components that explain a share of the variance.

        Args:
            share: above 0, up to 1.
        """
        explained = self.variances.clamp_min(0).cumsum(0).numpy()
        # Rounding of the sum must not add a component without variance.
        return int(np.searchsorted(explained, share * explained[-1] * (1 - 1e-12))) + 1


def check_share(name: str, value: float) -> None:
    """Check a share of explained variance.

    Args:
        name: argument, for the message.
        value: value of the argument.

    Raises:
        ConfigError: the value is not above 0 and up to 1.
    """
    check_number(name, value, "a share of the variance, above 0 and up to 1", 0, 1)


@dataclass(frozen=True)
class Moments(Stage):
    """The principal components of the patches of the training images.

    Attributes:
        patches: patches of the training images.
    """

    patches: PatchPasses

    title: ClassVar[str] = "principal components"

    def compute(self, context: StageContext, *inputs: Any) -> Components:
        """Sum the second moments block by block, and decompose the covariance.

        Args:
            context: progress.
            inputs: patches of the training images.

        Raises:
            DataError: all patches are equal.
        """
        patches: ImagePatches = inputs[0]
        count, width = patches.shape
        blocks = _blocks(patches.of_each_image())
        if count < width:
            return _of_few(torch.cat(list(blocks)).double())
        first = next(blocks)
        # Deviations from the first block's mean are small, so that the sums lose no digits.
        shift = first.double().mean(dim=0)
        total, products = torch.zeros(width, dtype=torch.float64), torch.zeros(width, width, dtype=torch.float64)
        done = 0
        for vectors in chain([first], blocks):
            block = vectors.double() - shift
            total += block.sum(dim=0)
            # The matrix is symmetric: its upper triangle is enough.
            for left in range(0, width, CHANNELS):
                products[left : left + CHANNELS, left:].addmm_(block[:, left : left + CHANNELS].T, block[:, left:])
            done += len(block)
            context.report(done, count + ROWS)
        products = products.triu() + products.triu(1).T
        covariance = (products - torch.outer(total, total) / count) / (count - 1)
        variances, axes = _decomposed(covariance)
        return Components(shift + total / count, variances, axes)


def _blocks(images: Iterator[torch.Tensor]) -> Iterator[torch.Tensor]:
    """The vectors of all images in blocks of `ROWS`."""
    waiting: list[torch.Tensor] = []
    count = 0
    for vectors in images:
        waiting.append(vectors)
        count += len(vectors)
        while count >= ROWS:
            joined = torch.cat(waiting)
            yield joined[:ROWS]
            waiting, count = [joined[ROWS:]], count - ROWS
    if count:
        yield torch.cat(waiting)


def _decomposed(matrix: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Eigenvalues and eigenvectors, largest first."""
    if not float(matrix.trace()) > 0:
        raise DataError("principal components: all patches of the training images are equal. Add other images.")
    values, vectors = torch.linalg.eigh(matrix)
    return values.flip(0), vectors.flip(1).contiguous()


def _of_few(vectors: torch.Tensor) -> Components:
    """Components of fewer vectors than channels, from the smaller matrix of their products."""
    mean = vectors.mean(dim=0)
    centred = vectors - mean
    # Of n vectors, n - 1 deviations from the mean are independent.
    values, coefficients = _decomposed(centred @ centred.T)
    values, coefficients = values[:-1].clamp_min(0), coefficients[:, :-1]
    axes = torch.linalg.qr(centred.T @ coefficients)[0]
    return Components(mean, values / (len(vectors) - 1), axes)
