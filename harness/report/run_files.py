"""The files of runs beside their records: read and checked for a report."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from harness.common.errors import NewerVersionError, StoreError
from harness.common.reading import MB, read_json, read_text
from harness.results.record import RunRecord
from harness.results.run_folder import AGAIN, DETAILS
from harness.results.schemas import DetailsFile
from harness.results.scores import CALIBRATION, TEST, TestScores, read_calibration, read_scores
from harness.results.store import ResultFolder
from harness.results.thresholds import THRESHOLD, changed_thresholds

LARGEST_DETAILS = 256 * MB


def read_details(folder: Path) -> dict[str, Any]:
    """details.json of a run's folder; empty where there is none.

    Raises:
        StoreError: the file is damaged.
    """
    try:
        details: dict[str, Any] = read_json(folder / DETAILS, DetailsFile, LARGEST_DETAILS, AGAIN)
    except FileNotFoundError:
        return {}
    return details


def details_text(folder: Path) -> str:
    """details.json of a run's folder as a text; that of an empty object where there is none, or the file is damaged.

    The text is copied: reading and writing all its numbers again would take far longer.
    """
    file = folder / DETAILS
    try:
        return "{}" if _problem(file) else read_text(file, LARGEST_DETAILS)
    except (FileNotFoundError, StoreError):
        return "{}"


# Files of a run beside its record and its scores, with the functions that read them.
CHECKED: dict[str, Callable[[Path], Any]] = {
    DETAILS: read_details,
    CALIBRATION: read_calibration,
    THRESHOLD: changed_thresholds,
}


def damaged_files(
    folder: ResultFolder, records: Sequence[RunRecord], scores: dict[tuple[str, str], TestScores | None]
) -> list[str]:
    """A sentence for each damaged file of a run, and for a damaged search.json.

    Args:
        folder: the result folder.
        records: of the runs.
        scores: gets the scores of each finished run, which a report needs again; see `Results.scores`.
    """
    sentences: list[str] = []
    try:
        folder.read_search()
    except NewerVersionError:
        raise
    except StoreError as error:
        sentences += error.problems
    for record in records:
        if record.status == "ok":
            run = folder.run_folder(record.run_id)
            sentences += _scores_problem(run, scores)
            sentences += filter(None, (_problem(run / name) for name in CHECKED))
    return sentences


def _scores_problem(run: Path, scores: dict[tuple[str, str], TestScores | None]) -> list[str]:
    """The problem of a run's scores; otherwise the scores are added to those of the other runs."""
    key = (run.name, TEST)
    try:
        scores[key] = read_scores(run)
    except StoreError as error:
        scores[key] = None
        return list(error.problems[:1])
    return []


def _problem(file: Path) -> str:
    """The problem of a file; empty where the file is missing or has none."""
    try:
        state = file.lstat()
    except OSError:
        return ""
    return _cached_problem(file, state.st_mtime_ns, state.st_size)


@lru_cache(maxsize=100_000)
def _cached_problem(file: Path, changed: int, size: int) -> str:
    """The problem of a file in one state; the cache saves reading it again for each report during a sweep."""
    del changed, size
    try:
        CHECKED[file.name](file.parent)
    except StoreError as error:
        return error.problems[0]
    return ""
