"""A point of the space -> its runs, and a run -> its point."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from harness.backbones.normalization import input_of
from harness.backends.base import AnySplit, Signature
from harness.backends.implied import implied_values
from harness.common.errors import ConfigError
from harness.config.axes import MAPPED, NORMALIZATION, SIDES, STRUCTURAL
from harness.config.search import Domain
from harness.config.spec import RunSpec, freeze_items, thaw
from harness.config.sweep import SweepConfig
from harness.planning.plan import untrained, usable
from harness.planning.prepare import PlannedRun, identified, signature, task
from harness.planning.specs import Idle, SpecBuilder
from harness.results.record import RunRecord

Point = Mapping[str, Any]
WHERE = "search.space"
MAX_COMBINATIONS = 512  # of structural axes, in the check of the space
# Axes whose values may have several forms, such as 32 and [32, 32].
WITH_FORMS = {*MAPPED, *SIDES} - {"image_size"}


class Space:
    """The space of a search with its data.

    Args:
        config: of the sweep, with `search:`. `harness.search.holdout` has decided its share of held-out images.
        splits: the data, by category.

    Attributes:
        config: of the sweep.
        search: `search:` of the config.
        domains: the domain of each axis with several values.
    """

    def __init__(self, config: SweepConfig, splits: Mapping[str, AnySplit]) -> None:
        assert config.search is not None
        self.config, self._splits = config, splits
        self.search = config.search
        self.domains = config.search.domains
        self._task = task(config.task)
        self._signatures = partial(signature, self._task)

    def check(self) -> tuple[PlannedRun, ...]:
        """Check the space with example points.

        Returns:
            The runs of the examples: all combinations of the structural axes, and examples of all other values.

        Raises:
            ConfigError: the space has unknown models or parameters, values of the wrong type, or axes without effect.
        """
        examples = {name: domain.examples() for name, domain in self.domains.items()}
        axes = {**{name: [value] for name, value in self.search.fixed.items()}, **examples}
        models = usable(WHERE, axes, self._signatures, self._task.backend)
        problems = [*self._whole_numbers(models.values()), *self._metric_problems()]
        if not any(model.trainer for model in models.values()):
            problems += untrained(self.config)
        idle, builder = Idle(axes), SpecBuilder(self.config)
        specs: dict[RunSpec, None] = {}
        category, seed = next(iter(self._splits)), self.config.seeds[0]
        for point in _examples(axes):
            model = models[point.setdefault("backend", self._task.backend), point["model"]]
            try:
                specs[builder.build(model, point, category, seed, idle)] = None
            except ConfigError as error:
                problems += [f"{WHERE}.{problem}" for problem in error.problems]
        problems += [f"{WHERE}.{problem}" for problem in idle.problems()]
        if problems:
            raise ConfigError(list(dict.fromkeys(problems)))
        return identified(specs, self._splits)

    def _whole_numbers(self, models: Iterable[Signature]) -> list[str]:
        """The first problem of a continuous range for a parameter that takes whole numbers."""
        return [
            f"{WHERE}.{name}: {domain.kind} found, but {model.name} takes whole numbers (the default is "
            f"{model.parameters[name]}); expected randint or choice."
            for name, domain in self.domains.items()
            for model in models
            if domain.continuous and isinstance(model.parameters.get(name), int)
        ][:1]

    def _metric_problems(self) -> list[str]:
        keys = [metric.key for metric in self._task.metrics()]
        if self.metric in keys:
            return []
        return [f"search.metric: {self.metric!r} found; expected one of {', '.join(keys)}."]

    @property
    def metric(self) -> str:
        """Name of the metric that the search optimises."""
        return self.search.metric or self._task.metrics()[0].key

    @property
    def holdout(self) -> dict[str, Any]:
        """Share and seed of the held-out test images; empty without such images."""
        share = self.search.holdout
        return {"share": share, "seed": self.search.seed} if share else {}

    def runs(self, point: Point) -> tuple[PlannedRun, ...]:
        """The runs of a point: one for each category and seed.

        Raises:
            ConfigError: the model can't have one of the values.
        """
        values = {**self.search.fixed, **point}
        values.setdefault("backend", self._task.backend)
        model = self._signatures(values["backend"], values["model"])
        idle, holdout, builder = Idle({}), freeze_items(self.holdout), SpecBuilder(self.config)
        specs = (
            replace(builder.build(model, values, category, seed, idle), holdout=holdout)
            for category, seed in itertools.product(self._splits, self.config.seeds)
        )
        return identified(dict.fromkeys(specs), self._splits)

    def point_of_record(self, record: RunRecord) -> Point | None:
        """The point of a run; None for a run outside the space, or for an unreadable spec."""
        try:
            spec = RunSpec.from_dict(record.spec)
        except (KeyError, TypeError, ValueError):
            return None
        values = {
            "backend": spec.backend,
            "model": spec.model,
            "backbone": spec.backbone,
            "layers": None if spec.layers is None else list(spec.layers),
            "image_size": spec.image_size,
            **implied_values(spec.backend, spec.model),
            **{name: thaw(value) for name, value in spec.params},
        }
        point: dict[str, Any] = {}
        for name, domain in self.domains.items():
            value = values.get(name)
            if name == NORMALIZATION:
                value = self._normalization(spec, domain)
            elif name in WITH_FORMS and domain.kind == "choice":
                value = self._choice(spec, name, value, domain)
            if name == "image_size" and spec.image_size is not None:
                options = [size for size in domain.values if size in (spec.image_size[0], list(spec.image_size))]
                value = options[0] if domain.kind == "choice" and options else spec.image_size[0]
            if value is None or not domain.holds(value):
                return None
            point[name] = value
        return point

    def _normalization(self, spec: RunSpec, domain: Domain) -> Any:
        """The first value of the axis `normalization` with the normalisation of the run; None without such a value."""
        default = self._signatures(spec.backend, spec.model).normalization
        if default is None or spec.backbone is None:
            return None
        return next(
            (v for v in domain.values if input_of(spec.backbone, spec.weights, v, default) == spec.normalization), None
        )

    def _choice(self, spec: RunSpec, name: str, value: Any, domain: Domain) -> Any:
        """The choice that means the value of the run, of which a spec has one form only; else the value itself."""
        canonical = self._signatures(spec.backend, spec.model).canonical
        return next((v for v in domain.values if canonical({name: v}, spec.image_size)[name] == value), value)

    def holds(self, point: Point) -> bool:
        """Whether a point is in the space."""
        return point.keys() == self.domains.keys() and all(d.holds(point[n]) for n, d in self.domains.items())


def _examples(axes: Mapping[str, Sequence[Any]]) -> Iterable[dict[str, Any]]:
    """Points with all combinations of the axes `STRUCTURAL`. Every value of every axis is in a point."""
    rng = random.Random(0)
    structure = {name: values for name, values in axes.items() if name in STRUCTURAL}
    rest = {name: values for name, values in axes.items() if name not in STRUCTURAL}
    combinations = list(itertools.product(*structure.values()))
    if len(combinations) > MAX_COMBINATIONS:
        combinations = rng.sample(combinations, MAX_COMBINATIONS)
    for combination in combinations:
        fixed = dict(zip(structure, combination, strict=True))
        if not rest:
            yield fixed
        for name, values in rest.items():
            for value in values:
                yield {**fixed, **{axis: rng.choice(options) for axis, options in rest.items()}, name: value}
