"""What a timm backbone offers: its feature layers, their widths and strides."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import timm
import torch

from harness.backbones.networks import known_backbone, whole_network
from harness.common.errors import ConfigError, UnknownNameError, nearest

# A ResNet's stages and their strides.
STAGES = {"layer1": 4, "layer2": 8, "layer3": 16, "layer4": 32}


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


def default_layers(backbone: str, names: Sequence[str]) -> tuple[str, ...]:
    """The layers of a network that stand where a method's default layers stand in a ResNet.

    Args:
        backbone: timm's name.
        names: the defaults, by the names of a ResNet's stages.

    Returns:
        `names` where the network has them, or where they are no stages of a ResNet. Else, of each stage, the deepest
        layer of its stride; of a vision transformer, whose blocks share one stride, the block as deep as the stage.
    """
    known_backbone(backbone)
    known = feature_layers(backbone)
    if all(name in known for name in names) or not all(name in STAGES for name in names):
        return tuple(names)
    if is_transformer(backbone):
        blocks = list(known)
        places = [-(-len(blocks) * (list(STAGES).index(name) + 1) // len(STAGES)) - 1 for name in names]
        return tuple(dict.fromkeys(blocks[place] for place in places))
    by_stride = {layer.stride: name for name, layer in known.items()}
    nearest_stride = [min(by_stride, key=lambda stride: (abs(stride - STAGES[name]), stride)) for name in names]
    return tuple(dict.fromkeys(by_stride[stride] for stride in nearest_stride))


@cache
def construction(backbone: str, size: tuple[int, int]) -> tuple[tuple[str, Any], ...]:
    """What `timm.create_model` must be told for images of a size: nothing, that it may change, or the size itself.

    Found by sending the shape of an image through the network, without memory for its tensors.

    Args:
        backbone: timm's name.
        size: (height, width) of the images.

    Raises:
        ConfigError: the network takes no such images.
    """
    ways: list[dict[str, Any]] = [{"dynamic_img_size": True}] if is_transformer(backbone) else [{}]
    reason = ""
    # Some networks compute with values on the way, which the meta device does not have.
    for device, way in (*(("meta", way) for way in (*ways, {"img_size": size}, {})), ("cpu", ways[0])):
        try:
            _send_shape(backbone, size, way, device)
        # Networks refuse a size in their own ways: when they are built, or by a shape that does not fit.
        except Exception as error:  # noqa: BLE001
            reason = reason or f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
        else:
            return tuple(way.items())
    raise ConfigError(
        f"image_size: {size[0]}x{size[1]} found, which backbone {backbone} does not take ({reason}); expected "
        f"{own_size(backbone)}."
    )


def own_size(backbone: str) -> str:
    """The size that a network was trained with, for a person."""
    config = timm.models.get_pretrained_cfg(backbone)
    return f"{config.input_size[1]}x{config.input_size[2]}" if config is not None else "another size"


def _send_shape(backbone: str, size: tuple[int, int], options: Mapping[str, Any], device: str) -> None:
    transformer = is_transformer(backbone)
    kind = {} if transformer else {"features_only": True, "exportable": True}
    with torch.device(device), torch.no_grad():
        network: Any = timm.create_model(backbone, pretrained=False, **kind, **options).eval()
        image = torch.zeros(1, 3, *size)
        if transformer:
            network.forward_intermediates(image, norm=True, output_fmt="NCHW", intermediates_only=True)
        else:
            network(image)


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
