"""A YAML file, or a command line, to a valid `SweepConfig`. An error lists all problems with key and expected value.

OmegaConf reads the file, merges overrides and resolves interpolations. The schema in sweep.py validates the values.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import ValidationError

from harness import registry
from harness.common.errors import ConfigError, DataError, first_line
from harness.common.paths import expanded, name_of_file
from harness.common.schema_errors import sentence
from harness.common.secrets import references, remember
from harness.config.sweep import SweepConfig
from harness.config.yaml_file import is_of_anomalib, override, read_yaml
from harness.data.base import DataKinds, DataOptions
from harness.data.detect import AUTO, detect


def load_config(path: Path, overrides: Sequence[str] = ()) -> SweepConfig:
    """Read a YAML file with one data set, apply the overrides, and validate.

    Args:
        path: the YAML file.
        overrides: `key=value`; keys have dots and indexes (`data.val=0`, `grid[0].model=padim`), values are YAML.

    Raises:
        ConfigError: the config has errors; one sentence for each. Or it has several data sets.
    """
    config, *others = load_configs(path, overrides)
    if others:
        raise ConfigError(
            f"{path}: data: a list of {len(others) + 1} data sets found; expected one data set here. Only the commands "
            "`sweep`, `plan` and `audit` take a list."
        )
    return config


def load_configs(path: Path, overrides: Sequence[str] = ()) -> list[SweepConfig]:
    """Read a YAML file, apply the overrides, and validate: one config for each data set of `data:`.

    Args:
        path: the YAML file.
        overrides: see `load_config`; `data[1].root=images` is a key of the second data set.

    Raises:
        ConfigError: the config has errors; one sentence for each.
    """
    raw = read_yaml(path)
    problems = override(raw, overrides)
    try:
        with references() as environment:
            tree = OmegaConf.to_container(raw, resolve=True)
    except OmegaConfBaseException as error:
        problems.append(f"{path}: {getattr(error, 'full_key', '') or 'interpolation'}: {first_line(error)}")
        raise ConfigError(problems) from error
    assert isinstance(tree, dict)
    if is_of_anomalib(tree):
        raise ConfigError(
            f"{path}: a configuration of anomalib found; expected one of the harness. "
            f"Convert it: python -m harness import {path}"
        )
    values: dict[str, Any] = {str(key): value for key, value in tree.items()}
    remember(environment)
    has_name = "name" in values
    values.setdefault("name", name_of_file(path))
    configs = _validate(values, f"{path}: ", problems)
    for config in configs:
        config._named_by, config._references = None if has_name else path.resolve(), environment
    return configs


def one_run(
    method: str, backend: str, data: Path, values: Mapping[str, str | None], parameters: Sequence[str]
) -> SweepConfig:
    """The config of one run, without a file.

    Args:
        method: name of the model.
        backend: name of its backend.
        data: a folder in MVTec layout.
        values: top-level keys and axes with their values; a key with None is ignored.
        parameters: texts `key=value` with a key of the config (`seed=1`, `data.val=0`), or else of the model.

    Raises:
        ConfigError: the values have errors; one sentence for each.
    """
    raw = OmegaConf.create(
        {"name": "run", "data": {"kind": "mvtec", "root": str(data)}, "grid": [{"backend": backend, "model": method}]}
    )
    for key, value in values.items():
        if value is not None:
            # Without `override`, since a path is no YAML.
            OmegaConf.update(raw, key if _is_top_level(key) else f"grid[0].{key}", value, force_add=True)
    problems = override(raw, [text if _is_top_level(text) else f"grid[0].{text}" for text in parameters])
    tree: Any = OmegaConf.to_container(raw)
    (config,) = _validate(tree, "", problems)
    return config


def _is_top_level(text: str) -> bool:
    return text.partition("=")[0].partition(".")[0] in SweepConfig.model_fields


def _validate(values: dict[str, Any], prefix: str, problems: list[str]) -> list[SweepConfig]:
    """Validate all values: a config for each data set. The error lists earlier problems and those of the schema."""
    content = values.get("data")
    places = {f"data[{position}]": block for position, block in enumerate(content)} if isinstance(content, list) else {}
    datasets, configs, problems = [], [], [*problems]
    for place, block in (places or {"data": content}).items():
        options, data_problems = _validate_data(block, values.get("task", "detection"), place)
        datasets.append(options)
        problems += data_problems
    for options in datasets:
        try:
            configs.append(SweepConfig.model_validate({**values, "data": options}))
        except ValidationError as error:
            problems += [sentence(e, SweepConfig) for e in error.errors() if e["loc"][:1] != ("data",)]
    if problems:
        raise ConfigError([f"{prefix}{problem}" for problem in dict.fromkeys(problems)])
    for config in configs if places else ():
        config._datasets, config._common_threshold = tuple(datasets), config.threshold
    return configs


def _validate_data(block: Any, task: Any, place: str) -> tuple[Any, list[str]]:
    """The options object of a data set by its kind, and the problems of its block.

    Args:
        block: the values.
        task: of the config.
        place: of the block in the config, for messages.
    """
    if not isinstance(task, str) or task not in registry.TASKS:
        # The schema reports an unknown task.
        return None, []
    data_kinds: DataKinds = registry.load(registry.TASKS[task])()
    *kinds, last = data_kinds.kinds()
    if not isinstance(block, dict) or not isinstance(block.get("kind"), str):
        content = "no `data:`" if block is None else f"{block!r}"
        return None, [f"{place}.kind: {content} found; expected one of {', '.join(kinds)}, or {last}."]
    own = (*registry.DATASETS, *registry.LABELLED_DATASETS, AUTO)
    if block["kind"].lower() in own and block["kind"] not in registry.DATAMODULES:
        # anomalib's names have capital letters, such as Folder.
        block = {**block, "kind": block["kind"].lower()}
    detected = block["kind"] == AUTO and AUTO in kinds
    try:
        block = _with_kind(block) if detected else block
        options = data_kinds.options(block["kind"])
    except (ConfigError, DataError) as error:
        return None, [at_place(problem, place) for problem in error.problems]
    try:
        data = options.model_validate(block)
        return data.as_detected() if detected and isinstance(data, DataOptions) else data, []
    except ValidationError as error:
        return None, [sentence(e, options, prefix=(place,)) for e in error.errors()]


def at_place(problem: str, place: str) -> str:
    """A sentence about a key of `data:` with the place of the data set, such as data[1].

    Args:
        problem: the sentence.
        place: of the data set in the config.
    """
    return f"{place}{problem.removeprefix('data')}" if problem.startswith(("data.", "data:")) else problem


def _with_kind(block: dict[str, Any]) -> dict[str, Any]:
    """The `data:` block with the kind of the folder in `root`. Keys of the block come before those of the folder."""
    if not isinstance(block.get("root"), str):
        raise ConfigError("data.root: no folder found; expected one with kind auto. Add root, or name the kind.")
    try:
        root = Path(expanded(block["root"]))
    except ValueError as error:
        raise ConfigError(f"data.root: {error}.") from error
    keys = detect(root)
    return {**keys, **block, "kind": keys["kind"]}
