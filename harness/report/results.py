"""Results: what a report reads. Records, scores and details of a result folder, and nothing else."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from harness.errors import StoreError
from harness.metrics.delong import Components
from harness.record import RunRecord
from harness.report.settings import Setting, settings
from harness.scores import TestScores, read_scores
from harness.store import DETAILS, ResultFolder


def _point(record: RunRecord) -> str:
    """What a run is about, whatever weights were found and what those were trained with."""
    spec = {key: value for key, value in record.spec.items() if key != "normalization"}
    return json.dumps([spec, record.data["fingerprint"]], sort_keys=True)


@dataclass(frozen=True)
class Results:
    """A result folder's records, with what lies beside them read when it is asked for.

    Attributes:
        folder: where it is.
        records: all, failed and skipped ones too.
    """

    folder: ResultFolder
    records: Sequence[RunRecord]
    _scores: dict[str, TestScores | None] = field(default_factory=dict)
    _components: dict[str, Components | None] = field(default_factory=dict)

    @classmethod
    def of(cls, folder: ResultFolder) -> Results:
        """Read the records.

        Raises:
            StoreError: one is damaged, or was written by a newer version.
        """
        records = folder.records()
        done = {_point(record) for record in records if record.status == "ok"}
        # With a file of weights a point has another run id: what was skipped before is done.
        kept = [record for record in records if record.status != "skipped" or _point(record) not in done]
        return cls(folder, kept)

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
    def settings(self) -> dict[str, list[Setting]]:
        """See `harness.report.settings.settings`."""
        return settings(self.records)

    def scores(self, run_id: str) -> TestScores | None:
        """Scores of a run's test images; None where the file is missing.

        Raises:
            StoreError: the file is damaged.
        """
        if run_id not in self._scores:
            self._scores[run_id] = read_scores(self.folder.run_folder(run_id))
        return self._scores[run_id]

    def components(self, run_id: str) -> Components | None:
        """What DeLong's test needs of a run; None where it has no scores of both classes."""
        if run_id not in self._components:
            found = self.scores(run_id)
            usable = found is not None and found.both_classes
            self._components[run_id] = Components.of(found.scores, found.labels) if found and usable else None
        return self._components[run_id]

    def details(self, run_id: str) -> dict[str, Any]:
        """Curves and gallery of a run; empty where there are none."""
        file = self.folder.run_folder(run_id) / DETAILS
        try:
            found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            raise StoreError(f"{file}: damaged ({error}). Remove the run's folder to have it made again.") from error
        return found
