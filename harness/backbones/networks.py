"""timm's networks by name: valid names, networks without tensors, and variants that the same tensors fit."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from typing import Any

import timm
import torch
from timm.layers import Conv2dSame
from torch import nn
from torch.overrides import TorchFunctionMode

from harness.common.errors import UnknownNameError, unknown_name

# The first parts of efficientnet_pytorch's tensor names. Its networks pad as TensorFlow does.
TENSORFLOW_NAMES = ("_conv_stem.", "_blocks.")
TENSORFLOW = "tf_"
# Initial values of parameters. On the meta device, Torch draws them in Python and imports SymPy for it. Torch's own
# functions of `init` leave their work to the mode; while the mode works, it does not see what they call.
DRAWS = (torch.Tensor.normal_, torch.Tensor.uniform_, torch.Tensor.erfinv_, nn.init.normal_, nn.init.uniform_,
         nn.init.kaiming_uniform_)  # fmt: skip


@cache
def known_backbone(backbone: str) -> None:
    """Check that timm has a network of a name.

    Only successes are cached. timm compares all its names for a name with a tag, which takes milliseconds.

    Raises:
        UnknownNameError: timm has no such network or tag; the message lists the nearest names.
    """
    stem, _, tag = backbone.partition(".")
    if not timm.is_model(stem):
        names = timm.list_models()
        near = [name for name in names if name.startswith(stem[:4])] or names
        raise UnknownNameError(unknown_name("backbone", backbone, near, limit=12))
    if tag and backbone not in timm.list_models(f"{stem}.*", pretrained=True):
        tags = timm.list_models(f"{stem}.*", pretrained=True)
        raise UnknownNameError(unknown_name("backbone", backbone, [stem, *tags]))


def pretrained_config(name: str) -> Any:
    """timm's pretrained_cfg; None for an unknown name or tag, which `known_backbone` refuses."""
    try:
        return timm.models.get_pretrained_cfg(name)
    except RuntimeError:
        return None


@cache
def whole_network(backbone: str) -> nn.Module:
    """The network of a name on the meta device, for the names and shapes of its tensors."""
    with meta_device():
        network: nn.Module = timm.create_model(backbone, pretrained=False)
    return network


@contextmanager
def meta_device() -> Iterator[None]:
    """Make tensors on the meta device, which have a shape and no values, inside this context."""
    with torch.device("meta"), NoDraws():
        yield


class NoDraws(TorchFunctionMode):
    """Makes networks with constants in place of random values, for a caller who loads all weights afterwards.

    The drawing takes up to a second. A parameter has the mean or the lower limit of its values, so that a function that
    draws until the values are within limits ends.
    """

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func not in DRAWS:
            return func(*args, **kwargs)
        tensor: torch.Tensor = args[0] if args else kwargs["tensor"]
        if tensor.is_meta or func is torch.Tensor.erfinv_:
            return tensor
        names = ("mean", "from", "a") if func is not nn.init.kaiming_uniform_ else ()
        value = args[1] if len(args) > 1 else next((kwargs[name] for name in names if name in kwargs), 0.0)
        with torch.no_grad():
            return tensor.fill_(value)

    @contextmanager
    def suspended(self) -> Iterator[None]:
        """Draw as usual inside this context, which lies inside the context of this object."""
        self.__exit__(None, None, None)
        try:
            yield
        finally:
            self.__enter__()


def licence_notes(backbones: Iterable[str]) -> list[str]:
    """A sentence for each backbone whose usual weights have a licence with conditions of its own.

    Args:
        backbones: timm's names.
    """
    return [
        f"backbone {name}: weights of DINOv3 have a licence of their own, not an open-source one. Read it before you "
        "use them. Weights of DINOv2 are under Apache-2.0."
        for name in dict.fromkeys(backbones)
        if "dinov3" in name
    ]


def variant_note(backbone: str, names: Mapping[str, object], file: str) -> str:
    """A sentence where tensors that were assigned by order and shape also fit a variant of their network.

    Both variants have equal tensors, and differ in padding and in the epsilon of batch normalisation.

    Args:
        backbone: timm's name of the network.
        names: of the tensors in the file.
        file: name of the file, for the sentence.

    Returns:
        An empty text where the variant does not exist, does not fit, or computes the same.
    """
    stem = backbone.partition(".")[0]
    variant = stem.removeprefix(TENSORFLOW) if stem.startswith(TENSORFLOW) else TENSORFLOW + stem
    if not timm.is_model(variant) or _shapes(variant) != _shapes(stem):
        return ""
    traits, other_traits = _arithmetic(stem), _arithmetic(variant)
    tensorflow = any(name.startswith(TENSORFLOW_NAMES) for name in names)
    if traits == other_traits or (tensorflow and stem.startswith(TENSORFLOW)):
        return ""
    advice = (
        f"the tensors have efficientnet_pytorch's names, and its weights belong to {TENSORFLOW}{stem}"
        if tensorflow
        else "use the network of the training"
    )
    return (
        f"weights {file}: fitted by order and shape as {stem} ({traits}). They also fit {variant} ({other_traits}), "
        f"with different features: {advice}"
    )


def _shapes(backbone: str) -> list[tuple[int, ...]]:
    return [tuple(value.shape) for value in whole_network(backbone).state_dict().values()]


def _arithmetic(backbone: str) -> str:
    modules = list(whole_network(backbone).modules())
    padding = "as TensorFlow" if any(isinstance(module, Conv2dSame) for module in modules) else "symmetric"
    epsilon = next((module.eps for module in modules if isinstance(module, nn.BatchNorm2d)), 0.0)
    return f"padding {padding}, batch-norm epsilon {epsilon:g}"
