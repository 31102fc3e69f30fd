"""A weights file -> tensors that fit a backbone: whole, or refused with what differs. Never in part."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from harness.errors import WeightsError

State = dict[str, Tensor]
WRAPPERS = ("state_dict", "model", "model_state_dict", "state_dict_ema")
# Heads, by timm's and torchvision's names: not needed for features.
HEADS = ("fc.", "classifier.", "head.", "heads.", "head_dist.", "pre_logits.", "AuxLogits.")
SHOWN = 4


def read_state(path: Path) -> State:
    """Tensors of a .safetensors, .pth or .pt file; nothing in the file is executed.

    A bare state dict, or one under `state_dict` or `model`; a `module.` prefix is dropped.

    Raises:
        WeightsError: it can't be read so.
    """
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
    for key in WRAPPERS:
        if isinstance(loaded, Mapping) and isinstance(loaded.get(key), Mapping):
            loaded = loaded[key]
            break
    if not isinstance(loaded, Mapping) or not any(isinstance(value, Tensor) for value in loaded.values()):
        raise WeightsError(f"weights: {path}: {type(loaded).__name__} without tensors found, a state dict expected.")
    return {str(key).removeprefix("module."): value for key, value in loaded.items() if isinstance(value, Tensor)}


def fit_state(
    state: State,
    model: nn.Module,
    reference: nn.Module,
    source: str,
    adapt: Callable[[State, nn.Module], State] | None = None,
) -> State:
    """The part of `state` that `model` needs, under the model's own names.

    Args:
        state: tensors of a file.
        model: the network to fill; may lack the head, or whole parts, where only features are wanted.
        reference: the whole network of that name, to tell its own further tensors from those of another network.
        source: what to call the file in messages.
        adapt: timm's own conversion for this family of networks.

    Raises:
        WeightsError: a tensor is missing, has another shape, or belongs to another network.
    """
    needed = {key: value.shape for key, value in model.state_dict().items() if not _optional(key)}
    whole = {key: tuple(value.shape) for key, value in reference.state_dict().items()}
    if adapt is not None and not set(needed) <= set(state):
        try:
            adapted = adapt(dict(state), model)
        # A conversion meant for other files may fail in any way; the comparison below then says what differs.
        except Exception:  # noqa: BLE001
            adapted = state
        state = adapted if isinstance(adapted, dict) else state
    if not set(needed) <= set(state):
        state = _renamed(state, whole) or state
    missing = [key for key in needed if key not in state]
    shapes = [key for key in needed if key in state and state[key].shape != needed[key]]
    foreign = [key for key in state if key not in whole and key not in needed and not _optional(key)]
    if missing or shapes or foreign:
        fitting = len(needed) - len(missing) - len(shapes)
        details = [
            f"missing: {_some(missing)}" if missing else "",
            f"other shape: {_some([f'{k} {tuple(state[k].shape)} for {tuple(needed[k])}' for k in shapes])}"
            if shapes
            else "",
            f"of another network: {_some(foreign)}" if foreign else "",
        ]
        raise WeightsError(
            f"weights: {source} does not fit this {type(reference).__name__}: {fitting} of {len(needed)} tensors "
            f"match, all expected; {'; '.join(d for d in details if d)}."
        )
    own = model.state_dict()
    # What is left over from `own` is the head and counters: of no use for features, but load_state_dict wants them.
    return {
        key: state[key] if key in state and state[key].shape == value.shape else value for key, value in own.items()
    }


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


def _some(names: list[str]) -> str:
    more = f", ... ({len(names)} in all)" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
