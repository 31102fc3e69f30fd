"""pydantic's errors as sentences: the key, the wrong value, the expected value, the nearest valid key."""

from __future__ import annotations

from typing import get_args

from pydantic import BaseModel
from pydantic_core import ErrorDetails

from harness.common.errors import nearest


def sentence(error: ErrorDetails, model: type[BaseModel], prefix: tuple[str, ...] = ()) -> str:
    """One sentence from one of pydantic's errors.

    Args:
        error: an item of `ValidationError.errors()`.
        model: the schema of the whole input.
        prefix: keys of the blocks around the input.
    """
    keys = (*prefix, *(key for key in error["loc"] if key != "str" and not str(key).endswith("]")))
    path = ".".join(str(key) for key in keys)
    if error["type"] == "extra_forbidden":
        block = _block(model, error["loc"])
        names = sorted(block.model_fields)
        near = nearest(str(error["loc"][-1]), names)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        return f"{path}: unknown key; found {error['input']!r}.{hint} Known: {', '.join(names)}."
    if error["type"] == "missing":
        return f"{path}: missing; expected a value."
    message = error["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
    if error["type"] == "value_error":
        return f"{path}{'' if message.startswith('[') else ': ' if path else ''}{message}."
    return f"{path}: found {error['input']!r}, expected {message}."


def _block(model: type[BaseModel], loc: tuple[int | str, ...]) -> type[BaseModel]:
    """The schema of the block with the unknown key."""
    for key in loc[:-1]:
        field = model.model_fields.get(str(key))
        annotation = field.annotation if field else None
        # The type of an optional block is a union with None.
        for member in (annotation, *get_args(annotation)):
            if isinstance(member, type) and issubclass(member, BaseModel):
                model = member
    return model
