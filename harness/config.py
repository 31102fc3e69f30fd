"""YAML -> SweepConfig, or every problem at once, each with its key, what was found and what was expected.

OmegaConf reads, merges overrides and resolves interpolations; the schema below accepts or refuses. Nothing here
imports Torch: names of models and layers are checked later, against what is installed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import yaml
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import (
    BaseModel,
    ByteSize,
    ConfigDict,
    Field,
    SerializeAsAny,
    TypeAdapter,
    ValidationError,
    field_validator,
    model_validator,
)

from harness import registry
from harness.datasets.base import DataOptions
from harness.errors import ConfigError, nearest
from harness.schema_errors import sentence

Axis = list[Any]
# Keys of `threshold:` that each method uses.
OF_METHOD: dict[str, set[str]] = {
    "normal_quantile": {"quantile", "pixel_quantile"},
    "f1_on_val": {"share", "seed"},
    "fixed": {"image", "pixel"},
    "none": set(),
}
SLUG = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
SEPARATOR = "; also: "
DEVICE = re.compile(r"auto|cpu|mps|cuda(:\d+)?")


class Threshold(BaseModel):
    """How the thresholds behind F1Score are fixed. Never from the labels of images that the figures are about.

    Attributes:
        method: `normal_quantile`: a quantile of the scores of held-out normal images (`data.val`);
            `f1_on_val`: the best F1 on labelled images taken out of the test set, which leave it for that;
            `fixed`: the numbers given; `none`: no threshold, so no F1Score.
        quantile: of image scores. With few held-out images a high one is their maximum.
        pixel_quantile: of the pixels of held-out normal anomaly maps.
        share: of each type of test images that `f1_on_val` takes.
        seed: which ones it takes.
        image, pixel: the numbers, for `fixed`, in the model's raw scores.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    method: Literal["normal_quantile", "f1_on_val", "fixed", "none"] = "normal_quantile"
    quantile: float = Field(default=0.99, gt=0, le=1)
    pixel_quantile: float = Field(default=0.999, gt=0, le=1)
    share: float = Field(default=0.3, gt=0, lt=1)
    seed: int = Field(default=0, ge=0, lt=2**32)
    image: float | None = None
    pixel: float | None = None

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, value: Any) -> Any:
        return {"method": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _keys_of_the_method(self) -> Threshold:
        if self.method == "fixed" and self.image is None and self.pixel is None:
            raise ValueError("method 'fixed' expects `image`, `pixel` or both, as numbers")
        of_use = {"method", *OF_METHOD[self.method]}
        for name in sorted(self.model_fields_set - of_use):
            # A config as it was run has all keys, with their defaults.
            if getattr(self, name) != type(self).model_fields[name].default:
                raise ValueError(f"`{name}` is of no use to method {self.method!r}; expected {_listed(self.method)}")
        return self

    def policy(self) -> dict[str, Any]:
        """The method and what it uses: two equal ones fix the same threshold."""
        return self.model_dump(include={"method", *OF_METHOD[self.method]})


class SweepConfig(BaseModel):
    """A whole sweep, validated."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    name: str
    seed: int | None = Field(default=None, ge=0, lt=2**32)
    seeds: list[int] = Field(default=[0], min_length=1)
    data: SerializeAsAny[DataOptions]
    weights: str = "auto"
    device: str = "auto"
    threshold: Threshold = Threshold()
    aupro_limit: float = Field(default=0.3, gt=0, le=1)
    latency: bool = True
    output: str = "results"
    save_models: Literal["best", "all", "none"] = "best"
    cache: str | None = None
    cache_limit: int = Field(default=20 * 10**9, ge=0)
    memory_limit: int | None = Field(default=None, ge=0)
    trainer: dict[str, Any] = Field(default_factory=dict)
    grid: list[dict[str, Axis]] = Field(min_length=1)

    @property
    def folder(self) -> Path:
        """Where this sweep's results are."""
        return Path(self.output) / self.name

    @property
    def work_dir(self) -> Path:
        """Where data made by the harness is put."""
        return Path(self.output)

    @model_validator(mode="before")
    @classmethod
    def _one_seed_is_a_list(cls, value: Any) -> Any:
        if isinstance(value, dict) and isinstance(value.get("seed"), int) and "seeds" not in value:
            return {**value, "seeds": [value["seed"]]}
        return value

    @model_validator(mode="after")
    def _seed_or_seeds(self) -> SweepConfig:
        if self.seed is not None and self.seeds != [self.seed]:
            raise ValueError("found both `seed` and `seeds`; expected one of them")
        if len(set(self.seeds)) < len(self.seeds) or min(self.seeds) < 0 or max(self.seeds) >= 2**32:
            raise ValueError(f"seeds: expected different numbers from 0 up to 2**32 - 1; found {self.seeds}")
        return self

    @field_validator("cache_limit", "memory_limit", mode="before")
    @classmethod
    def _bytes(cls, value: Any) -> Any:
        if isinstance(value, str):
            try:
                return int(TypeAdapter(ByteSize).validate_python(value))
            except ValidationError:
                raise ValueError(f"expected bytes, as a number or such as 20 GB; found {value!r}") from None
        return value

    @field_validator("name")
    @classmethod
    def _is_folder_name(cls, value: str) -> str:
        if not SLUG.fullmatch(value):
            raise ValueError(f"expected a name for a folder (letters, digits, . _ -); found {value!r}")
        return value

    @field_validator("device")
    @classmethod
    def _is_device(cls, value: str) -> str:
        if not DEVICE.fullmatch(value):
            raise ValueError(f"expected auto, cpu, cuda, cuda:N or mps; found {value!r}")
        return value

    @field_validator("grid", mode="before")
    @classmethod
    def _axes(cls, value: Any) -> Any:
        mappings = [value] if isinstance(value, Mapping) else value
        if not isinstance(mappings, list):
            raise ValueError(f"expected a mapping of axes or a list of mappings; found {type(value).__name__}")
        axes, problems = [], []
        for position, mapping in enumerate(mappings):
            try:
                axes.append(_normalise(position, mapping))
            except ValueError as error:
                problems.append(str(error))
        if problems:
            raise ValueError(SEPARATOR.join(problems))
        return axes


def _listed(method: str) -> str:
    return ", ".join(sorted(OF_METHOD[method])) or "nothing but the method"


def _normalise(position: int, mapping: Any) -> dict[str, Axis]:
    """Every axis as a list of its values."""
    where = f"mapping {position + 1}"
    if not isinstance(mapping, Mapping) or not mapping:
        raise ValueError(f"{where}: expected axes such as `model: patchcore`; found {mapping!r}")
    axes: dict[str, Axis] = {}
    for key, value in mapping.items():
        if not isinstance(key, str):
            raise ValueError(f"{where}: expected names as keys; found {key!r}")
        values = value if isinstance(value, list) else [value]
        # `layers: [layer2, layer3]` is one set of layers, as in anomalib; several sets are a list of lists.
        if key == "layers" and isinstance(value, list) and value and not any(isinstance(v, list) for v in value):
            values = [value]
        if not values:
            raise ValueError(f"{where}: axis {key!r} is empty; expected at least one value")
        if any(isinstance(v, Mapping) for v in values):
            raise ValueError(f"{where}: axis {key!r}: expected values or lists of them; found a mapping")
        axes[key] = values
    for chosen in axes.get("layers", []):
        _check_layers(where, chosen)
    if "model" not in axes:
        raise ValueError(f"{where}: no `model`; expected at least one model in each mapping. Found: {', '.join(axes)}")
    for key in ("backend", "model", "backbone"):
        for name in axes.get(key, []):
            if not isinstance(name, str):
                raise ValueError(f"{where}: {key}: expected a name; found {name!r}")
    for size in axes.get("image_size", []):
        _check_size(where, size)
    return axes


def _check_layers(where: str, chosen: Any) -> None:
    names = chosen if isinstance(chosen, list) else [chosen]
    if not names:
        raise ValueError(f"{where}: layers: expected names in each set; found an empty set")
    if not all(isinstance(name, str | int) for name in names):
        raise ValueError(f"{where}: layers: expected names, or lists of names; found {chosen!r}")


def _check_size(where: str, size: Any) -> None:
    sides = size if isinstance(size, list) else [size, size]
    if len(sides) != 2 or not all(isinstance(s, int) and not isinstance(s, bool) and s >= 16 for s in sides):
        raise ValueError(f"{where}: image_size: expected a number from 16 up, or [height, width]; found {size!r}")


def load_config(path: Path, overrides: Sequence[str] = ()) -> SweepConfig:
    """Read, merge and validate.

    Args:
        path: the YAML file.
        overrides: `key=value`, keys dotted and indexed (`data.val=0`, `grid[0].model=padim`), values YAML.

    Raises:
        ConfigError: all problems, one sentence each.
    """
    raw = _read(path)
    problems = _override(raw, overrides)
    try:
        tree = OmegaConf.to_container(raw, resolve=True)
    except OmegaConfBaseException as error:
        problems.append(f"{path}: {getattr(error, 'full_key', '') or 'interpolation'}: {_first_line(error)}")
        raise ConfigError(problems) from error
    assert isinstance(tree, dict)
    values: dict[str, Any] = {str(key): value for key, value in tree.items()}
    values.setdefault("name", re.sub(r"[^A-Za-z0-9._-]", "-", path.stem))
    return _validate(values, f"{path}: ", problems)


def one_run(
    method: str, backend: str, data: Path, given: Mapping[str, str | None], parameters: Sequence[str]
) -> SweepConfig:
    """A sweep of one point, without a file.

    Args:
        method: the model.
        backend: whose.
        data: a folder in MVTec layout.
        given: top-level keys and axes with their values; None is left out.
        parameters: `key=value`: one of the config's own keys (`seed=1`, `data.val=0`), or else the model's.

    Raises:
        ConfigError: all problems, one sentence each.
    """
    raw = OmegaConf.create(
        {"name": "run", "data": {"kind": "mvtec", "root": str(data)}, "grid": [{"backend": backend, "model": method}]}
    )
    for key, value in given.items():
        if value is not None:
            # As it is given: a path is no YAML.
            OmegaConf.update(raw, key if _is_own_key(key) else f"grid[0].{key}", value, force_add=True)
    problems = _override(raw, [text if _is_own_key(text) else f"grid[0].{text}" for text in parameters])
    tree: Any = OmegaConf.to_container(raw)
    return _validate(tree, "", problems)


def _is_own_key(text: str) -> bool:
    return text.partition("=")[0].partition(".")[0] in SweepConfig.model_fields


def _validate(values: dict[str, Any], where: str, problems: list[str]) -> SweepConfig:
    """The config, or everything that is wrong: what was before, and what the schema finds."""
    values["data"], found = _validate_data(values.get("data"))
    problems = [*problems, *found]
    try:
        config = SweepConfig.model_validate(values)
    except ValidationError as error:
        problems += [sentence(e, SweepConfig) for e in error.errors() if e["loc"][:1] != ("data",)]
    if problems:
        raise ConfigError([f"{where}{problem}" for problem in dict.fromkeys(problems)])
    return config


def as_yaml(config: SweepConfig) -> str:
    """The config as it is run: merged, resolved, defaults filled in."""
    values = config.model_dump(exclude={"seed"}, exclude_none=True)
    values["threshold"] = {key: value for key, value in config.threshold.policy().items() if value is not None}
    return yaml.safe_dump(values, sort_keys=False, allow_unicode=True)


def _read(path: Path) -> DictConfig:
    if not path.is_file():
        near = nearest(path.name, [p.name for p in path.parent.glob("*.y*ml")] if path.parent.is_dir() else [])
        hint = f" Did you mean {path.parent / near[0]}?" if near else ""
        raise ConfigError(f"{path}: no such file; expected a YAML config.{hint}")
    try:
        loaded = OmegaConf.load(path)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        line = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise ConfigError(f"{path}: {line}YAML syntax: {error.problem or error}.") from error
    except (OSError, UnicodeDecodeError, yaml.YAMLError, OmegaConfBaseException) as error:
        raise ConfigError(f"{path}: can't be read as YAML ({_first_line(error)}).") from error
    if isinstance(loaded, ListConfig) or not loaded:
        found = "a list" if isinstance(loaded, ListConfig) else "an empty file"
        raise ConfigError(f"{path}: {found} found; expected at least `data:` and `grid:`.")
    return loaded


def _override(config: DictConfig, overrides: Sequence[str]) -> list[str]:
    """Apply `key=value`s in place; gives the problems."""
    problems = []
    if any(text.startswith("grid[") for text in overrides) and isinstance(config.get("grid"), DictConfig):
        # One mapping is a list of one: grid[0] means it.
        config["grid"] = [config["grid"]]
    for text in overrides:
        key, equals, value = text.partition("=")
        if not equals or not key:
            problems.append(f"override {text!r}: expected key=value, such as data.val=0.")
            continue
        try:
            # By OmegaConf's own reading of YAML, so that 1e-2 is a number here as in the file.
            parsed: Any = OmegaConf.to_container(OmegaConf.create(f"value: {value}"))
            OmegaConf.update(config, key, parsed["value"], merge=True, force_add=True)
        except yaml.YAMLError:
            problems.append(f"override {text!r}: the value is no valid YAML.")
        except (OmegaConfBaseException, ValueError, IndexError, TypeError, AttributeError) as error:
            problems.append(f"override {text!r}: there is no such place in the config ({_first_line(error)}).")
    return problems


def _validate_data(block: Any) -> tuple[Any, list[str]]:
    """The options object of `data:`, chosen by its kind, and what is wrong with it."""
    if not isinstance(block, dict) or not isinstance(block.get("kind"), str):
        found = "no `data:`" if block is None else f"{block!r}"
        known = ", ".join(registry.DATASETS)
        return None, [f"data.kind: {found} found; expected one of {known}, or the name of an anomalib datamodule."]
    if block["kind"].lower() in registry.DATASETS:
        # Folder is folder, as anomalib spells it.
        block = {**block, "kind": block["kind"].lower()}
    options: type[DataOptions] = registry.load(registry.DATASETS.get(block["kind"], registry.OTHER_DATASET))
    try:
        return options.model_validate(block), []
    except ValidationError as error:
        return None, [sentence(e, options, prefix=("data",)) for e in error.errors()]


def _first_line(error: BaseException) -> str:
    return str(error).strip().split("\n", maxsplit=1)[0]
