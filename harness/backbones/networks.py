"""timm's networks by name: which there are, how they are built, and which others the same tensors fit."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

import timm
import torch
from timm.layers import Conv2dSame
from torch import nn

from harness.common.errors import UnknownNameError, unknown_name

# Names of tensors that begin so are efficientnet_pytorch's, whose networks pad as TensorFlow's do.
TENSORFLOW_NAMES = ("_conv_stem.", "_blocks.")
TENSORFLOW = "tf_"


def known_backbone(backbone: str) -> None:
    """Refuse a name that timm does not have.

    Raises:
        UnknownNameError: with the nearest names.
    """
    stem, _, tag = backbone.partition(".")
    if not timm.is_model(stem):
        names = timm.list_models()
        near = [name for name in names if name.startswith(stem[:4])] or names
        raise UnknownNameError(unknown_name("backbone", backbone, near, limit=12))
    if tag and backbone not in timm.list_models(f"{stem}.*", pretrained=True):
        tags = timm.list_models(f"{stem}.*", pretrained=True)
        raise UnknownNameError(unknown_name("backbone", backbone, [stem, *tags]))


@cache
def whole_network(backbone: str) -> nn.Module:
    """The network of that name without memory for its tensors, to compare names and shapes with."""
    with torch.device("meta"):
        network: nn.Module = timm.create_model(backbone, pretrained=False)
    return network


def variant_note(backbone: str, names: Mapping[str, object], file: str) -> str:
    """A sentence where another of timm's networks fits tensors that were given their names by order and shape.

    Such networks have equal tensors, and differ in what no tensor says: padding and batch normalisation's epsilon.

    Args:
        backbone: the network that was named.
        names: of the tensors in the file.
        file: what to call it.
    """
    stem = backbone.partition(".")[0]
    other = stem.removeprefix(TENSORFLOW) if stem.startswith(TENSORFLOW) else TENSORFLOW + stem
    if not timm.is_model(other) or _shapes(other) != _shapes(stem):
        return ""
    taken, instead = _arithmetic(stem), _arithmetic(other)
    tensorflow = any(name.startswith(TENSORFLOW_NAMES) for name in names)
    if taken == instead or (tensorflow and stem.startswith(TENSORFLOW)):
        return ""
    advice = (
        f"the names are efficientnet_pytorch's, whose weights are made for {TENSORFLOW}{stem}"
        if tensorflow
        else "take the one that the weights were trained in"
    )
    return (
        f"weights {file}: fitted by order and shape, and taken as {stem} ({taken}); they fit {other} ({instead}) as "
        f"well, and give other features there: {advice}"
    )


def _shapes(backbone: str) -> list[tuple[int, ...]]:
    return [tuple(value.shape) for value in whole_network(backbone).state_dict().values()]


def _arithmetic(backbone: str) -> str:
    modules = list(whole_network(backbone).modules())
    padding = "as TensorFlow" if any(isinstance(one, Conv2dSame) for one in modules) else "symmetric"
    epsilon = next((one.eps for one in modules if isinstance(one, nn.BatchNorm2d)), 0.0)
    return f"padding {padding}, batch-norm epsilon {epsilon:g}"
