"""Recipes: values of a training that fit the number of its images and epochs.

A recipe sets the settings that the grid leaves open. `python -m benchmarks recipes` compares the recipe of small tasks
with a plain script.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from harness.backends.supervised.settings import DEFAULTS, Settings, unused
from harness.common.errors import ConfigError, nearest
from harness.config.spec import RunSpec, freeze_items
from harness.data.labelled.base import LabelledSplit

EPOCHS = 10  # default of trainer.max_epochs
KEY = "recipe"
DESCRIPTION = "values of a training that the grid leaves open; see [recipes](classification.md#recipes)"
AUTO, NONE = "auto", "none"
# A training is small up to this number of drawn images (images x epochs).
SMALL_UP_TO = 6_000

# With few images and steps, a high learning rate and full balance reach rare labels at all. An average of the weights
# lags behind such a training, and costs time.
RECIPES: Mapping[str, Mapping[str, Any]] = {
    "small": {
        "optimizer": "adamw",
        "lr": 4e-3,
        "weight_decay": 2e-2,
        "weight_decay_on": "weights",
        "schedule": "cosine",
        "warmup_epochs": 1,
        "label_smoothing": 0.1,
        "balance": "sampler",
        "balance_strength": 1.0,
        "augment": "flips",
        "average": "none",
    },
    "medium": {
        "optimizer": "adamw",
        "lr": 2e-3,
        "weight_decay": 2e-2,
        "weight_decay_on": "weights",
        "schedule": "cosine",
        "warmup_epochs": 1,
        "label_smoothing": 0.1,
        "balance": "sampler",
        "balance_strength": 0.5,
        "augment": "flips",
        "average": "ema",
    },
    "long": {
        "optimizer": "adamw",
        "lr": 1e-3,
        "weight_decay": 2e-2,
        "weight_decay_on": "weights",
        "schedule": "cosine",
        "warmup_epochs": 3,
        "label_smoothing": 0.1,
        "balance": "sampler",
        "balance_strength": 0.5,
        "augment": "flips",
        "average": "ema",
    },
}
KEYS = tuple(RECIPES["small"])
CHOICES = (AUTO, NONE, *RECIPES)


def defaults(values: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the defaults of a point of the grid, without the settings that a recipe will set.

    Without the key `recipe`, a point that sets any value of a recipe itself has none. So configurations of earlier
    versions keep their results.

    Args:
        values: the values that the grid sets.

    Raises:
        ConfigError: there is no such recipe.
    """
    name = values.get(KEY, NONE if any(key in values for key in KEYS) else AUTO)
    if name not in CHOICES:
        near = nearest(str(name), CHOICES)
        hint = f" Did you mean {near[0]}?" if near else ""
        raise ConfigError(f"{KEY}: found {name!r}, expected one of {', '.join(CHOICES)}.{hint}")
    excluded = () if name == NONE else KEYS
    return {key: value for key, value in DEFAULTS.items() if key not in excluded} | {KEY: name}


def without_effect(values: Mapping[str, Any], model: str) -> dict[str, str]:
    """Return the settings without an effect, see `settings.unused`; with a recipe, those without one in each recipe.

    Args:
        values: the values of a point.
        model: baseline or one_class.
    """
    candidates = _candidates(values.get(KEY, NONE))
    by_recipe = [unused({**recipe, **values}, model) for recipe in candidates]
    return {key: text for key, text in by_recipe[0].items() if key in values and all(key in one for one in by_recipe)}


def _candidates(name: str) -> list[Mapping[str, Any]]:
    if name == AUTO:
        return [RECIPES["small"], {}]
    return [RECIPES.get(name, MappingProxyType({}))]


def chosen(name: str, images: int, epochs: int) -> str:
    """Return the name of the recipe of a training.

    `auto` takes `small` for few drawn images, and none for more: the other recipes are not measured.

    Args:
        name: the value of `recipe`.
        images: training images of the smallest fold.
        epochs: number of epochs.
    """
    if name != AUTO:
        return name
    return "small" if images * epochs <= SMALL_UP_TO else NONE


def with_recipe(spec: RunSpec, images: int, epochs: int) -> tuple[RunSpec, dict[str, Any]]:
    """Return the spec with the values of its recipe, and a description for the record.

    Values of the grid win. A warm-up is shorter than the training.

    Args:
        spec: the run.
        images: training images of the smallest fold.
        epochs: number of epochs.

    Returns:
        The spec without the key `recipe`. The description: `name`, `asked` and the applied `values`; empty without a
        recipe.
    """
    params = spec.parameters
    choice = params.pop(KEY, NONE)
    name = chosen(choice, images, epochs)
    if name == NONE:
        return dataclasses.replace(spec, params=freeze_items(params)), {}
    recipe = dict(RECIPES[name])
    recipe["warmup_epochs"] = min(recipe["warmup_epochs"], epochs - 1)
    complete = {**recipe, **params}
    # A value of the grid may leave another value of the recipe without an effect.
    idle = unused(complete, spec.model)
    values = {key: value for key, value in recipe.items() if key not in params and key not in idle}
    return dataclasses.replace(spec, params=freeze_items({**params, **values})), {
        "name": name,
        "asked": choice,
        "images": images,
        "epochs": epochs,
        "values": values,
    }


def settings_of(spec: RunSpec, split: LabelledSplit) -> tuple[Settings, dict[str, Any]]:
    """Return the checked settings of a run with the values of its recipe, and the description of `with_recipe`.

    Args:
        spec: the run.
        split: its data.

    Raises:
        ConfigError: values are invalid or exclude each other.
    """
    epochs = dict(spec.trainer).get("max_epochs", EPOCHS)
    # Another check reports epochs that are no number from 1.
    epochs = max(1, epochs) if isinstance(epochs, int) else EPOCHS
    images = min(len(split.train_indices(fold)) for fold in split.run_folds)
    complete, description = with_recipe(spec, images, epochs)
    return Settings.of(complete), description
