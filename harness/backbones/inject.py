"""Context managers that load the weights of a policy into every backbone that a model builds.

anomalib's models build their backbones in different places, and request pretrained weights from timm or torchvision.
Each library has one function for such a request. This module replaces the function, so that no model needs its own
code.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import lru_cache
from pathlib import Path
from threading import RLock
from typing import Any

import timm
import torch
import torchvision
from timm.models import _builder
from torch import nn
from torchvision.models._api import WeightsEnum

from harness.backbones.networks import whole_network
from harness.backbones.resolve import Weights, resolve
from harness.backbones.state import State, fit_state, read_state

# The replaced functions are shared by all threads of the process.
LOCK = RLock()


@contextmanager
def backbone_weights(policy: str, seed: int = 0) -> Iterator[dict[str, Weights]]:
    """Load the weights of a policy on every request for pretrained weights.

    Args:
        policy: auto, pretrained, random or a path.
        seed: of random weights.

    Yields:
        The loaded weights, by the name of the backbone.
    """
    with answered_by(lambda backbone: resolve(policy, backbone), seed) as loaded:
        yield loaded


@contextmanager
def answered_by(
    find: Callable[[str], Weights], seed: int, loading: Callable[[], AbstractContextManager[None]] = nullcontext
) -> Iterator[dict[str, Weights]]:
    """Load weights from a function on every request for pretrained weights.

    Args:
        find: a function from the name of a backbone to its weights.
        seed: of random weights.
        loading: makes the context in which the weights of a timm network are loaded.

    Yields:
        The loaded weights, by the name of the backbone.
    """
    loaded: dict[str, Weights] = {}

    def for_timm(model: nn.Module, pretrained_cfg: Mapping[str, Any], **options: Any) -> None:
        name = _timm_name(pretrained_cfg)
        loaded[name] = find(name)
        with loading():
            load_into(model, name, loaded[name], seed, options.get("filter_fn"))

    def for_torchvision(enum: WeightsEnum, *_: Any, **__: Any) -> State:
        name = _torchvision_name(type(enum))
        loaded[name] = find(name)
        with seeded(seed):
            model = torchvision.models.get_model(name, weights=None)
        state: State = model.state_dict()
        if loaded[name].file:
            state = fit_state(read_state(Path(str(loaded[name].file))), model, model, str(loaded[name].file))
        return state

    with _requests_answered(for_timm, for_torchvision):
        yield loaded


@contextmanager
def unfilled() -> Iterator[None]:
    """Ignore requests for pretrained weights: the caller loads a saved state afterwards."""
    with recorded_requests():
        yield


@contextmanager
def recorded_requests() -> Iterator[list[str]]:
    """Record requests for pretrained weights. The networks keep their initial weights.

    Yields:
        The names of the backbones, in the order of their requests.
    """
    names: list[str] = []

    def for_timm(model: nn.Module, pretrained_cfg: Mapping[str, Any], **options: Any) -> None:
        del model, options
        names.append(_timm_name(pretrained_cfg))

    def for_torchvision(enum: WeightsEnum, *_: Any, **__: Any) -> State:
        names.append(_torchvision_name(type(enum)))
        state: State = torchvision.models.get_model(names[-1], weights=None).state_dict()
        return state

    with _requests_answered(for_timm, for_torchvision):
        yield names


@contextmanager
def _requests_answered(for_timm: Callable[..., None], for_torchvision: Callable[..., State]) -> Iterator[None]:
    """Call these functions on requests for pretrained weights from timm and torchvision."""
    with replaced(_builder, "load_pretrained", for_timm), replaced(WeightsEnum, "get_state_dict", for_torchvision):
        yield


@contextmanager
def replaced(holder: Any, name: str, function: Any) -> Iterator[None]:
    """Replace an attribute for the time of the context, in one thread at a time.

    Args:
        holder: the object with the attribute.
        name: of the attribute.
        function: its new value.
    """
    with LOCK:
        original = getattr(holder, name)
        setattr(holder, name, function)
        try:
            yield
        finally:
            setattr(holder, name, original)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed Torch's generators on all devices, and restore their states at the end."""
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(seed)
        yield


def load_into(model: nn.Module, backbone: str, weights: Weights, seed: int, adapt: Any = None) -> None:
    """Load resolved weights into a timm network, or into its feature extractor.

    Random weights depend on the backbone and the seed only, so that all models and backends get the same weights.

    Args:
        model: the network to fill.
        backbone: timm's name of the network.
        weights: where the weights come from.
        seed: of random weights.
        adapt: timm's conversion of a state dict for this family of networks.

    Raises:
        WeightsError: the file does not fit the network completely.
    """
    if weights.file is not None:
        path = Path(weights.file)
        model.load_state_dict(fit_state(read_state(path), model, whole_network(backbone), str(path), adapt))
        return
    # timm may change the dict when it converts a state.
    state = dict(_drawn(backbone, seed, torch.get_default_dtype()))
    expected = model.state_dict()
    if all(name in expected and expected[name].shape == value.shape for name, value in state.items()):
        model.load_state_dict(state)
    else:
        model.load_state_dict(fit_state(state, model, whole_network(backbone), f"random weights of {backbone}", adapt))


@lru_cache(maxsize=1)
def _drawn(backbone: str, seed: int, dtype: torch.dtype) -> State:
    """The random weights of a whole network; nobody may change them. A sweep builds the same network several times."""
    del dtype  # Torch's default, a part of the key only
    with seeded(seed):
        state: State = timm.create_model(backbone, pretrained=False).state_dict()
    return state


def _timm_name(config: Mapping[str, Any]) -> str:
    """The name in the request: with its tag only where the tag is not the default."""
    name, tag = str(config["architecture"]), config.get("tag")
    default = timm.models.get_pretrained_cfg(name)
    return f"{name}.{tag}" if tag and default is not None and default.tag != tag else name


def _torchvision_name(weights: type[WeightsEnum]) -> str:
    for name in torchvision.models.list_models():
        if torchvision.models.get_model_weights(name) is weights:
            return str(name)
    raise LookupError(weights.__name__)
