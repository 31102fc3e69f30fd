"""SweepConfig -> Plan: a pure function expands the grid to the specs of all runs."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from harness.backends.base import Signature
from harness.common.errors import ConfigError, nearest
from harness.config.axes import NORMALIZATION, NOT_PARAMETERS, TRAINING_LIMITS
from harness.config.spec import RunSpec
from harness.config.sweep import SweepConfig
from harness.planning.specs import ELSEWHERE, Idle, SpecBuilder

# (backend, model) -> the parameters of the model.
Signatures = Callable[[str, str], Signature]


@dataclass(frozen=True)
class Plan:
    """The runs of a sweep.

    Attributes:
        specs: distinct specs, in the order of execution.
        points: number of points in the grid, with duplicates.
        entries: the mapping of the grid that each spec belongs to, such as grid[2]; for messages.
    """

    specs: tuple[RunSpec, ...]
    points: int
    entries: Mapping[RunSpec, str] = field(default_factory=dict)

    @property
    def collapsed(self) -> int:
        """Number of points with the same run as another point."""
        return self.points - len(self.specs)


def make_plan(
    config: SweepConfig, categories: Sequence[str], signatures: Signatures, backend: str = "anomalib"
) -> Plan:
    """Expand the grid: categories x mappings x axes x seeds.

    Parameters without an axis get the model's defaults, so that equal points have equal specs. An axis may have an
    effect in some configurations of a mapping only. Then points that differ in this axis alone are merged.

    Args:
        config: a valid config.
        categories: of the data.
        signatures: function from a backend and a model to the model's parameters.
        backend: default of the axis `backend`.

    Raises:
        ConfigError: the grid has unknown models or parameters, values of the wrong type, or axes without any effect.
    """
    problems: dict[str, None] = {}
    specs: dict[RunSpec, str] = {}
    points, trained, builder = 0, False, SpecBuilder(config)
    for position, mapping in enumerate(map(config.with_axes, config.grid)):
        entry = f"grid[{position}]" if len(config.grid) > 1 else "grid"
        try:
            of_mapping = usable(entry, mapping, signatures, backend)
        except ConfigError as error:
            problems |= dict.fromkeys(error.problems)
            continue
        idle = Idle(mapping)
        for category, point, seed in itertools.product(categories, list(points_of(mapping)), config.seeds):
            points += 1
            signature = of_mapping[point.setdefault("backend", backend), point["model"]]
            trained = trained or signature.trainer
            try:
                specs.setdefault(builder.build(signature, point, category, seed, idle), entry)
            except ConfigError as error:
                problems |= dict.fromkeys(
                    with_model(f"{entry}.{problem}", signature.name, mapping["model"]) for problem in error.problems
                )
        problems |= dict.fromkeys(f"{entry}.{problem}" for problem in idle.problems())
    if config.grid and not trained and not problems:
        problems |= dict.fromkeys(untrained(config))
    if problems:
        raise ConfigError(list(problems))
    order = {category: index for index, category in enumerate(categories)}
    return Plan(tuple(sorted(specs, key=lambda spec: order[spec.category])), points, specs)


def with_model(problem: str, model: str, models: Collection[str]) -> str:
    """Add the model to the sentence of a problem, where several models are possible.

    Args:
        problem: the sentence.
        model: the model with the problem.
        models: all models of the mapping.
    """
    if len(models) < 2 or model.lower() in problem.lower():
        return problem
    return f"{problem.rstrip('.')} (model {model})."


def untrained(config: SweepConfig) -> list[str]:
    """The first problem of `trainer:` in a sweep without any training by Lightning."""
    unused = [key for key in config.trainer if key not in TRAINING_LIMITS]
    names = " and ".join(TRAINING_LIMITS)
    problem = f"found, but no run is trained by Lightning; expected at most {names}. Remove the key."
    return [f"trainer.{key}: {problem}" for key in unused[:1]]


def points_of(mapping: Mapping[str, Sequence[Any]]) -> Iterator[dict[str, Any]]:
    """All combinations of the axes' values."""
    for values in itertools.product(*mapping.values()):
        yield dict(zip(mapping, values, strict=True))


def usable(
    entry: str, mapping: Mapping[str, Sequence[Any]], signatures: Signatures, default: str
) -> dict[tuple[str, str], Signature]:
    """Find the parameters of each model of a mapping, and check the names of the axes.

    Args:
        entry: place of the mapping in the config, for messages.
        mapping: the values of each axis.
        signatures: function from a backend and a model to the model's parameters.
        default: the backend of a mapping without the axis `backend`.

    Returns:
        (backend, model) -> parameters of the model.

    Raises:
        ConfigError: a model is unknown, or no model has a parameter of an axis's name.
    """
    problems: list[str] = []
    by_model: dict[tuple[str, str], Signature] = {}
    for backend, model in itertools.product(mapping.get("backend", [default]), mapping["model"]):
        try:
            by_model[backend, model] = signatures(backend, model)
        except ConfigError as error:
            problems += [f"{entry}.{problem}" for problem in error.problems]
    parameters = {parameter for signature in by_model.values() for parameter in signature.parameters}
    models = sorted({signature.name for signature in by_model.values()})
    if any(signature.normalization for signature in by_model.values()):
        parameters.add(NORMALIZATION)
    elif NORMALIZATION in mapping and by_model:
        problems.append(f"{entry}.{NORMALIZATION}: {' and '.join(models)} keeps its own input; expected no such axis.")
    for axis in mapping:
        if axis in NOT_PARAMETERS or problems:
            continue
        if axis in ELSEWHERE and (axis not in parameters or any(signature.trainer for signature in by_model.values())):
            problems.append(f"{entry}.{axis}: not an axis; {ELSEWHERE[axis]}.")
        elif axis not in parameters:
            names = sorted({*parameters, *NOT_PARAMETERS} - set(ELSEWHERE))
            near = nearest(axis, names)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            listed = f"{hint} Known: {', '.join(names)}."
            problems.append(f"{entry}.{axis}: {' or '.join(models)} has no such parameter.{listed}")
    if problems:
        raise ConfigError(problems)
    return by_model
