"""Small networks for tests that run over all registered detectors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from harness import registry

TRANSFORMER = {"backbone": "test_vit", "layers": ["blocks.5"]}
BLOCKS = [f"blocks.{number}" for number in range(6)]


def only_transformers(name: str) -> bool:
    """Whether a detector accepts plain vision transformers only."""
    needed: bool = registry.load(registry.DETECTORS[name]).only_transformers
    return needed


def network(name: str, backbone: str = "resnet18", layers: Sequence[str] = ("layer2", "layer3")) -> dict[str, Any]:
    """The axes of a network that a detector accepts: this one, or a tiny vision transformer."""
    return TRANSFORMER if only_transformers(name) else {"backbone": backbone, "layers": list(layers)}


def in_yaml(axes: dict[str, Any]) -> str:
    """Axes as the inside of a mapping of YAML; a list is one value, and not several."""
    return ", ".join(
        f"{key}: [{', '.join(value)}]" if isinstance(value, list) else f"{key}: {value}" for key, value in axes.items()
    )
