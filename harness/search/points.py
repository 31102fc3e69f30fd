"""A point of the space -> the runs that it means, and from a run back to its point."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any

from harness.backbones.normalization import input_of
from harness.backends.base import AnySplit
from harness.common.errors import ConfigError
from harness.config.axes import NORMALIZATION, STRUCTURAL
from harness.config.search import Domain, Search
from harness.config.spec import RunSpec, thaw
from harness.config.sweep import SweepConfig
from harness.planning.plan import Idle, spec_of, untrained, usable
from harness.planning.prepare import PlannedRun, identified, signature, task
from harness.results.record import RunRecord

Point = Mapping[str, Any]
WHERE = "search.space"
MOST = 512  # combinations of those that are looked at


class Space:
    """The space of a search, on its data.

    Args:
        config: with `search:`.
        splits: the data, by category.

    Attributes:
        config: as given.
    """

    def __init__(self, config: SweepConfig, splits: Mapping[str, AnySplit]) -> None:
        assert config.search is not None
        self.config, self._splits, self._search = config, splits, config.search
        self._task = task(config.task)
        self._signatures = partial(signature, self._task)

    @property
    def search(self) -> Search:
        """As configured."""
        return self._search

    @property
    def domains(self) -> dict[str, Domain]:
        """What varies, by axis."""
        return self._search.domains

    def check(self) -> tuple[PlannedRun, ...]:
        """Runs that stand for all that may be proposed.

        Raises:
            ConfigError: unknown models and parameters, values of the wrong type, and axes that nothing uses.
        """
        examples = {name: domain.examples() for name, domain in self.domains.items()}
        axes = {**{name: [value] for name, value in self._search.fixed.items()}, **examples}
        known = usable(WHERE, axes, self._signatures, self._task.backend)
        problems = [*self._whole_numbers(known.values()), *self._metric_problems()]
        if not any(one.trainer for one in known.values()):
            problems += untrained(self.config)
        idle = Idle(axes)
        specs: dict[RunSpec, None] = {}
        category, seed = next(iter(self._splits)), self.config.seeds[0]
        for point in _some(axes):
            one = known[point.setdefault("backend", self._task.backend), point["model"]]
            try:
                specs[spec_of(self.config, one, point, category, seed, idle)] = None
            except ConfigError as error:
                problems += [f"{WHERE}.{problem}" for problem in error.problems]
        problems += [f"{WHERE}.{problem}" for problem in idle.problems()]
        if problems:
            raise ConfigError(list(dict.fromkeys(problems)))
        return identified(specs, self._splits)

    def _whole_numbers(self, signatures: Iterable[Any]) -> list[str]:
        """Ranges of any number for parameters that take whole ones."""
        return [
            f"{WHERE}.{name}: {domain.kind} found, but {one.name} takes whole numbers (the default is "
            f"{one.parameters[name]}); expected randint or choice."
            for name, domain in self.domains.items()
            for one in signatures
            if domain.continuous and isinstance(one.parameters.get(name), int)
        ][:1]

    def _metric_problems(self) -> list[str]:
        known = [metric.key for metric in self._task.metrics()]
        if self.metric in known:
            return []
        return [f"search.metric: {self.metric!r} found; expected one of {', '.join(known)}."]

    @property
    def metric(self) -> str:
        """What is sought."""
        return self._search.metric or self._task.metrics()[0].key

    def runs(self, point: Point) -> tuple[PlannedRun, ...]:
        """Those of a point: one for each category and seed.

        Raises:
            ConfigError: the point can't be had.
        """
        whole = {**self._search.fixed, **point}
        whole.setdefault("backend", self._task.backend)
        one = self._signatures(whole["backend"], whole["model"])
        idle = Idle({})
        specs = (
            spec_of(self.config, one, whole, category, seed, idle)
            for category, seed in itertools.product(self._splits, self.config.seeds)
        )
        return identified(dict.fromkeys(specs), self._splits)

    def point_of_record(self, record: RunRecord) -> Point | None:
        """The point that a run may have come from; None where it lies outside, or can't be told."""
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
            **{name: thaw(value) for name, value in spec.params},
        }
        point: dict[str, Any] = {}
        for name, domain in self.domains.items():
            value = values.get(name)
            if name == NORMALIZATION:
                value = self._normalization(spec, domain)
            if name == "image_size" and spec.image_size is not None:
                options = [one for one in domain.values if one in (spec.image_size[0], list(spec.image_size))]
                value = options[0] if domain.kind == "choice" and options else spec.image_size[0]
            if value is None or not domain.holds(value):
                return None
            point[name] = value
        return point

    def _normalization(self, spec: RunSpec, domain: Domain) -> Any:
        """The value of the axis that gives a run its input: several may."""
        takes = self._signatures(spec.backend, spec.model).normalization
        if takes is None or spec.backbone is None:
            return None
        return next(
            (v for v in domain.values if input_of(spec.backbone, spec.weights, v, takes) == spec.normalization), None
        )

    def holds(self, point: Point) -> bool:
        """Whether a point lies in the space as it is now."""
        return point.keys() == self.domains.keys() and all(d.holds(point[n]) for n, d in self.domains.items())


def _some(axes: Mapping[str, Sequence[Any]]) -> Iterable[dict[str, Any]]:
    """Points with all combinations of `STRUCTURAL`, in which every value of every axis occurs."""
    draw = random.Random(0)
    structure = {name: values for name, values in axes.items() if name in STRUCTURAL}
    rest = {name: values for name, values in axes.items() if name not in STRUCTURAL}
    combinations = list(itertools.product(*structure.values()))
    if len(combinations) > MOST:
        combinations = draw.sample(combinations, MOST)
    for combination in combinations:
        fixed = dict(zip(structure, combination, strict=True))
        if not rest:
            yield fixed
        for name, values in rest.items():
            for value in values:
                yield {**fixed, **{axis: draw.choice(found) for axis, found in rest.items()}, name: value}
