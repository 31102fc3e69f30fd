"""The tags of timm's networks, read from the installed source without an import.

A tag names a training of a network, such as `a1_in1k` of `resnet18.a1_in1k`. A plan needs the normalization of this
training, because it is part of a run's identity. An import of timm also imports Torch, which takes seconds.

timm states the tags of a network in the variable `default_cfgs` of a module. This module executes the statements that
the variable depends on, and nothing else of timm. Where this is not possible, the tags come from an import of timm.
"""

from __future__ import annotations

import ast
import re
import runpy
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

VARIABLE = "default_cfgs"
DEFINITION = re.compile(r"^@register_model\ndef (\w+)\(", re.MULTILINE)
# The name under which timm's registry is imported, without the rest of timm.
REGISTRY = "harness_timm_registry"


@dataclass(frozen=True)
class Tag:
    """A training of a network.

    Attributes:
        mean, std: of the input's channels in this training, for values in 0 to 1.
        published: whether timm has the weights of this training.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    published: bool


@cache
def tags_of(network: str) -> dict[str, Tag]:
    """The tags of a network by name, timm's default first; empty for an unknown network.

    Args:
        network: timm's name without a tag.
    """
    return _from_source(network) or _from_timm(network)


def _from_source(network: str) -> dict[str, Tag]:
    """The tags in timm's source; empty where the source states them in an unknown way."""
    file = _files().get(network)
    configs = {} if file is None else _configs(file)
    if network not in configs:
        return {}
    config = configs[network]
    return {tag: _tag(config.cfgs[tag]) for tag in config.tags}


def _from_timm(network: str) -> dict[str, Tag]:
    from timm.models import get_pretrained_cfg, list_pretrained

    try:
        default = get_pretrained_cfg(network)
    except RuntimeError:
        return {}
    if default is None:
        return {}
    names = list_pretrained(f"{network}.*")
    others = {name.partition(".")[2]: _tag(get_pretrained_cfg(name)) for name in names}
    return {default.tag or "": _tag(default), **others}


def _tag(config: Any) -> Tag:
    return Tag(tuple(map(float, config.mean)), tuple(map(float, config.std)), bool(config.has_weights))


@cache
def _files() -> dict[str, Path | None]:
    """The module that defines each network; None where several do."""
    spec = find_spec("timm")
    folders = (spec.submodule_search_locations if spec else None) or []
    files: dict[str, Path | None] = {}
    for file in (file for folder in folders for file in Path(folder, "models").glob("*.py")):
        for network in DEFINITION.findall(file.read_text(encoding="utf-8")):
            files[network] = None if network in files else file
    return files


@cache
def _configs(file: Path) -> Mapping[str, Any]:
    """`default_cfgs` of a module of timm; empty where it can't be executed by itself."""
    try:
        constants = runpy.run_path(str(file.parents[1] / "data" / "constants.py"))
        values = {name: value for name, value in constants.items() if name.isupper()}
        values["generate_default_cfgs"] = _registry(file.parent).generate_default_cfgs
        body = ast.parse(file.read_text(encoding="utf-8")).body
        tree = ast.Module([*_statements(body)][::-1], type_ignores=[])
        # As in this module, annotations are not executed; they may name classes of Torch.
        exec(compile(tree, str(file), "exec"), values)
    # Another version of timm may have other modules, or statements that need Torch.
    except Exception:  # noqa: BLE001
        return {}
    configs: Mapping[str, Any] = values.get(VARIABLE, {})
    return configs


def _statements(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """The statements that `default_cfgs` depends on, the last one first."""
    needed = {VARIABLE}
    for statement in reversed(body):
        if needed.isdisjoint(_defined(statement)):
            continue
        needed |= _names(statement)
        yield statement


def _defined(statement: ast.stmt) -> set[str]:
    """The names that a statement may define or change, without those of modules that may need Torch."""
    if isinstance(statement, ast.FunctionDef | ast.ClassDef):
        return {statement.name}
    if isinstance(statement, ast.Import | ast.ImportFrom):
        modules = [getattr(statement, "module", None) or alias.name for alias in statement.names]
        standard = all(module.partition(".")[0] in sys.stdlib_module_names for module in modules)
        return {alias.asname or alias.name for alias in statement.names} if standard else set()
    return _names(statement)


def _names(statement: ast.stmt) -> set[str]:
    return {node.id for node in ast.walk(statement) if isinstance(node, ast.Name)}


@cache
def _registry(folder: Path) -> ModuleType:
    """timm's module that sorts tags; it needs no Torch, but the package around it does."""
    package = ModuleType(REGISTRY)
    package.__path__ = [str(folder)]
    sys.modules[REGISTRY] = package
    return import_module(f"{REGISTRY}._registry")
