"""SweepConfig -> RunSpecs: a pure function expands the grid to a list of runs."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite
from typing import Any

from harness import registry
from harness.backbones.normalization import BACKBONE, input_of
from harness.backends.base import Signature
from harness.common.errors import ConfigError, HarnessError, nearest
from harness.config.axes import NORMALIZATION, NOT_PARAMETERS, RECORDED
from harness.config.spec import RunSpec, freeze_items
from harness.config.sweep import SweepConfig

# (backend, model) -> the parameters of the model.
Signatures = Callable[[str, str], Signature]

EPOCHS = "max_epochs"
# Names that are not axes, since other keys of the config set their values.
ELSEWHERE = {
    "pre_trained": "`weights:` says which weights the backbone gets",
    "seed": "use `seeds:` at the top level",
    "seeds": "use `seeds:` at the top level",
    "category": "use `data.category`",
    "max_epochs": "use `trainer: {max_epochs: ...}` at the top level",
    "weights": "use `weights:` at the top level",
    "pre_processor": "use the axes `image_size` and `normalization`",
    "post_processor": "the harness evaluates raw scores, and shows anomalib's own metrics in extra columns",
    "evaluator": "the harness evaluates all models with the same metrics",
    "visualizer": "the harness writes heatmaps into the run's folder",
}


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
    points, trained = 0, False
    for position, mapping in enumerate(config.grid):
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
                specs.setdefault(spec_of(config, signature, point, category, seed, idle), entry)
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
    unused = [key for key in config.trainer if key != EPOCHS]
    problem = f"found, but no run is trained by Lightning; expected at most {EPOCHS}. Remove the key."
    return [f"trainer.{key}: {problem}" for key in unused[:1]]


class Idle:
    """Axes without an effect. Such an axis is an error where the axis has no effect in all points of a mapping.

    Args:
        mapping: the values of each axis.
    """

    def __init__(self, mapping: Mapping[str, Sequence[Any]]) -> None:
        self._mapping = mapping
        self._conditions: dict[str, str] = {}
        self._used: set[str] = set()

    def note(self, values: Mapping[str, Any], unused: Mapping[str, str], defaults: Mapping[str, Any]) -> None:
        """Add one point.

        Args:
            values: values of the point by axis.
            unused: axes without an effect in this point, with the condition of an effect.
            defaults: the model's defaults by axis.
        """
        for axis, value in values.items():
            if axis in unused and value != defaults[axis]:
                self._conditions[axis] = unused[axis]
            elif axis not in unused:
                self._used.add(axis)

    def problems(self) -> list[str]:
        """One sentence for each axis without an effect in all points."""
        return [
            f"{axis}: {', '.join(map(str, self._mapping[axis]))} found, which has no effect here; expected "
            f"{condition}. Otherwise remove the axis."
            for axis, condition in self._conditions.items()
            if axis not in self._used
        ]


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


def _is_axis(name: str, signature: Signature) -> bool:
    """Whether a parameter of the model may be an axis, so that no other key of the config sets the parameter."""
    return name in signature.parameters and not (name in ELSEWHERE and signature.trainer)


def spec_of(
    config: SweepConfig, signature: Signature, point: Mapping[str, Any], category: str, seed: int, idle: Idle
) -> RunSpec:
    """The spec of one run.

    Args:
        config: of the sweep.
        signature: parameters of the model.
        point: one value for each axis.
        category: of the data.
        seed: of the run.
        idle: collects axes without an effect.

    Raises:
        ConfigError: the model can't have one of the values.
    """
    parameters = {key: value for key, value in signature.parameters.items() if _is_axis(key, signature)}
    of_point = {axis: value for axis, value in point.items() if axis in parameters}
    defaults = {key: value for key, value in parameters.items() if value is not None}
    if EPOCHS in parameters and EPOCHS in config.trainer:
        # `trainer:` sets the epochs of all models, also of models without Lightning, unless there is an axis.
        defaults[EPOCHS] = config.trainer[EPOCHS]
    values: dict[str, Any] = {}
    problems: list[str] = []
    for key, value in {**defaults, **of_point}.items():
        try:
            values[key] = _typed(key, value, parameters[key])
        except ConfigError as error:
            problems += error.problems
    if problems:
        raise ConfigError(problems)
    unused = signature.unused(values)
    idle.note({axis: values[axis] for axis in of_point}, unused, parameters)
    # Points that differ only in parameters without an effect are one run.
    values |= {name: parameters[name] for name in unused}
    backbone = values.pop("backbone", None)
    normalization = None
    if signature.normalization is not None and isinstance(backbone, str):
        option = point.get(NORMALIZATION, BACKBONE)
        normalization = input_of(backbone, config.weights, option, signature.normalization)
    layers = values.pop("layers", None)
    if isinstance(layers, str | int):
        layers = [layers]
    names = [layer for layer in parameters.get("layers") or [] if isinstance(layer, str)]
    if "layers" not in of_point and isinstance(backbone, str) and backbone != parameters.get("backbone"):
        layers = _default_layers(backbone, layers)
    if layers is not None and names and not all(isinstance(layer, str) for layer in layers):
        raise ConfigError(f"layers: found {list(layers)}, expected names such as {', '.join(names)}.")
    if layers is not None and len(set(layers)) < len(layers):
        raise ConfigError(f"layers: expected each layer once; found {list(layers)}.")
    return RunSpec(
        backend=point["backend"],
        model=signature.name,
        backbone=backbone,
        layers=tuple(layers) if layers is not None else None,
        image_size=_size(point.get("image_size")),
        params=freeze_items(values),
        seed=seed,
        data_kind=config.data.kind,
        category=category,
        weights=config.weights,
        trainer=freeze_items(config.trainer) if signature.trainer else (),
        train_batch_size=config.data.train_batch_size,
        eval_batch_size=config.data.eval_batch_size,
        **registry.load(registry.TASKS[config.task])().spec_fields(config),
        normalization=normalization,
        axes=tuple(axis for axis in point if axis in of_point or axis in RECORDED),
    )


def _default_layers(backbone: str, names: Any) -> Any:
    """A model's default layers, by their names in another network."""
    if not isinstance(names, list | tuple) or not all(isinstance(name, str) for name in names):
        return names
    from harness.backbones.layers import default_layers

    try:
        return default_layers(backbone, names)
    except HarnessError:
        # The check of backbones reports an unknown network, and a network without feature maps.
        return names


def _size(value: int | list[int] | None) -> tuple[int, int] | None:
    if value is None:
        return None
    return (value, value) if isinstance(value, int) else (value[0], value[1])


def _typed(key: str, value: Any, default: Any) -> Any:
    """A value with the type of the parameter's default: 1 becomes 1.0 for a float."""
    if default is None:
        return value
    if isinstance(value, float) and not isfinite(value):
        raise ConfigError(f"{key}: found {value}, expected a finite number (the default is {default!r}).")
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if isinstance(default, bool):
        valid, expected = isinstance(value, bool), "true or false"
    elif isinstance(default, int):
        valid, expected = is_number and float(value).is_integer(), "a whole number"
    elif isinstance(default, float):
        valid, expected = is_number, "a number"
    elif isinstance(default, str):
        valid, expected = isinstance(value, str), "a name"
    elif isinstance(default, list | tuple):
        valid, expected = isinstance(value, list | tuple | str | float | int), "a list"
    else:
        return value
    if not valid:
        raise ConfigError(f"{key}: found {value!r}, expected {expected} (the default is {default!r}).")
    if is_number and isinstance(default, float):
        return float(value)
    return int(value) if is_number and isinstance(default, int) else value
