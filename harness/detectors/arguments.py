"""Checks of the arguments of detectors; an error names the argument and the expected values."""

from __future__ import annotations

from math import inf, isfinite
from typing import Any

from harness.common.errors import ConfigError


def check_whole(name: str, value: Any, minimum: int = 1) -> None:
    """Check that a value is a whole number.

    Args:
        name: argument, for the message.
        value: value of the argument.
        minimum: smallest allowed value.

    Raises:
        ConfigError: the value has another type or is too small.
    """
    if not isinstance(value, int) or isinstance(value, bool) or value < minimum:
        raise ConfigError(f"{name}: found {value!r}, expected a whole number, at least {minimum}.")


def check_number(name: str, value: Any, expected: str, lower: float, upper: float = inf) -> None:
    """Check that a value is a finite number in a range.

    Args:
        name: argument, for the message.
        value: value of the argument.
        expected: description of the allowed values, for the message.
        lower: bound below all allowed values.
        upper: largest allowed value.

    Raises:
        ConfigError: the value has another type or is outside the range.
    """
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not isfinite(value) or not lower < value <= upper:
        raise ConfigError(f"{name}: found {value!r}, expected {expected}.")


def check_pixels(name: str, value: Any) -> tuple[int, int]:
    """Check a size in pixels.

    Args:
        name: argument, for the message.
        value: one number for both sides, or [height, width].

    Returns:
        (height, width).

    Raises:
        ConfigError: the value is neither.
    """
    sides = list(value) if isinstance(value, list | tuple) else [value, value]
    if len(sides) != 2 or not all(isinstance(s, int) and not isinstance(s, bool) and s > 0 for s in sides):
        raise ConfigError(f"{name}: found {value!r}, expected pixels, or [height, width].")
    return sides[0], sides[1]
