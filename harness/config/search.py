"""The `search:` block: a metric, the number of trials, and the search space."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from harness.config.axes import CHOICES, LISTS
from harness.config.grid import normalise
from harness.config.units import seconds
from harness.registry import metric

KINDS = ("choice", "uniform", "loguniform", "randint")
LONGEST = 10_000  # epochs
# Position of the middle example in a range. The example is rarely an integer, so the check refuses a range of floats
# for an integer parameter.
INSIDE = 0.381966


@dataclass(frozen=True)
class Domain:
    """The possible values of one parameter.

    Attributes:
        kind: one of `KINDS`.
        values: the choices, or the two ends of a range. The upper end of `randint` is not in the range.
    """

    kind: str
    values: tuple[Any, ...]

    @property
    def continuous(self) -> bool:
        """Whether the parameter may have every value between the two ends."""
        return self.kind in {"uniform", "loguniform"}

    def holds(self, value: Any) -> bool:
        """Whether the parameter may have a value."""
        if self.kind == "choice":
            return any(_same(value, choice) for choice in self.values)
        if isinstance(value, bool) or not isinstance(value, int | float):
            return False
        low, high = self.values
        return bool(low <= value < high and value == int(value) if self.kind == "randint" else low <= value <= high)

    def examples(self) -> list[Any]:
        """Values to check in advance: all choices, or the ends of a range and a value between them."""
        if self.kind == "choice":
            return list(self.values)
        low, high = self.values
        if self.kind == "randint":
            return list(dict.fromkeys((low, high - 1)))
        return [low, low + INSIDE * (high - low), high]

    def __str__(self) -> str:
        if self.kind == "choice":
            return " | ".join("+".join(map(str, v)) if isinstance(v, list) else str(v) for v in self.values)
        return f"{self.kind} {self.values[0]} ... {self.values[1]}"


def _same(value: Any, other: Any) -> bool:
    return bool(json.dumps(value) == json.dumps(other) or (value == other and not isinstance(value, bool)))


class Search(BaseModel):
    """How a search proposes and stops trials.

    Attributes:
        metric: the metric that the search improves; by default `image_AUROC`, or `macro_F1` of a classification.
        mode: whether a larger value (`max`) or a smaller value (`min`) is better; by default as the metric says.
        num_samples: the number of configurations in all, with those of earlier calls.
        time_budget: the longest time of one call, in seconds or such as `30 min` or `2 h`; by default no limit.
        seed: of the proposals, and of the choice of the held-out images.
        holdout: share of the test images that no trial sees; they test the best trial at the end. By default 0.3 where
            each category has 40 test images of each class, otherwise 0. Only for `task: detection`.
        stop_early: whether the search stops trainings that are worse than others after some epochs.
        grace_epochs: epochs that each training gets before the first comparison.
        reduction_factor: with 3, one training in three goes on, for three times as many epochs.
        space: by axis one fixed value, or one of `choice`, `uniform`, `loguniform`, `randint` with its values.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    metric: str | None = None
    mode: Literal["max", "min"] = "max"
    num_samples: int = Field(default=30, ge=1)
    time_budget: float | None = Field(default=None, gt=0)
    seed: int = Field(default=0, ge=0, lt=2**32)
    holdout: float | None = Field(default=None, ge=0, lt=1, allow_inf_nan=False)
    stop_early: bool = True
    grace_epochs: int = Field(default=3, ge=1, lt=LONGEST)
    reduction_factor: int = Field(default=3, ge=2)
    space: dict[str, Any]

    @model_validator(mode="before")
    @classmethod
    def _mode_of_the_metric(cls, values: Any) -> Any:
        if isinstance(values, dict) and "mode" not in values and isinstance(values.get("metric"), str):
            return {**values, "mode": "max" if metric(values["metric"]).higher_is_better else "min"}
        return values

    @field_validator("time_budget", mode="before")
    @classmethod
    def _seconds(cls, value: Any) -> Any:
        return seconds(value)

    @field_validator("space", mode="before")
    @classmethod
    def _space(cls, value: Any) -> Any:
        if not isinstance(value, Mapping) or not value:
            raise ValueError(f"expected axes such as `num_neighbors: {{randint: [1, 10]}}`; found {value!r}")
        problems, axes = [], {}
        for name, axis in value.items():
            try:
                axes[str(name)] = _axis(str(name), axis)
            except ValueError as error:
                problems.append(f"{name}: {error}")
        if not problems and not any(_is_domain(axis) for axis in axes.values()):
            problems.append(f"all axes are fixed; expected at least one axis with {', '.join(KINDS)}")
        if problems:
            raise ValueError("; also: ".join(problems))
        normalise({name: axis["choice"] if _is_domain(axis) and "choice" in axis else [axis]
                   for name, axis in axes.items() if not _is_domain(axis) or "choice" in axis})  # fmt: skip
        return axes

    @property
    def domains(self) -> dict[str, Domain]:
        """The axes that vary, with their values."""
        axes = {name: next(iter(axis.items())) for name, axis in self.space.items() if _is_domain(axis)}
        return {name: Domain(kind, tuple(values)) for name, (kind, values) in axes.items()}

    @property
    def fixed(self) -> dict[str, Any]:
        """The axes that do not vary, with their value."""
        return {name: value for name, value in self.space.items() if not _is_domain(value)}


def _is_domain(value: Any) -> bool:
    return isinstance(value, Mapping)


def _axis(name: str, value: Any) -> Any:
    """A fixed value, or {kind: values} with valid values."""
    if not isinstance(value, Mapping):
        if isinstance(value, list) and name not in LISTS:
            raise ValueError(f"found {value}; expected one value, or {{choice: {value}}}")
        return value
    if len(value) != 1 or next(iter(value)) not in KINDS:
        raise ValueError(f"found {', '.join(map(str, value)) or 'nothing'}; expected one of {', '.join(KINDS)}")
    kind, values = next(iter(value.items()))
    if not isinstance(values, list):
        raise ValueError(f"{kind}: found {values!r}, expected a list")
    if kind != "choice" and name in CHOICES:
        raise ValueError(f"{kind} found; expected choice")
    if kind == "choice":
        if not values or len({json.dumps(choice) for choice in values}) < len(values):
            raise ValueError(f"choice: found {values}, expected different values")
        return {kind: values}
    return {kind: _range(kind, values)}


def _range(kind: str, values: list[Any]) -> list[Any]:
    numbers = all(isinstance(end, int | float) and not isinstance(end, bool) and math.isfinite(end) for end in values)
    if not numbers or len(values) != 2 or not values[0] < values[1]:
        raise ValueError(f"{kind}: found {values}, expected [lower, upper] with lower < upper")
    if kind == "randint":
        if any(end != int(end) for end in values):
            raise ValueError(f"randint: found {values}, expected whole numbers")
        return [int(end) for end in values]
    if kind == "loguniform" and values[0] <= 0:
        raise ValueError(f"loguniform: found {values}, expected a lower end above 0")
    return [float(end) for end in values]
