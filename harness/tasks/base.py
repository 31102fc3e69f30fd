"""The contract between the harness and its tasks. Planning, execution and the result folder use this contract only."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from harness.backends.base import AnySplit, EpochPredictions, Outcome, Signature
from harness.config.spec import RunSpec
from harness.data.base import DataKinds
from harness.data.images import RGB
from harness.data.index import FileIndex, Progress
from harness.registry import Metric

if TYPE_CHECKING:
    from harness.config.sweep import SweepConfig


class Task(DataKinds, Protocol):
    """A kind of predictions with its data and its metrics.

    Attributes:
        name: value of `task:` in the config.
        backend: backend of a grid without the axis `backend`.
        config_keys: top-level keys of the config that only this task uses.
        recommend_keys: keys of the block `recommend` that the task uses.
    """

    name: str
    backend: str
    config_keys: frozenset[str]
    recommend_keys: frozenset[str]

    def spec_fields(self, config: SweepConfig, signature: Signature) -> dict[str, Any]:
        """Return the fields of `RunSpec` that come from the task's own keys of the config.

        Args:
            config: of the sweep.
            signature: parameters of the model.
        """

    def load(self, config: SweepConfig, index: FileIndex, progress: Progress | None) -> list[AnySplit]:
        """Read the data.

        Args:
            config: of the sweep.
            index: hashes and sizes of the data's files.
            progress: called with (files read, number of files).

        Returns:
            One split for each category.

        Raises:
            DataError: the data has errors; one sentence for each.
        """

    def problems(self, config: SweepConfig, splits: Sequence[AnySplit]) -> list[str]:
        """Return the conflicts between the config and the data, one sentence each.

        Args:
            config: of the sweep.
            splits: the data of all categories.
        """

    def metrics(self) -> Sequence[Metric]:
        """Return all metrics. The first metric is the default of `search.metric`."""

    def epoch_metrics(self, spec: RunSpec, epoch_predictions: EpochPredictions) -> Mapping[str, float | None]:
        """Return the metrics of an intermediate evaluation.

        Args:
            spec: of the run.
            epoch_predictions: predictions after an epoch of the training.

        Returns:
            Name of the metric -> value, None where undefined.
        """

    def data_summary(self, split: AnySplit) -> dict[str, Any]:
        """Return the description of a split for the record."""

    def decision(self, scorer: Any, thresholds: Mapping[str, Any]) -> Callable[[RGB], object]:
        """Return the function that decides on one image, for the timing of single images.

        Args:
            scorer: a `Scorer` or a `LabelScorer` of `harness.backends.scorers`.
            thresholds: of the record.
        """

    def measure(self, spec: RunSpec, split: AnySplit, outcome: Outcome, stage: Path) -> Mapping[str, Any]:
        """Evaluate a run, and write its files beside the record.

        Args:
            spec: of the run.
            split: data of the run.
            outcome: result of the backend.
            stage: folder of the run before the commit; the folder exists.

        Returns:
            Fields of `RunRecord`: data, metrics and others. The record has these `warnings` after those of the backend.
        """
