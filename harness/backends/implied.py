"""Values that a record without a parameter means: runs from before the parameter keep their identity."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

from harness import registry
from harness.common.errors import HarnessError


@cache
def implied_values(backend: str, model: str) -> Mapping[str, Any]:
    """The implied values of a model; empty for a model that this installation does not have.

    Args:
        backend: its name in the registry.
        model: the model's name.
    """
    try:
        implied: Mapping[str, Any] = registry.lookup(registry.BACKENDS, "backend", backend)().parameters(model).implied
    except HarnessError:
        return {}
    return implied
