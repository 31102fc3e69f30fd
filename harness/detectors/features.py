"""Images -> feature maps: one pass of the backbone gives every layer that some run of the group wants."""

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

# Layer name -> (images, channels, height, width), float32.
FeatureMaps = Mapping[str, torch.Tensor]
CPU_IMAGES = 8  # at a time on the cpu: more no longer fit its caches, and take up to twice as long an image
PRECISIONS = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}


class Extractor(nn.Module):
    """A timm backbone up to the deepest layer that is wanted.

    Args:
        backbone: timm's name.
        layers: names as `harness.backbones.layers.feature_layers` gives them.
        size: (height, width) of the images; some networks are built for one.
        precision: fp32, bf16 or fp16; of the network, its features are float32 again.
        pretrained: ask timm for pretrained weights; see `harness.backbones.inject` for who answers.
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
        # Convolutions are up to twice as fast so; what they compute is the same up to rounding.
        self.eval().requires_grad_(False).to(memory_format=torch.channels_last)

    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        """(n, 3, height, width) -> layer -> (n, channels, height / stride, width / stride)."""
        images = images.contiguous(memory_format=torch.channels_last)
        with torch.no_grad(), torch.autocast(images.device.type, self._dtype, enabled=self._dtype is not None):
            maps = self._blocks(images) if self._transformer else self.network(images)
        if self._channels_last:
            maps = [one.permute(0, 3, 1, 2).contiguous() for one in maps]
        return {name: one.float() for name, one in zip(self._names, maps, strict=True)}

    def _blocks(self, images: torch.Tensor) -> list[torch.Tensor]:
        """A vision transformer's blocks as maps; the final norm brings them to one scale, as anomalib has it.

        anomalib resizes position embeddings without antialiasing, and changes timm for the whole process to do so.
        Here it is done so always, and undone: what a network says must not depend on who was imported before.
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
    """An extractor with its weights.

    Args:
        backbone, layers, size, precision: see `Extractor`.
        weights: resolved; with random ones, `seed` draws them.
        seed: of the initialisation.
    """
    # What a network is built with is replaced by its weights; the generators stay as they were.
    with seeded(0), answered_by(lambda _: weights, seed):
        return Extractor(backbone, layers, size, precision, pretrained=True)


@dataclass(frozen=True)
class Features(Stage):
    """Feature maps of all images of a role.

    Attributes:
        role: train, val or test.
        layers: their names, all that the group wants.
        precision: of the network.
        seed: of random weights; 0 where weights come from a file.
    """

    role: str
    layers: tuple[str, ...]
    precision: str
    seed: int

    title: ClassVar[str] = "features"

    def compute(self, context: StageContext, *inputs: Any) -> FeatureMaps:
        """Layer by layer from the cache; what is not there in one pass."""
        del inputs
        found: dict[str, torch.Tensor] = {}
        for layer in self.layers:
            start = time.perf_counter()
            known = context.recall(self._key(context, layer))
            if known is not None:
                tensors, seconds = known
                found[layer] = tensors["features"]
                # Layers share the pass that made them: the longest of their times is the pass's.
                context.cached_seconds = max(context.cached_seconds, seconds - (time.perf_counter() - start))
        missing = tuple(layer for layer in self.layers if layer not in found)
        if missing:
            start = time.perf_counter()
            found |= self._extract(context, missing)
            took = time.perf_counter() - start
            for layer in missing:
                context.remember(self._key(context, layer), {"features": found[layer].numpy()}, took)
        return {layer: found[layer] for layer in self.layers}

    def _key(self, context: StageContext, layer: str) -> dict[str, Any]:
        # A layer's name says where it is in the network, and the others do not change it.
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
        for loaded in images.batches():
            for batch in torch.split(loaded, CPU_IMAGES) if device.type == "cpu" else [loaded]:
                for layer, values in extractor(batch.to(device)).items():
                    if layer not in maps:
                        maps[layer] = context.memory.tensor(len(images), *values.shape[1:])
                    maps[layer][done : done + len(values)] = values
                done += len(batch)
                context.at(done, len(images))
        return maps
