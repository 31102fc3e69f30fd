"""Metrics of `extra_metrics`: computed from single maps and masks, and only where the config asks for them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np

from harness import registry
from harness.data.mask_images import Mask
from harness.metrics.ranking import Ranking
from harness.predictions.detection import Floats, Predictions
from harness.predictions.pairs import pairs, resized_maps

T = TypeVar("T")


@dataclass(frozen=True)
class PixelCase:
    """All inputs of a metric of `extra_metrics`.

    Attributes:
        test: predictions with maps and masks, under their protocol.
        ranking: counts of all pixels at each threshold.
        threshold: of the pixel scores; None without one.
        calibration: predictions for normal images that the model did not learn from; None without such images.
    """

    test: Predictions
    ranking: Ranking
    threshold: float | None = None
    calibration: Predictions | None = None
    _kept: dict[str, Any] = field(default_factory=dict, compare=False)

    def once(self, name: str, compute: Callable[[], T]) -> T:
        """Return a value that several metrics need, and compute it at the first call only.

        Args:
            name: of the value.
            compute: computes the value.
        """
        if name not in self._kept:
            self._kept[name] = compute()
        kept: T = self._kept[name]
        return kept

    def pairs(self) -> Iterator[tuple[Floats, Mask]]:
        """The map and the mask of each test image, at the size of the protocol."""
        return pairs(self.test)

    def normal_maps(self) -> Iterator[Floats]:
        """The map of each normal test image, at the size of the protocol."""
        return resized_maps(self.test.part(~self.test.labels))

    def calibration_maps(self) -> Iterator[Floats]:
        """The map of each calibration image, at the size of the protocol; nothing without such maps."""
        if self.calibration is None or self.calibration.maps is None:
            return iter(())
        return resized_maps(self.calibration.under(self.test.protocol))


def extra_tables(names: Sequence[str], case: PixelCase) -> dict[str, list[dict[str, Any]]]:
    """Compute the tables that belong to metrics of `extra_metrics`.

    Args:
        names: keys of registered metrics.
        case: of the run.

    Returns:
        Name -> rows, without empty tables.
    """
    tables = {
        table: registry.load(target)(case)
        for table, (metric, target) in registry.METRIC_TABLES.items()
        if metric in names
    }
    return {name: rows for name, rows in tables.items() if rows}


def extra_values(names: Sequence[str], case: PixelCase) -> dict[str, float | None]:
    """Compute metrics of `extra_metrics`.

    Args:
        names: keys of registered metrics.
        case: of the run.

    Returns:
        Name -> value, in the order of the registry; None where undefined.
    """
    values = {
        metric.key: float(registry.load(metric.function)(case)) for metric in registry.METRICS if metric.key in names
    }
    return {name: None if np.isnan(value) else value for name, value in values.items()}
