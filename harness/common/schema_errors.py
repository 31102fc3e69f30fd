"""pydantic's errors as sentences: the key, what was found, what was expected, the nearest valid name."""

from __future__ import annotations

from typing import get_args

from pydantic import BaseModel
from pydantic_core import ErrorDetails

from harness.common.errors import nearest


def sentence(error: ErrorDetails, model: type[BaseModel], prefix: tuple[str, ...] = ()) -> str:
    """One line from one of pydantic's errors."""
    where = (*prefix, *(part for part in error["loc"] if part != "str" and not str(part).endswith("]")))
    path = ".".join(str(part) for part in where)
    if error["type"] == "extra_forbidden":
        holder = _holder(model, error["loc"])
        known = sorted(holder.model_fields)
        near = nearest(str(error["loc"][-1]), known)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        return f"{path}: unknown key; found {error['input']!r}.{hint} Known: {', '.join(known)}."
    if error["type"] == "missing":
        return f"{path}: missing; expected a value."
    message = error["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
    if error["type"] == "value_error":
        return f"{path}{'' if message.startswith('[') else ': ' if path else ''}{message}."
    return f"{path}: found {error['input']!r}, expected {message}."


def _holder(model: type[BaseModel], loc: tuple[int | str, ...]) -> type[BaseModel]:
    """The schema that an unknown key was found in."""
    for part in loc[:-1]:
        field = model.model_fields.get(str(part))
        annotation = field.annotation if field else None
        # A block that may be left out is a union with None.
        for one in (annotation, *get_args(annotation)):
            if isinstance(one, type) and issubclass(one, BaseModel):
                model = one
    return model
