"""The effect of each axis on the page: values of a configuration, and the series that it belongs to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from harness.config.axes import AXES, COLUMNS, Axis
from harness.report.configurations import Configuration, axis_values, facts, key_without

Effects = list[dict[str, dict[str, Any]]]


def varying_axes(points: Sequence[Configuration], parameters: Sequence[str]) -> list[str]:
    """Axes with several different values, in the order of the sheet.

    Args:
        points: the configurations.
        parameters: of the models, which the grid sets.
    """
    values = [axis_values(configuration.first, parameters) for configuration in points]
    return [
        axis for axis in (*COLUMNS, *parameters) if len({str(one[axis]) for one in values if one[axis] is not None}) > 1
    ]


def effects(points: Sequence[Configuration], axes: Sequence[str], parameters: Sequence[str]) -> Effects:
    """The place of each configuration in the figure of each axis.

    Args:
        points: the configurations.
        axes: of `varying_axes`.
        parameters: of the models, which the grid sets.

    Returns:
        For each configuration, by axis, `value` (a number or a text) and `series`. Configurations of one series differ
        only in the axis, and in values that follow from it. An axis that a configuration lacks is missing.
    """
    series: dict[tuple[str, str], int] = {}
    places: Effects = []
    for configuration in points:
        values, its_facts = _values(configuration, parameters), facts(configuration.first)
        places.append(
            {
                axis: {
                    "value": values[axis],
                    "series": series.setdefault((axis, key_without(its_facts, axis)), len(series)),
                }
                for axis in axes
                if values[axis] is not None
            }
        )
    return places


def _values(configuration: Configuration, parameters: Sequence[str]) -> dict[str, Any]:
    """The values of a configuration by axis: numbers where possible, and texts."""
    spec, values = configuration.first.spec, axis_values(configuration.first, parameters)
    raw = {axis.name: (axis, spec[axis.name]) for axis in AXES if axis.column}
    raw |= {name: (Axis(name), spec["params"].get(name)) for name in parameters}
    numbers = {name: axis.number(value) for name, (axis, value) in raw.items()}
    return {name: value if numbers.get(name) is None else numbers[name] for name, value in values.items()}
