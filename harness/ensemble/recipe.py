"""A blend's YAML: which runs, how they are averaged, and rules that follow, in order."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from harness.common.errors import ConfigError, nearest
from harness.common.paths import PathText, name_of_file, problem_of_name
from harness.common.reading import MB, read_text
from harness.common.schema_errors import sentence


class _Block(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Unless(_Block):
    """What keeps a rule from an image: what some run calls it."""

    run: str
    state: str | None = None
    label: str | None = None

    @model_validator(mode="after")
    def _one(self) -> Unless:
        if (self.state is None) == (self.label is None):
            raise ValueError("expected `state` or `label`, and one of them")
        return self


class Rule(_Block):
    """Take a run's label for some images.

    Attributes:
        take: the run.
        where_state, where_state_not, where_label: of the label that this run gives.
        classes: of the label that the image has so far.
        unless: see `Unless`.
    """

    take: str
    where_state: str | None = None
    where_state_not: str | None = None
    where_label: str | None = None
    classes: list[str] | None = Field(default=None, min_length=1)
    unless: Unless | None = None

    def sentence(self) -> str:
        """For a person."""
        parts = [f"take {self.take}"]
        parts += [f"for classes {', '.join(self.classes)}"] if self.classes else []
        parts += [f"where its state is {self.where_state}"] if self.where_state else []
        parts += [f"where its state is not {self.where_state_not}"] if self.where_state_not else []
        parts += [f"where it says {self.where_label}"] if self.where_label else []
        if self.unless is not None:
            parts.append(f"unless {self.unless.run} says {self.unless.state or self.unless.label}")
        return " ".join(parts)


class Source(_Block):
    """A run, or networks of runs averaged.

    Attributes:
        run: a run's folder, or a sweep's: its best run.
        folds: how much each fold counts in naming the test images; all alike if empty.
        average_weights: instead of `run`: runs of one architecture on the same folds, whose networks are averaged fold
            by fold; or one run whose folds' networks are averaged into one, which has no out-of-fold figures.
    """

    run: str | None = None
    folds: dict[int, float] = Field(default_factory=dict)
    average_weights: list[str] | None = Field(default=None, min_length=1)

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, value: Any) -> Any:
        return {"run": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _one(self) -> Source:
        if (self.run is None) == (self.average_weights is None):
            raise ValueError("expected `run` or `average_weights`, and one of them")
        if any(weight < 0 for weight in self.folds.values()) or (self.folds and not sum(self.folds.values())):
            raise ValueError("folds: expected weights from 0 that are not all 0")
        return self


class Recipe(_Block):
    """A whole blend.

    Attributes:
        name: the result folder under `output`.
        runs: by a short name.
        soft: how much each run counts; `fit` finds it on out-of-fold predictions; all alike by default.
        rules: in order, each on what the one before left.
    """

    name: str
    output: PathText = "results"
    runs: dict[str, Source] = Field(min_length=1)
    soft: dict[str, float] | Literal["fit", "equal"] = "equal"
    rules: list[Rule] = Field(default_factory=list)

    @field_validator("name")
    @classmethod
    def _is_folder_name(cls, value: str) -> str:
        if problem := problem_of_name(value):
            raise ValueError(problem)
        return value

    @model_validator(mode="after")
    def _names(self) -> Recipe:
        used = [rule.take for rule in self.rules] + [rule.unless.run for rule in self.rules if rule.unless]
        used += list(self.soft) if isinstance(self.soft, dict) else []
        for name in used:
            if name not in self.runs:
                near = nearest(name, self.runs)
                hint = f" Did you mean {near[0]}?" if near else ""
                raise ValueError(f"unknown run {name!r}.{hint} Known: {', '.join(self.runs)}")
        if isinstance(self.soft, dict) and (min(self.soft.values()) < 0 or not sum(self.soft.values())):
            raise ValueError("soft: expected weights from 0 that are not all 0")
        return self


def load_recipe(path: Path) -> Recipe:
    """Read and validate.

    Raises:
        ConfigError: all problems, one sentence each.
    """
    try:
        raw = yaml.safe_load(read_text(path, limit=8 * MB))
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file; expected a blend's YAML.") from None
    except (yaml.YAMLError, RecursionError) as error:
        raise ConfigError(f"{path}: can't be read as YAML ({str(error).split(chr(10))[0]}).") from error
    if not isinstance(raw, dict):
        raise ConfigError(f"{path}: {type(raw).__name__} found; expected at least `runs:`.")
    try:
        return Recipe.model_validate({"name": name_of_file(path), **raw})
    except ValidationError as error:
        raise ConfigError([f"{path}: {sentence(e, Recipe)}" for e in error.errors()]) from error
