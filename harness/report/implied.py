"""Values of axes that a run leaves out of its record, so that runs from before the parameter keep their identity."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from typing import Any

from harness import registry
from harness.backends.base import Backend
from harness.common.errors import HarnessError
from harness.config.axes import COLUMNS
from harness.results.record import RunRecord


def with_implied_values(record: RunRecord) -> RunRecord:
    """The record of a run with the values of all its axes.

    Args:
        record: of any backend, also of one that is not installed.
    """
    params = record.spec["params"]
    absent = [axis for axis in record.axes if axis not in params and axis not in COLUMNS]
    if not absent:
        return record
    implied = _implied(str(record.spec["backend"]), str(record.spec["model"]))
    values = {axis: implied[axis] for axis in absent if axis in implied}
    return replace(record, spec={**record.spec, "params": {**params, **values}}) if values else record


@cache
def _implied(backend: str, model: str) -> Mapping[str, Any]:
    try:
        cls: type[Backend] = registry.lookup(registry.BACKENDS, "backend", backend)
        return cls().parameters(model).implied
    except HarnessError:
        # The report is also for models that this installation does not have.
        return {}
