"""A weights file -> tensors that fit a backbone: whole, or refused with what differs. Never in part."""

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
# Heads, by the names of timm, torchvision and efficientnet_pytorch: not needed for features.
HEADS = ("fc.", "_fc.", "classifier.", "head.", "heads.", "head_dist.", "pre_logits.", "AuxLogits.")
SHOWN = 4
# How deep in names a network may lie: module.model.backbone.conv1.weight.
DEEPEST = 3
# What somebody may have saved under a weights file's name, by its first bytes.
IMPOSTORS = (
    (b"version https://git-lfs", "a Git LFS pointer of a few lines, not the weights; run `git lfs pull` there"),
    (b"<!doctype", "a web page, not the weights; download the file itself"),
    (b"<html", "a web page, not the weights; download the file itself"),
    (b"<?xml", "an XML text, not the weights; download the file itself"),
)


def read_state(path: Path) -> State:
    """Tensors of a .safetensors, .pth, .pt or .ckpt file; nothing in the file is executed.

    A bare state dict, or one under `state_dict` or `model`; a `module.` prefix is dropped.

    Raises:
        WeightsError: it can't be read so.
    """
    _refuse_impostors(path)
    loaded: Any
    try:
        if path.suffix.lower() == ".safetensors":
            from safetensors.torch import load_file

            loaded = load_file(path)
        else:
            loaded = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise WeightsError(
            f"weights: {path}: holds more than tensors, which is not loaded since it could run code; expected a "
            "state dict. Where you trust the file, load it in Python and save its state_dict() with safetensors."
        ) from error
    # Damaged files raise what their format's reader happens to raise.
    except Exception as error:
        raise WeightsError(f"weights: {path}: can't be read ({type(error).__name__}: {error}).") from error
    for _ in range(DEEPEST):
        if not isinstance(loaded, Mapping):
            break
        inner = (loaded[key] for key in WRAPPERS if isinstance(loaded.get(key), Mapping))
        loaded = next(inner, loaded)
    if not isinstance(loaded, Mapping) or not any(isinstance(value, Tensor) for value in loaded.values()):
        raise WeightsError(f"weights: {path}: {type(loaded).__name__} without tensors found, a state dict expected.")
    return {str(key).removeprefix("module."): value for key, value in loaded.items() if isinstance(value, Tensor)}


def _refuse_impostors(path: Path) -> None:
    try:
        with path.open("rb") as file:
            begins = file.read(64).lstrip().lower()
    except OSError as error:
        raise WeightsError(f"weights: {path}: can't be read ({error.strerror}).") from error
    if not begins:
        raise WeightsError(f"weights: {path}: an empty file found, a state dict expected; download it again.")
    for start, what in IMPOSTORS:
        if begins.startswith(start):
            raise WeightsError(f"weights: {path}: {what}.")


@dataclass(frozen=True)
class Fit:
    """A file's tensors beside a network.

    Attributes:
        state: the tensors, under the network's names where they are known.
        prefix: of the file's names, in front of the network's own.
        renamed: whether names were given by order and shape.
        missing, shapes, foreign: names that are not there, have another shape, or belong to another network.
    """

    state: State
    prefix: str
    renamed: bool
    missing: tuple[str, ...]
    shapes: tuple[str, ...]
    foreign: tuple[str, ...]

    @property
    def whole(self) -> bool:
        """Whether nothing is missing and nothing is left over."""
        return not (self.missing or self.shapes or self.foreign)

    @property
    def distance(self) -> int:
        """How much differs."""
        return len(self.missing) + len(self.shapes) + len(self.foreign)


def fit_state(state: State, model: nn.Module, reference: nn.Module, source: str, adapt: Adapt | None = None) -> State:
    """The part of `state` that `model` needs, under the model's own names.

    Args:
        state: tensors of a file.
        model: the network to fill; may lack the head, or whole parts, where only features are wanted.
        reference: the whole network of that name, to tell its own further tensors from those of another network.
        source: what to call the file in messages.
        adapt: timm's own conversion for this family of networks; it also resizes position embeddings.

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
            "as in a quantised network; expected floating-point numbers. Save the network before it is quantised, or "
            "with its weights dequantised."
        )
    own = model.state_dict()
    # What is left over from `own` is the head and counters: of no use for features, but load_state_dict wants them.
    return {
        key: fit.state[key] if key in fit.state and fit.state[key].shape == value.shape else value
        for key, value in own.items()
    }


def find_fit(state: State, model: nn.Module, reference: nn.Module, source: str, adapt: Adapt | None = None) -> Fit:
    """The best way to read a file as a network: its own names, timm's conversion, then order and shape.

    Raises:
        WeightsError: the file holds several networks that fit.
    """
    own = _fit("", state, model, reference, adapt)
    if own.whole:
        return own
    tries = [_fit(prefix, part, model, reference, adapt) for prefix, part in _parts(state)]
    fitting = [one for one in tries if one.whole]
    if len(fitting) > 1:
        raise WeightsError(
            f"weights: {source}: several networks that fit found, named {_some([one.prefix for one in fitting])}; "
            "expected one. Save the state dict of the one that is meant."
        )
    return fitting[0] if fitting else min([own, *tries], key=lambda one: one.distance)


def _parts(state: State) -> Iterator[tuple[str, State]]:
    """What lies in a state under each prefix that may be a whole network's."""
    todo = [("", state)]
    for _ in range(DEEPEST):
        found = []
        for prefix, part in todo:
            heads = dict.fromkeys(name.partition(".")[0] for name in part if "." in name)
            for head in heads:
                inner = {n.removeprefix(f"{head}."): value for n, value in part.items() if n.startswith(f"{head}.")}
                found.append((f"{prefix}{head}.", inner))
        # The largest ones only: a network is not hidden in one of its layers.
        todo = sorted(found, key=lambda one: -len(one[1]))[:3]
        yield from todo


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
    # A conversion meant for other files may fail in any way; the comparison afterwards says what differs.
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
    """`state` under the reference's names, where it is the same network under other names (torchvision's, say).

    Both list their tensors in the order of the network. They are taken for the same if they agree, one by one, in
    shape and in the last part of the name, over the whole network but its head.
    """
    theirs = [key for key in state if not _optional(key)]
    ours = [key for key in whole if not _optional(key)]
    if len(theirs) != len(ours):
        return None
    for a, b in zip(theirs, ours, strict=True):
        if tuple(state[a].shape) != whole[b] or a.rpartition(".")[2] != b.rpartition(".")[2]:
            return None
    return {b: state[a] for a, b in zip(theirs, ours, strict=True)}


def _some(names: tuple[str, ...] | list[str]) -> str:
    more = f", ... ({len(names)} in all)" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
