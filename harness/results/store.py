"""The result folder. Every run has its own folder, which appears in one step. A reader needs no lock.

<output>/<name>/
    models_comparing.xlsx      workbook with all runs
    results.csv, summary.csv   the rows of its sheets Runs and Summary
    sweep.log                  log of anomalib and Lightning, and Python's warnings
    config.yaml                config of the last call
    search.json                trials of a search
    runs/<run_id>/             record.json, scores.csv, heatmaps ... of a finished run
    .work/                     files of runs in progress
    .unfinished/               intermediate states of long trainings, for the next call after a kill
    .locks/                    locks of runs in progress; the system frees the lock of a dead process
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from filelock import FileLock, Timeout

from harness.common.errors import NewerVersionError, StoreError
from harness.common.files import make_folder, write_atomic
from harness.common.reading import MB, read_bytes
from harness.results.record import RunRecord
from harness.results.run_folder import AGAIN, RECORD, model_in, read_record, read_versioned
from harness.results.schemas import SearchFile

RUNS = "runs"
# Folder of the files that report.html loads.
REPORT_FILES = "report"
# Version of search.json.
SEARCH_SCHEMA = 1


class ResultFolder:
    """The results of one sweep.

    Args:
        root: `<output>/<name>`. The constructor writes no file; `create()` makes the folder.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.runs = root / RUNS
        self.workbook = root / "models_comparing.xlsx"
        self.report = root / "report.html"
        self.results_csv = root / "results.csv"
        self.summary_csv = root / "summary.csv"
        self.config = root / "config.yaml"
        self.search = root / "search.json"
        self.log = root / "sweep.log"
        self.index = root / ".data_index.json"
        self._locks = root / ".locks"
        self._work = root / ".work"
        self._unfinished = root / ".unfinished"

    def refuse_links(self) -> None:
        """Refuse links, so that a sweep never writes outside the result folder, also in a folder from elsewhere.

        Raises:
            StoreError: one of the folders, or the log, is a link.
        """
        report = self.root / REPORT_FILES
        outer = (self.runs, report, report / RUNS, self._locks, self._work, self._unfinished, self.log)
        # A sweep also empties and moves the folders inside these.
        inner = [path for folder in (self._work, self._unfinished) if folder.is_dir() for path in folder.iterdir()]
        links = [path for path in (*outer, *inner) if path.is_symlink()]
        if links:
            raise StoreError(
                [f"{path}: a link found; expected a file or folder of the sweep. Remove the link." for path in links]
            )

    def create(self) -> None:
        """Create the folders.

        Raises:
            StoreError: the folder can't be created or written to.
        """
        self.refuse_links()
        make_folder(self.root, "output", " Choose another with --output.")
        self.runs.mkdir(exist_ok=True)
        self._locks.mkdir(exist_ok=True)

    def open_log(self) -> TextIO:
        """Open sweep.log for appending.

        Raises:
            StoreError: the file can't be opened.
        """
        if self.log.exists() and not self.log.is_file():
            raise StoreError(f"{self.log}: can't be written (no regular file found, a file expected). Remove it.")
        try:
            return self.log.open("a", encoding="utf-8", buffering=1)
        except OSError as error:
            raise StoreError(f"{self.log}: can't be written ({error.strerror}).") from error

    def read_config(self) -> str:
        """The YAML of the last call; empty where the file is missing or unreadable."""
        try:
            return read_bytes(self.config, limit=MB).decode(errors="replace")
        except (OSError, StoreError):
            return ""

    def read_search(self) -> dict[str, Any] | None:
        """The content of search.json; None without a search.

        Raises:
            StoreError: the file is damaged, or a newer version wrote the file.
        """
        advice = "Remove the file; the results of the runs stay."
        return read_versioned(self.search, SearchFile, SEARCH_SCHEMA, "format", 256 * MB, advice)

    def run_folder(self, run_id: str) -> Path:
        """The folder of one run; the folder may not exist yet."""
        return self.runs / run_id

    def scratch(self, run_id: str) -> Path:
        """An empty folder for temporary files of the backend, for the group of runs whose first run is `run_id`."""
        return self._empty(self._work / run_id / "scratch")

    def clear_work(self, run_ids: Iterable[str]) -> None:
        """Delete the temporary files of runs, also those of an interrupted attempt."""
        for run_id in run_ids:
            shutil.rmtree(self._work / run_id, ignore_errors=True)

    def clear_abandoned(self) -> None:
        """Delete the temporary files of killed processes. The files of a running process stay."""
        for folder in list(self._work.iterdir()) if self._work.is_dir() else []:
            with self.claim(folder.name) as claimed:
                if claimed:
                    shutil.rmtree(folder, ignore_errors=True)

    def unfinished(self, key: str) -> Path:
        """The folder with the intermediate state of a group of runs; the folder may not exist."""
        return self._unfinished / key

    def clear_unfinished(self, key: str) -> None:
        """Delete the intermediate state of a group of runs."""
        shutil.rmtree(self.unfinished(key), ignore_errors=True)

    def stage(self, run_id: str) -> Path:
        """Create an empty folder for the files of a run before `commit`."""
        return self._empty(self.staged(run_id))

    def staged(self, run_id: str) -> Path:
        """The folder with the files of a run before `commit`."""
        return self._work / run_id / "run"

    def drop_staged_model(self, run_id: str) -> None:
        """Delete the model of a run before `commit`."""
        file = model_in(self.staged(run_id))
        if file is not None:
            file.unlink()

    def commit(self, record: RunRecord) -> None:
        """Move the staged files and the record into the run's folder in one step. Then the run is finished.

        Raises:
            StoreError: the folder can't be written.
        """
        stage, target = self.staged(record.run_id), self.run_folder(record.run_id)
        _write_record(stage, record)
        try:
            if target.exists():
                shutil.rmtree(target)
            stage.replace(target)
        except OSError as error:
            raise StoreError(f"{target}: can't be written ({error.strerror}).") from error

    def update(self, record: RunRecord) -> None:
        """Replace the record of a finished run; the other files of the run stay.

        Raises:
            StoreError: the folder can't be written.
        """
        _write_record(self.run_folder(record.run_id), record)

    def add_model(self, record: RunRecord) -> None:
        """Move the staged model of a finished run into the run's folder, and write the record.

        Args:
            record: of the run, with the facts of the model.

        Raises:
            StoreError: the folder can't be written, or no model is staged.
        """
        model, target = model_in(self.staged(record.run_id)), self.run_folder(record.run_id)
        if model is None:
            raise StoreError(f"{target}: the run was made again without a model; expected one. Make it with --fresh.")
        try:
            model.replace(target / model.name)
        except OSError as error:
            raise StoreError(f"{target}: can't be written ({error.strerror}).") from error
        _write_record(target, record)

    @staticmethod
    def _empty(folder: Path) -> Path:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        return folder

    def read_record(self, run_id: str) -> RunRecord | None:
        """The record of a run; None without a record.

        Raises:
            StoreError: the record is damaged or is of another run, or a newer version wrote the record.
        """
        folder = self.run_folder(run_id)
        if folder.is_symlink():
            raise StoreError(f"{folder}: a link found, a run's own folder expected. Remove the link.")
        record = read_record(folder)
        if record is not None and record.run_id != run_id:
            raise StoreError(
                f"{folder / RECORD}: run_id: found {record.run_id!r}, expected the name of its folder. {AGAIN}"
            )
        return record

    def read_records(self) -> Records:
        """All records in the order of their run ids, and the problems of damaged records.

        Raises:
            StoreError: one of the folders is a link, or a newer version wrote a record.
        """
        self.refuse_links()
        good: list[RunRecord] = []
        damaged: dict[str, str] = {}
        for folder in sorted(self.runs.iterdir()) if self.runs.is_dir() else []:
            if not folder.is_dir() or folder.name.startswith("."):
                continue
            try:
                record = self.read_record(folder.name)
            except NewerVersionError:
                raise
            except StoreError as error:
                damaged[folder.name] = error.problems[0]
                continue
            if record is not None:
                good.append(record)
        return Records(good, damaged)

    def records(self) -> list[RunRecord]:
        """All records in the order of their run ids.

        Raises:
            StoreError: a record is damaged; one sentence for each damaged record.
        """
        records = self.read_records()
        if records.damaged:
            raise StoreError(list(records.damaged.values()))
        return records.good

    @contextmanager
    def claim(self, run_id: str) -> Iterator[bool]:
        """Lock a run for this process. The system frees the lock of a dead process.

        Yields:
            Whether this process has the lock; False where another process has the lock.
        """
        lock = FileLock(self._locks / f"{run_id}.lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            yield False
            return
        try:
            yield True
        finally:
            lock.release()

    def is_stale(self, report: Path) -> bool:
        """Whether a report is missing, or is older than a record, the trials of a search or the config."""
        files = [*self.runs.glob(f"*/{RECORD}"), *(file for file in (self.search, self.config) if file.is_file())]
        times = [file.stat().st_mtime_ns for file in files]
        return bool(times) and (not report.is_file() or report.stat().st_mtime_ns < max(times))

    @contextmanager
    def workbook_lock(self) -> Iterator[None]:
        """Lock the reports during the scan of the records and the writing, so that the last report has all records."""
        with FileLock(self._locks / "workbook.lock"):
            # A process with the lock was killed during the writing.
            for file in (self.workbook, self.report, self.results_csv, self.summary_csv):
                for partial in self.root.glob(f".{file.name}.*.tmp"):
                    partial.unlink(missing_ok=True)
            yield

    def model_file(self, run_id: str) -> Path | None:
        """The saved model of a run; None without a saved model."""
        return model_in(self.run_folder(run_id))


@dataclass(frozen=True)
class Records:
    """The records of a result folder.

    Attributes:
        good: readable records, in the order of their run ids.
        damaged: one sentence for each unreadable record, by the name of its folder.
    """

    good: list[RunRecord]
    damaged: dict[str, str]

    @property
    def by_id(self) -> dict[str, RunRecord]:
        """The readable records by run id."""
        return {record.run_id: record for record in self.good}


def _write_record(run_folder: Path, record: RunRecord) -> None:
    write_atomic(run_folder / RECORD, json.dumps(record.as_dict(), indent=2, allow_nan=False))
