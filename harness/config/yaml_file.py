"""A YAML file and overrides of its values -> a tree of OmegaConf, before any validation."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from harness.common.errors import ConfigError, first_line, nearest
from harness.common.reading import MB

LARGEST = 8 * MB  # size limit of a config


def read_yaml(path: Path) -> DictConfig:
    """Read a YAML file with a mapping.

    Raises:
        ConfigError: the file is missing, is too large, or has no mapping.
    """
    if not path.is_file():
        near = nearest(path.name, [file.name for file in path.parent.glob("*.y*ml")] if path.parent.is_dir() else [])
        hint = f" Did you mean {path.parent / near[0]}?" if near else ""
        raise ConfigError(f"{path}: no such file; expected a YAML config.{hint}")
    if path.stat().st_size > LARGEST:
        raise ConfigError(f"{path}: {path.stat().st_size / MB:.0f} MB found; a config of at most 8 MB expected.")
    try:
        loaded = OmegaConf.load(path)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        line = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise ConfigError(f"{path}: {line}YAML syntax: {error.problem or error}.") from error
    except (OSError, UnicodeDecodeError, yaml.YAMLError, OmegaConfBaseException, RecursionError) as error:
        raise ConfigError(f"{path}: can't be read as YAML ({first_line(error)}).") from error
    if isinstance(loaded, ListConfig) or not loaded:
        content = "a list" if isinstance(loaded, ListConfig) else "an empty file"
        raise ConfigError(f"{path}: {content} found; expected at least `data:` and `grid:`.")
    return loaded


def is_of_anomalib(tree: Any) -> bool:
    """Whether values are a configuration of `anomalib train` or `anomalib benchmark`.

    Args:
        tree: plain values of a YAML file.
    """
    if not isinstance(tree, dict) or "grid" in tree:
        return False
    inner = tree.get("benchmark", tree)
    model = inner.get("model") if isinstance(inner, dict) else None
    return isinstance(inner, dict) and "data" in inner and (isinstance(model, str) or "class_path" in (model or {}))


def override(config: DictConfig, overrides: Sequence[str]) -> list[str]:
    """Apply overrides to a config in place.

    Args:
        config: the tree of a YAML file.
        overrides: `key=value`, as in `load_config`.

    Returns:
        The problems, one sentence each.
    """
    problems = []
    if any(text.startswith("grid[") for text in overrides) and isinstance(config.get("grid"), DictConfig):
        # grid[0] needs a list, and a grid with one mapping may be the mapping itself.
        config["grid"] = [config["grid"]]
    for text in overrides:
        key, equals, value = text.partition("=")
        if not equals or not key:
            problems.append(f"override {text!r}: expected key=value, such as data.val=0.")
            continue
        try:
            # OmegaConf's YAML reads 1e-2 as a number, as in the file.
            parsed: Any = OmegaConf.to_container(OmegaConf.create(f"value: {value}"))
            # A new domain of a search parameter replaces the old domain, since a domain has one kind only.
            merge = not key.startswith("search.space.")
            OmegaConf.update(config, key, parsed["value"], merge=merge, force_add=True)
        except yaml.YAMLError:
            problems.append(f"override {text!r}: the value is no valid YAML; expected a value as in the file.")
        except (OmegaConfBaseException, ValueError, IndexError, TypeError, AttributeError) as error:
            problems.append(f"override {text!r}: the config has no such key ({first_line(error)}).")
    return problems
