"""Patch vectors from feature maps (Roth et al., 2022, section 3.1)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch.nn import functional as F

from harness.detectors.context import StageContext
from harness.detectors.features import FeatureMaps, Features
from harness.detectors.stages import Stage

IMAGES = 16  # batch size


class ImagePatches(ABC):
    """The vectors of all patches of several images, for passes from image to image.

    Attributes:
        grid: (height, width) in patches.
    """

    grid: tuple[int, int]

    @property
    def per_image(self) -> int:
        """Number of patches in an image."""
        return self.grid[0] * self.grid[1]

    @property
    @abstractmethod
    def shape(self) -> tuple[int, int]:
        """(images * height * width, channels) of all vectors."""

    @abstractmethod
    def of_each_image(self) -> Iterator[torch.Tensor]:
        """The vectors (height * width, channels) of one image after another."""


@dataclass(frozen=True)
class Patches(ImagePatches):
    """Stored vectors of all patches of several images.

    Attributes:
        vectors: (images * height * width, channels), image by image, row by row.
        grid: (height, width) in patches.
    """

    vectors: torch.Tensor
    grid: tuple[int, int]

    @property
    def shape(self) -> tuple[int, int]:
        """(images * height * width, channels) of all vectors."""
        return self.vectors.shape[0], self.vectors.shape[1]

    def of_each_image(self) -> Iterator[torch.Tensor]:
        """The vectors (height * width, channels) of one image after another."""
        yield from torch.split(self.vectors, self.per_image)


@dataclass(frozen=True)
class ComputedPatches(ImagePatches):
    """The vectors of all patches of several images. Nothing stores them: each pass over the images computes them.

    Attributes:
        grid: (height, width) in patches.
        size: (images * height * width, channels) of all vectors.
        batches: starts a pass; returns the vectors of a few images at a time, on the cpu.
    """

    grid: tuple[int, int]
    size: tuple[int, int]
    batches: Callable[[], Iterator[torch.Tensor]]

    @property
    def shape(self) -> tuple[int, int]:
        """(images * height * width, channels) of all vectors."""
        return self.size

    def of_each_image(self) -> Iterator[torch.Tensor]:
        """The vectors (height * width, channels) of one image after another."""
        for vectors in self.batches():
            yield from torch.split(vectors, self.per_image)


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
        maps = self.maps(inputs[0])
        images = len(maps[self.layers[0]])
        vectors, grid, end = torch.empty(0), (0, 0), 0
        for embedded in self.batches(context, maps):
            if not end:
                grid = (embedded.shape[2], embedded.shape[3])
                vectors = context.memory.tensor(images * grid[0] * grid[1], embedded.shape[1])
            begin, end = end, end + len(embedded) * grid[0] * grid[1]
            vectors[begin:end] = rows(embedded)
            context.report(end, len(vectors) + IMAGES * grid[0] * grid[1])
        return Patches(vectors, grid)

    def maps(self, features: FeatureMaps) -> FeatureMaps:
        """The features of `layers`, each looked up once."""
        return {layer: features[layer] for layer in self.layers}

    def batches(self, context: StageContext, maps: FeatureMaps) -> Iterator[torch.Tensor]:
        """The vectors of a few images at a time as maps (n, channels, height, width), on the device.

        Args:
            context: device.
            maps: features by layer of all images.
        """
        device = context.device.torch
        for first in range(0, len(maps[self.layers[0]]), IMAGES):
            batch = {layer: values[first : first + IMAGES].to(device) for layer, values in maps.items()}
            # The channels of a patch side by side, as a row has them: pooling is several times as fast.
            yield self.embed(
                {layer: values.contiguous(memory_format=torch.channels_last) for layer, values in batch.items()}
            )


@dataclass(frozen=True)
class PatchPasses(Stage):
    """Patch vectors of all images of a role, for methods that read them image by image.

    The vectors are stored where memory or half of the free disk has room for them. Otherwise each pass computes them
    from the features: of many images, the vectors may need far more room than the features.

    Attributes:
        embedding: the vectors.
    """

    embedding: Embedding

    title: ClassVar[str] = "embedding"

    def compute(self, context: StageContext, *inputs: Any) -> ImagePatches:
        """Embed all images, or prepare their embedding.

        Args:
            context: device, memory and progress.
            inputs: features by layer.
        """
        embedding = self.embedding
        maps = embedding.maps(inputs[0])
        one = next(embedding.batches(context, {layer: values[:1] for layer, values in maps.items()}))
        grid = (one.shape[2], one.shape[3])
        size = (len(maps[embedding.layers[0]]) * grid[0] * grid[1], one.shape[1])
        if context.memory.is_worth_storing(*size):
            return embedding.compute(context, maps)
        return ComputedPatches(grid, size, lambda: (rows(batch).cpu() for batch in embedding.batches(context, maps)))

    def uses(self, key: Hashable = None) -> Sequence[tuple[Stage, Hashable]]:
        """The features, and not the stored vectors."""
        del key
        return [(self.embedding.features, None)]
