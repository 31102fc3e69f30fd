"""Sizes and times in a config: numbers, or texts with a unit."""

from __future__ import annotations

import re
from typing import Any

from pydantic import ByteSize, TypeAdapter, ValidationError

UNITS = {"": 1, "s": 1, "sec": 1, "min": 60, "h": 3600, "d": 86400}
SIZE = re.compile(r"\s*(\d*\.?\d+)\s*([A-Za-z]+)\s*")
TIME = re.compile(r"\s*(\d+(?:\.\d*)?)\s*([a-z]*)\s*")


def byte_size(value: Any) -> Any:
    """A number of bytes from a text such as 20 GB, or from a number such as 1e8; other values stay as they are.

    Raises:
        ValueError: the text is no size.
    """
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if not isinstance(value, str):
        return value
    try:
        size = int(TypeAdapter(ByteSize).validate_python(value))
        # pydantic cuts 2.01 MB to 2009999 bytes.
        match = SIZE.fullmatch(value)
        if match is None:
            return size
        return round(float(match[1]) * int(TypeAdapter(ByteSize).validate_python(f"1{match[2]}")))
    except ValidationError:
        raise ValueError(f"expected bytes, as a number or a text such as 20 GB; found {value!r}") from None


def seconds(value: Any) -> Any:
    """A number of seconds from a text such as 30 min; other values stay as they are.

    Raises:
        ValueError: the text is no time.
    """
    if not isinstance(value, str):
        return value
    match = TIME.fullmatch(value.lower())
    if match is None or match[2] not in UNITS:
        raise ValueError(f"expected seconds, or a time such as 30 min or 2 h; found {value!r}")
    return float(match[1]) * UNITS[match[2]]
