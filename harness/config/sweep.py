"""YAML -> SweepConfig, or every problem at once, each with its key, what was found and what was expected.

OmegaConf reads, merges overrides and resolves interpolations; the schema below accepts or refuses. Nothing here
imports Torch: names of models and layers are checked later, against what is installed.
"""

from __future__ import annotations

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
    PrivateAttr,
    SerializeAsAny,
    TypeAdapter,
    ValidationError,
    field_validator,
    model_validator,
)

from harness import registry
from harness.common.devices import DEVICE
from harness.common.errors import ConfigError, StoreError, nearest
from harness.common.paths import PathText, name_of_file, problem_of_name
from harness.common.reading import MB, read_bytes
from harness.common.schema_errors import sentence
from harness.common.secrets import concealed, references, remember
from harness.config.grid import Axis, normalise
from harness.config.search import Search
from harness.config.threshold import Threshold
from harness.data.base import BaseOptions, DataKinds, DataOptions

SEPARATOR = "; also: "
LARGEST = 8 * MB  # of a config
# First line of a stored config whose folder has the name of its file.
NAMED_BY = "# name from: "


class SweepConfig(BaseModel):
    """A whole sweep, validated.

    Attributes:
        name: the folder under `output`; by default the name of the YAML file.
        task: `detection` says whether a part is anomalous and where; `classification` says which class and condition.
        seed: one seed; the short form of `seeds` with one number.
        seeds: of everything random in a run; several seeds are an axis of the grid.
        data: the images; the keys depend on `kind`.
        weights: of the backbone: `auto`, `pretrained`, `random`, a file or a folder.
        device: `auto`, `cpu`, `cuda`, `cuda:N` or `mps`.
        threshold: how the harness fixes the thresholds behind F1Score.
        aupro_limit: the largest false positive rate that counts for AUPRO.
        latency: whether the harness times single images.
        output: the folder for all results.
        save_models: which models stay: `best` is one for each category.
        cache: a folder where native runs keep features and coresets for the next sweep; by default nowhere.
        cache_limit: bytes of `cache`, such as `20 GB`; the least recently used files go first.
        memory_limit: bytes that features of native runs may take, such as `8 GB`; features beyond it go to
            memory-mapped files. By default half of what is free.
        trainer: arguments of Lightning's Trainer. `max_epochs` is also for the native CFlow.
        grid: one mapping of axes, or a list of mappings; equal points run once.
        search: a search in place of the grid, or beside it.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    name: str
    task: Literal["detection", "classification"] = "detection"
    seed: int | None = Field(default=None, ge=0, lt=2**32)
    seeds: list[int] = Field(default=[0], min_length=1)
    data: SerializeAsAny[BaseOptions]
    weights: PathText = "auto"
    device: str = "auto"
    threshold: Threshold = Threshold()
    aupro_limit: float = Field(default=0.3, gt=0, le=1)
    latency: bool = True
    output: PathText = "results"
    save_models: Literal["best", "all", "none"] = "best"
    cache: PathText | None = None
    cache_limit: int = Field(default=20 * 10**9, ge=0)
    memory_limit: int | None = Field(default=None, ge=0)
    trainer: dict[str, Any] = Field(default_factory=dict)
    grid: list[dict[str, Axis]] = Field(default_factory=list)
    search: Search | None = None
    # The file that gave the sweep its name, where nothing else did.
    _named_by: Path | None = PrivateAttr(default=None)
    _references: dict[str, str] = PrivateAttr(default_factory=dict)

    @property
    def named_by(self) -> Path | None:
        """The file whose name is the sweep's; None where the config has a `name`."""
        return self._named_by

    @property
    def references(self) -> dict[str, str]:
        """What was taken from the environment; see `harness.common.secrets`."""
        return self._references

    @property
    def folder(self) -> Path:
        """The folder of this sweep's results."""
        return Path(self.output) / self.name

    @property
    def detection_data(self) -> DataOptions:
        """`data`, where the task is detection."""
        assert isinstance(self.data, DataOptions)
        return self.data

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

    @model_validator(mode="after")
    def _keys_of_the_task(self) -> SweepConfig:
        for name in sorted(_keys_of_others(self.task) & self.model_fields_set):
            if getattr(self, name) != type(self).model_fields[name].default:
                raise ValueError(f"`{name}` is of no use to task {self.task!r}; expected it left out")
        return self

    @model_validator(mode="after")
    def _something_to_run(self) -> SweepConfig:
        if not self.grid and self.search is None:
            raise ValueError("grid: missing; expected a mapping of axes, a list of them, or `search:`")
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
        if problem := problem_of_name(value):
            raise ValueError(problem)
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
                axes.append(normalise(mapping))
            except ValueError as error:
                # Counted as `grid[1].model=padim` does.
                problems.append(f"[{position}]: {error}" if len(mappings) > 1 else str(error))
        if problems:
            # The first is given its key by what makes a sentence of it.
            raise ValueError(f"{SEPARATOR}grid".join(problems))
        return axes


def _keys_of_others(task: str) -> set[str]:
    """Keys that other tasks have a use for, and this one does not."""
    keys: dict[str, frozenset[str]] = {
        name: registry.load(target)().config_keys for name, target in registry.TASKS.items()
    }
    return {key for name, own in keys.items() if name != task for key in own} - keys[task]


def load_config(path: Path, overrides: Sequence[str] = ()) -> SweepConfig:
    """Read a YAML file, apply the overrides, and validate.

    Args:
        path: the YAML file.
        overrides: `key=value`; keys have dots and indexes (`data.val=0`, `grid[0].model=padim`), values are YAML.

    Raises:
        ConfigError: all problems, one sentence each.
    """
    raw = _read(path)
    problems = _override(raw, overrides)
    try:
        with references() as found:
            tree = OmegaConf.to_container(raw, resolve=True)
    except OmegaConfBaseException as error:
        problems.append(f"{path}: {getattr(error, 'full_key', '') or 'interpolation'}: {_first_line(error)}")
        raise ConfigError(problems) from error
    assert isinstance(tree, dict)
    values: dict[str, Any] = {str(key): value for key, value in tree.items()}
    remember(found)
    named = "name" in values
    values.setdefault("name", name_of_file(path))
    config = _validate(values, f"{path}: ", problems)
    config._named_by, config._references = None if named else path.resolve(), found
    return config


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
    values["data"], found = _validate_data(values.get("data"), values.get("task", "detection"))
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
    values = config.model_dump(exclude={"seed"} if config.grid else {"seed", "grid"}, exclude_none=True)
    values["threshold"] = {key: value for key, value in config.threshold.policy().items() if value is not None}
    values = {key: value for key, value in values.items() if key not in _keys_of_others(config.task)}
    text = yaml.safe_dump(concealed(values, config.references), sort_keys=False, allow_unicode=True)
    return f"{NAMED_BY}{_one_line(config.named_by)}\n{text}" if config.named_by else text


def other_file_of(folder: Path, config: SweepConfig) -> Path | None:
    """Another config that has given its name to a result folder, and is still there; None where there is none.

    Args:
        folder: of the results.
        config: which would write there, too.
    """
    if config.named_by is None:
        return None
    try:
        first = read_bytes(folder / "config.yaml", LARGEST).decode(errors="replace").partition("\n")[0]
    except (OSError, StoreError):
        return None
    other = Path(first.removeprefix(NAMED_BY))
    if not first.startswith(NAMED_BY) or first == f"{NAMED_BY}{_one_line(config.named_by)}":
        return None
    return other if len(first) < 4096 and other.is_file() else None


def _one_line(path: Path) -> str:
    return str(path).encode(errors="backslashreplace").decode().replace("\n", " ")


def _read(path: Path) -> DictConfig:
    if not path.is_file():
        near = nearest(path.name, [p.name for p in path.parent.glob("*.y*ml")] if path.parent.is_dir() else [])
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
            # What a parameter of a search may be is one thing, and no sum of what it was and what it is.
            merge = not key.startswith("search.space.")
            OmegaConf.update(config, key, parsed["value"], merge=merge, force_add=True)
        except yaml.YAMLError:
            problems.append(f"override {text!r}: the value is no valid YAML.")
        except (OmegaConfBaseException, ValueError, IndexError, TypeError, AttributeError) as error:
            problems.append(f"override {text!r}: there is no such place in the config ({_first_line(error)}).")
    return problems


def _validate_data(block: Any, task: Any) -> tuple[Any, list[str]]:
    """The options object of `data:`, chosen by its kind, and what is wrong with it."""
    if not isinstance(task, str) or task not in registry.TASKS:
        # Said by the schema.
        return None, []
    of: DataKinds = registry.load(registry.TASKS[task])()
    *known, last = of.kinds()
    if not isinstance(block, dict) or not isinstance(block.get("kind"), str):
        found = "no `data:`" if block is None else f"{block!r}"
        return None, [f"data.kind: {found} found; expected one of {', '.join(known)}, or {last}."]
    if block["kind"].lower() in (*registry.DATASETS, *registry.LABELLED_DATASETS):
        # Folder is folder, as anomalib spells it.
        block = {**block, "kind": block["kind"].lower()}
    try:
        options = of.options(block["kind"])
    except ConfigError as error:
        return None, list(error.problems)
    try:
        return options.model_validate(block), []
    except ValidationError as error:
        return None, [sentence(e, options, prefix=("data",)) for e in error.errors()]


def _first_line(error: BaseException) -> str:
    return str(error).strip().split("\n", maxsplit=1)[0]
