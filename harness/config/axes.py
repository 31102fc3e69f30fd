"""The list of axes with a special meaning.

Every constructor parameter of a model is an axis without an entry here. The plan, the search, the sheet and the page
read this list. Only the code that implements an axis uses its name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

# Arguments of Lightning's Trainer that end a training. `trainer:` also sets the parameters of these names.
TRAINING_LIMITS = ("max_epochs", "max_steps")


@dataclass(frozen=True)
class Axis:
    """One axis of a grid.

    Attributes:
        name: the key in `grid:`.
        parameter: whether the axis is a parameter of the model's constructor.
        structural: whether a model may lack the axis, or a network may lack a value. A search checks all combinations
            of structural axes, and only `choice` may vary such an axis.
        set_valued: whether one value is a list, so that `[a, b]` is one value and not two values.
        mapped: whether a value may be a mapping.
        sides: whether a value is a number of pixels or [height, width].
        column: whether every table has a column of this name.
        bare: whether a label shows the value without the name.
        recorded: whether records list the axis, although no constructor has such a parameter.
        implies: beginnings of the names of facts that follow from the value. Each model has its own parameters, for
            example, so a comparison of models can't keep them equal.
        default_axis: the axis whose value counts for a run without a value of its own; empty for none.
        default: of an axis that a spec leaves out at its default.
    """

    name: str
    parameter: bool = True
    structural: bool = True
    set_valued: bool = False
    mapped: bool = False
    sides: bool = False
    column: bool = True
    bare: bool = False
    recorded: bool = False
    implies: tuple[str, ...] = ()
    default_axis: str = ""
    default: Any = None

    def shown(self, value: Any) -> Any:
        """Convert a value of a record to one cell, such as layer2+layer3 or 256x192."""
        if self.sides and isinstance(value, int):
            value = [value, value]
        if not isinstance(value, list | tuple):
            return value
        return ("x" if self.sides else "+").join(str(item) for item in value) or None

    def number(self, value: Any) -> float | None:
        """Convert a value to a number for a plot: a square image to its side, and every other list or text to None."""
        if self.sides and isinstance(value, list | tuple):
            value = value[0] if len(set(value)) == 1 else None
        return value if isinstance(value, int | float) and not isinstance(value, bool) else None


ALL_IMAGES = "all"
N_TRAIN, UNIFY = "n_train", "unify"
# In the order of the sheet's columns.
AXES: tuple[Axis, ...] = (
    Axis("model", parameter=False, implies=("params.", "trainer.", "layers")),
    Axis("backend", parameter=False, bare=True),
    Axis("backbone", bare=True, implies=("weights_", "normalization")),
    Axis("layers", set_valued=True, bare=True),
    Axis("image_size", parameter=False, sides=True, recorded=True),
    # The tables show mean and standard deviation instead; see `harness.report.facts.normalization`.
    Axis("normalization", mapped=True, column=False, recorded=True),
    Axis("arcface_classes", structural=False, set_valued=True, column=False),
    Axis("arcface_labels", structural=False, set_valued=True, column=False),
    Axis("only_classes", structural=False, set_valued=True, column=False),
    Axis("with_detector", structural=False, mapped=True, column=False),
    Axis("eval_image_size", structural=False, sides=True, column=False, default_axis="image_size"),
    Axis("tta", structural=False, mapped=True, column=False),
    Axis(N_TRAIN, parameter=False, structural=False, column=False, recorded=True, default=ALL_IMAGES),
    Axis(UNIFY, parameter=False, structural=False, column=False, recorded=True, default=False),
)
NORMALIZATION = "normalization"
SMALLEST_SIDE = 16  # pixels of an image
COLUMNS = tuple(axis.name for axis in AXES if axis.column)
SET_VALUED = frozenset(axis.name for axis in AXES if axis.set_valued)
SIDES = tuple(axis.name for axis in AXES if axis.sides)
MAPPED = frozenset(axis.name for axis in AXES if axis.mapped)
STRUCTURAL = tuple(axis.name for axis in AXES if axis.structural)
# Axes with names, sets or mappings as values, and never numbers in a range.
CHOICES = frozenset((*STRUCTURAL, *SET_VALUED, *MAPPED))
# Axes with a list as one value.
LISTS = frozenset(axis.name for axis in AXES if axis.set_valued or axis.sides)
RECORDED = frozenset(axis.name for axis in AXES if axis.recorded)
NOT_PARAMETERS = tuple(axis.name for axis in AXES if not axis.parameter)


def parameter(spec: Mapping[str, Any], name: str) -> Any:
    """The value of a parameter in a spec, or that of the axis that stands for a missing one.

    Args:
        spec: plain values of a run's spec.
        name: of the parameter.
    """
    axis = next((axis for axis in AXES if axis.name == name), Axis(name))
    value = (spec["params"] if axis.parameter else spec).get(name, axis.default)
    if not axis.sides:
        return value
    return axis.shown(spec[axis.default_axis] if value is None else value)


def columns(spec: Mapping[str, Any]) -> dict[str, Any]:
    """The cells of a spec's axes by column, in the order of the sheet."""
    return {axis.name: axis.shown(spec[axis.name]) for axis in AXES if axis.column}
