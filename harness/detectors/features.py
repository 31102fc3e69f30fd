"""Feature maps of images: one pass of the backbone computes the layers of all runs of a group."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import timm
import torch
from timm.layers import Format, resample_abs_pos_embed
from timm.models import vision_transformer
from torch import nn

from harness.backbones.inject import answered_by, replaced, seeded
from harness.backbones.layers import construction, feature_layers, is_transformer
from harness.backbones.resolve import Weights
from harness.config.revisions import cache_key
from harness.detectors.context import StageContext
from harness.detectors.stages import Stage

# By layer name: (images, channels, height, width), float32. An access to a layer may copy it, so a loop over images
# looks each layer up once, before the loop.
FeatureMaps = Mapping[str, torch.Tensor]
CPU_IMAGES = 8  # batch size on the cpu: larger batches exceed its caches and are up to twice as slow
PRECISIONS = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}


class Extractor(nn.Module):
    """A timm backbone up to the deepest of the requested layers.

    Args:
        backbone: timm's name.
        layers: layer names of `harness.backbones.layers.feature_layers`.
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
        self._indices = sorted({names.index(layer) for layer in layers})
        self._names = [names[index] for index in self._indices]
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
            By layer: (n, channels, height / stride, width / stride).
        """
        images = images.contiguous(memory_format=torch.channels_last)
        with torch.no_grad(), torch.autocast(images.device.type, self._dtype, enabled=self._dtype is not None):
            maps = self._blocks(images) if self._transformer else self.network(images)
        if self._channels_last:
            maps = [layer.permute(0, 3, 1, 2).contiguous() for layer in maps]
        return {name: layer.float() for name, layer in zip(self._names, maps, strict=True)}

    def _blocks(self, images: torch.Tensor) -> list[torch.Tensor]:
        """The blocks of a vision transformer as maps, after the final norm, as in anomalib.

        anomalib resizes position embeddings without antialiasing; its import changes timm for the whole process. This
        method makes the same change and reverts it, so the features do not depend on earlier imports.
        """
        with replaced(vision_transformer, "resample_abs_pos_embed", partial(resample_abs_pos_embed, antialias=False)):
            maps: list[torch.Tensor] = self.network.forward_intermediates(
                images,
                indices=self._indices,
                norm=True,
                stop_early=True,
                output_fmt="NCHW",
                intermediates_only=True,
            )
        return maps


def build_extractor(
    backbone: str, layers: tuple[str, ...], size: tuple[int, int], weights: Weights, seed: int, precision: str = "fp32"
) -> Extractor:
    """Build an extractor and load its weights.

    Args:
        backbone, layers, size, precision: see `Extractor`.
        weights: source of the weights.
        seed: seed of random weights.
    """
    # timm draws initial values that the weights replace; `seeded` restores the global generators.
    with seeded(0), answered_by(lambda _: weights, seed):
        return Extractor(backbone, layers, size, precision, pretrained=True)


@dataclass(frozen=True)
class Features(Stage):
    """Feature maps of all images of a role.

    Attributes:
        role: train, val or test.
        layers: layer names of all runs of the group.
        precision: precision of the network.
        seed: seed of random weights; 0 for weights from a file.
    """

    role: str
    layers: tuple[str, ...]
    precision: str
    seed: int

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

    def subset(self) -> dict[str, Any]:
        """The part of the role's images, for the key of a cached result; empty for all images."""
        return {}

    def _key(self, context: StageContext, layer: str) -> dict[str, Any]:
        # The features of a layer do not depend on the other layers of the pass, so the key has one layer.
        return {"stage": "features", "role": self.role, "layer": layer, "precision": self.precision,
                "seed": self.seed, **context.images[self.role].key(), **cache_key(context.backbone)}  # fmt: skip

    def _extract(self, context: StageContext, layers: tuple[str, ...]) -> dict[str, torch.Tensor]:
        images = context.images[self.role]
        extractor = build_extractor(
            context.backbone, layers, images.view.input_size, context.weights, self.seed, self.precision
        )
        extractor.to(context.device.torch)
        maps: dict[str, torch.Tensor] = {}
        done = 0
        device = context.device.torch
        for images_batch in images.batches():
            for batch in torch.split(images_batch, CPU_IMAGES) if device.type == "cpu" else [images_batch]:
                for layer, values in extractor(batch.to(device)).items():
                    if layer not in maps:
                        maps[layer] = context.memory.tensor(len(images), *values.shape[1:])
                    maps[layer][done : done + len(values)] = values
                done += len(batch)
                context.report(done, len(images))
        return maps
