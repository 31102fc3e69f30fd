"""Results: what a report reads. Records, scores and details of a result folder, and nothing else."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

from harness.common.errors import NewerVersionError, StoreError
from harness.common.reading import MB, read_json
from harness.common.secrets import concealed
from harness.metrics.delong import Components
from harness.report.configurations import Configuration, configurations
from harness.results.record import RunRecord
from harness.results.schemas import DetailsFile
from harness.results.scores import SCORES, TestScores, read_scores
from harness.results.store import AGAIN, DETAILS, ResultFolder

# Of a spec, where a user may have put anything.
OF_USER = ("params", "trainer", "weights")


def _point(record: RunRecord) -> str:
    """What a run is about, whatever weights were found and what those were trained with."""
    spec = {key: value for key, value in record.spec.items() if key != "normalization"}
    return json.dumps([spec, record.data["fingerprint"]], sort_keys=True)


@dataclass(frozen=True)
class Results:
    """A result folder's records, with what lies beside them read when it is asked for.

    Attributes:
        folder: where it is.
        records: all that can be read, failed and skipped ones too.
        damaged: one sentence for each file that can't be used; what else there is of its run is shown.
        hidden: what the configs of the runs took from the environment: references by value.
    """

    folder: ResultFolder
    records: Sequence[RunRecord]
    damaged: Sequence[str] = ()
    hidden: Mapping[str, str] = field(default_factory=dict)
    _scores: dict[str, TestScores | None] = field(default_factory=dict)
    _components: dict[str, Components | None] = field(default_factory=dict)

    @classmethod
    def of(cls, folder: ResultFolder) -> Results:
        """Read the records, and see what can't be used of what lies beside them.

        Raises:
            StoreError: nothing can be read; see `ResultFolder.read_records`.
        """
        found = folder.read_records()
        hidden, records = _references(found.good), as_shown(found.good)
        damaged = [*found.damaged.values(), *_damaged_files(folder, records)]
        done = {_point(record) for record in records if record.status == "ok"}
        # With a file of weights a point has another run id: what was skipped before is done.
        kept = [record for record in records if record.status != "skipped" or _point(record) not in done]
        return cls(folder, kept, tuple(damaged), hidden)

    @property
    def task(self) -> str:
        """Of all runs: a result folder has one."""
        return self.records[0].task if self.records else "detection"

    def ok(self) -> list[RunRecord]:
        """Records of the runs that ended well."""
        return self._of("ok")

    def failed(self) -> list[RunRecord]:
        """Records of the runs that raised."""
        return self._of("failed")

    def skipped(self) -> list[RunRecord]:
        """Records of the runs whose weights could not be had."""
        return self._of("skipped")

    def _of(self, status: str) -> list[RunRecord]:
        return [record for record in self.records if record.status == status]

    @cached_property
    def configurations(self) -> dict[str, list[Configuration]]:
        """See `harness.report.configurations.settings`."""
        return configurations(self.records)

    def scores(self, run_id: str) -> TestScores | None:
        """Scores of a run's test images; None where the file is missing or damaged."""
        if run_id not in self._scores:
            try:
                self._scores[run_id] = read_scores(self.folder.run_folder(run_id))
            except StoreError:
                self._scores[run_id] = None
        return self._scores[run_id]

    def components(self, run_id: str) -> Components | None:
        """What DeLong's test needs of a run; None where it has no scores of both classes."""
        if run_id not in self._components:
            found = self.scores(run_id)
            usable = found is not None and found.both_classes
            self._components[run_id] = Components.of(found.scores, found.labels) if found and usable else None
        return self._components[run_id]

    def details(self, run_id: str) -> dict[str, Any]:
        """Curves and gallery of a run; empty where there are none, or the file is damaged."""
        try:
            return read_details(self.folder.run_folder(run_id))
        except StoreError:
            return {}

    def search(self) -> dict[str, Any] | None:
        """What a search tried; None where there was none, or the file is damaged."""
        try:
            found = self.folder.read_search()
            return concealed(found, self.hidden) if found and self.hidden else found
        except NewerVersionError:
            raise
        except StoreError:
            return None


def as_shown(records: list[RunRecord]) -> list[RunRecord]:
    """Records as they are shown: without what their configs took from the environment."""
    return [_as_shown(record, found) if (found := _references([record])) else record for record in records]


def _references(records: Sequence[RunRecord]) -> dict[str, str]:
    return {value: text for record in records for value, text in record.provenance.get("references", {}).items()}


def _as_shown(record: RunRecord, found: dict[str, str]) -> RunRecord:
    """Without what its own config took from the environment: what others say of themselves is not its matter."""
    return replace(
        record,
        # What a run is called, and what reports tell runs apart by, stays.
        spec={key: concealed(value, found) if key in OF_USER else value for key, value in record.spec.items()},
        provenance={key: value for key, value in record.provenance.items() if key != "references"},
        data=concealed(record.data, found),
        # What reports judge by stays.
        weights={**concealed(record.weights, found), "source": record.weights.get("source")},
        warnings=concealed(record.warnings, found),
        error=concealed(record.error, found),
    )


def read_details(folder: Path) -> dict[str, Any]:
    """details.json of a run's folder; empty where there is none.

    Raises:
        StoreError: it is damaged.
    """
    try:
        found: dict[str, Any] = read_json(folder / DETAILS, DetailsFile, 256 * MB, AGAIN)
    except FileNotFoundError:
        return {}
    return found


def _damaged_files(folder: ResultFolder, records: Sequence[RunRecord]) -> list[str]:
    """A sentence for each file beside the records that can't be used."""
    found: list[str] = []
    try:
        folder.read_search()
    except NewerVersionError:
        raise
    except StoreError as error:
        found += error.problems
    for record in records:
        if record.status == "ok":
            for name in (DETAILS, SCORES):
                found += filter(None, [_problem(folder.run_folder(record.run_id) / name)])
    return found


def _problem(file: Path) -> str:
    """What is wrong with a file; empty where nothing is, or where it is missing."""
    try:
        state = file.lstat()
    except OSError:
        return ""
    return _looked_at(file, state.st_mtime_ns, state.st_size)


@lru_cache(maxsize=100_000)
def _looked_at(file: Path, changed: int, size: int) -> str:
    """As `_problem`; a sheet is made again and again while runs end, and each file is read for this once."""
    del changed, size
    try:
        read_details(file.parent) if file.name == DETAILS else read_scores(file.parent)
    except StoreError as error:
        return error.problems[0]
    return ""
