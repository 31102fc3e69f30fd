"""Patch vectors from feature maps (Roth et al., 2022, section 3.1)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch.nn import functional as F

from harness.detectors.context import StageContext
from harness.detectors.features import FeatureMaps, Features
from harness.detectors.stages import Stage

IMAGES = 16  # batch size


@dataclass(frozen=True)
class Patches:
    """The vectors of all patches of several images.

    Attributes:
        vectors: (images * height * width, channels), image by image, row by row.
        grid: (height, width) in patches.
    """

    vectors: torch.Tensor
    grid: tuple[int, int]

    @property
    def per_image(self) -> int:
        """Number of patches in an image."""
        return self.grid[0] * self.grid[1]


def embed(maps: FeatureMaps, layers: tuple[str, ...]) -> torch.Tensor:
    """Concatenate locally aware patch features.

    Each layer is averaged over 3 x 3 neighbourhoods; zeros beyond the border count. The maps of other layers are
    interpolated bilinearly to the grid of the first layer.

    Args:
        maps: features by layer, (n, channels, h, w) each.
        layers: layers in the order of the concatenation.

    Returns:
        (n, channels of all layers, height, width of the first layer).
    """
    pooled = [F.avg_pool2d(maps[layer], kernel_size=3, stride=1, padding=1) for layer in layers]
    grid = pooled[0].shape[-2:]
    rest = [F.interpolate(layer, size=grid, mode="bilinear", align_corners=False) for layer in pooled[1:]]
    return torch.cat([pooled[0], *rest], dim=1)


def rows(maps: torch.Tensor) -> torch.Tensor:
    """Reshape (n, channels, height, width) to (n * height * width, channels)."""
    return maps.permute(0, 2, 3, 1).reshape(-1, maps.shape[1])


@dataclass(frozen=True)
class Embedding(Stage):
    """Patch vectors of all images of a role.

    Attributes:
        features: features of at least `layers`.
        layers: layers in the order of the concatenation.
    """

    features: Features
    layers: tuple[str, ...]

    title: ClassVar[str] = "embedding"

    def embed(self, maps: FeatureMaps) -> torch.Tensor:
        """The vectors of a batch as maps; a subclass makes other vectors.

        Args:
            maps: features by layer, (n, channels, h, w) each.

        Returns:
            (n, channels, height, width).
        """
        return embed(maps, self.layers)

    def compute(self, context: StageContext, *inputs: Any) -> Patches:
        """Embed the images batch by batch, in one array.

        Args:
            context: context of the stage.
            inputs: features by layer.
        """
        maps: FeatureMaps = {layer: inputs[0][layer] for layer in self.layers}
        images = len(maps[self.layers[0]])
        vectors, grid, end = torch.empty(0), (0, 0), 0
        for first in range(0, images, IMAGES):
            batch = {layer: values[first : first + IMAGES].to(context.device.torch) for layer, values in maps.items()}
            # The channels of a patch side by side, as a row has them: pooling is several times as fast.
            embedded = self.embed(
                {layer: values.contiguous(memory_format=torch.channels_last) for layer, values in batch.items()}
            )
            if not first:
                grid = (embedded.shape[2], embedded.shape[3])
                vectors = context.memory.tensor(images * grid[0] * grid[1], embedded.shape[1])
            begin, end = end, end + len(embedded) * grid[0] * grid[1]
            vectors[begin:end] = rows(embedded)
            context.report(first + IMAGES, images + IMAGES)
        return Patches(vectors, grid)
