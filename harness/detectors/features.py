"""Feature maps of images: one pass of the backbone computes the layers of all runs of a group."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import timm
import torch
from timm.layers import Format, resample_abs_pos_embed
from timm.models import vision_transformer
from torch import nn
from torch.nn import functional

from harness.backbones.inject import answered_by, replaced, seeded
from harness.backbones.layers import construction, feature_layers, is_transformer
from harness.backbones.networks import NoDraws
from harness.backbones.resolve import Weights
from harness.config.revisions import cache_key
from harness.detectors.block_means import PREFIX, blocks_of, is_mean, mean
from harness.detectors.context import StageContext
from harness.detectors.stages import Stage

# By layer name: (images, channels, height, width), float32. An access to a layer may copy it, so a loop over images
# looks each layer up once, before the loop.
FeatureMaps = Mapping[str, torch.Tensor]
CPU_IMAGES = 8  # batch size on the cpu: larger batches exceed its caches and are up to twice as slow
# After the name of a block: the class token after the block, as a map of one position.
CLASS_TOKEN = ".class_token"
PRECISIONS = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}


class Extractor(nn.Module):
    """A timm backbone up to the deepest of the requested layers.

    Args:
        backbone: timm's name.
        layers: layer names of `harness.backbones.layers.feature_layers`. Vision transformers also have class tokens, as
            the name of a block with `CLASS_TOKEN`, and the means of `harness.detectors.block_means`.
        size: (height, width) of the images; some networks have a fixed input size.
        precision: fp32, bf16 or fp16, for the network; the features are always float32.
        pretrained: request pretrained weights from timm; `harness.backbones.inject` answers the request.
    """

    def __init__(
        self,
        backbone: str,
        layers: tuple[str, ...],
        size: tuple[int, int],
        precision: str = "fp32",
        pretrained: bool = False,
    ) -> None:
        super().__init__()
        names = list(feature_layers(backbone))
        blocks = [block for layer in layers for block in _blocks_of(layer)]
        self._indices = sorted({names.index(block) for block in blocks})
        self._names = [names[index] for index in self._indices]
        self._layers = layers
        self._prefix = any(layer.endswith((CLASS_TOKEN, PREFIX)) for layer in layers)
        self._dtype = PRECISIONS[precision]
        self._transformer = is_transformer(backbone)
        options: dict[str, Any] = dict(construction(backbone, size))
        if not self._transformer:
            options |= {"features_only": True, "exportable": True, "out_indices": self._indices}
        self.network = timm.create_model(backbone, pretrained=pretrained, **options)
        self._channels_last = getattr(self.network, "output_fmt", None) == Format.NHWC
        # Convolutions are up to twice as fast in this memory format; the results are equal up to rounding.
        self.eval().requires_grad_(False).to(memory_format=torch.channels_last)

    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        """Compute the features of a batch.

        Args:
            images: (n, 3, height, width), normalised.

        Returns:
            By layer: (n, channels, height / stride, width / stride); a class token is (n, channels, 1, 1).
        """
        images = images.contiguous(memory_format=torch.channels_last)
        with torch.no_grad(), torch.autocast(images.device.type, self._dtype, enabled=self._dtype is not None):
            if self._transformer:
                return {name: layer.float() for name, layer in self._blocks(images).items() if name in self._layers}
            maps = self.network(images)
        if self._channels_last:
            maps = [layer.permute(0, 3, 1, 2).contiguous() for layer in maps]
        return {name: layer.float() for name, layer in zip(self._names, maps, strict=True)}

    def _blocks(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        """The requested features of a vision transformer's blocks; maps and class tokens come after the final norm."""
        means = {layer for layer in self._layers if is_mean(layer)}
        if not means:
            return self._after_norm(self._outputs(images, norm=True))
        outputs = self._outputs(images, norm=False)
        features = {layer: mean(layer, outputs) for layer in means}
        if len(means) < len(self._layers):
            norm = self.network.norm
            normed = {
                name: (_per_position(norm, patches), None if prefix is None else norm(prefix))
                for name, (patches, prefix) in outputs.items()
            }
            features |= self._after_norm(normed)
        return features

    def _after_norm(self, outputs: Mapping[str, tuple[torch.Tensor, torch.Tensor | None]]) -> dict[str, torch.Tensor]:
        """Maps by block, and class tokens, from outputs after the final norm."""
        tokens = {
            name + CLASS_TOKEN: prefix[:, 0, :, None, None]
            for name, (_, prefix) in outputs.items()
            if prefix is not None
        }
        return {name: patches for name, (patches, _) in outputs.items()} | tokens

    def _outputs(self, images: torch.Tensor, norm: bool) -> dict[str, tuple[torch.Tensor, torch.Tensor | None]]:
        """Patches (n, channels, h, w) of each block and the tokens before them, with or without the final norm.

        anomalib resizes position embeddings without antialiasing; its import changes timm for the whole process. This
        method makes the same change and reverts it, so the features do not depend on earlier imports.
        """
        with replaced(vision_transformer, "resample_abs_pos_embed", partial(resample_abs_pos_embed, antialias=False)):
            maps = self.network.forward_intermediates(
                images,
                indices=self._indices,
                norm=norm,
                stop_early=True,
                output_fmt="NCHW",
                intermediates_only=True,
                return_prefix_tokens=self._prefix,
            )
        return dict(zip(self._names, maps if self._prefix else [(one, None) for one in maps], strict=True))


def _blocks_of(layer: str) -> list[str]:
    return blocks_of(layer) if is_mean(layer) else [layer.removesuffix(CLASS_TOKEN)]


def _per_position(norm: nn.Module, maps: torch.Tensor) -> torch.Tensor:
    """Apply a norm over the channels of maps (n, channels, h, w)."""
    normed: torch.Tensor = norm(maps.permute(0, 2, 3, 1)).permute(0, 3, 1, 2).contiguous()
    return normed


def build_extractor(
    backbone: str, layers: tuple[str, ...], size: tuple[int, int], weights: Weights, seed: int, precision: str = "fp32"
) -> Extractor:
    """Build an extractor and load its weights.

    Args:
        backbone, layers, size, precision: see `Extractor`.
        weights: source of the weights.
        seed: seed of random weights.
    """
    # `seeded` restores the global generators after any other draws.
    with seeded(0), NoDraws() as constants, answered_by(lambda _: weights, seed, constants.suspended):
        return Extractor(backbone, layers, size, precision, pretrained=True)


@dataclass(frozen=True)
class Features(Stage):
    """Feature maps of all images of a role.

    Attributes:
        role: train, val or test.
        layers: layer names of all runs of the group.
        precision: precision of the network.
        seed: seed of random weights; 0 for weights from a file.
        rotations: number of rotations of each image, by equal angles; the features of one image follow each other.
    """

    role: str
    layers: tuple[str, ...]
    precision: str
    seed: int
    rotations: int = field(default=1, kw_only=True)

    title: ClassVar[str] = "features"

    def compute(self, context: StageContext, *inputs: Any) -> FeatureMaps:
        """Read each layer from the cache; one pass of the network computes the missing layers.

        Args:
            context: context of the stage.
            inputs: none.
        """
        del inputs
        maps: dict[str, torch.Tensor] = {}
        for layer in self.layers:
            start = time.perf_counter()
            entry = context.recall(self._key(context, layer))
            if entry is not None:
                tensors, seconds = entry
                maps[layer] = tensors["features"]
                # Layers of one pass each have its duration: the times are not added up.
                context.cached_seconds = max(context.cached_seconds, seconds - (time.perf_counter() - start))
        missing = tuple(layer for layer in self.layers if layer not in maps)
        if missing:
            start = time.perf_counter()
            maps |= self._extract(context, missing)
            elapsed = time.perf_counter() - start
            for layer in missing:
                context.remember(self._key(context, layer), {"features": maps[layer].numpy()}, elapsed)
        context.mark_images(len(context.images[self.role]))
        return {layer: maps[layer] for layer in self.layers}

    def of_images(self, images: torch.Tensor) -> torch.Tensor:
        """Indices of the features of some images.

        Args:
            images: (n,) indices of images.

        Returns:
            (n * rotations,) indices.
        """
        return (images[:, None] * self.rotations + torch.arange(self.rotations)).flatten()

    def positions_of(self, count: int) -> npt.NDArray[np.int64]:
        """Positions of the images among all images of the role.

        Args:
            count: number of all images of the role.
        """
        return np.arange(count)

    def batches(self, context: StageContext, layers: tuple[str, ...]) -> Iterator[dict[str, torch.Tensor]]:
        """Features of a few images at a time. Nothing stores them, so memory does not grow with the number of images.

        Args:
            context: device, images and weights.
            layers: layers to compute.

        Returns:
            By layer: (images * rotations, channels, height, width) on the device; the rotations of an image follow
            each other.
        """
        images = context.images[self.role]
        positions = self.positions_of(len(images))
        if len(positions) < len(images):
            images = images.subset(positions)
        device = context.device.torch
        extractor = build_extractor(
            context.backbone, layers, images.input_size, context.weights, self.seed, self.precision
        ).to(device)
        for images_batch in images.batches():
            for batch in torch.split(images_batch, CPU_IMAGES) if device.type == "cpu" else [images_batch]:
                angles = [360 * number / self.rotations for number in range(self.rotations)]
                rotated = [extractor(rotate(batch, angle).to(device)) for angle in angles]
                yield {
                    layer: torch.stack([maps[layer] for maps in rotated], dim=1).flatten(0, 1) for layer in rotated[0]
                }

    def subset(self) -> dict[str, Any]:
        """The part of the role's images, for the key of a cached result; empty for all images."""
        return {}

    def _key(self, context: StageContext, layer: str) -> dict[str, Any]:
        # The features of a layer do not depend on the other layers of the pass, so the key has one layer.
        rotations = {"rotations": self.rotations} if self.rotations > 1 else {}
        return {"stage": "features", "role": self.role, "layer": layer, "precision": self.precision, "seed": self.seed,
                **rotations, **context.images[self.role].key(), **cache_key(context.backbone)}  # fmt: skip

    def _extract(self, context: StageContext, layers: tuple[str, ...]) -> dict[str, torch.Tensor]:
        rows = len(context.images[self.role]) * self.rotations
        maps: dict[str, torch.Tensor] = {}
        done = 0
        for batch in self.batches(context, layers):
            for layer, values in batch.items():
                if layer not in maps:
                    maps[layer] = context.memory.tensor(rows, *values.shape[1:])
                maps[layer][done : done + len(values)] = values
            done += len(values)
            context.report(done, rows)
        return maps


def rotate(images: torch.Tensor, degrees: float) -> torch.Tensor:
    """Rotate images around their centre; the border's pixels continue beyond the border.

    Args:
        images: (n, channels, height, width).
        degrees: angle, counter-clockwise.

    Returns:
        Images of the same shape, interpolated bilinearly.
    """
    if degrees % 360 == 0:
        return images
    height, width = images.shape[-2:]
    cosine, sine = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    # The coordinates of `affine_grid` go from -1 to 1 along both sides, whatever their lengths.
    matrix = torch.tensor([[cosine, -sine * height / width, 0.0], [sine * width / height, cosine, 0.0]])
    grid = functional.affine_grid(matrix.expand(len(images), 2, 3), list(images.shape), align_corners=False)
    return functional.grid_sample(images, grid, padding_mode="border", align_corners=False)
