"""What detectors are given, checked: one sentence where it is wrong."""

from __future__ import annotations

from math import inf, isfinite
from typing import Any

from harness.common.errors import ConfigError


def check_whole(name: str, value: Any, least: int = 1) -> None:
    """A whole number from `least` up.

    Raises:
        ConfigError: it is none.
    """
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ConfigError(f"{name}: found {value!r}, expected a whole number, at least {least}.")


def check_number(name: str, value: Any, expected: str, above: float, up_to: float = inf) -> None:
    """A number above one bound, and at most another.

    Raises:
        ConfigError: it is none; says `expected`.
    """
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not isfinite(value) or not above < value <= up_to:
        raise ConfigError(f"{name}: found {value!r}, expected {expected}.")


def check_pixels(name: str, value: Any) -> tuple[int, int]:
    """(height, width) from one number, or from two.

    Raises:
        ConfigError: it is neither.
    """
    sides = list(value) if isinstance(value, list | tuple) else [value, value]
    if len(sides) != 2 or not all(isinstance(s, int) and not isinstance(s, bool) and s > 0 for s in sides):
        raise ConfigError(f"{name}: found {value!r}, expected pixels, or [height, width].")
    return sides[0], sides[1]
