"""The imports of large libraries such as Torch, before the first job needs them."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module


def warm(modules: Sequence[str]) -> None:
    """Import modules. A failed import ends the function; the job that needs the module reports the error."""
    for module in modules:
        try:
            import_module(module)
        # A module can raise any exception. The job imports the module again, and records the failure.
        except Exception:  # noqa: BLE001
            return
