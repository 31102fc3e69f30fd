"""The budget of a recommendation: which configurations keep its limits, and by how much others exceed them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import ROUND_DOWN, ROUND_UP, Context, Decimal

from harness.common.reading import MB
from harness.config.recommend import Limits
from harness.report.configurations import Configuration


@dataclass(frozen=True)
class Limit:
    """A kind of limit.

    Attributes:
        key: of the block `recommend`.
        value: the value of a configuration; None where unknown.
        unit: of the values in sentences; empty for a share.
        scale: number of the limit's own units in such a unit.
        least: whether the limit is the smallest allowed value instead of the largest.
        timed: whether the value is a time of single images, which is too long on a busy machine.
    """

    key: str
    value: Callable[[Configuration], float | None]
    unit: str = ""
    scale: float = 1.0
    least: bool = False
    timed: bool = False

    def excess(self, value: float | None, limit: float) -> float:
        """By which share a value is beyond the limit; 0 or less inside, infinite where the value is unknown.

        Args:
            value: of a configuration.
            limit: of the budget.
        """
        if value is None:
            return math.inf
        if self.least:
            return limit / value - 1 if value else math.inf
        return value / limit - 1

    def text(self, value: float) -> str:
        """A limit with its unit."""
        return self._with_unit(Decimal(repr(value / self.scale)))

    def enough(self, value: float) -> str:
        """A limit that a value just keeps, in three digits: never one that is too tight by rounding.

        Args:
            value: of a configuration.
        """
        three_digits = Context(prec=3, rounding=ROUND_DOWN if self.least else ROUND_UP)
        if not value:
            return "none"
        return self._with_unit(three_digits.create_decimal(repr(value / self.scale)))

    def _with_unit(self, number: Decimal) -> str:
        return f"{number.normalize():f} {self.unit}".rstrip()


def _bytes(name: str) -> Callable[[Configuration], float | None]:
    return lambda one: None if (value := one.cost(name)) is None else value * MB


LIMITS = (
    Limit("max_ms", lambda one: one.latency, "ms", timed=True),
    Limit("max_memory", _bytes("peak_memory_MB"), "MB", MB),
    Limit("max_model", _bytes("model_MB"), "MB", MB),
    Limit("max_fit", lambda one: one.cost("fit_seconds"), "s"),
    Limit("min_recall", lambda one: one.metric("image_Recall"), least=True),
)


@dataclass(frozen=True)
class Budget:
    """The limits that are set.

    Attributes:
        limits: each limit with its value.
    """

    limits: Mapping[Limit, float]

    @classmethod
    def of(cls, limits: Limits) -> Budget:
        """The budget of the block `recommend`."""
        values = {limit: getattr(limits, limit.key) for limit in LIMITS}
        return cls({limit: value for limit, value in values.items() if value is not None})

    def exceeded(self, configuration: Configuration) -> dict[Limit, float]:
        """The limits that a configuration does not keep, with the excess as a share of the limit."""
        excess = {limit: limit.excess(limit.value(configuration), value) for limit, value in self.limits.items()}
        return {limit: share for limit, share in excess.items() if share > 0}

    def nearest(self, configurations: Sequence[Configuration]) -> Configuration | None:
        """The configuration whose largest excess is smallest; the first one of equal ones."""
        return min(configurations, key=lambda one: max(self.exceeded(one).values(), default=0.0), default=None)

    def changes(self, configuration: Configuration) -> str:
        """The limits as they must be for a configuration, such as `max_ms from 30 ms to 41.4 ms`."""
        parts = []
        for limit in self.exceeded(configuration):
            value = limit.value(configuration)
            reached = "an unknown value" if value is None else limit.enough(value)
            if limit.timed and configuration.busy:
                reached += " (timed on a busy machine: too long)"
            parts.append(f"{limit.key} from {limit.text(self.limits[limit])} to {reached}")
        return " and ".join(parts)

    def text(self) -> str:
        """The limits in words."""
        return ", ".join(f"{limit.key} {limit.text(value)}" for limit, value in self.limits.items())

    @staticmethod
    def overrides(limits: Limits) -> list[str]:
        """The limits and another margin than the default as overrides of a config, such as `recommend.max_ms=30.0`."""
        values = limits.model_dump(exclude_none=True, exclude_defaults=True)
        return [f"recommend.{key}={value!r}" for key, value in values.items()]
