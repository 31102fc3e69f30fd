"""The `grid:` block: mappings of axes. After normalisation every axis is a list of values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from harness.backbones.normalization import OF_IMAGENET, effective
from harness.common.errors import ConfigError
from harness.config.axes import ALL_IMAGES, MAPPED, N_TRAIN, NORMALIZATION, SET_VALUED, SIDES, SMALLEST_SIDE, UNIFY

Axis = list[Any]


def normalise(mapping: Any) -> dict[str, Axis]:
    """Convert every axis of a mapping to a list of its values.

    Raises:
        ValueError: the mapping has no model, or an axis has a value of the wrong kind.
    """
    if not isinstance(mapping, Mapping) or not mapping:
        raise ValueError(f"expected axes such as `model: patchcore`; found {mapping!r}")
    axes: dict[str, Axis] = {}
    for key, value in mapping.items():
        if not isinstance(key, str):
            raise ValueError(f"expected names as keys; found {key!r}")
        values = value if isinstance(value, list) else [value]
        # As in anomalib, `layers: [layer2, layer3]` is one set of layers. Several sets are a list of lists.
        if key in SET_VALUED and isinstance(value, list) and value and not any(isinstance(v, list) for v in value):
            values = [value]
        if not values:
            raise ValueError(f"axis {key!r} is empty; expected at least one value")
        if key not in MAPPED and any(isinstance(v, Mapping) for v in values):
            raise ValueError(f"axis {key!r}: expected values or lists of them; found a mapping")
        axes[key] = values
    _check_values(axes)
    return axes


def _check_values(axes: Mapping[str, Axis]) -> None:
    for layers in axes.get("layers", []):
        _check_layers(layers)
    if "model" not in axes:
        raise ValueError(f"no `model`; expected at least one model in each mapping. Found: {', '.join(axes)}")
    for key in ("backend", "model", "backbone"):
        for name in axes.get(key, []):
            if not isinstance(name, str):
                raise ValueError(f"{key}: expected a name; found {name!r}")
    for name in SIDES:
        for size in axes.get(name, []):
            _check_size(name, size)
    check_numbers_of_images(axes.get(N_TRAIN, []))
    for value in axes.get(UNIFY, []):
        if not isinstance(value, bool):
            raise ValueError(f"{UNIFY}: expected true or false; found {value!r}")
    for normalization in axes.get(NORMALIZATION, []):
        try:
            effective(normalization, OF_IMAGENET)
        except ConfigError as error:
            raise ValueError(error.problems[0]) from error


def check_numbers_of_images(values: Axis) -> None:
    """Check the values of `n_train`.

    Raises:
        ValueError: a value is neither a number of images nor `all`.
    """
    for value in values:
        is_number = isinstance(value, int) and not isinstance(value, bool) and value >= 1
        if not is_number and value != ALL_IMAGES:
            raise ValueError(f"{N_TRAIN}: expected numbers of images from 1 up, or {ALL_IMAGES}; found {value!r}")


def _check_layers(layers: Any) -> None:
    names = layers if isinstance(layers, list) else [layers]
    if not names:
        raise ValueError("layers: expected names in each set; found an empty set")
    if not all(isinstance(name, str | int) for name in names):
        raise ValueError(f"layers: expected names, or lists of names; found {layers!r}")


def _check_size(name: str, size: Any) -> None:
    sides = size if isinstance(size, list) else [size, size]
    if len(sides) != 2 or not all(isinstance(s, int) and not isinstance(s, bool) and s >= SMALLEST_SIDE for s in sides):
        raise ValueError(f"{name}: expected a number from {SMALLEST_SIDE} up, or [height, width]; found {size!r}")
