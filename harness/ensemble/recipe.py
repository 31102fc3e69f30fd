"""The YAML file of a blend: runs, their shares in the average, and rules in order."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from harness.common.errors import ConfigError, first_line, nearest
from harness.common.paths import FolderName, PathText, name_of_file
from harness.common.reading import MB, read_text
from harness.common.schema_errors import sentence


class _Block(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


# In rules: the labels after the average and the rules before.
CURRENT = "current"


class Unless(_Block):
    """An exception of a rule: the rule does not apply to an image to which a run gives this condition or label.

    Attributes:
        run: short name of the run, or `current`.
        state: condition of the run's label; exactly one of `state` and `label` is set.
        label: the run's label.
        confidence_from: the exception holds only from this probability of the run's label.
    """

    run: str
    state: str | None = None
    label: str | None = None
    confidence_from: float | None = Field(default=None, ge=0, le=1)

    @model_validator(mode="after")
    def _one(self) -> Unless:
        if (self.state is None) == (self.label is None):
            raise ValueError("expected exactly one of `state` and `label`")
        return self


class Rule(_Block):
    """Replace the labels of some images. A rule applies where all its conditions hold.

    Exactly one of `take` and `vote` is set. The label that it gives is the new label.

    Attributes:
        take: short name of the run with the new label; or `current`, for its second label.
        choice: `second` takes the second most probable label of the run. Of equal probabilities the first label counts.
        vote: weight of each run's vote, by short name; `current` votes too. The label with most votes is the new label.
        null_below: a vote with a smaller probability of its label is null.
        null_unless_class: a vote for a label of another class is null.
        ties: of labels with equal votes, `keep` keeps the current label, and `first` takes the first label in order.
            If null has most votes, alone or with others, the image keeps its label.
        of: the label that all keys below look at, except `classes` and `unless`: `new` or `current`.
        where_state: required condition of the label.
        where_state_not: excluded condition of the label.
        where_label: required label.
        where_class: allowed classes of the label.
        unless_class: excluded classes of the label.
        where_confidence_below: the label's probability is smaller. For a vote it is the share of the votes
            without null.
        classes: allowed classes of the image's current label, whatever `of` says.
        unless: exception of the rule.
    """

    take: str | None = None
    choice: Literal["first", "second"] = "first"
    vote: dict[str, float] | None = None
    null_below: float | None = Field(default=None, gt=0, le=1)
    null_unless_class: list[str] | None = Field(default=None, min_length=1)
    ties: Literal["keep", "first"] = "keep"
    of: Literal["new", "current"] = "new"
    where_state: str | None = None
    where_state_not: str | None = None
    where_label: str | None = None
    where_class: list[str] | None = Field(default=None, min_length=1)
    unless_class: list[str] | None = Field(default=None, min_length=1)
    where_confidence_below: float | None = Field(default=None, gt=0, le=1)
    classes: list[str] | None = Field(default=None, min_length=1)
    unless: Unless | None = None

    @model_validator(mode="after")
    def _one(self) -> Rule:
        if (self.take is None) == (self.vote is None):
            raise ValueError("expected exactly one of `take` and `vote`")
        for_vote = self.model_fields_set & {"null_below", "null_unless_class", "ties"}
        if self.vote is None and for_vote:
            raise ValueError(f"{', '.join(sorted(for_vote))}: expected only with `vote`")
        if self.vote is not None:
            if self.choice != "first":
                raise ValueError("choice: expected only with `take`")
            _check_weights("vote", self.vote)
        return self

    @property
    def names(self) -> list[str]:
        """Short names that the rule takes, or that vote."""
        return list(self.vote or {}) + ([self.take] if self.take is not None else [])

    def sentence(self) -> str:
        """The rule as a phrase for the user. The id of a blend's run contains a hash of this text."""
        parts = [self._vote_phrase() if self.vote else f"take {self.take}"]
        parts += ["with its second label"] if self.choice == "second" else []
        parts += [f"for classes {', '.join(self.classes)}"] if self.classes else []
        its = "its" if self.of == "new" else "the current"
        parts += [f"where {its} state is {self.where_state}"] if self.where_state else []
        parts += [f"where {its} state is not {self.where_state_not}"] if self.where_state_not else []
        says = "it says" if self.of == "new" else "the current label is"
        parts += [f"where {says} {self.where_label}"] if self.where_label else []
        parts += [f"where {its} class is {' or '.join(self.where_class)}"] if self.where_class else []
        parts += [f"where {its} class is not {' or '.join(self.unless_class)}"] if self.unless_class else []
        below = self.where_confidence_below
        parts += [f"where {its} confidence is below {below!r}"] if below is not None else []
        if self.unless is not None:
            parts.append(f"unless {self.unless.run} says {self.unless.state or self.unless.label}")
            least = self.unless.confidence_from
            parts += [f"with confidence from {least!r}"] if least is not None else []
        return " ".join(parts)

    def _vote_phrase(self) -> str:
        nulls = [f"below {self.null_below!r}"] if self.null_below is not None else []
        nulls += [f"unless class {' or '.join(self.null_unless_class)}"] if self.null_unless_class else []
        votes = ", ".join(f"{weight!r} {name}" for name, weight in (self.vote or {}).items())
        return f"vote of {votes}" + (f" (null {', '.join(nulls)})" if nulls else "") + f", ties {self.ties}"


def _check_weights(key: str, weights: Mapping[str, float]) -> None:
    if not all(math.isfinite(weight) and weight >= 0 for weight in weights.values()) or not sum(weights.values()):
        raise ValueError(f"{key}: expected weights from 0 that are not all 0")


class Source(_Block):
    """A run, an average of networks, predictions from outside, or an average of other sources.

    Attributes:
        run: a run's folder, or a sweep's folder for its best run.
        folds: weight of each fold in predictions for test images; empty for equal weights.
        average_weights: folders of runs, instead of `run`. Networks of several runs with one architecture and the same
            folds are averaged fold by fold. Networks of one run are averaged over its folds, and then there are no
            out-of-fold metrics.
        out_of_fold: a CSV or NPY file from outside, instead of `run`, with a row for each training image.
        test: such a file with a row for each test image.
        values: what the files from outside hold.
        labels: labels of the columns of an NPY file; by default those of the runs, in order.
        own_labels: the files from outside have other labels than the runs; then only `unless` may name the source.
        average_of: weights of other sources by short name, instead of `run`. Rules can take this average.
    """

    run: str | None = None
    folds: dict[int, float] = Field(default_factory=dict)
    average_weights: list[str] | None = Field(default=None, min_length=1)
    out_of_fold: str | None = None
    test: str | None = None
    values: Literal["probabilities", "logits"] = "probabilities"
    labels: list[str] | None = Field(default=None, min_length=1)
    own_labels: bool = False
    average_of: dict[str, float] | None = None

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, value: Any) -> Any:
        return {"run": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _one(self) -> Source:
        kinds = ("run", "average_weights", "out_of_fold", "average_of")
        if sum(getattr(self, kind) is not None for kind in kinds) != 1:
            raise ValueError("expected exactly one of `run`, `average_weights`, `out_of_fold` and `average_of`")
        outside = self.model_fields_set & {"test", "values", "labels", "own_labels"}
        if self.out_of_fold is None and outside:
            raise ValueError(f"{', '.join(sorted(outside))}: expected only with `out_of_fold`")
        if self.folds and not self.has_runs:
            raise ValueError("folds: expected only with `run` or `average_weights`")
        if self.folds:
            _check_weights("folds", {str(fold): weight for fold, weight in self.folds.items()})
        if self.average_of is not None:
            _check_weights("average_of", self.average_of)
        files = [name for name in (self.out_of_fold, self.test) if name is not None]
        wrong = [name for name in files if Path(name).suffix.lower() not in (".csv", ".npy")]
        if wrong:
            raise ValueError(f"{wrong[0]!r} found; expected a .csv or .npy file")
        npy = any(Path(name).suffix.lower() == ".npy" for name in files)
        if self.labels and (not npy or len(set(self.labels)) < len(self.labels)):
            raise ValueError("labels: expected different labels, and only with an .npy file")
        if self.own_labels and npy and not self.labels:
            raise ValueError("own_labels: expected `labels` too, because an .npy file names no labels")
        return self

    @property
    def has_runs(self) -> bool:
        """Whether the source is a run of the harness, or several."""
        return self.run is not None or self.average_weights is not None


class Recipe(_Block):
    """The content of a blend's YAML file.

    Attributes:
        name: name of the result folder.
        output: parent of the result folder.
        runs: sources by short name.
        average: `probabilities` averages probabilities. `logits` averages their logarithms, over folds too, and
            normalises the result; so softmax comes after the average.
        soft: share of each run in the average, `fit` for shares fitted on out-of-fold predictions, or `equal`. The
            last two leave out sources with `average_of` or `own_labels`, and runs with `only_classes`.
        rules: rules in order; each rule changes the result of the rule before.
    """

    name: FolderName
    output: PathText = "results"
    runs: dict[str, Source] = Field(min_length=1)
    average: Literal["probabilities", "logits"] = "probabilities"
    soft: dict[str, float] | Literal["fit", "equal"] = "equal"
    rules: list[Rule] = Field(default_factory=list)

    @model_validator(mode="after")
    def _names(self) -> Recipe:
        own = {name for name, source in self.runs.items() if source.own_labels}
        averages = {name for name, source in self.runs.items() if source.average_of}
        shares = list(self.soft) if isinstance(self.soft, dict) else []
        parts = [name for source in self.runs.values() for name in source.average_of or {}]
        taken = [name for rule in self.rules for name in rule.names]
        unless = [rule.unless.run for rule in self.rules if rule.unless]
        for name in (*shares, *parts, *taken, *unless):
            allowed = {CURRENT} if name in taken + unless and name not in shares + parts else set()
            if name not in {*self.runs, *allowed}:
                near = nearest(name, self.runs)
                hint = f" Did you mean {near[0]}?" if near else ""
                raise ValueError(f"unknown run {name!r}.{hint} Known: {', '.join(self.runs)}")
        if wrong := [name for name in (*shares, *parts, *taken) if name in own]:
            raise ValueError(f"{wrong[0]!r} has `own_labels`; expected only `unless` to name it")
        if wrong := [name for name in parts if name in averages]:
            raise ValueError(f"average_of: {wrong[0]!r} is an average too; expected runs, or files from outside")
        if not any(source.has_runs for source in self.runs.values()):
            raise ValueError("runs: expected a run of the harness; files from outside have no true labels")
        if isinstance(self.soft, dict):
            _check_weights("soft", self.soft)
        if self.soft == "fit" and self.average == "logits":
            raise ValueError("soft: fit found with `average: logits`; expected `average: probabilities`, or weights")
        for number, rule in enumerate(self.rules):
            if rule.take == CURRENT and CURRENT not in self.runs and rule.choice != "second":
                raise ValueError(f"rules[{number}].take: current found; expected `choice: second` with it, or a run")
        return self

    @property
    def averaged(self) -> list[str]:
        """Short names of the sources that the average may use."""
        used = self.soft if isinstance(self.soft, dict) else {}
        return [n for n, s in self.runs.items() if n in used or not (used or s.average_of or s.own_labels)]


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
        raise ConfigError(f"{path}: can't be read as YAML ({first_line(error)}).") from error
    if not isinstance(raw, dict):
        raise ConfigError(f"{path}: {type(raw).__name__} found; expected a mapping with `runs:`.")
    try:
        return Recipe.model_validate({"name": name_of_file(path), **raw})
    except ValidationError as error:
        raise ConfigError([f"{path}: {sentence(e, Recipe)}" for e in error.errors()]) from error
