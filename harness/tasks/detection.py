"""`task: detection`: is it bad, and where."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness import registry
from harness.backends.base import AnySplit, Detected, EpochDetections, EpochPredictions, Outcome
from harness.common.errors import DataError
from harness.common.files import write_atomic
from harness.config.spec import RunSpec, freeze_items
from harness.data.base import BaseOptions, Split
from harness.data.index import FileIndex, Progress
from harness.data.split import load_splits
from harness.metrics.evaluate import Evaluation, evaluate_predictions, metrics_of
from harness.metrics.validation import validation_part
from harness.results.gallery import draw_gallery
from harness.results.scores import SCORES, scores_csv
from harness.results.store import DETAILS

if TYPE_CHECKING:
    from harness.config.sweep import SweepConfig


class Detection:
    """See `harness.tasks.base.Task`."""

    name = "detection"
    backend = "anomalib"
    config_keys = frozenset({"threshold", "aupro_limit"})

    def spec_fields(self, config: SweepConfig) -> dict[str, Any]:
        """How thresholds are fixed, and the limit of AUPRO."""
        return {"threshold": freeze_items(config.threshold.policy()), "aupro_limit": config.aupro_limit}

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

    def metrics(self) -> Sequence[registry.Metric]:
        """The registered metrics of images and pixels; image AUROC is the one that a search goes by."""
        return registry.METRICS

    def epoch_metrics(self, spec: RunSpec, epoch_predictions: EpochPredictions) -> Mapping[str, float | None]:
        """See `Task.glance`."""
        assert isinstance(epoch_predictions, EpochDetections)
        assert spec.aupro_limit is not None
        return metrics_of(epoch_predictions.test, epoch_predictions.val, dict(spec.threshold), spec.aupro_limit)

    def data_summary(self, split: AnySplit) -> dict[str, Any]:
        """See `Task.describe`."""
        assert isinstance(split, Split)
        return data_summary(split)

    def measure(self, spec: RunSpec, split: AnySplit, outcome: Outcome, stage: Path) -> Mapping[str, Any]:
        """See `Task.measure`."""
        assert isinstance(outcome, Detected)
        assert spec.aupro_limit is not None
        evaluation = evaluate_predictions(outcome.test, outcome.val, dict(spec.threshold), spec.aupro_limit)
        write_artifacts(stage, evaluation)
        return {
            "data": {**self.data_summary(split), **describe_roles(evaluation), "validation": outcome.validation},
            "metrics": evaluation.metrics,
            "intervals": {name: list(ends) for name, ends in evaluation.intervals.items()},
            "defects": evaluation.defects,
            "thresholds": asdict(evaluation.thresholds),
            "warnings": vanished_masks(evaluation),
        }


def data_summary(split: Split) -> dict[str, Any]:
    """A split, for the record."""
    return {
        "kind": split.kind,
        "category": split.category,
        "root": str(split.root),
        "fingerprint": split.fingerprint,
        "test_fingerprint": split.test_fingerprint,
        "held_out": list(split.held_out),
        "train": len(split.train),
        "val": len(split.val),
        "test": len(split.test),
        "test_anomalous": sum(sample.label for sample in split.test),
        "masks": split.has_masks,
        "notes": list(split.notes),
    }


def describe_roles(evaluation: Evaluation) -> dict[str, int]:
    """How many images the figures are about, and how many were taken out of the test set for the threshold."""
    taken = 0 if evaluation.validation is None else len(evaluation.validation.samples)
    labels = evaluation.test.labels
    return {"test": len(labels), "test_anomalous": int(labels.sum()), "taken": taken}


def vanished_masks(evaluation: Evaluation) -> list[str]:
    """A sentence on masks that have no pixel left at the size of the maps."""
    names = evaluation.test.vanished
    if not names or evaluation.test.maps is None:
        return []
    height, width = evaluation.test.maps.shape[1:]
    more = f" and {len(names) - 1} more" if len(names) > 1 else ""
    return [f"no pixel of the mask of {names[0]}{more} is left at {height} x {width}: pixel metrics do not see it"]


def write_artifacts(folder: Path, evaluation: Evaluation) -> None:
    """Write everything that a report needs and the record does not hold."""
    write_atomic(folder / SCORES, scores_csv(evaluation))
    gallery = draw_gallery(folder, evaluation.test, evaluation.thresholds)
    details = {"curves": evaluation.curves, "gallery": gallery}
    write_atomic(folder / DETAILS, json.dumps(details, allow_nan=False))
