"""The one list of axes that more than one part of the project knows by name.

Every constructor parameter of a model is an axis without an entry here. The plan, the search, the sheet and the page
read this list; only the code that implements an axis names it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Axis:
    """One axis of a grid.

    Attributes:
        name: the key in `grid:`.
        parameter: whether the axis is a parameter of the model's constructor.
        structural: whether a model may lack the axis, or a network the value. A search looks at all combinations of
            structural axes, and only `choice` may vary them.
        set_valued: whether one value is a list, so that `[a, b]` is one value and not two.
        sides: whether a value is a number of pixels or [height, width].
        column: whether a record has a column of that name in every table.
        bare: whether a label shows the value without the name.
        of_the_run: whether a run has the axis although no constructor takes it, so that its record names the axis.
    """

    name: str
    parameter: bool = True
    structural: bool = True
    set_valued: bool = False
    sides: bool = False
    column: bool = True
    bare: bool = False
    of_the_run: bool = False

    def shown(self, value: Any) -> Any:
        """A value of a record as one cell: layer2+layer3, 256x192."""
        if not isinstance(value, list | tuple):
            return value
        return ("x" if self.sides else "+").join(str(item) for item in value) or None

    def number(self, value: Any) -> float | None:
        """A value as a number for a plot: of a square image its side; None where the value is no number."""
        if self.sides and isinstance(value, list | tuple):
            value = value[0] if len(set(value)) == 1 else None
        return value if isinstance(value, int | float) and not isinstance(value, bool) else None


# In the order of the sheet's columns.
AXES: tuple[Axis, ...] = (
    Axis("model", parameter=False),
    Axis("backend", parameter=False, bare=True),
    Axis("backbone", bare=True),
    Axis("layers", set_valued=True, bare=True),
    Axis("image_size", parameter=False, sides=True, of_the_run=True),
    # Its column is the one of the values that the network got; see `harness.report.facts.normalization`.
    Axis("normalization", column=False, of_the_run=True),
    Axis("arcface_classes", structural=False, set_valued=True, column=False),
)
NORMALIZATION = "normalization"
COLUMNS = tuple(axis.name for axis in AXES if axis.column)
SET_VALUED = frozenset(axis.name for axis in AXES if axis.set_valued)
STRUCTURAL = tuple(axis.name for axis in AXES if axis.structural)
# Axes whose value is one of several names or sets, and never a number in a range.
CHOICES = frozenset((*STRUCTURAL, *SET_VALUED))
# Axes whose one value may be written as a list.
LISTS = frozenset(axis.name for axis in AXES if axis.set_valued or axis.sides)
OF_THE_RUN = frozenset(axis.name for axis in AXES if axis.of_the_run)
NOT_PARAMETERS = tuple(axis.name for axis in AXES if not axis.parameter)


def columns(spec: Mapping[str, Any]) -> dict[str, Any]:
    """The cells of a spec's axes, by column, in the order of the sheet."""
    return {axis.name: axis.shown(spec[axis.name]) for axis in AXES if axis.column}
