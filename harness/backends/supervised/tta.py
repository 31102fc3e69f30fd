"""Test-time augmentation in words: the views of an image, and the average of their predictions. No Torch.

`tta` is either a text or a mapping. A text joins the views of several kinds by +. A mapping is a product: each value of
one key comes with each value of the other keys.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from harness.common.errors import nearest
from harness.config.axes import SMALLEST_SIDE

NONE = "none"
FLIPS = (NONE, "horizontal", "vertical", "both")
ROTATIONS = (0, 90, 180, 270)
SCALES = (0.25, 4.0)  # smallest and largest
FACTORS = (0.0, 10.0)  # the smallest is excluded
MOST_VIEWS = 64
AVERAGES = ("probabilities", "logits")


@dataclass(frozen=True)
class View:
    """One view of an image. The steps follow the order of the attributes.

    Attributes:
        flip: one of `FLIPS`; `both` is horizontal and vertical.
        rotation: degrees, counterclockwise.
        scale: factor of height and width of the network's input.
        factor: factor of the values in [0, 1]; values above 1 become 1.
    """

    flip: str = NONE
    rotation: int = 0
    scale: float = 1.0
    factor: float = 1.0

    def sides(self, size: tuple[int, int]) -> tuple[int, int]:
        """Return (height, width) of the view of an image of a size; a rotation needs a square."""
        return round(size[0] * self.scale), round(size[1] * self.scale)


@dataclass(frozen=True)
class Views:
    """The views of an image, and their average.

    Attributes:
        views: the views; the default is the image itself.
        average: one of `AVERAGES`. With `logits`, softmax comes after the average.
    """

    views: tuple[View, ...] = (View(),)
    average: str = AVERAGES[0]


PLAIN = Views()

# Each kind adds its views to those of the others, and to the image itself.
KINDS: Mapping[str, tuple[View, ...]] = {
    "flips": (View(flip="horizontal"), View(flip="vertical")),
    "rotations": tuple(View(rotation=degrees) for degrees in ROTATIONS[1:]),
    "brightness": (View(factor=0.9), View(factor=1.1)),
}


@dataclass(frozen=True)
class _Key:
    """One key of a product.

    Attributes:
        attribute: attribute of `View`.
        expected: the valid values, in words.
        valid: whether a value is valid.
        convert: converts a valid value to the type of the attribute.
    """

    attribute: str
    expected: str
    valid: Callable[[Any], bool]
    convert: Callable[[Any], Any]

    def chosen(self, values: Any) -> list[Any]:
        """Convert one value, or a list of them, to a list in the order of the attribute's values."""
        converted = {self.convert(value) for value in (values if isinstance(values, list | tuple) else [values])}
        return sorted(converted, key=FLIPS.index if self.attribute == "flip" else None)

    def problem(self, values: Any) -> str:
        """Return why a value is invalid; empty for a valid one."""
        listed = list(values) if isinstance(values, list | tuple) else [values]
        if not listed:
            return f"found an empty list, expected {self.expected}; name at least one value, or remove the key."
        if wrong := [value for value in listed if not self.valid(value)]:
            return f"found {', '.join(map(repr, wrong))}, expected {self.expected}."
        if len(self.chosen(values)) < len(listed):
            return f"found {listed}, expected each value once."
        return ""


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


KEYS: Mapping[str, _Key] = {
    "flips": _Key("flip", f"some of {', '.join(FLIPS)}", lambda value: value in FLIPS, str),
    "rotations": _Key(
        "rotation",
        f"some of {', '.join(map(str, ROTATIONS))} degrees",
        lambda value: _is_number(value) and value in ROTATIONS,
        int,
    ),
    "scales": _Key(
        "scale",
        f"numbers from {SCALES[0]:g} to {SCALES[1]:g}",
        lambda value: _is_number(value) and SCALES[0] <= value <= SCALES[1],
        float,
    ),
    "multiply": _Key(
        "factor",
        f"numbers above {FACTORS[0]:g}, up to {FACTORS[1]:g}",
        lambda value: _is_number(value) and FACTORS[0] < value <= FACTORS[1],
        float,
    ),
}


def views_of(tta: str | Mapping[str, Any]) -> tuple[View, ...]:
    """Return the views of a valid `tta`, at least one.

    Args:
        tta: the setting.
    """
    if isinstance(tta, str):
        kinds = () if tta == NONE else tta.split("+")
        # In this order for every order of the names, as in earlier versions.
        return (View(), *(view for kind, of_kind in KINDS.items() if kind in kinds for view in of_kind))
    axes = {KEYS[key].attribute: KEYS[key].chosen(values) for key, values in _ordered(tta)}
    return tuple(View(**dict(zip(axes, values, strict=True))) for values in itertools.product(*axes.values()))


def canonical(tta: Any) -> Any:
    """Return `tta` in the one form of all mappings with equal views; an invalid one, or a text, as it is.

    Args:
        tta: the setting.
    """
    if not isinstance(tta, Mapping) or list(_mapping_problems(tta)):
        return tta
    plain = View()
    product = {key: KEYS[key].chosen(values) for key, values in _ordered(tta)}
    return {key: values for key, values in product.items() if values != [getattr(plain, KEYS[key].attribute)]} or NONE


def tta_problems(tta: Any, size: tuple[int, int]) -> list[str]:
    """Return why `tta` is invalid, one sentence for each problem.

    Args:
        tta: the setting.
        size: (height, width) of the predicted images.
    """
    if isinstance(tta, Mapping):
        if problems := list(_mapping_problems(tta)):
            return problems
    elif (kinds := str(tta).split("+")) != [NONE] and (set(kinds) - set(KINDS) or len(set(kinds)) < len(kinds)):
        return [f"tta: found {tta!r}, expected none, some of {', '.join(KINDS)} joined by +, or a mapping with "
                f"{', '.join(KEYS)}."]  # fmt: skip
    views, (height, width) = views_of(tta), size
    problems = []
    if height != width and any(view.rotation % 180 for view in views):
        problems.append(
            f"tta: found rotations with images of {height} x {width}; expected square images, or 0 and 180 degrees."
        )
    if small := sorted({view.scale for view in views if min(view.sides(size)) < SMALLEST_SIDE}):
        problems.append(
            f"tta: found scales {', '.join(f'{scale:g}' for scale in small)} with images of {height} x {width}; "
            f"expected views with sides of {SMALLEST_SIDE} pixels or more."
        )
    return problems


def _ordered(tta: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    return ((key, tta[key]) for key in KEYS if key in tta)


def _mapping_problems(tta: Mapping[str, Any]) -> Iterator[str]:
    if not tta:
        yield f"tta: found an empty mapping, expected some of {', '.join(KEYS)}, or none."
    for key, values in tta.items():
        if key not in KEYS:
            near = nearest(str(key), KEYS)
            hint = f" Did you mean {near[0]}?" if near else ""
            yield f"tta: found the key {key!r}, expected some of {', '.join(KEYS)}.{hint}"
        elif problem := KEYS[key].problem(values):
            yield f"tta.{key}: {problem}"
    counts = [len(values) for values in tta.values() if isinstance(values, list | tuple)]
    if math.prod(counts) > MOST_VIEWS:
        yield f"tta: found {math.prod(counts)} views ({' x '.join(map(str, counts))}), expected at most {MOST_VIEWS}."
