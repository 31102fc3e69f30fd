"""tracking.json in a run's folder: which tracker has confirmed which content of the run."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path

from harness.common.errors import StoreError
from harness.common.files import write_atomic
from harness.results.record import RunRecord
from harness.results.run_folder import AGAIN, model_in, read_versioned
from harness.results.schemas import TrackingFile

FILE = "tracking.json"
# Version of tracking.json.
SCHEMA = 1
LARGEST = 2**20


@dataclass(frozen=True)
class Content:
    """The content of a run, for a comparison with what a tracker has.

    Attributes:
        record: sha256 of the record.
        model: sha256 of the saved model; empty without one.
    """

    record: str
    model: str

    @classmethod
    def of(cls, record: RunRecord, folder: Path, with_model: bool = True) -> Content:
        """The content of a run.

        Args:
            record: of the run.
            folder: of the run.
            with_model: whether a saved model counts.
        """
        digest = sha256(json.dumps(record.as_dict(), sort_keys=True).encode()).hexdigest()
        saved = with_model and model_in(folder) is not None
        return cls(digest, record.model.get("sha256", "") if saved else "")


@dataclass(frozen=True)
class Logged:
    """What a tracker has of a run.

    Attributes:
        store: see `harness.tracking.base.Tracker`.
        run: the tracker's own id of the run.
        record, model: see `Content`; `model` is the last model that the tracker took.
    """

    store: str
    run: str
    record: str
    model: str

    def has(self, content: Content) -> bool:
        """Whether the tracker has a content. A model that was deleted since then may stay in the tracker."""
        return self.record == content.record and content.model in ("", self.model)


def read_logged(folder: Path) -> dict[str, Logged]:
    """What each tracker has of a run, by the tracker's name.

    Args:
        folder: of the run.
    """
    try:
        values = read_versioned(folder / FILE, TrackingFile, SCHEMA, "format", LARGEST, AGAIN)
    except StoreError:
        # Without this file a tracker looks for the run itself, so a damaged file does no harm.
        return {}
    return {name: Logged(**entry) for name, entry in (values or {}).get("trackers", {}).items()}


def write_logged(folder: Path, name: str, logged: Logged) -> None:
    """Record that a tracker has a run.

    Args:
        folder: of the run.
        name: of the tracker.
        logged: what the tracker has.

    Raises:
        StoreError: the file can't be written.
    """
    entries = {**read_logged(folder), name: logged}
    values = {"schema": SCHEMA, "trackers": {key: asdict(entry) for key, entry in entries.items()}}
    write_atomic(folder / FILE, json.dumps(values, indent=2))
