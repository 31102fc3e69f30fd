"""A weights file -> tensors that fit a backbone completely; otherwise an error lists the differences."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from harness.common.errors import WeightsError

State = dict[str, Tensor]
Adapt = Callable[[State, nn.Module], State]
WRAPPERS = ("state_dict", "model", "model_state_dict", "state_dict_ema")
# Names of heads in timm, torchvision and efficientnet_pytorch. Features do not need a head.
HEADS = ("fc.", "_fc.", "classifier.", "head.", "heads.", "head_dist.", "pre_logits.", "AuxLogits.")
SHOWN = 4
# Levels of prefixes in front of a network's names, as in module.model.backbone.conv1.weight.
MAX_PREFIXES = 3
# First bytes of other files that users save under a weights file's name.
OTHER_FILES = (
    (b"version https://git-lfs", "a Git LFS pointer of a few lines, not the weights; run `git lfs pull` there"),
    (b"<!doctype", "a web page, not the weights; download the file itself"),
    (b"<html", "a web page, not the weights; download the file itself"),
    (b"<?xml", "an XML text, not the weights; download the file itself"),
)


def read_state(path: Path) -> State:
    """Tensors of a .safetensors, .pth, .pt or .ckpt file. Reading executes nothing of the file.

    The file holds a state dict, or a mapping with one under `state_dict` or `model`. A prefix `module.` is removed.

    Raises:
        WeightsError: the file can't be read, or holds no state dict.
    """
    _refuse_other_files(path)
    loaded: Any
    try:
        if path.suffix.lower() == ".safetensors":
            from safetensors.torch import load_file

            loaded = load_file(path)
        else:
            loaded = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise WeightsError(
            f"weights: {path}: other objects than tensors found; loading them could run code, a state dict expected. "
            "If you trust the file, load it in Python and save its state_dict() with safetensors."
        ) from error
    # The readers raise many types of exceptions for damaged files.
    except Exception as error:
        raise WeightsError(f"weights: {path}: can't be read ({type(error).__name__}: {error}).") from error
    for _ in range(MAX_PREFIXES):
        if not isinstance(loaded, Mapping):
            break
        inner = (loaded[key] for key in WRAPPERS if isinstance(loaded.get(key), Mapping))
        loaded = next(inner, loaded)
    if not isinstance(loaded, Mapping) or not any(isinstance(value, Tensor) for value in loaded.values()):
        raise WeightsError(f"weights: {path}: {type(loaded).__name__} without tensors found, a state dict expected.")
    return {str(key).removeprefix("module."): value for key, value in loaded.items() if isinstance(value, Tensor)}


def _refuse_other_files(path: Path) -> None:
    try:
        with path.open("rb") as file:
            first_bytes = file.read(64).lstrip().lower()
    except OSError as error:
        raise WeightsError(f"weights: {path}: can't be read ({error.strerror}).") from error
    if not first_bytes:
        raise WeightsError(f"weights: {path}: an empty file found, a state dict expected; download it again.")
    for start, problem in OTHER_FILES:
        if first_bytes.startswith(start):
            raise WeightsError(f"weights: {path}: {problem}.")


@dataclass(frozen=True)
class Fit:
    """The comparison of a file's tensors with a network.

    Attributes:
        state: the tensors, under the network's names where they match.
        prefix: in front of the network's names in the file.
        renamed: whether tensors were assigned to names by order and shape.
        missing, shapes, foreign: names of tensors that are missing, have another shape, or belong to another network.
    """

    state: State
    prefix: str
    renamed: bool
    missing: tuple[str, ...]
    shapes: tuple[str, ...]
    foreign: tuple[str, ...]

    @property
    def whole(self) -> bool:
        """Whether all tensors match: none is missing, and none is left over."""
        return not (self.missing or self.shapes or self.foreign)

    @property
    def distance(self) -> int:
        """Number of tensors that do not match."""
        return len(self.missing) + len(self.shapes) + len(self.foreign)


def fit_state(state: State, model: nn.Module, reference: nn.Module, source: str, adapt: Adapt | None = None) -> State:
    """The tensors of `state` that `model` needs, under the names of the model.

    Args:
        state: tensors of a file.
        model: the network to fill; a feature extractor may lack the head or later stages.
        reference: the complete network of the same name; its names are not foreign.
        source: name of the file, for messages.
        adapt: timm's conversion of a state dict for this family of networks; it also resizes position embeddings.

    Raises:
        WeightsError: a tensor is missing, has another shape, holds integers, or belongs to another network.
    """
    fit = find_fit(state, model, reference, source, adapt)
    needed = _needed(model)
    if not fit.whole:
        raise WeightsError(_misfit(fit, needed, reference, source))
    integers = [key for key in needed if not fit.state[key].is_floating_point() and needed[key].is_floating_point()]
    if integers:
        raise WeightsError(
            f"weights: {source}: tensors of whole numbers found ({_some(integers)}, {fit.state[integers[0]].dtype}), "
            "as in a quantised network; expected floating-point numbers. Save the network before its quantisation, "
            "or dequantise its weights."
        )
    expected = model.state_dict()
    # Features do not need the head and the counters, but load_state_dict does.
    return {
        key: fit.state[key] if key in fit.state and fit.state[key].shape == value.shape else value
        for key, value in expected.items()
    }


def find_fit(state: State, model: nn.Module, reference: nn.Module, source: str, adapt: Adapt | None = None) -> Fit:
    """The best match of a file and a network: by names, by timm's conversion, then by order and shape.

    Args:
        state, model, reference, source, adapt: see `fit_state`.

    Raises:
        WeightsError: the file holds several networks that fit.
    """
    plain = _fit("", state, model, reference, adapt)
    if plain.whole:
        return plain
    candidates = [_fit(prefix, group, model, reference, adapt) for prefix, group in _groups(state)]
    fitting = [fit for fit in candidates if fit.whole]
    if len(fitting) > 1:
        raise WeightsError(
            f"weights: {source}: several networks that fit found, named {_some([fit.prefix for fit in fitting])}; "
            "expected one. Save the state dict of one network only."
        )
    return fitting[0] if fitting else min([plain, *candidates], key=lambda fit: fit.distance)


def _groups(state: State) -> Iterator[tuple[str, State]]:
    """The tensors under each prefix that may hold a complete network."""
    level = [("", state)]
    for _ in range(MAX_PREFIXES):
        groups = []
        for prefix, group in level:
            names = dict.fromkeys(name.partition(".")[0] for name in group if "." in name)
            for name in names:
                inner = {n.removeprefix(f"{name}."): value for n, value in group.items() if n.startswith(f"{name}.")}
                groups.append((f"{prefix}{name}.", inner))
        # A complete network has more tensors than its layers, so only the largest groups count.
        level = sorted(groups, key=lambda item: -len(item[1]))[:3]
        yield from level


def _fit(prefix: str, state: State, model: nn.Module, reference: nn.Module, adapt: Adapt | None) -> Fit:
    needed = _needed(model)
    whole = {key: tuple(value.shape) for key, value in reference.state_dict().items()}
    fits = all(key in state and state[key].shape == value.shape for key, value in needed.items())
    if adapt is not None and not fits:
        state = _adapted(state, model, adapt)
    renamed = None if set(needed) <= set(state) else _renamed(state, whole)
    state = renamed or state
    return Fit(
        state,
        prefix,
        renamed is not None,
        tuple(key for key in needed if key not in state),
        tuple(key for key in needed if key in state and state[key].shape != needed[key].shape),
        tuple(key for key in state if key not in whole and key not in needed and not _optional(key)),
    )


def _adapted(state: State, model: nn.Module, adapt: Adapt) -> State:
    try:
        adapted = adapt(dict(state), model)
    # A conversion for other files may raise any exception; the later comparison lists the differences.
    except Exception:  # noqa: BLE001
        return state
    return adapted if isinstance(adapted, dict) else state


def _needed(model: nn.Module) -> State:
    return {key: value for key, value in model.state_dict().items() if not _optional(key)}


def _misfit(fit: Fit, needed: State, reference: nn.Module, source: str) -> str:
    shapes = [f"{key} {tuple(fit.state[key].shape)} for {tuple(needed[key].shape)}" for key in fit.shapes]
    details = [
        f"missing: {_some(fit.missing)}" if fit.missing else "",
        f"other shape: {_some(shapes)}" if shapes else "",
        f"of another network: {_some(fit.foreign)}" if fit.foreign else "",
    ]
    fitting = len(needed) - len(fit.missing) - len(fit.shapes)
    return (
        f"weights: {source} does not fit this {type(reference).__name__}: {fitting} of {len(needed)} tensors "
        f"match, all expected; {'; '.join(d for d in details if d)}."
    )


def _optional(key: str) -> bool:
    return key.endswith("num_batches_tracked") or key.startswith(HEADS)


def _renamed(state: State, whole: Mapping[str, tuple[int, ...]]) -> State | None:
    """`state` under the reference's names, where it is the same network under other names, such as torchvision's.

    Both list their tensors in the order of the network. The networks are the same if each pair of tensors agrees in
    shape and in the last part of the name. The head is not compared.
    """
    sources = [key for key in state if not _optional(key)]
    targets = [key for key in whole if not _optional(key)]
    if len(sources) != len(targets):
        return None
    for source, target in zip(sources, targets, strict=True):
        if tuple(state[source].shape) != whole[target] or source.rpartition(".")[2] != target.rpartition(".")[2]:
            return None
    return {target: state[source] for source, target in zip(sources, targets, strict=True)}


def _some(names: tuple[str, ...] | list[str]) -> str:
    more = f", ... ({len(names)} in all)" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
