"""The YAML file of a blend: runs, their shares in the average, and rules in order."""

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
    """An exception of a rule: the rule does not apply to an image to which a run gives this condition or label.

    Attributes:
        run: short name of the run.
        state: condition of the run's label; exactly one of `state` and `label` is set.
        label: the run's label.
    """

    run: str
    state: str | None = None
    label: str | None = None

    @model_validator(mode="after")
    def _one(self) -> Unless:
        if (self.state is None) == (self.label is None):
            raise ValueError("expected exactly one of `state` and `label`")
        return self


class Rule(_Block):
    """Replace the labels of some images by those of a run. A rule applies where all its conditions hold.

    Attributes:
        take: short name of the run.
        where_state: required condition of the run's label.
        where_state_not: excluded condition of the run's label.
        where_label: required label of the run.
        classes: allowed classes of the image's current label.
        unless: exception of the rule.
    """

    take: str
    where_state: str | None = None
    where_state_not: str | None = None
    where_label: str | None = None
    classes: list[str] | None = Field(default=None, min_length=1)
    unless: Unless | None = None

    def sentence(self) -> str:
        """The rule as a phrase for the user. The id of a blend's run contains a hash of this text."""
        parts = [f"take {self.take}"]
        parts += [f"for classes {', '.join(self.classes)}"] if self.classes else []
        parts += [f"where its state is {self.where_state}"] if self.where_state else []
        parts += [f"where its state is not {self.where_state_not}"] if self.where_state_not else []
        parts += [f"where it says {self.where_label}"] if self.where_label else []
        if self.unless is not None:
            parts.append(f"unless {self.unless.run} says {self.unless.state or self.unless.label}")
        return " ".join(parts)


class Source(_Block):
    """A run, or an average of networks.

    Attributes:
        run: a run's folder, or a sweep's folder for its best run.
        folds: weight of each fold in predictions for test images; empty for equal weights.
        average_weights: folders of runs, instead of `run`. Networks of several runs with one architecture and the same
            folds are averaged fold by fold. Networks of one run are averaged over its folds, and then there are no
            out-of-fold metrics.
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
            raise ValueError("expected exactly one of `run` and `average_weights`")
        if any(weight < 0 for weight in self.folds.values()) or (self.folds and not sum(self.folds.values())):
            raise ValueError("folds: expected weights from 0 that are not all 0")
        return self


class Recipe(_Block):
    """The content of a blend's YAML file.

    Attributes:
        name: name of the result folder.
        output: parent of the result folder.
        runs: runs by short name.
        soft: share of each run in the average, `fit` for shares fitted on out-of-fold predictions, or `equal`.
        rules: rules in order; each rule changes the result of the rule before.
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
        names = [rule.take for rule in self.rules] + [rule.unless.run for rule in self.rules if rule.unless]
        names += list(self.soft) if isinstance(self.soft, dict) else []
        for name in names:
            if name not in self.runs:
                near = nearest(name, self.runs)
                hint = f" Did you mean {near[0]}?" if near else ""
                raise ValueError(f"unknown run {name!r}.{hint} Known: {', '.join(self.runs)}")
        if isinstance(self.soft, dict) and (min(self.soft.values()) < 0 or not sum(self.soft.values())):
            raise ValueError("soft: expected weights from 0 that are not all 0")
        return self


def load_recipe(path: Path) -> Recipe:
    """Read and validate the YAML file of a blend.

    Raises:
        ConfigError: the file can't be read or is not valid; lists all problems, one sentence each.
    """
    try:
        raw = yaml.safe_load(read_text(path, limit=8 * MB))
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file; expected a blend's YAML.") from None
    except (yaml.YAMLError, RecursionError) as error:
        raise ConfigError(f"{path}: can't be read as YAML ({str(error).split(chr(10))[0]}).") from error
    if not isinstance(raw, dict):
        raise ConfigError(f"{path}: {type(raw).__name__} found; expected a mapping with `runs:`.")
    try:
        return Recipe.model_validate({"name": name_of_file(path), **raw})
    except ValidationError as error:
        raise ConfigError([f"{path}: {sentence(e, Recipe)}" for e in error.errors()]) from error
