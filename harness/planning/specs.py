"""One point of the grid -> RunSpec: values with the types of the model's parameters, and axes without an effect."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isfinite
from typing import Any

from harness import registry
from harness.backbones.normalization import BACKBONE, Normalization, input_of
from harness.backends.base import Signature
from harness.common.errors import ConfigError, HarnessError
from harness.config.axes import ALL_IMAGES, MAPPED, N_TRAIN, NORMALIZATION, RECORDED, TRAINING_LIMITS, UNIFY
from harness.config.spec import Layers, RunSpec, freeze, freeze_items
from harness.config.sweep import SweepConfig

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


class SpecBuilder:
    """Builds the specs of a sweep. What many points share is computed once.

    Args:
        config: of the sweep.
    """

    def __init__(self, config: SweepConfig) -> None:
        self._config = config
        self._task = registry.load(registry.TASKS[config.task])()
        self._trainer = freeze_items(config.trainer)
        # By backend and model.
        self._task_fields: dict[tuple[str, str], dict[str, Any]] = {}
        self._inputs: dict[Any, Normalization | None] = {}

    def build(self, signature: Signature, point: Mapping[str, Any], category: str, seed: int, idle: Idle) -> RunSpec:
        """The spec of one run.

        Args:
            signature: parameters of the model.
            point: one value for each axis.
            category: of the data.
            seed: of the run.
            idle: collects axes without an effect.

        Raises:
            ConfigError: the model can't have one of the values.
        """
        config = self._config
        # Other keys of the config set the parameters in `ELSEWHERE` of a model that Lightning trains.
        excluded = ELSEWHERE if signature.trainer else {}
        parameters = {key: value for key, value in signature.parameters.items() if key not in excluded}
        of_point = {axis: value for axis, value in point.items() if axis in parameters}
        image_size = _size(point.get("image_size"))
        values = self._values(signature, parameters, of_point, image_size, idle)
        backbone = values.pop("backbone", None)
        layers = _layers(values.pop("layers", None), backbone, parameters, "layers" in of_point)
        return RunSpec(
            backend=point["backend"],
            model=signature.name,
            backbone=backbone,
            layers=layers,
            image_size=image_size,
            params=freeze_items(values),
            seed=seed,
            data_kind=config.data.kind,
            category=category,
            weights=config.weights,
            trainer=self._trainer if signature.trainer else (),
            train_batch_size=config.data.train_batch_size,
            eval_batch_size=config.data.eval_batch_size,
            **self._fields_of_task(point["backend"], signature),
            normalization=self._input(backbone, point, signature),
            n_train=None if (images := point.get(N_TRAIN, config.n_train[0])) == ALL_IMAGES else images,
            unify=bool(point.get(UNIFY, False)),
            axes=tuple(axis for axis in point if axis in of_point or axis in RECORDED),
        )

    def _values(
        self,
        signature: Signature,
        parameters: Mapping[str, Any],
        of_point: Mapping[str, Any],
        image_size: tuple[int, int] | None,
        idle: Idle,
    ) -> dict[str, Any]:
        """The values of the model's parameters. Points that differ only in parameters without an effect are one run."""
        # The training may choose the values of some parameters; these have no default here.
        of_model = parameters if signature.defaults is None else signature.defaults(of_point)
        defaults = {key: value for key, value in of_model.items() if value is not None}
        # `trainer:` sets the length of all trainings, also of models without Lightning, unless there is an axis.
        trainer = self._config.trainer
        defaults |= {name: trainer[name] for name in TRAINING_LIMITS if name in parameters and name in trainer}
        values: dict[str, Any] = {}
        problems: list[str] = []
        for key, value in {**defaults, **of_point}.items():
            try:
                values[key] = _typed(key, value, parameters[key])
            except ConfigError as error:
                problems += error.problems
        if problems:
            raise ConfigError(problems)
        values = dict(signature.canonical(values, image_size))
        unused = signature.unused(values)
        idle.note({axis: values[axis] for axis in of_point}, unused, parameters)
        values = {name: parameters[name] if name in unused else value for name, value in values.items()}
        for name, implied in signature.implied.items():
            if name in unused or (name in of_model and values.get(name) == implied):
                values.pop(name, None)
        return values

    def _fields_of_task(self, backend: str, signature: Signature) -> dict[str, Any]:
        key = (backend, signature.name)
        if key not in self._task_fields:
            self._task_fields[key] = self._task.spec_fields(self._config, signature)
        return self._task_fields[key]

    def _input(self, backbone: Any, point: Mapping[str, Any], signature: Signature) -> Normalization | None:
        """The normalization of the network's input; its computation reads folders and weights files."""
        if signature.normalization is None or not isinstance(backbone, str):
            return None
        option = point.get(NORMALIZATION, BACKBONE)
        key = (backbone, freeze(option), signature.normalization)
        if key not in self._inputs:
            self._inputs[key] = input_of(backbone, self._config.weights, option, signature.normalization)
        return self._inputs[key]


def _layers(layers: Any, backbone: Any, parameters: Mapping[str, Any], in_point: bool) -> Layers | None:
    """The names or numbers of a run's layers.

    Args:
        layers: the value of the parameter; None for a model without it.
        backbone: timm's name, where the model has one.
        parameters: of the model, with their defaults.
        in_point: whether the point of the grid sets the layers.
    """
    if isinstance(layers, str | int):
        layers = [layers]
    names = [layer for layer in parameters.get("layers") or [] if isinstance(layer, str)]
    of_another = not in_point and backbone != parameters.get("backbone")
    if isinstance(backbone, str) and (of_another or any(str(layer).endswith("%") for layer in layers or [])):
        layers = _default_layers(backbone, layers)
    if layers is None:
        return None
    if names and not all(isinstance(layer, str) for layer in layers):
        raise ConfigError(f"layers: found {list(layers)}, expected names such as {', '.join(names)}.")
    if len(set(layers)) < len(layers):
        raise ConfigError(f"layers: expected each layer once; found {list(layers)}.")
    return tuple(layers)


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
        if key in MAPPED:
            valid, expected = valid or isinstance(value, Mapping), "a name or a mapping"
    elif isinstance(default, list | tuple):
        valid, expected = isinstance(value, list | tuple | str | float | int), "a list"
    else:
        return value
    if not valid:
        raise ConfigError(f"{key}: found {value!r}, expected {expected} (the default is {default!r}).")
    if is_number and isinstance(default, float):
        return float(value)
    return int(value) if is_number and isinstance(default, int) else value
