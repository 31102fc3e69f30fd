"""The result folder: one folder a run, written atomically, scanned without locking.

<output>/<name>/
    models_comparing.xlsx      rewritten as runs end
    sweep.log                  what anomalib, Lightning and Python's warnings said
    config.yaml                the YAML as run last
    search.json                of a search, what was tried
    runs/<run_id>/             record.json, scores.csv, heatmaps ...; appears whole, or not at all
    .work/                     what runs under way have written so far
    .unfinished/               what long trainings have reached; outlives a kill
    .locks/                    which process works on which run; free again when that process dies
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
from harness.common.files import file_hash, make_folder, write_atomic
from harness.common.reading import MB, fit, read_bytes, read_json
from harness.results.record import SCHEMA, RunRecord
from harness.results.schemas import RecordFile, SearchFile

RECORD = "record.json"
# Curves, and what there is to know of the pictures.
DETAILS = "details.json"
# As backends save them.
MODELS = ("model.safetensors", "model.ckpt")
RUNS = "runs"
# What report.html loads.
REPORT_FILES = "report"
# Of search.json.
SEARCH_SCHEMA = 1
AGAIN = "Remove its folder to have the run made again."


class ResultFolder:
    """One sweep's results.

    Args:
        root: `<output>/<name>`. Nothing is written before `create()`.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.runs = root / RUNS
        self.workbook = root / "models_comparing.xlsx"
        self.report = root / "report.html"
        self.config = root / "config.yaml"
        self.search = root / "search.json"
        self.log = root / "sweep.log"
        self.index = root / ".data_index.json"
        self._locks = root / ".locks"
        self._work = root / ".work"
        self._unfinished = root / ".unfinished"

    def refuse_links(self) -> None:
        """See that what is written here stays here, also where the folder comes from elsewhere.

        Raises:
            StoreError: one of its own folders, or the log, is a link.
        """
        report = self.root / REPORT_FILES
        own = (self.runs, report, report / RUNS, self._locks, self._work, self._unfinished, self.log)
        # Also what lies in the folders that are emptied and moved.
        inner = [path for folder in (self._work, self._unfinished) if folder.is_dir() for path in folder.iterdir()]
        linked = [path for path in (*own, *inner) if path.is_symlink()]
        if linked:
            raise StoreError(
                [f"{path}: a link found; expected what a sweep makes itself. Remove the link." for path in linked]
            )

    def create(self) -> None:
        """Make the folders.

        Raises:
            StoreError: they can't be made or written to.
        """
        self.refuse_links()
        make_folder(self.root, "output", " Choose another with --output.")
        self.runs.mkdir(exist_ok=True)
        self._locks.mkdir(exist_ok=True)

    def open_log(self) -> TextIO:
        """sweep.log, to be appended to.

        Raises:
            StoreError: it can't be opened.
        """
        if self.log.exists() and not self.log.is_file():
            raise StoreError(f"{self.log}: can't be written (something else than a file found). Remove it.")
        try:
            return self.log.open("a", encoding="utf-8", buffering=1)
        except OSError as error:
            raise StoreError(f"{self.log}: can't be written ({error.strerror}).") from error

    def read_config(self) -> str:
        """The YAML as it was run; empty where it is missing or can't be read."""
        try:
            return read_bytes(self.config, limit=MB).decode(errors="replace")
        except (OSError, StoreError):
            return ""

    def read_search(self) -> dict[str, Any] | None:
        """What a search has tried; None where there was none.

        Raises:
            StoreError: it is damaged, or was written by a newer version.
        """
        advice = "Remove it; the runs' own results are kept."
        try:
            found: dict[str, Any] = read_json(self.search, limit=256 * MB, advice=advice)
        except FileNotFoundError:
            return None
        _refuse_newer(self.search, found, SEARCH_SCHEMA, "format")
        fit(found, SearchFile, self.search, advice)
        return found

    def run_folder(self, run_id: str) -> Path:
        """The folder of one run; may not exist yet."""
        return self.runs / run_id

    def scratch(self, run_id: str) -> Path:
        """An empty folder for what a backend writes while it works on a run or on the group that begins with it."""
        return self._empty(self._work / run_id / "scratch")

    def clear_work(self, run_ids: Iterable[str]) -> None:
        """Remove what runs wrote while they were under way, also what an interrupted try left."""
        for run_id in run_ids:
            shutil.rmtree(self._work / run_id, ignore_errors=True)

    def clear_abandoned(self) -> None:
        """Remove what killed processes were working on; what a living one holds is left alone."""
        for folder in list(self._work.iterdir()) if self._work.is_dir() else []:
            with self.claim(folder.name) as mine:
                if mine:
                    shutil.rmtree(folder, ignore_errors=True)

    def unfinished(self, key: str) -> Path:
        """Where a group of runs keeps what its next try can go on from; may not exist."""
        return self._unfinished / key

    def clear_unfinished(self, key: str) -> None:
        """Remove it: the runs are in place."""
        shutil.rmtree(self.unfinished(key), ignore_errors=True)

    def stage(self, run_id: str) -> Path:
        """An empty folder in which a run's files are gathered before `commit`."""
        return self._empty(self.staged(run_id))

    def staged(self, run_id: str) -> Path:
        """The stage as it is."""
        return self._work / run_id / "run"

    def drop_staged_model(self, run_id: str) -> None:
        """Leave the model out of a run that is about to be put in place."""
        file = model_in(self.staged(run_id))
        if file is not None:
            file.unlink()

    def commit(self, record: RunRecord) -> None:
        """Put the staged files and the record in place in one step: from then on the run is done (or failed)."""
        stage, target = self.staged(record.run_id), self.run_folder(record.run_id)
        write_atomic(stage / RECORD, json.dumps(record.as_dict(), indent=2, allow_nan=False))
        try:
            if target.exists():
                shutil.rmtree(target)
            stage.replace(target)
        except OSError as error:
            raise StoreError(f"{target}: can't be written ({error.strerror}).") from error

    @staticmethod
    def _empty(folder: Path) -> Path:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        return folder

    def read_record(self, run_id: str) -> RunRecord | None:
        """The record of a run, None if it has none.

        Raises:
            StoreError: it is damaged, is of another run, or was written by a newer version.
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
        """All records, by run id, and what can't be read of them.

        Raises:
            StoreError: nothing can be: one of the folders is a link, or a newer version wrote a record.
        """
        self.refuse_links()
        found: list[RunRecord] = []
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
                found.append(record)
        return Records(found, damaged)

    def records(self) -> list[RunRecord]:
        """All records, by run id, where every one is expected to be sound.

        Raises:
            StoreError: one sentence for each that can't be read.
        """
        found = self.read_records()
        if found.damaged:
            raise StoreError(list(found.damaged.values()))
        return found.good

    @contextmanager
    def claim(self, run_id: str) -> Iterator[bool]:
        """Hold a run for this process; gives False where another one has it. The system frees it on any death."""
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

    def is_stale(self, made: Path) -> bool:
        """Whether there are records, or trials of a search, that a file made from them can't have seen."""
        files = [*self.runs.glob(f"*/{RECORD}"), *([self.search] if self.search.is_file() else [])]
        written = [file.stat().st_mtime_ns for file in files]
        return bool(written) and (not made.is_file() or made.stat().st_mtime_ns < max(written))

    @contextmanager
    def workbook_lock(self) -> Iterator[None]:
        """Hold while records are scanned and the workbook is replaced, so that the last writer saw everything."""
        with FileLock(self._locks / "workbook.lock"):
            # Of a killed process, which had the lock.
            for name in (self.workbook.name, self.report.name):
                for half in self.root.glob(f".{name}.*.tmp"):
                    half.unlink(missing_ok=True)
            yield

    def model_file(self, run_id: str) -> Path | None:
        """The saved model of a run, if it was kept."""
        return model_in(self.run_folder(run_id))


@dataclass(frozen=True)
class Records:
    """What a result folder holds.

    Attributes:
        good: records, by run id.
        damaged: one sentence for each that can't be read, by the name of its folder.
    """

    good: list[RunRecord]
    damaged: dict[str, str]

    @property
    def by_id(self) -> dict[str, RunRecord]:
        """The good ones, by run id."""
        return {record.run_id: record for record in self.good}


def read_record(run_folder: Path) -> RunRecord | None:
    """The record in a run's folder, None if there is none.

    Raises:
        StoreError: it is damaged, or was written by a newer version.
    """
    file = run_folder / RECORD
    try:
        values = read_json(file, limit=16 * MB, advice=AGAIN)
    except FileNotFoundError:
        return None
    _refuse_newer(file, values, SCHEMA, "record format")
    fit(values, RecordFile, file, AGAIN)
    return RunRecord.from_dict(values)


def _refuse_newer(file: Path, values: Any, known: int, what: str) -> None:
    """See that a file was not written by a version that may mean other things by the same words."""
    schema = values.get("schema") if isinstance(values, dict) else None
    if isinstance(schema, int) and schema > known:
        raise NewerVersionError(
            f"{file}: {what} {schema} found, at most {known} expected: it was written by a newer version of harness. "
            "Update harness, or choose another --output."
        )


def model_in(run_folder: Path) -> Path | None:
    """The saved model in a run's folder, if it was kept; other files of that name are somebody else's."""
    return next((f for name in MODELS if (f := run_folder / name).is_file() and not f.is_symlink()), None)


def saved_model(run_folder: Path) -> dict[str, str]:
    """See `RunRecord.model`."""
    file = model_in(run_folder)
    if file is None:
        return {}
    file.chmod(0o644)
    return {"file": file.name, "sha256": file_hash(file)}
