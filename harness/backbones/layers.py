"""The feature layers of a timm backbone, their widths and strides."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from inspect import Parameter, signature
from math import ceil
from typing import Any

import timm
import torch

from harness.backbones.networks import known_backbone, meta_device, whole_network
from harness.common.errors import ConfigError, UnknownNameError, nearest

# A ResNet's stages and their strides.
STAGES = {"layer1": 4, "layer2": 8, "layer3": 16, "layer4": 32}
DEPTH = re.compile(r"(100|\d{1,2})%")
# Networks and sizes of saved models.
_ACCEPTED: set[tuple[str, tuple[int, int]]] = set()


@dataclass(frozen=True)
class Layer:
    """One layer with features.

    Attributes:
        channels: number of channels.
        stride: input pixels for each feature position.
    """

    channels: int
    stride: int


def patches_of(images: int, first: Layer, input_size: tuple[int, int]) -> int:
    """The number of patches of some images.

    Args:
        images: number of images.
        first: the layer that defines the grid of patches.
        input_size: (height, width) of the network's input.
    """
    return images * ceil(input_size[0] / first.stride) * ceil(input_size[1] / first.stride)


@cache
def is_transformer(backbone: str) -> bool:
    """Whether a network is a plain vision transformer: all its blocks keep one grid of patches."""
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
    """The layers by name, from shallow to deep. The network is built without memory for its tensors.

    Raises:
        UnknownNameError: timm gives no feature maps of the network.
    """
    if is_transformer(backbone):
        network: Any = whole_network(backbone)
        layer = Layer(int(network.num_features), int(network.patch_embed.patch_size[0]))
        return {f"blocks.{index}": layer for index in range(len(network.blocks))}
    try:
        with meta_device():
            info = timm.create_model(backbone, pretrained=False, features_only=True, exportable=True).feature_info
    # Networks without feature maps raise different types of exceptions.
    except Exception as error:
        raise UnknownNameError(
            f"backbone {backbone}: timm gives no feature maps of this network ({type(error).__name__}: {error}); "
            "expected one that timm.create_model(..., features_only=True) accepts."
        ) from error
    return dict(zip(info.module_name(), map(Layer, info.channels(), info.reduction()), strict=True))


def default_layers(backbone: str, names: Sequence[str]) -> tuple[str, ...]:
    """The layers of a network that correspond to a method's default layers in a ResNet.

    Args:
        backbone: timm's name.
        names: the default layers, by the names of a ResNet's stages, or by their depth: the layer "58%" is the first
            one that ends at 58% of all layers or later.

    Returns:
        `names` where the network has these layers, or where they are neither stages of a ResNet nor depths. Otherwise
        one layer for each stage: the deepest layer with the nearest stride. In a vision transformer all blocks have one
        stride, so the block at the same relative depth is taken.

    Raises:
        UnknownNameError: timm has no such network, or gives no feature maps of it.
    """
    known_backbone(backbone)
    layers = feature_layers(backbone)
    if all(name in layers for name in names):
        return tuple(names)
    if all(DEPTH.fullmatch(name) for name in names):
        return _at_depths(list(layers), [int(name.removesuffix("%")) for name in names])
    if not all(name in STAGES for name in names):
        return tuple(names)
    if is_transformer(backbone):
        return _at_depths(list(layers), [100 * (list(STAGES).index(name) + 1) // len(STAGES) for name in names])
    by_stride = {layer.stride: name for name, layer in layers.items()}
    nearest_stride = [min(by_stride, key=lambda stride: (abs(stride - STAGES[name]), stride)) for name in names]
    return tuple(dict.fromkeys(by_stride[stride] for stride in nearest_stride))


def _at_depths(layers: Sequence[str], percent: Sequence[int]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(layers[max(-(-len(layers) * share // 100) - 1, 0)] for share in percent))


def accept(backbone: str, size: tuple[int, int]) -> None:
    """Note that a network accepts images of a size, as a saved model shows; `construction` does not test it again.

    Args:
        backbone: timm's name.
        size: (height, width) of the images.
    """
    _ACCEPTED.add((backbone, size))


@cache
def construction(backbone: str, size: tuple[int, int]) -> tuple[tuple[str, Any], ...]:
    """Keyword arguments of `timm.create_model` for images of a size.

    The arguments are tested with an image on the meta device, without memory for tensors.

    Args:
        backbone: timm's name.
        size: (height, width) of the images.

    Returns:
        Pairs of name and value: none, `dynamic_img_size`, or `img_size`.

    Raises:
        ConfigError: the network accepts no images of this size.
    """
    if (backbone, size) in _ACCEPTED and not _has_size(backbone):
        return ()
    choices: list[dict[str, Any]] = [{"dynamic_img_size": True}] if is_transformer(backbone) else [{}]
    reason = ""
    # Some networks read values of tensors, and the meta device has no values.
    for device, choice in (*(("meta", choice) for choice in (*choices, {"img_size": size}, {})), ("cpu", choices[0])):
        try:
            _send_shape(backbone, size, choice, device)
        # Networks refuse a size with different exceptions, in their construction or in their forward pass.
        except Exception as error:  # noqa: BLE001
            reason = reason or f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
        else:
            return tuple(choice.items())
    raise ConfigError(
        f"image_size: {size[0]}x{size[1]} found, which backbone {backbone} does not take ({reason}); expected "
        f"{own_size(backbone)}."
    )


def _has_size(backbone: str) -> bool:
    """Whether the construction of a network may depend on the size of the images."""
    parameters = signature(type(whole_network(backbone))).parameters.values()
    return any(one.name == "img_size" or one.kind is Parameter.VAR_KEYWORD for one in parameters)


def own_size(backbone: str) -> str:
    """Height and width of the images that a network was trained with, as text for a message."""
    config = timm.models.get_pretrained_cfg(backbone)
    return f"{config.input_size[1]}x{config.input_size[2]}" if config is not None else "another size"


def _send_shape(backbone: str, size: tuple[int, int], options: Mapping[str, Any], device: str) -> None:
    transformer = is_transformer(backbone)
    features = {} if transformer else {"features_only": True, "exportable": True}
    with meta_device() if device == "meta" else torch.device(device), torch.no_grad():
        network: Any = timm.create_model(backbone, pretrained=False, **features, **options).eval()
        image = torch.zeros(1, 3, *size)
        if transformer:
            network.forward_intermediates(image, norm=True, output_fmt="NCHW", intermediates_only=True)
        else:
            network(image)


def chosen_layers(backbone: str, names: tuple[str | int, ...]) -> list[Layer]:
    """The layers with these names.

    Args:
        backbone: timm's name.
        names: of layers.

    Raises:
        UnknownNameError: the backbone has no layer of a name; the message lists its layers.
    """
    layers = feature_layers(backbone)
    for name in names:
        if name not in layers:
            near = nearest(str(name), layers)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise UnknownNameError(f"backbone {backbone} has no layer {name!r}.{hint} It has: {', '.join(layers)}.")
    return [layers[str(name)] for name in names]
