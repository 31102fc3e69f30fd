"""Feature maps -> one vector a patch (Roth et al., 2022, section 3.1)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch.nn import functional as F

from harness.detectors.context import StageContext
from harness.detectors.features import FeatureMaps, Features
from harness.detectors.stages import Stage

IMAGES = 16  # images at a time


@dataclass(frozen=True)
class Patches:
    """Vectors of all patches of some images.

    Attributes:
        vectors: (images * height * width, channels), image by image, row by row.
        grid: (height, width) in patches.
    """

    vectors: torch.Tensor
    grid: tuple[int, int]

    @property
    def per_image(self) -> int:
        """Patches in an image."""
        return self.grid[0] * self.grid[1]


def embed(maps: FeatureMaps, layers: tuple[str, ...]) -> torch.Tensor:
    """Locally aware patch features, (n, channels of all layers, height, width of the first).

    Each layer is averaged over 3 x 3 neighbourhoods (zeros beyond the border, and counted); the others are brought
    bilinearly to the first one's grid.
    """
    pooled = [F.avg_pool2d(maps[layer], kernel_size=3, stride=1, padding=1) for layer in layers]
    grid = pooled[0].shape[-2:]
    rest = [F.interpolate(one, size=grid, mode="bilinear", align_corners=False) for one in pooled[1:]]
    return torch.cat([pooled[0], *rest], dim=1)


def rows(maps: torch.Tensor) -> torch.Tensor:
    """(n, channels, height, width) -> (n * height * width, channels)."""
    return maps.permute(0, 2, 3, 1).reshape(-1, maps.shape[1])


@dataclass(frozen=True)
class Embedding(Stage):
    """Patch vectors of all images of a role.

    Attributes:
        features: has at least `layers`.
        layers: in the order of the concatenation.
    """

    features: Features
    layers: tuple[str, ...]

    title: ClassVar[str] = "embedding"

    def compute(self, context: StageContext, *inputs: Any) -> Patches:
        """In batches, into one array."""
        maps: FeatureMaps = inputs[0]
        images, _, height, width = maps[self.layers[0]].shape
        channels = sum(maps[layer].shape[1] for layer in self.layers)
        vectors = context.memory.tensor(images * height * width, channels)
        for first in range(0, images, IMAGES):
            batch = {layer: maps[layer][first : first + IMAGES].to(context.device.torch) for layer in self.layers}
            part = rows(embed(batch, self.layers))
            vectors[first * height * width : first * height * width + len(part)] = part
            context.at(first + IMAGES, images + IMAGES)
        return Patches(vectors, (height, width))
