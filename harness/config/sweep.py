"""SweepConfig: the schema of a YAML file, which load.py reads.

This module does not import Torch, so later checks compare the names of models and layers with the installed libraries.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PrivateAttr,
    SerializeAsAny,
    field_validator,
    model_validator,
)

from harness import registry
from harness.common.devices import DEVICE
from harness.common.errors import unknown_name
from harness.common.paths import FolderName, PathText
from harness.config.axes import ALL_IMAGES, N_TRAIN, UNIFY
from harness.config.coverage import COVERAGE, Coverage
from harness.config.grid import Axis, check_numbers_of_images, normalise
from harness.config.protocol import ProtocolOptions
from harness.config.recommend import Limits
from harness.config.search import Search
from harness.config.threshold import CROSS_CONFORMAL, Threshold
from harness.config.units import byte_size
from harness.data.base import BaseOptions, DataOptions

SEPARATOR = "; also: "


class SweepConfig(BaseModel):
    """A whole sweep, validated.

    Attributes:
        name: the folder under `output`; by default the name of the YAML file.
        task: `detection` says whether a part is anomalous and where; `classification` says which class and condition.
        seed: one seed; the short form of `seeds` with one number.
        seeds: of everything random in a run; several seeds are an axis of the grid.
        n_train: how many normal images a run may use; several numbers are an axis of the grid, for a learning curve.
            `all` takes all images. Subsets of a seed are nested.
        data: the images; the keys depend on `kind`. A list of such mappings: every configuration runs on each data set.
        weights: of the backbone: `auto`, `pretrained`, `random`, a file or a folder.
        device: `auto`, `cpu`, `cuda`, `cuda:N` or `mps`.
        threshold: how the harness fixes the thresholds behind F1Score.
        rank: `labels` compares configurations by labelled test images. `synthetic` also ranks them by synthetic defects
            on held-out normal images (`data.val`); this ranking is the answer where no test image has a defect.
        aupro_limit: the largest false positive rate that counts for AUPRO.
        protocol: how anomaly maps and masks meet in the pixel metrics; `original` is short for `{size: original}`.
        extra_metrics: metrics beside those of every run, such as `pixel_AUPIMO`.
        coverage: the promised probability that a prediction set of a classification contains the true label.
        latency: whether the harness times single images.
        recommend: the margin of equal quality, and limits of the recommended configuration.
        output: the folder for all results.
        save_models: which models stay: `best` is one for each category.
        tracking: experiment trackers that get each finished run: `mlflow`, `wandb`, `tensorboard`.
        cache: a folder where native runs keep features and coresets for the next sweep; by default nowhere.
        cache_limit: bytes of `cache`, such as `20 GB`; the least recently used files go first.
        memory_limit: bytes that features of native runs may take, such as `8 GB`; features beyond it go to
            memory-mapped files. Also the limit of `protocol: original`. By default half of what is free.
        trainer: arguments of Lightning's Trainer. `max_epochs` and `max_steps` are also for native detectors that have
            these parameters.
        grid: one mapping of axes, or a list of mappings; equal points run once.
        search: a search in place of the grid, or beside it.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    name: FolderName
    task: Literal["detection", "classification"] = "detection"
    seed: int | None = Field(default=None, ge=0, lt=2**32)
    seeds: list[int] = Field(default=[0], min_length=1)
    n_train: list[int | str] = Field(default=[ALL_IMAGES], min_length=1)
    data: SerializeAsAny[BaseOptions]
    weights: PathText = "auto"
    device: str = "auto"
    threshold: Threshold = Threshold()
    rank: Literal["labels", "synthetic"] = "labels"
    aupro_limit: float = Field(default=0.3, gt=0, le=1)
    protocol: ProtocolOptions = ProtocolOptions()
    extra_metrics: list[str] = Field(default_factory=list)
    coverage: Coverage = COVERAGE
    latency: bool = True
    recommend: Limits = Limits()
    output: PathText = "results"
    save_models: Literal["best", "all", "none"] = "best"
    tracking: list[str] = Field(default_factory=list)
    cache: PathText | None = None
    cache_limit: int = Field(default=20 * 10**9, ge=0)
    memory_limit: int | None = Field(default=None, ge=0)
    trainer: dict[str, Any] = Field(default_factory=dict)
    grid: list[dict[str, Axis]] = Field(default_factory=list)
    search: Search | None = None
    _named_by: Path | None = PrivateAttr(default=None)
    _references: dict[str, str] = PrivateAttr(default_factory=dict)
    _datasets: tuple[BaseOptions, ...] = PrivateAttr(default=())
    _common_threshold: Threshold | None = PrivateAttr(default=None)

    @property
    def datasets(self) -> tuple[BaseOptions, ...]:
        """All data sets of the config file, where `data` is a list; otherwise none."""
        return self._datasets

    @property
    def common_threshold(self) -> Threshold:
        """The threshold in the config file. The plan sets the method in `threshold` for each data set."""
        return self._common_threshold or self.threshold

    @property
    def named_by(self) -> Path | None:
        """The config file, where the sweep has the name of this file; None where the config has a `name`."""
        return self._named_by

    @property
    def references(self) -> dict[str, str]:
        """The values from environment variables, with their references; see `harness.common.secrets`."""
        return self._references

    @property
    def folder(self) -> Path:
        """The folder of this sweep's results."""
        return Path(self.output) / self.name

    @property
    def detection_data(self) -> DataOptions:
        """The data of a detection."""
        assert isinstance(self.data, DataOptions)
        return self.data

    @property
    def numbers_of_images(self) -> list[int]:
        """The numbers of images in `n_train`, without `all`, ascending."""
        values = [*self.n_train, *(value for mapping in self.grid for value in mapping.get(N_TRAIN, []))]
        return sorted({value for value in values if value != ALL_IMAGES})

    def with_axes(self, mapping: Mapping[str, Axis]) -> dict[str, Axis]:
        """A mapping of the grid with the axes of the whole config, such as `n_train`."""
        axes: dict[str, Axis] = {} if self.n_train == [ALL_IMAGES] else {N_TRAIN: self.n_train}
        if isinstance(self.data, DataOptions) and self.data.unify:
            axes[UNIFY] = [False, True]
        return {**axes, **mapping}

    @property
    def work_dir(self) -> Path:
        """The folder of generated data."""
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
        for name in sorted(keys_of_others(self.task) & self.model_fields_set):
            if getattr(self, name) != type(self).model_fields[name].default:
                raise ValueError(f"`{name}` has no effect in task {self.task!r}; expected no such key. Remove it")
        for name in sorted({axis for mapping in self.grid for axis in mapping} & keys_of_others(self.task)):
            raise ValueError(f"grid.{name}: no axis of task {self.task!r}; expected no such axis. Remove it")
        known = registry.load(registry.TASKS[self.task]).recommend_keys
        for name in sorted(self.recommend.model_dump(exclude_defaults=True).keys() - known):
            raise ValueError(
                f"recommend.{name}: no limit of task {self.task!r}; expected {', '.join(sorted(known))}. Remove it"
            )
        return self

    @model_validator(mode="after")
    def _held_out_images(self) -> SweepConfig:
        val = self.data.val if isinstance(self.data, DataOptions) else None
        if self.threshold.method == CROSS_CONFORMAL and val:
            raise ValueError(
                f"data.val: {val} found with threshold.method cross_conformal, which holds out no images; expected 0. "
                "Remove data.val, or set threshold.method to held_out"
            )
        return self

    @model_validator(mode="after")
    def _images_for_synthetic_defects(self) -> SweepConfig:
        if self.rank != "synthetic" or not isinstance(self.data, DataOptions):
            return self
        if self.search is not None:
            raise ValueError("rank: found 'synthetic' with `search`; expected a grid only. Remove `search` or `rank`")
        conformal = self.threshold.method == CROSS_CONFORMAL or self.threshold.folds is not None
        if conformal or not (self.data.val or self.data.validated):
            raise ValueError(
                "rank: found 'synthetic' without held-out normal images; expected a data.val above 0. Set data.val, "
                "such as 0.2, with another threshold.method than cross_conformal and without threshold.folds"
            )
        return self

    @model_validator(mode="after")
    def _all_images_where_needed(self) -> SweepConfig:
        if self.rank == "synthetic" and self.numbers_of_images:
            raise ValueError(
                f"rank: found 'synthetic' with {N_TRAIN}, whose runs have few held-out images; expected all images. "
                f"Remove {N_TRAIN} or `rank`"
            )
        if self.search is not None and N_TRAIN in self.search.space:
            raise ValueError(
                f"search.space.{N_TRAIN}: found, but trials with fewer images are no rivals of the others; expected no "
                f"such axis. Set one value of `{N_TRAIN}` at the top level"
            )
        if self.search is not None and len(self.n_train) > 1:
            raise ValueError(
                f"{N_TRAIN}: {self.n_train} found with `search`; expected one value, since all trials must learn from "
                "equal numbers of images. Set one value"
            )
        return self

    @model_validator(mode="after")
    def _all_categories_where_needed(self) -> SweepConfig:
        place = f"data.{UNIFY}" if isinstance(self.data, DataOptions) and self.data.unify else ""
        place = place or next((f"grid.{UNIFY}" for mapping in self.grid if True in mapping.get(UNIFY, [])), "")
        if self.search is not None and UNIFY in self.search.space:
            place = f"search.space.{UNIFY}"
        if not place:
            return self
        if self.task != "detection":
            raise ValueError(f"{place}: found, but one network of a classification has all classes; remove the axis")
        if self.search is not None:
            raise ValueError(f"{place}: found with `search`; expected a grid. Remove {place}, or `search`")
        if self.numbers_of_images:
            raise ValueError(f"{place}: found with {N_TRAIN}; expected all images. Remove {place}, or {N_TRAIN}")
        return self

    @model_validator(mode="after")
    def _metrics_of_their_options(self) -> SweepConfig:
        if self.protocol.min_area > 1 and not any(
            registry.metric(name).level == "region" for name in self.extra_metrics
        ):
            raise ValueError(
                "protocol.min_area: found without a metric of regions, so it has no effect; expected one in "
                "extra_metrics. Add region_Recall or region_Precision, or remove the key"
            )
        metric = self.search.metric if self.search is not None else None
        if metric is not None and registry.metric(metric).on_request and metric not in self.extra_metrics:
            raise ValueError(
                f"search.metric: {metric} found, which is computed on request only; expected it in extra_metrics too"
            )
        return self

    @field_validator("extra_metrics")
    @classmethod
    def _registered(cls, value: list[str]) -> list[str]:
        known = [metric.key for metric in registry.METRICS if metric.on_request]
        for name in value:
            if name not in known:
                raise ValueError(unknown_name("metric", name, known).rstrip("."))
        # One order, so that equal metrics are equal runs.
        return [name for name in known if name in value]

    @field_validator("tracking")
    @classmethod
    def _trackers(cls, value: list[str]) -> list[str]:
        for name in value:
            if name not in registry.TRACKERS:
                raise ValueError(unknown_name("tracker", name, registry.TRACKERS).rstrip("."))
        return list(dict.fromkeys(value))

    @model_validator(mode="after")
    def _something_to_run(self) -> SweepConfig:
        if not self.grid and self.search is None:
            raise ValueError("grid: missing; expected a mapping of axes, a list of them, or `search:`")
        return self

    @field_validator("n_train", mode="before")
    @classmethod
    def _numbers(cls, value: Any) -> Any:
        values = value if isinstance(value, list) else [value]
        check_numbers_of_images(values)
        return values

    @field_validator("cache_limit", "memory_limit", mode="before")
    @classmethod
    def _bytes(cls, value: Any) -> Any:
        return byte_size(value)

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
                # The same index as in an override such as `grid[1].model=padim`.
                problems.append(f"[{position}]: {error}" if len(mappings) > 1 else str(error))
        if problems:
            # `sentence` adds the key to the first problem.
            raise ValueError(f"{SEPARATOR}grid".join(problems))
        return axes


def keys_of_others(task: str) -> set[str]:
    """Keys of other tasks that have no effect in this task."""
    keys: dict[str, frozenset[str]] = {
        name: registry.load(target)().config_keys for name, target in registry.TASKS.items()
    }
    return {key for name, names in keys.items() if name != task for key in names} - keys[task]
