"""One general way in for weights: while it is open, every pretrained backbone that is built takes ours.

anomalib's models build their backbones themselves, in different places, and ask timm or torchvision for pretrained
weights. Both libraries have one function that answers such a request; here it is answered by the weights policy
instead, so no model needs a case of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
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

# Libraries are changed for the whole process while a backbone is built.
LOCK = RLock()


@contextmanager
def backbone_weights(policy: str, seed: int = 0) -> Iterator[dict[str, Weights]]:
    """Answer every request for pretrained weights by `policy`; gives what was used, by backbone.

    Args:
        policy: auto, pretrained, random or a path.
        seed: of random weights.
    """
    with answered_by(lambda backbone: resolve(policy, backbone), seed) as used:
        yield used


@contextmanager
def answered_by(find: Callable[[str], Weights], seed: int) -> Iterator[dict[str, Weights]]:
    """Answer every request for pretrained weights by `find`, called with the backbone's name."""
    used: dict[str, Weights] = {}

    def for_timm(model: nn.Module, pretrained_cfg: Mapping[str, Any], **options: Any) -> None:
        name = _timm_name(pretrained_cfg)
        used[name] = find(name)
        load_into(model, name, used[name], seed, options.get("filter_fn"))

    def for_torchvision(enum: WeightsEnum, *_: Any, **__: Any) -> State:
        name = _torchvision_name(type(enum))
        used[name] = find(name)
        with seeded(seed):
            model = torchvision.models.get_model(name, weights=None)
        state: State = model.state_dict()
        if used[name].file:
            state = fit_state(read_state(Path(str(used[name].file))), model, model, str(used[name].file))
        return state

    with (
        LOCK,
        replaced(_builder, "load_pretrained", for_timm),
        replaced(WeightsEnum, "get_state_dict", for_torchvision),
    ):
        yield used


@contextmanager
def unfilled() -> Iterator[None]:
    """Backbones that ask for pretrained weights keep what they were built with: their weights are about to come."""
    with recorded_requests():
        yield


@contextmanager
def recorded_requests() -> Iterator[list[str]]:
    """Requests for pretrained weights are written down, and answered with what a network was built with."""
    names: list[str] = []

    def for_timm(model: nn.Module, pretrained_cfg: Mapping[str, Any], **options: Any) -> None:
        del model, options
        names.append(_timm_name(pretrained_cfg))

    def for_torchvision(enum: WeightsEnum, *_: Any, **__: Any) -> State:
        names.append(_torchvision_name(type(enum)))
        state: State = torchvision.models.get_model(names[-1], weights=None).state_dict()
        return state

    with (
        LOCK,
        replaced(_builder, "load_pretrained", for_timm),
        replaced(WeightsEnum, "get_state_dict", for_torchvision),
    ):
        yield names


@contextmanager
def replaced(holder: Any, name: str, function: Any) -> Iterator[None]:
    """While it is open, `holder.name` is `function`; one thread at a time."""
    with LOCK:
        original = getattr(holder, name)
        setattr(holder, name, function)
        try:
            yield
        finally:
            setattr(holder, name, original)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Torch's generators, on all devices, begin with `seed`, and are afterwards as they were before."""
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(seed)
        yield


def load_into(model: nn.Module, backbone: str, weights: Weights, seed: int, adapt: Any = None) -> None:
    """Fill a timm network, which may be its feature extractor alone, from resolved weights.

    Random weights too are a function of backbone and seed, and not of what a model drew before it built its backbone:
    so all models and backends get the same ones.

    Raises:
        WeightsError: the file does not fit the network whole.
    """
    if weights.file is not None:
        path = Path(weights.file)
        model.load_state_dict(fit_state(read_state(path), model, whole_network(backbone), str(path), adapt))
        return
    with seeded(seed):
        drawn = timm.create_model(backbone, pretrained=False).state_dict()
    own = model.state_dict()
    if all(name in own and own[name].shape == value.shape for name, value in drawn.items()):
        model.load_state_dict(drawn)
    else:
        model.load_state_dict(fit_state(drawn, model, whole_network(backbone), f"random weights of {backbone}", adapt))


def _timm_name(config: Mapping[str, Any]) -> str:
    """The name the network was asked for by: with its tag only where that is not the default one."""
    name, tag = str(config["architecture"]), config.get("tag")
    default = timm.models.get_pretrained_cfg(name)
    return f"{name}.{tag}" if tag and default is not None and default.tag != tag else name


def _torchvision_name(weights: type[WeightsEnum]) -> str:
    for name in torchvision.models.list_models():
        if torchvision.models.get_model_weights(name) is weights:
            return str(name)
    raise LookupError(weights.__name__)
