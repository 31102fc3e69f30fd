"""The temperature of a finished classification: from its record, or for an earlier version from its probabilities."""

from __future__ import annotations

from collections.abc import Callable

from harness.metrics.temperature import Temperature
from harness.predictions.classification import ClassPredictions
from harness.results.record import RunRecord


def temperature_of(record: RunRecord, predictions: Callable[[], ClassPredictions]) -> Temperature:
    """The temperature of a run.

    Args:
        record: of the run.
        predictions: reads the run's predictions; called only where the record has no temperature.

    Raises:
        StoreError: `predictions` raised it.
    """
    if record.temperature:
        return Temperature.from_dict(record.temperature)
    return Temperature.of(predictions())
