"""Vectors of patches of one length, whatever the layers: averages over the channels of their neighbourhoods."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, reduce

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional as F

from harness.detectors.embedding import Embedding
from harness.detectors.features import FeatureMaps

WIDTH = 1024  # channels of a patch


def pooled_patches(maps: FeatureMaps, layers: tuple[str, ...]) -> torch.Tensor:
    """Vectors of 1,024 averages over the 3 x 3 neighbourhoods of several layers.

    The channels and positions of a neighbourhood are one sequence. Averages of equal parts of the sequence make 1,024
    values for each layer. Averages of equal parts of the layers' values make the vector. All steps are linear, so one
    convolution does them for each layer.

    Args:
        maps: features by layer, (n, channels, h, w) each.
        layers: layers in the order of the sequence; the maps of the others are interpolated bilinearly to the grid of
            the first.

    Returns:
        (n, 1024, height, width of the first layer).
    """
    grid = maps[layers[0]].shape[-2:]
    parts = []
    for number, layer in enumerate(layers):
        averages, first = _averages(int(maps[layer].shape[1]), number, len(layers))
        # An array of NumPy is a constant of an exported file; the steps to it are no part of the graph.
        kernel = torch.from_numpy(averages).to(maps[layer])
        part = F.conv2d(maps[layer], kernel, padding=1)
        if part.shape[-2:] != grid:
            part = F.interpolate(part, size=grid, mode="bilinear", align_corners=False)
        parts.append(F.pad(part, (0, 0, 0, 0, first, WIDTH - first - len(kernel))))
    # A sum into one array would be faster, but has no form in ONNX.
    return reduce(torch.add, parts)


@cache
def _averages(channels: int, number: int, layers: int) -> tuple[npt.NDArray[np.float32], int]:
    """The kernel (values, channels, 3, 3) of one layer, and the place of its first value in the vector."""
    of_layer = _equal_parts(9 * channels)
    kernel = _equal_parts(layers * WIDTH)[:, number * WIDTH : (number + 1) * WIDTH] @ of_layer
    used = np.flatnonzero(kernel.any(axis=1))
    first, last = int(used[0]), int(used[-1])
    return kernel[first : last + 1].reshape(-1, channels, 3, 3).astype(np.float32), first


def _equal_parts(length: int) -> npt.NDArray[np.float64]:
    """The matrix (1024, length) of averages of equal parts of a sequence, as Torch's `adaptive_avg_pool1d`."""
    parts = np.zeros((WIDTH, length))
    for number, row in enumerate(parts):
        part = slice(number * length // WIDTH, -(-(number + 1) * length // WIDTH))
        row[part] = 1 / (part.stop - part.start)
    return parts


@dataclass(frozen=True)
class PooledPatches(Embedding):
    """Vectors of `pooled_patches` of all patches of a role."""

    def embed(self, maps: FeatureMaps) -> torch.Tensor:
        """Pool the layers of a batch; see `pooled_patches`.

        Args:
            maps: features by layer.
        """
        return pooled_patches(maps, self.layers)
