"""Checked values: what the settings of a training and of a probe have in common."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Self

from harness.backbones.normalization import Normalization
from harness.common.errors import nearest

# Fields that are keys of a run, and no axes of a method.
OF_RUN = frozenset({"image_size", "normalization"})


@dataclass(frozen=True)
class Values:
    """The base class of settings. A subclass is a dataclass with `image_size` and `normalization` among its fields."""

    choices: ClassVar[Mapping[str, tuple[str, ...]]]  # the possible texts of a setting
    limits: ClassVar[Mapping[str, tuple[float, float]]]  # the smallest and the largest number
    optional: ClassVar[Collection[str]] = ()  # settings that may be None

    @classmethod
    def defaults(cls) -> dict[str, Any]:
        """Return the default of each axis, in plain values."""
        return {field.name: _plain(field.default) for field in fields(cls) if field.name not in OF_RUN}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Return the settings of plain values, without a check; the inverse of `as_dict`.

        Args:
            values: of the fields, such as those in a file.
        """
        known: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in values.items()
        }
        if known.get("normalization") is not None:
            known["normalization"] = Normalization.from_dict(known["normalization"])
        return cls(**known)

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for a file."""
        return {field.name: _plain(getattr(self, field.name)) for field in fields(self)}

    def problems(self) -> list[str]:
        """Return one sentence for each value that is no choice, or outside its limits."""
        texts, numbers = self._given(self.choices), self._given(self.limits)
        return [
            *(_unknown(name, value, self.choices[name]) for name, value in texts if value not in self.choices[name]),
            *(
                _outside(name, value, *self.limits[name])
                for name, value in numbers
                if not _in(value, self.limits[name])
            ),
        ]

    def _given(self, names: Iterable[str]) -> list[tuple[str, Any]]:
        values = [(name, getattr(self, name)) for name in names]
        return [(name, value) for name, value in values if not (value is None and name in self.optional)]


def without_effect(
    needs: Mapping[str, tuple[str, tuple[str, ...]]], values: Mapping[str, Any], defaults: Mapping[str, Any]
) -> dict[str, str]:
    """Return the settings without effect, each with the values of another setting that would give it an effect.

    Args:
        needs: for a setting, another setting and its values with which the setting has an effect.
        values: the settings of a run.
        defaults: of all settings.
    """
    return {
        name: f"{other} {' or '.join(required)}"
        for name, (other, required) in needs.items()
        if values.get(other, defaults[other]) not in required
    }


def _plain(value: Any) -> Any:
    if isinstance(value, Normalization):
        return value.as_dict()
    return list(value) if isinstance(value, tuple) else value


def _unknown(name: str, value: object, choices: Collection[str]) -> str:
    near = nearest(str(value), choices)
    hint = f" Did you mean {near[0]}?" if near else ""
    return f"{name}: found {value!r}, expected one of {', '.join(choices)}.{hint}"


def _outside(name: str, value: object, low: float, high: float) -> str:
    return f"{name}: found {value!r}, expected a number from {low:g} to {high:g}."


def _in(value: object, limits: tuple[float, float]) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and limits[0] <= value <= limits[1]
