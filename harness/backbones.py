"""What a timm backbone offers: its feature layers, their widths and strides."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import timm
import torch

from harness.errors import UnknownNameError, nearest
from harness.weights.networks import whole_network


@dataclass(frozen=True)
class Layer:
    """One layer whose features can be taken.

    Attributes:
        channels: width.
        stride: input pixels per feature position.
    """

    channels: int
    stride: int


@cache
def is_transformer(backbone: str) -> bool:
    """Whether it is a plain vision transformer: blocks that keep one grid of patches, of which any can be taken."""
    network: Any = whole_network(backbone)
    patch_size = getattr(getattr(network, "patch_embed", None), "patch_size", None)
    return (
        isinstance(patch_size, tuple)
        and hasattr(network, "blocks")
        and hasattr(network, "forward_intermediates")
        and not hasattr(network, "stages")
    )


@cache
def feature_layers(backbone: str) -> dict[str, Layer]:
    """Layer name -> Layer, from shallow to deep. Built without memory for the tensors, in a fraction of a second."""
    if is_transformer(backbone):
        network: Any = whole_network(backbone)
        layer = Layer(int(network.num_features), int(network.patch_embed.patch_size[0]))
        return {f"blocks.{index}": layer for index in range(len(network.blocks))}
    try:
        with torch.device("meta"):
            info = timm.create_model(backbone, pretrained=False, features_only=True, exportable=True).feature_info
    # Families of networks without feature maps say so in their own ways.
    except Exception as error:
        raise UnknownNameError(
            f"backbone {backbone}: timm gives no feature maps of this network ({type(error).__name__}: {error}); "
            "expected one that timm.create_model(..., features_only=True) accepts."
        ) from error
    names = info.module_name()
    return {n: Layer(c, r) for n, c, r in zip(names, info.channels(), info.reduction(), strict=True)}


def chosen_layers(backbone: str, names: tuple[str | int, ...]) -> list[Layer]:
    """The layers of these names.

    Raises:
        UnknownNameError: the backbone lacks one; lists those it has.
    """
    known = feature_layers(backbone)
    for name in names:
        if name not in known:
            near = nearest(str(name), known)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise UnknownNameError(f"backbone {backbone} has no layer {name!r}.{hint} It has: {', '.join(known)}.")
    return [known[str(name)] for name in names]
