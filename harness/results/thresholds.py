"""threshold.json: a threshold that a user changed after the run. The record keeps the threshold of the test."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from harness.common.errors import StoreError
from harness.common.files import write_atomic
from harness.common.reading import MB, read_json
from harness.predictions.decision import Thresholds
from harness.results.record import RunRecord

THRESHOLD = "threshold.json"
ADVICE = "Remove the file to use the threshold of the test."


def changed_thresholds(run_folder: Path) -> Thresholds | None:
    """The thresholds that a user set after the run; None without any.

    Raises:
        StoreError: the file is damaged.
    """
    file = run_folder / THRESHOLD
    try:
        values = read_json(file, limit=MB, advice=ADVICE)
        return Thresholds.from_dict(values if isinstance(values, dict) else {"values": values})
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise StoreError(f"{file}: damaged ({error}). {ADVICE}") from error


def thresholds_of(run_folder: Path, record: RunRecord) -> Thresholds:
    """The thresholds for new images: of threshold.json, or else of the record.

    Args:
        run_folder: of the run.
        record: of the run.

    Raises:
        StoreError: threshold.json is damaged.
        ValueError: the thresholds of the record are damaged.
    """
    return changed_thresholds(run_folder) or Thresholds.from_dict(record.thresholds)


def write_thresholds(run_folder: Path, thresholds: Thresholds) -> None:
    """Write threshold.json.

    Args:
        run_folder: of the run.
        thresholds: the new ones.

    Raises:
        StoreError: the file can't be written.
    """
    write_atomic(run_folder / THRESHOLD, json.dumps(asdict(thresholds), indent=2, allow_nan=False) + "\n")


def delete_thresholds(run_folder: Path) -> bool:
    """Delete threshold.json.

    Args:
        run_folder: of the run.

    Returns:
        Whether there was one.

    Raises:
        StoreError: the file can't be removed.
    """
    try:
        (run_folder / THRESHOLD).unlink()
    except FileNotFoundError:
        return False
    except OSError as error:
        raise StoreError(f"{run_folder / THRESHOLD}: can't be removed ({error.strerror}). Check the folder.") from error
    return True
