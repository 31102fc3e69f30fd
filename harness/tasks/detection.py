"""`task: detection`: whether an image is anomalous, and where its defect is."""

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
    """Anomaly detection: a score for each image, and an anomaly map where the model has one."""

    name = "detection"
    backend = "anomalib"
    config_keys = frozenset({"threshold", "aupro_limit"})

    def spec_fields(self, config: SweepConfig) -> dict[str, Any]:
        """Return the method that fixes the thresholds, and the upper limit of the false positive rate in AUPRO."""
        return {"threshold": freeze_items(config.threshold.policy()), "aupro_limit": config.aupro_limit}

    def options(self, kind: str) -> type[BaseOptions]:
        """Return the class of the options of a kind. An unregistered name is the name of an anomalib datamodule."""
        options: type[BaseOptions] = registry.load(registry.DATASETS.get(kind, registry.OTHER_DATASET))
        return options

    def kinds(self) -> Sequence[str]:
        """Return the names of all kinds of data."""
        return [*registry.DATASETS, "the name of an anomalib datamodule"]

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
        return [*load_splits(config.detection_data, config.work_dir, index, progress)]

    def problems(self, config: SweepConfig, splits: Sequence[AnySplit]) -> list[str]:
        """Return one sentence for each test set that is too small for the validation set of `threshold: f1_on_val`.

        Args:
            config: of the sweep.
            splits: the data of all categories.
        """
        problems = []
        for split in splits if config.threshold.method == "f1_on_val" else ():
            assert isinstance(split, Split)
            try:
                validation_part(split.test, config.threshold.share, config.threshold.seed)
            except DataError as error:
                problems += [f"{split.root}: {problem}" for problem in error.problems]
        return problems

    def metrics(self) -> Sequence[registry.Metric]:
        """Return the registered metrics of images and pixels. Image AUROC is the default of `search.metric`."""
        return registry.METRICS

    def epoch_metrics(self, spec: RunSpec, epoch_predictions: EpochPredictions) -> Mapping[str, float | None]:
        """Return the metrics of an intermediate evaluation.

        Args:
            spec: of the run.
            epoch_predictions: predictions for the test images and the held-out normal images after an epoch.

        Returns:
            Name of the metric -> value, None where undefined.
        """
        assert isinstance(epoch_predictions, EpochDetections)
        assert spec.aupro_limit is not None
        return metrics_of(epoch_predictions.test, epoch_predictions.val, dict(spec.threshold), spec.aupro_limit)

    def data_summary(self, split: AnySplit) -> dict[str, Any]:
        """Return the description of a split for the record."""
        assert isinstance(split, Split)
        return data_summary(split)

    def measure(self, spec: RunSpec, split: AnySplit, outcome: Outcome, stage: Path) -> Mapping[str, Any]:
        """Evaluate a run, and write its files beside the record.

        Args:
            spec: of the run.
            split: data of the run.
            outcome: result of the backend.
            stage: folder of the run before the commit; the folder exists.

        Returns:
            Fields of `RunRecord`.
        """
        assert isinstance(outcome, Detected)
        assert spec.aupro_limit is not None
        evaluation = evaluate_predictions(outcome.test, outcome.val, dict(spec.threshold), spec.aupro_limit)
        write_artifacts(stage, evaluation)
        return {
            "data": {**self.data_summary(split), **image_counts(evaluation), "validation": outcome.validation},
            "metrics": evaluation.metrics,
            "intervals": {name: list(ends) for name, ends in evaluation.intervals.items()},
            "defects": evaluation.defects,
            "thresholds": asdict(evaluation.thresholds),
            "warnings": vanished_masks(evaluation),
        }


def data_summary(split: Split) -> dict[str, Any]:
    """Description of a split for the record."""
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


def image_counts(evaluation: Evaluation) -> dict[str, int]:
    """Numbers of the evaluated images, of the anomalous ones, and of the validation images out of the test set."""
    taken = 0 if evaluation.validation is None else len(evaluation.validation.samples)
    labels = evaluation.test.labels
    return {"test": len(labels), "test_anomalous": int(labels.sum()), "taken": taken}


def vanished_masks(evaluation: Evaluation) -> list[str]:
    """One sentence about the defects that have no pixel at the size of the anomaly maps; empty without such defects."""
    names = evaluation.test.vanished
    if not names or evaluation.test.maps is None:
        return []
    height, width = evaluation.test.maps.shape[1:]
    more = f" and {len(names) - 1} more" if len(names) > 1 else ""
    return [f"the mask of {names[0]}{more} has no pixel at {height} x {width}: pixel metrics ignore this defect"]


def write_artifacts(folder: Path, evaluation: Evaluation) -> None:
    """Write the scores, the gallery and the curves for the report.

    Args:
        folder: of the run.
        evaluation: of the run.
    """
    write_atomic(folder / SCORES, scores_csv(evaluation))
    gallery = draw_gallery(folder, evaluation.test, evaluation.thresholds)
    details = {"curves": evaluation.curves, "gallery": gallery}
    write_atomic(folder / DETAILS, json.dumps(details, allow_nan=False))
