"""anomalib's image models and their parameters, read from the installed source without an import.

A plan must be fast, and an import of anomalib takes several seconds. Instead, this module parses
`models/image/__init__.py` for the classes, and each class's `__init__` for the parameters.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from harness.common.errors import ConfigError, unknown_name
from harness.common.signatures import init_parameters

# Arguments of Lightning's Trainer that the harness sets.
RESERVED = {"self", "callbacks", "logger", "default_root_dir", "accelerator", "devices", "strategy", "num_nodes",
            "enable_progress_bar", "enable_model_summary", "enable_checkpointing", "barebones"}  # fmt: skip


def canonical(name: str) -> str:
    """Return the canonical name of a model: PatchCore, patch_core and Patchcore are all "patchcore"."""
    return name.lower().replace("_", "").replace("-", "")


@cache
def models() -> dict[str, tuple[str, Path]]:
    """Return the class name and the source folder of each model, by canonical name.

    Raises:
        ConfigError: anomalib is not installed.
    """
    spec = find_spec("anomalib")
    if spec is None or not spec.submodule_search_locations:
        raise ConfigError("backend: anomalib is not installed; expected anomalib>=2.7. Run: pip install anomalib")
    root = Path(next(iter(spec.submodule_search_locations))) / "models" / "image"
    classes = {}
    for node in ast.parse((root / "__init__.py").read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ImportFrom) and node.level == 1 and node.module:
            for alias in node.names:
                classes[canonical(alias.name)] = (alias.name, root / node.module)
    return classes


@cache
def signature(name: str) -> tuple[str, Mapping[str, Any]]:
    """Return the model's canonical name and its parameters with their defaults.

    A default that is not a literal, for example an enum, is None.

    Raises:
        ConfigError: anomalib has no such image model, or the model needs the server of a language model.
    """
    key = canonical(name)
    if key not in models():
        raise ConfigError(f"model: {unknown_name('anomalib model', name, models())}")
    node = _class(key)
    parameters = init_parameters(node)
    if "model" in parameters:
        raise ConfigError(f"model: anomalib's {node.name} asks a language model's server; expected another model.")
    return key, parameters


@cache
def normalizes(name: str) -> bool:
    """Return whether a model has a `backbone` parameter and normalises its input by ImageNet's mean and std.

    Other models have no backbone, a fixed backbone, or a pre-processor without normalisation.
    """
    if "backbone" not in signature(name)[1]:
        return False
    methods = [node for node in _class(canonical(name)).body if isinstance(node, ast.FunctionDef)]
    pre_processor = next((node for node in methods if node.name == "configure_pre_processor"), None)
    # A model without a pre-processor of its own has the common one, which normalises.
    return pre_processor is None or any(
        isinstance(node, ast.Name) and node.id == "Normalize" for node in ast.walk(pre_processor)
    )


@cache
def _class(key: str) -> ast.ClassDef:
    """The syntax tree of a model's class."""
    class_name, folder = models()[key]
    for file in sorted(folder.glob("*.py"), key=lambda path: path.name != "lightning_model.py"):
        for node in ast.parse(file.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef) and node.name == class_name:
                return node
    raise ConfigError(f"model: the source of anomalib's {class_name} was not found below {folder}.")
