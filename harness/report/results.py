"""The results that a report reads: records, scores and details of a result folder."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, TypeVar

from harness.backends.implied import implied_values
from harness.common.errors import ConfigError, NewerVersionError, StoreError
from harness.common.secrets import concealed
from harness.config.recommend import Limits, limits_of
from harness.metrics.delong import Components
from harness.report.configurations import Configuration, configurations, rivals
from harness.report.run_files import damaged_files, read_details
from harness.results.record import RunRecord
from harness.results.scores import TEST, TestScores, read_scores
from harness.results.store import ResultFolder
from harness.results.thresholds import changed_thresholds

T = TypeVar("T")

# Keys of a spec whose values a user writes freely; they may hold secrets.
USER_KEYS = ("params", "trainer", "weights")


def _key(record: RunRecord) -> str:
    """Identity of a run that does not depend on its weights and their normalisation."""
    spec = {key: value for key, value in record.spec.items() if key != "normalization"}
    return json.dumps([spec, record.data["fingerprint"]], sort_keys=True)


@dataclass(frozen=True)
class Results:
    """The records of a result folder; other files are read on demand.

    Attributes:
        folder: the result folder.
        records: all readable records, failed and skipped runs too.
        damaged: a sentence for each damaged file; the report shows the other files of its run.
        hidden: values that configs took from the environment, each with the reference to show instead.
        limits: the margin of equal quality, and limits of the recommended configuration.
    """

    folder: ResultFolder
    records: Sequence[RunRecord]
    damaged: Sequence[str] = ()
    hidden: Mapping[str, str] = field(default_factory=dict)
    limits: Limits = field(default_factory=Limits)
    _scores: dict[tuple[str, str], TestScores | None] = field(default_factory=dict)
    _components: dict[str, Components | None] = field(default_factory=dict)
    _kept: dict[object, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, folder: ResultFolder) -> Results:
        """Read the records, and check the other files of their runs.

        Raises:
            StoreError: no record can be read, as in `ResultFolder.read_records`.
        """
        contents = folder.read_records()
        hidden, records = _references(contents.good), complete(contents.good)
        scores: dict[tuple[str, str], TestScores | None] = {}
        damaged = [*contents.damaged.values(), *damaged_files(folder, records, scores)]
        limits, problems = _limits(folder)
        damaged += problems
        finished = {_key(record) for record in records if record.status == "ok"}
        # A file of weights changes the run id: a run that was skipped without the file may be done under another id.
        current = [record for record in records if record.status != "skipped" or _key(record) not in finished]
        return cls(folder, current, tuple(damaged), hidden, limits, scores)

    @property
    def task(self) -> str:
        """The task of all runs; a result folder has one task."""
        return self.records[0].task if self.records else "detection"

    def ok(self) -> list[RunRecord]:
        """Records of the finished runs."""
        return self._of("ok")

    def rivals(self) -> list[RunRecord]:
        """Records of the finished runs that are compared; see `harness.report.configurations.rivals`."""
        return self.once("rivals", lambda: rivals(self.ok()))

    def failed(self) -> list[RunRecord]:
        """Records of the failed runs."""
        return self._of("failed")

    def skipped(self) -> list[RunRecord]:
        """Records of the runs that were skipped because their weights are missing."""
        return self._of("skipped")

    def _of(self, status: str) -> list[RunRecord]:
        return [record for record in self.records if record.status == status]

    @cached_property
    def configurations(self) -> dict[str, list[Configuration]]:
        """The configurations of each data set, best first, as `harness.report.configurations` groups them."""
        return configurations(self.records)

    def configuration_name(self, record: RunRecord) -> str:
        """The configuration of a run in words, in one line; a run outside the comparison has the name of its model."""
        return self._names.get(record.run_id, f"{record.spec['model']} (left out of the comparison)")

    @cached_property
    def _names(self) -> dict[str, str]:
        groups = self.configurations.values()
        return {record.run_id: one.name for group in groups for one in group for record in one.records}

    def under(self, limits: Limits) -> Results:
        """The same results with other limits."""
        return replace(self, limits=limits, _kept={})

    def once(self, key: object, compute: Callable[[], T]) -> T:
        """Return a value that several parts of a report need, and compute it at the first call only.

        Args:
            key: names the value.
            compute: computes the value.
        """
        if key not in self._kept:
            self._kept[key] = compute()
        kept: T = self._kept[key]
        return kept

    def scores(self, run_id: str, role: str = TEST) -> TestScores | None:
        """Scores of a run's images; None where the file is missing or damaged.

        Args:
            run_id: of the run.
            role: of the images; those of the metrics by default.
        """
        key = (run_id, role)
        if key not in self._scores:
            try:
                self._scores[key] = read_scores(self.folder.run_folder(run_id), role)
            except StoreError:
                self._scores[key] = None
        return self._scores[key]

    def changed_threshold(self, run_id: str) -> float | None:
        """The image threshold that a user set after the run; None without one, or where the file is damaged."""
        try:
            thresholds = changed_thresholds(self.folder.run_folder(run_id))
        except StoreError:
            return None
        return None if thresholds is None else thresholds.image

    def components(self, run_id: str) -> Components | None:
        """The components of DeLong's test of a run; None where the scores lack a class."""
        if run_id not in self._components:
            scores = self.scores(run_id)
            usable = scores is not None and scores.both_classes
            self._components[run_id] = Components.of(scores.scores, scores.labels) if scores and usable else None
        return self._components[run_id]

    def details(self, run_id: str) -> dict[str, Any]:
        """Curves and gallery of a run; empty where there are none, or the file is damaged."""
        try:
            return read_details(self.folder.run_folder(run_id))
        except StoreError:
            return {}

    def search(self) -> dict[str, Any] | None:
        """The content of search.json; None where the file is missing or damaged."""
        try:
            search = self.folder.read_search()
            return concealed(search, self.hidden) if search and self.hidden else search
        except NewerVersionError:
            raise
        except StoreError:
            return None


def _limits(folder: ResultFolder) -> tuple[Limits, list[str]]:
    """The limits of a recommendation in config.yaml, and the problems of reading them."""
    try:
        return limits_of(folder.read_config()), []
    except ConfigError as error:
        return Limits(), [f"{folder.config}: {problem} Without it there are no limits." for problem in error.problems]


def complete(records: list[RunRecord]) -> list[RunRecord]:
    """Records for a report: without values from the environment, and with all parameters of the model."""
    return [_with_implied_values(record) for record in without_secrets(records)]


def _with_implied_values(record: RunRecord) -> RunRecord:
    implied = implied_values(str(record.spec["backend"]), str(record.spec["model"]))
    params = record.spec["params"]
    if implied.keys() <= params.keys():
        return record
    return replace(record, spec={**record.spec, "params": {**implied, **params}})


def without_secrets(records: list[RunRecord]) -> list[RunRecord]:
    """Values from the environment are replaced by their references."""
    return [_without_own(record, hidden) if (hidden := _references([record])) else record for record in records]


def _references(records: Sequence[RunRecord]) -> dict[str, str]:
    return {value: text for record in records for value, text in record.provenance.get("references", {}).items()}


def _without_own(record: RunRecord, references: dict[str, str]) -> RunRecord:
    """One record without the values that its own config took from the environment; other records keep them."""
    return replace(
        record,
        # The run id and the keys that reports group by depend on the other values.
        spec={key: concealed(value, references) if key in USER_KEYS else value for key, value in record.spec.items()},
        provenance={key: value for key, value in record.provenance.items() if key != "references"},
        data=concealed(record.data, references),
        # Reports compare `source` with fixed words.
        weights={**concealed(record.weights, references), "source": record.weights.get("source")},
        warnings=concealed(record.warnings, references),
        error=concealed(record.error, references),
    )
