"""anomalib's image models and their real parameters, read from its installed source without importing it.

Importing anomalib takes several seconds; a plan should not. Its `models/image/__init__.py` says which class lives in
which package, and the class's `__init__` says what it takes: both are parsed, not run.
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


def canonical(name: str) -> str:
    """PatchCore, patch_core and Patchcore are the same model: "patchcore"."""
    return name.lower().replace("_", "").replace("-", "")


@cache
def models() -> dict[str, tuple[str, Path]]:
    """Canonical name -> (class name, folder of its source)."""
    spec = find_spec("anomalib")
    if spec is None or not spec.submodule_search_locations:
        raise ConfigError("backend: anomalib is not installed; expected anomalib>=2.7. Run: pip install anomalib")
    root = Path(next(iter(spec.submodule_search_locations))) / "models" / "image"
    found = {}
    for node in ast.parse((root / "__init__.py").read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ImportFrom) and node.level == 1 and node.module:
            for alias in node.names:
                found[canonical(alias.name)] = (alias.name, root / node.module)
    return found


@cache
def signature(name: str) -> tuple[str, Mapping[str, Any]]:
    """The model's canonical name and its parameters with their defaults.

    A default that is no literal (an enum, say) is given as None.

    Raises:
        ConfigError: anomalib has no such image model.
    """
    key = canonical(name)
    if key not in models():
        raise ConfigError(f"model: {unknown_name('anomalib model', name, models())}")
    node = _class(key)
    parameters = init_parameters(node)
    if "model" in parameters:
        raise ConfigError(f"model: anomalib's {node.name} asks a language model's server; not supported.")
    return key, parameters


@cache
def normalizes(name: str) -> bool:
    """Whether a model normalises the input of one backbone that can be chosen, by ImageNet's mean and std.

    Others have no backbone, one of their own, or no such step in their pre-processor: they keep their own input.
    """
    if "backbone" not in signature(name)[1]:
        return False
    own = [node for node in _class(canonical(name)).body if isinstance(node, ast.FunctionDef)]
    pre_processor = next((node for node in own if node.name == "configure_pre_processor"), None)
    # Without one of its own a model has that of all models, which normalises.
    return pre_processor is None or any(
        isinstance(part, ast.Name) and part.id == "Normalize" for part in ast.walk(pre_processor)
    )


@cache
def _class(key: str) -> ast.ClassDef:
    """The source of a model's class."""
    class_name, folder = models()[key]
    for file in sorted(folder.glob("*.py"), key=lambda path: path.name != "lightning_model.py"):
        for node in ast.parse(file.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef) and node.name == class_name:
                return node
    raise ConfigError(f"model: the source of anomalib's {class_name} was not found below {folder}.")
