"""The contract of an experiment tracker: a program that collects runs of many sweeps, and shows them side by side."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import ClassVar, Protocol

# Name of a store inside the result folder, in `Tracker.store`.
LOCAL = "local"
# Tag, or key, with the run id. A tracker finds a run by this tag, so that no run is logged twice.
RUN_ID = "harness.run_id"
# Limit of one request to a tracker, in seconds.
TIMEOUT = 10


@dataclass(frozen=True)
class TrackedRun:
    """One finished or failed run, as a tracker gets it. All values are free of secrets.

    Attributes:
        run_id: identity of the run.
        name: readable name of the run.
        succeeded: whether the run has a result.
        parameters: the spec: names with dots for nested values, such as `threshold.method`.
        metrics: finite numbers: metrics with bounds of their intervals, and `cost/...` and `seconds/...`.
        tags: other facts, such as the device.
        record: the content of record.json.
        pictures: pictures of the run, by their path in the run folder.
        model: the saved model; None without one.
        knows_model: whether the tracker has confirmed this model earlier, so that it need not take a large file again.
        began, ended: start and end; None where the record has no such time.
    """

    run_id: str
    name: str
    succeeded: bool
    parameters: Mapping[str, str]
    metrics: Mapping[str, float]
    tags: Mapping[str, str]
    record: str
    pictures: Mapping[str, Path]
    model: Path | None
    began: datetime | None
    ended: datetime | None
    knows_model: bool = False


class Tracker(Protocol):
    """One tracker of one sweep. Its library is imported at the first call of `log`.

    Args:
        folder: the folder for a store on this machine; may not exist yet.
        experiment: name of the sweep.

    Attributes:
        modules: modules that must be installed.
        store: address of the store, without a password; `LOCAL` for a store in the result folder.
    """

    modules: ClassVar[tuple[str, ...]]
    store: str

    def __init__(self, folder: Path, experiment: str) -> None: ...

    def log(self, run: TrackedRun) -> str:
        """Make the tracker's run equal to `run`. A second call for the same run id changes the same run of the tracker.

        Args:
            run: the run.

        Returns:
            The tracker's own id of the run, after the tracker has confirmed all values.

        Raises:
            Exception: the tracker can't be reached, or refuses a value.
        """
        ...

    def close(self) -> None:
        """Free what the tracker uses."""
        ...


def without_password(text: str) -> str:
    """A text whose addresses have no user name and password.

    Args:
        text: an address such as `https://user:password@host:5000`, or a message with addresses.
    """
    return re.sub(r"://[^/\s@]*@", "://", text)
