"""What takes longest before a first job: importing Torch and what stands on it."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module


def warm(modules: Sequence[str]) -> None:
    """Import them; a failure is left to the job that needs them."""
    for module in modules:
        try:
            import_module(module)
        # Whatever a module raises: the job that imports it again says it, and becomes a failure.
        except Exception:  # noqa: BLE001
            return
