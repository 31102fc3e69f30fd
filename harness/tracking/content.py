"""A record and its run folder -> what a tracker gets of the run."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

from harness.common.secrets import concealed
from harness.config.spec import RunSpec
from harness.results.record import RunRecord
from harness.results.run_folder import model_in
from harness.tracking.base import RUN_ID, TrackedRun

PICTURES = (".jpg", ".jpeg", ".png")


def tracked_run(record: RunRecord, folder: Path) -> TrackedRun:
    """What a tracker gets of a run.

    Args:
        record: of the run.
        folder: of the run.
    """
    references = record.provenance.get("references", {})
    # The keys of `references` are the secret values.
    provenance = {key: value for key, value in record.provenance.items() if key != "references"}
    plain = concealed(replace(record, provenance=provenance).as_dict(), references)
    tags = {
        RUN_ID: record.run_id,
        "harness.status": record.status,
        "harness.task": record.task,
        "harness.data": str(record.data["fingerprint"]),
        "harness.device": record.device,
    }
    return TrackedRun(
        run_id=record.run_id,
        name=concealed(_name(record), references),
        succeeded=record.status == "ok",
        parameters=dict(_flat(plain["spec"])),
        metrics=dict(_numbers(record)),
        tags={name: value for name, value in tags.items() if value},
        record=json.dumps(plain, indent=2, allow_nan=False),
        pictures=_pictures(folder),
        model=model_in(folder),
        began=_time(record.provenance.get("began")),
        ended=_time(record.provenance.get("ended")),
    )


def _name(record: RunRecord) -> str:
    spec = replace(RunSpec.from_dict(record.spec), axes=tuple(record.axes))
    return f"{spec.label()} s{spec.seed}"


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Nested values as pairs of a name with dots and a text; an undefined value has no pair."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        elif value is not None and value != "":
            yield f"{prefix}{key}", value if isinstance(value, str) else json.dumps(value)


def _numbers(record: RunRecord) -> Iterator[tuple[str, float]]:
    """The finite numbers of a record."""
    bounds = {
        f"{name}_{side}": value
        for name, interval in record.intervals.items()
        for side, value in zip(("low", "high"), interval, strict=True)
    }
    values: dict[str, Any] = {**record.metrics, **bounds}
    values |= {f"cost/{name}": value for name, value in record.cost.items()}
    values |= {f"seconds/{name}": value for name, value in record.seconds.items()}
    for name, value in values.items():
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
            yield name, float(value)


def _pictures(folder: Path) -> dict[str, Path]:
    """Pictures in a run's folder, by their path in this folder. A link may lead out of the folder, so none is taken."""
    files = [path for path in sorted(folder.rglob("*")) if path.suffix in PICTURES and path.is_file()]
    return {path.relative_to(folder).as_posix(): path for path in files if not path.is_symlink()}


def _time(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None
