"""SweepConfig -> RunSpecs: one pure function expands the grid; everything after it is a list."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite
from typing import Any

from harness.backbones.normalization import BACKBONE, input_of
from harness.backends.base import Signature
from harness.common.errors import ConfigError, HarnessError, nearest
from harness.config.axes import NORMALIZATION, NOT_PARAMETERS, RECORDED
from harness.config.spec import RunSpec, freeze_items
from harness.config.sweep import SweepConfig

# (backend, model) -> what the model takes.
Signatures = Callable[[str, str], Signature]

EPOCHS = "max_epochs"
# Set elsewhere in the config, so an axis of that name is a slip.
ELSEWHERE = {
    "pre_trained": "`weights:` says which weights the backbone gets",
    "seed": "use `seeds:` at the top level",
    "seeds": "use `seeds:` at the top level",
    "category": "use `data.category`",
    "max_epochs": "use `trainer: {max_epochs: ...}` at the top level",
    "weights": "use `weights:` at the top level",
    "pre_processor": "use the axes `image_size` and `normalization`",
    "post_processor": "the harness computes from raw scores; anomalib's own figures stand beside",
    "evaluator": "the harness measures all models alike",
    "visualizer": "heatmaps are written to the run's folder",
}


@dataclass(frozen=True)
class Plan:
    """The runs of a sweep.

    Attributes:
        specs: in the order they will run, each once.
        points: how many points the grid has, before equal ones were merged.
        entries: where in the grid each spec is from, such as grid[2]; for messages.
    """

    specs: tuple[RunSpec, ...]
    points: int
    entries: Mapping[RunSpec, str] = field(default_factory=dict)

    @property
    def collapsed(self) -> int:
        """How many points turned out to be the same run as another."""
        return self.points - len(self.specs)


def make_plan(
    config: SweepConfig, categories: Sequence[str], signatures: Signatures, backend: str = "anomalib"
) -> Plan:
    """Expand the grid: categories x mappings x axes x seeds.

    An axis that a model has no use for is an error where the mapping names that model alone, and collapses where it
    spans several models. Parameters not named get the model's defaults, so that equal points are seen to be equal.

    Raises:
        ConfigError: unknown models or parameters, and values of the wrong type, all at once.
    """
    problems: dict[str, None] = {}
    specs: dict[RunSpec, str] = {}
    points, trained = 0, False
    for position, mapping in enumerate(config.grid):
        where = f"grid[{position}]" if len(config.grid) > 1 else "grid"
        try:
            known = usable(where, mapping, signatures, backend)
        except ConfigError as error:
            problems |= dict.fromkeys(error.problems)
            continue
        idle = Idle(mapping)
        for category, point, seed in itertools.product(categories, list(points_of(mapping)), config.seeds):
            points += 1
            signature = known[point.setdefault("backend", backend), point["model"]]
            trained = trained or signature.trainer
            try:
                specs.setdefault(spec_of(config, signature, point, category, seed, idle), where)
            except ConfigError as error:
                problems |= dict.fromkeys(
                    named(f"{where}.{problem}", signature.name, mapping["model"]) for problem in error.problems
                )
        problems |= dict.fromkeys(f"{where}.{problem}" for problem in idle.problems())
    if config.grid and not trained and not problems:
        problems |= dict.fromkeys(untrained(config))
    if problems:
        raise ConfigError(list(problems))
    order = {category: index for index, category in enumerate(categories)}
    return Plan(tuple(sorted(specs, key=lambda spec: order[spec.category])), points, specs)


def named(problem: str, model: str, models: Collection[str]) -> str:
    """A problem with its model, where others stand beside it and the sentence does not name it."""
    if len(models) < 2 or model.lower() in problem.lower():
        return problem
    return f"{problem.rstrip('.')} (model {model})."


def untrained(config: SweepConfig) -> list[str]:
    """Of keys for Lightning's Trainer, where no run is trained by it, a sentence about the first."""
    unused = [key for key in config.trainer if key != EPOCHS]
    said = "found, but no run is trained by Lightning; expected at most"
    return [f"trainer.{key}: {said} {EPOCHS}." for key in unused[:1]]


class Idle:
    """Axes of a mapping that no point of it uses: a slip. One that some points use collapses in the others."""

    def __init__(self, mapping: Mapping[str, Sequence[Any]]) -> None:
        self._mapping = mapping
        self._why: dict[str, str] = {}
        self._used: set[str] = set()

    def note(self, given: Mapping[str, Any], unused: Mapping[str, str], defaults: Mapping[str, Any]) -> None:
        """Of one point: what it was given, and what of that has no effect."""
        for axis, value in given.items():
            if axis in unused and value != defaults[axis]:
                self._why[axis] = unused[axis]
            elif axis not in unused:
                self._used.add(axis)

    def problems(self) -> list[str]:
        """A sentence each."""
        return [
            f"{axis}: {', '.join(map(str, self._mapping[axis]))} found, which nothing uses here; expected {why}, or "
            "it left out."
            for axis, why in self._why.items()
            if axis not in self._used
        ]


def points_of(mapping: Mapping[str, Sequence[Any]]) -> Iterator[dict[str, Any]]:
    """Every combination of the axes' values."""
    for values in itertools.product(*mapping.values()):
        yield dict(zip(mapping, values, strict=True))


def usable(
    where: str, mapping: Mapping[str, Sequence[Any]], signatures: Signatures, default: str
) -> dict[tuple[str, str], Signature]:
    """What each (backend, model) of a mapping takes.

    Raises:
        ConfigError: unknown models, and axes that none of them takes.
    """
    problems: list[str] = []
    found: dict[tuple[str, str], Signature] = {}
    for backend, model in itertools.product(mapping.get("backend", [default]), mapping["model"]):
        try:
            found[backend, model] = signatures(backend, model)
        except ConfigError as error:
            problems += [f"{where}.{problem}" for problem in error.problems]
    known = {parameter for signature in found.values() for parameter in signature.parameters}
    if any(signature.normalization for signature in found.values()):
        known.add(NORMALIZATION)
    elif NORMALIZATION in mapping and found:
        models = " and ".join(sorted({signature.name for signature in found.values()}))
        problems.append(f"{where}.{NORMALIZATION}: {models} keeps its own input; expected it left out.")
    for axis in mapping:
        if axis in NOT_PARAMETERS or problems:
            continue
        if axis in ELSEWHERE and (axis not in known or any(signature.trainer for signature in found.values())):
            problems.append(f"{where}.{axis}: not an axis; {ELSEWHERE[axis]}.")
        elif axis not in known:
            near = nearest(axis, {*known, *NOT_PARAMETERS} - set(ELSEWHERE))
            hint = f" Did you mean {near[0]!r}?" if near else ""
            models = " or ".join(sorted({signature.name for signature in found.values()}))
            takes = ", ".join(sorted({*known, *NOT_PARAMETERS} - set(ELSEWHERE)))
            problems.append(f"{where}.{axis}: {models} has no such parameter.{hint} Known: {takes}.")
    if problems:
        raise ConfigError(problems)
    return found


def _is_own(axis: str, signature: Signature) -> bool:
    """Whether a name is the model's own parameter, and not one that is set elsewhere."""
    return axis in signature.parameters and not (axis in ELSEWHERE and signature.trainer)


def spec_of(
    config: SweepConfig, signature: Signature, point: Mapping[str, Any], category: str, seed: int, idle: Idle
) -> RunSpec:
    """The run of one point, category and seed; what is given and has no effect is noted with `idle`.

    Raises:
        ConfigError: values that the model can't have.
    """
    parameters = {key: value for key, value in signature.parameters.items() if _is_own(key, signature)}
    given = {axis: value for axis, value in point.items() if axis in parameters}
    defaults = {key: value for key, value in parameters.items() if value is not None}
    if EPOCHS in parameters and EPOCHS in config.trainer:
        # One place says how long models are trained, whoever trains them; an axis may say otherwise.
        defaults[EPOCHS] = config.trainer[EPOCHS]
    values: dict[str, Any] = {}
    problems: list[str] = []
    for key, value in {**defaults, **given}.items():
        try:
            values[key] = _typed(key, value, parameters[key])
        except ConfigError as error:
            problems += error.problems
    if problems:
        raise ConfigError(problems)
    unused = signature.unused(values)
    idle.note({axis: values[axis] for axis in given}, unused, parameters)
    # Points that differ in what has no effect are one run.
    values |= {name: parameters[name] for name in unused}
    backbone = values.pop("backbone", None)
    normalization = None
    if signature.normalization is not None and isinstance(backbone, str):
        asked = point.get(NORMALIZATION, BACKBONE)
        normalization = input_of(backbone, config.weights, asked, signature.normalization)
    layers = values.pop("layers", None)
    if isinstance(layers, str | int):
        layers = [layers]
    named = [layer for layer in parameters.get("layers") or [] if isinstance(layer, str)]
    if "layers" not in given and isinstance(backbone, str) and backbone != parameters.get("backbone"):
        layers = _default_layers(backbone, layers)
    if layers is not None and named and not all(isinstance(layer, str) for layer in layers):
        raise ConfigError(f"layers: found {list(layers)}, expected names such as {', '.join(named)}.")
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
        threshold=freeze_items(config.threshold.policy()) if config.task == "detection" else (),
        aupro_limit=config.aupro_limit if config.task == "detection" else None,
        normalization=normalization,
        axes=tuple(axis for axis in point if axis in given or axis in RECORDED),
    )


def _default_layers(backbone: str, names: Any) -> Any:
    """A method's default layers, in a network that may call them otherwise."""
    if not isinstance(names, list | tuple) or not all(isinstance(name, str) for name in names):
        return names
    from harness.backbones.layers import default_layers

    try:
        return default_layers(backbone, names)
    except HarnessError:
        # No such network, or none with feature maps: said where backbones are checked.
        return names


def _size(value: int | list[int] | None) -> tuple[int, int] | None:
    if value is None:
        return None
    return (value, value) if isinstance(value, int) else (value[0], value[1])


def _typed(key: str, value: Any, default: Any) -> Any:
    """`value` checked against the type of the parameter's default; 1 becomes 1.0 where a float is meant."""
    if default is None:
        return value
    if isinstance(value, float) and not isfinite(value):
        raise ConfigError(f"{key}: found {value}, expected a finite number (the default is {default!r}).")
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if isinstance(default, bool):
        ok, expected = isinstance(value, bool), "true or false"
    elif isinstance(default, int):
        ok, expected = number and float(value).is_integer(), "a whole number"
    elif isinstance(default, float):
        ok, expected = number, "a number"
    elif isinstance(default, str):
        ok, expected = isinstance(value, str), "a name"
    elif isinstance(default, list | tuple):
        ok, expected = isinstance(value, list | tuple | str | float | int), "a list"
    else:
        return value
    if not ok:
        raise ConfigError(f"{key}: found {value!r}, expected {expected} (the default is {default!r}).")
    if number and isinstance(default, float):
        return float(value)
    return int(value) if number and isinstance(default, int) else value
