"""`task: detection`: is it bad, and where."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness import registry
from harness.artifacts import write_artifacts
from harness.backends.base import AnySplit, Detected, Outcome, Seen, SeenTest
from harness.datasets.base import BaseOptions, Split
from harness.datasets.index import FileIndex, Progress
from harness.datasets.split import load_splits
from harness.describe import describe, describe_roles, vanished_masks
from harness.errors import DataError
from harness.metrics.evaluate import figures_of, judge
from harness.metrics.validation import validation_part
from harness.spec import RunSpec

if TYPE_CHECKING:
    from harness.config import SweepConfig


class Detection:
    """See `harness.tasks.base.Task`."""

    name = "detection"
    backend = "anomalib"

    def options(self, kind: str) -> type[BaseOptions]:
        """See `Task.options`. Any other name is one of anomalib's datamodules."""
        found: type[BaseOptions] = registry.load(registry.DATASETS.get(kind, registry.OTHER_DATASET))
        return found

    def kinds(self) -> Sequence[str]:
        """See `Task.kinds`."""
        return [*registry.DATASETS, "the name of an anomalib datamodule"]

    def load(self, config: SweepConfig, index: FileIndex, progress: Progress | None) -> list[AnySplit]:
        """See `Task.load`."""
        return [*load_splits(config.detection_data, config.work_dir, index, progress)]

    def problems(self, config: SweepConfig, splits: Sequence[AnySplit]) -> list[str]:
        """Test sets of which `threshold: f1_on_val` can take no part."""
        problems = []
        for split in splits if config.threshold.method == "f1_on_val" else ():
            assert isinstance(split, Split)
            try:
                validation_part(split.test, config.threshold.share, config.threshold.seed)
            except DataError as error:
                problems += [f"{split.root}: {problem}" for problem in error.problems]
        return problems

    def figures(self) -> Sequence[str]:
        """See `Task.figures`."""
        return [f"{level}_{name}" for level, metrics in registry.METRICS.items() for name in metrics]

    def glance(self, spec: RunSpec, seen: Seen) -> Mapping[str, float | None]:
        """See `Task.glance`."""
        assert isinstance(seen, SeenTest)
        assert spec.aupro_limit is not None
        return figures_of(seen.test, seen.val, dict(spec.threshold), spec.aupro_limit)

    def describe(self, split: AnySplit) -> dict[str, Any]:
        """See `Task.describe`."""
        assert isinstance(split, Split)
        return describe(split)

    def measure(self, spec: RunSpec, split: AnySplit, outcome: Outcome, stage: Path) -> Mapping[str, Any]:
        """See `Task.measure`."""
        assert isinstance(outcome, Detected)
        assert spec.aupro_limit is not None
        evaluation = judge(outcome.test, outcome.val, dict(spec.threshold), spec.aupro_limit)
        write_artifacts(stage, evaluation)
        return {
            "data": {**self.describe(split), **describe_roles(evaluation), "validation": outcome.validation},
            "metrics": evaluation.metrics,
            "intervals": {name: list(ends) for name, ends in evaluation.intervals.items()},
            "defects": evaluation.defects,
            "thresholds": asdict(evaluation.thresholds),
            "warnings": vanished_masks(evaluation),
        }
