"""A configuration of `anomalib train` or `anomalib benchmark` -> a configuration of the harness."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from harness import registry
from harness.backends.anomalib.catalog import RESERVED, signature
from harness.common.errors import ConfigError, first_line
from harness.config.axes import SET_VALUED
from harness.config.yaml_file import is_of_anomalib, read_yaml
from harness.data.base import DataOptions

CLASS, ARGUMENTS, GRID = "class_path", "init_args", "grid"
SIZE, PRETRAINED = "image_size", "pre_trained"
# Parts of an anomalib model that the harness sets by itself, each with the reason.
OWN_PARTS = {
    "pre_processor": "the harness prepares images by `image_size` and `normalization`",
    "post_processor": "the harness measures raw scores, with a threshold of its own",
    "evaluator": "every run has the same metrics",
    "visualizer": "the report has the pictures",
}


@dataclass(frozen=True)
class Imported:
    """The result.

    Attributes:
        text: YAML of the new configuration.
        left_out: one sentence for each key that has no counterpart.
    """

    text: str
    left_out: list[str]


def from_anomalib(path: Path) -> Imported:
    """Convert a file.

    Args:
        path: a YAML file with `model` and `data` of anomalib, or with a `benchmark` of these.

    Raises:
        ConfigError: the file can't be read, is no configuration of anomalib, or has no valid model or data.
    """
    try:
        tree = OmegaConf.to_container(read_yaml(path), resolve=True)
    except OmegaConfBaseException as error:
        raise ConfigError(f"{path}: {first_line(error)}") from error
    if not is_of_anomalib(tree):
        raise ConfigError(
            f"{path}: no configuration of anomalib found; expected `model` with class_path and `data`, or `benchmark`."
        )
    assert isinstance(tree, dict)
    left_out: list[str] = []
    values = dict(tree["benchmark"]) if "benchmark" in tree else dict(tree)
    prefix = "benchmark." if "benchmark" in tree else ""
    left_out += [f"{key!s}: has no counterpart." for key in tree if prefix and key not in {"benchmark", "accelerator"}]
    if prefix:
        values.setdefault("accelerator", tree.get("accelerator"))
    try:
        model = _part(values, "model")
        config = {
            **_seeds(values, left_out),
            "data": _data(_part(values, "data"), left_out),
            **_weights(model),
            **_device(values, left_out),
            **_trainer(values.get("trainer"), left_out),
            "grid": _grid(model, left_out),
        }
    except ConfigError as error:
        raise ConfigError([f"{path}: {problem}" for problem in error.problems]) from error
    known = {"model", "data", "trainer", "seed", "seed_everything", "accelerator"}
    left_out += [f"{prefix}{key}: has no counterpart." for key in values if key not in known]
    head = [f"# From {path.name}, a configuration of anomalib.", *(f"# Left out: {text}" for text in left_out)]
    body = yaml.safe_dump(config, sort_keys=False, default_flow_style=None, allow_unicode=True)
    return Imported("\n".join([*head, body]), left_out)


def _part(values: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Class names and arguments of the model or of the data."""
    part = values.get(name)
    if isinstance(part, str):
        part = {CLASS: part}
    if not isinstance(part, dict) or not part.get(CLASS):
        raise ConfigError(f"{name}.{CLASS}: nothing found; expected a class of anomalib.")
    arguments = part.get(ARGUMENTS) or {}
    if not isinstance(arguments, dict):
        raise ConfigError(f"{name}.{ARGUMENTS}: {arguments!r} found; expected a mapping.")
    classes = [str(one).rpartition(".")[2] for one in _values(part[CLASS])]
    return {CLASS: classes, ARGUMENTS: arguments}


def _values(value: Any) -> list[Any]:
    """The values of `{grid: [...]}`, or the single value."""
    return list(value[GRID]) if _is_grid(value) else [value]


def _is_grid(value: Any) -> bool:
    return isinstance(value, dict) and set(value) == {GRID} and isinstance(value[GRID], list)


def _axis(name: str, value: Any) -> Any:
    """A value of the new grid: a list is an axis there, so a list that is one value gets a list around it."""
    if _is_grid(value):
        return value[GRID]
    return [value] if isinstance(value, list) and name not in SET_VALUED else value


def _weights(model: Mapping[str, Any]) -> dict[str, Any]:
    pretrained = model[ARGUMENTS].get(PRETRAINED)
    return {} if pretrained is None else {"weights": "pretrained" if pretrained else "random"}


def _grid(model: Mapping[str, Any], left_out: list[str]) -> dict[str, Any]:
    signatures = [signature(name) for name in model[CLASS]]
    names, parameters = [name for name, _ in signatures], [known for _, known in signatures]
    grid: dict[str, Any] = {"backend": "anomalib", "model": names[0] if len(names) == 1 else names}
    for name, value in model[ARGUMENTS].items():
        if name in OWN_PARTS:
            left_out.append(f"model.{name}: {OWN_PARTS[name]}.")
            if (size := _size_in(value)) is not None:
                grid[SIZE] = size
        elif name == PRETRAINED:
            continue
        elif isinstance(value, dict) and not _is_grid(value):
            left_out.append(f"model.{name}: an object found; the harness takes plain values only.")
        elif not any(name in known for known in parameters):
            left_out.append(f"model.{name}: no such argument of {', '.join(names)} in the installed anomalib.")
        else:
            grid[name] = _axis(name, value)
    return grid


def _size_in(value: Any) -> list[list[int]] | int | None:
    """The size of a Resize inside the arguments of a pre-processor; None without one."""
    if isinstance(value, list):
        return next((size for one in value if (size := _size_in(one)) is not None), None)
    if not isinstance(value, dict):
        return None
    if str(value.get(CLASS, "")).rpartition(".")[2] == "Resize":
        target_size = (value.get(ARGUMENTS) or {}).get("size")
        if isinstance(target_size, int):
            return target_size
        sides = [side for side in target_size if isinstance(side, int)] if isinstance(target_size, list) else []
        if len(sides) == 2:
            return sides[0] if sides[0] == sides[1] else [sides]
    return next((size for one in value.values() if (size := _size_in(one)) is not None), None)


def _data(data: Mapping[str, Any], left_out: list[str]) -> dict[str, Any]:
    if len(data[CLASS]) > 1:
        raise ConfigError(f"data.{CLASS}: {', '.join(data[CLASS])} found; expected one. Import one file for each.")
    (name,) = data[CLASS]
    options = next(_kinds(name), None)
    block: dict[str, Any] = {"kind": options[0] if options else name}
    known = set(options[1].model_fields) if options else None
    for key, value in data[ARGUMENTS].items():
        if value is None:
            continue
        if key.endswith(("_split_mode", "_split_ratio", "augmentations")) or key in {"seed", "num_workers"}:
            left_out.append(f"data.{key}: the harness holds out images by `val`, and reads images in its own way.")
        elif known is not None and key not in known:
            left_out.append(f"data.{key}: kind {block['kind']} has no such key.")
        else:
            block[key] = _values(value) if _is_grid(value) else value
    if known is not None and "root" not in block and "name" not in known:
        block["root"] = f"./datasets/{name}"
        left_out.append(
            f"data.root: nothing found; {block['root']} is written, where anomalib puts the data. Check it."
        )
    if known is not None and "category" in known and "category" not in block and "name" not in known:
        left_out.append("data.category: nothing found; anomalib takes a default, the harness takes all categories.")
    return block


def _kinds(name: str) -> Iterator[tuple[str, type[DataOptions]]]:
    """The own kind of data in the place of a datamodule of anomalib."""
    for kind in registry.DATASETS:
        options: type[DataOptions] = registry.lookup(registry.DATASETS, "kind of data", kind)
        if name in options.datamodules:
            yield kind, options


def _seeds(values: Mapping[str, Any], left_out: list[str]) -> dict[str, Any]:
    seed = values.get("seed", values.get("seed_everything"))
    if seed is None or isinstance(seed, bool):
        if isinstance(seed, bool):
            left_out.append("seed_everything: no number found; the seed is 0.")
        return {}
    return {"seeds": seed[GRID]} if _is_grid(seed) else {"seed": seed}


def _device(values: Mapping[str, Any], left_out: list[str]) -> dict[str, Any]:
    trainer = values.get("trainer")
    accelerator = values.get("accelerator") or (trainer.get("accelerator") if isinstance(trainer, dict) else None)
    devices = {"cpu": "cpu", "gpu": "cuda", "cuda": "cuda", "mps": "mps"}
    if accelerator in (None, "auto"):
        return {}
    if isinstance(accelerator, str) and accelerator in devices:
        return {"device": devices[accelerator]}
    left_out.append(f"accelerator: {accelerator!r} has no counterpart; a sweep has one device, here `auto`.")
    return {}


def _trainer(trainer: Any, left_out: list[str]) -> dict[str, Any]:
    if trainer is None:
        return {}
    if not isinstance(trainer, dict):
        raise ConfigError(f"trainer: {trainer!r} found; expected a mapping.")
    kept = {}
    for key, value in trainer.items():
        if key in RESERVED or isinstance(value, dict):
            if value not in (None, "auto") and key != "accelerator":
                left_out.append(f"trainer.{key}: set by the harness.")
        elif value is not None:
            kept[key] = value
    return {"trainer": kept} if kept else {}
