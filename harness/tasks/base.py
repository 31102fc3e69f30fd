"""The contract of a task. Plan, execution, store and the sheet's mechanics know no more of a task than this."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from harness.backends.base import AnySplit, EpochPredictions, Outcome
from harness.config.spec import RunSpec
from harness.data.base import DataKinds
from harness.data.index import FileIndex, Progress
from harness.registry import Metric

if TYPE_CHECKING:
    from harness.config.sweep import SweepConfig


class Task(DataKinds, Protocol):
    """A kind of predictions, and the metrics that go with it."""

    name: str
    backend: str  # where the grid names none
    config_keys: frozenset[str]  # top-level keys of a config that no other task has a use for

    def spec_fields(self, config: SweepConfig) -> dict[str, Any]:
        """Fields of `RunSpec` that the task's own keys of the config give."""

    def load(self, config: SweepConfig, index: FileIndex, progress: Progress | None) -> list[AnySplit]:
        """Read the data: one split a category.

        Raises:
            DataError: everything that is wrong with it.
        """

    def problems(self, config: SweepConfig, splits: Sequence[AnySplit]) -> list[str]:
        """What of the config can't be had with this data, one sentence each."""

    def metrics(self) -> Sequence[Metric]:
        """All metrics; the first one is the one that a search goes by unless the config names another."""

    def epoch_metrics(self, spec: RunSpec, epoch_predictions: EpochPredictions) -> Mapping[str, float | None]:
        """Metrics of what is seen of a training before its end."""

    def data_summary(self, split: AnySplit) -> dict[str, Any]:
        """A split, for the record."""

    def measure(self, spec: RunSpec, split: AnySplit, outcome: Outcome, stage: Path) -> Mapping[str, Any]:
        """Measure a run and write what lies beside its record.

        Args:
            spec: of the run.
            split: its data.
            outcome: what the backend handed over.
            stage: the run's folder to be.

        Returns:
            Fields of `RunRecord`: data, metrics and whatever else the task has; `warnings` are added to the backend's.
        """
