"""`task: detection`: whether an image is anomalous, and where its defect is."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness import registry
from harness.backends.base import AnySplit, Detected, EpochDetections, EpochPredictions, Outcome, Signature
from harness.backends.scorers import Scorer
from harness.common.errors import DataError
from harness.common.files import write_atomic
from harness.config.recommend import Limits
from harness.config.spec import RunSpec, freeze_items
from harness.config.threshold import CROSS_CONFORMAL
from harness.data.base import BaseOptions
from harness.data.detect import AUTO
from harness.data.images import RGB
from harness.data.index import FileIndex, Progress
from harness.data.samples import Split
from harness.data.split import load_splits
from harness.data.subset import problems_of
from harness.data.synthetic import with_synthetic
from harness.metrics.evaluate import Evaluation, evaluate, evaluate_predictions, metrics_of
from harness.metrics.intervals import intervals
from harness.metrics.validation import holdout_part, validation_part
from harness.predictions.detection import Predictions, Protocol
from harness.predictions.pairs import vanished
from harness.results.gallery import draw_gallery
from harness.results.run_folder import DETAILS
from harness.results.scores import CALIBRATION, SCORES, calibration_csv, scores_csv
from harness.tasks.protocol import protocol_problems, with_rule_notes

if TYPE_CHECKING:
    from harness.config.sweep import SweepConfig


class Detection:
    """Anomaly detection: a score for each image, and an anomaly map where the model has one."""

    name = "detection"
    backend = "anomalib"
    config_keys = frozenset({"threshold", "aupro_limit", "protocol", "extra_metrics", "rank", "n_train"})
    recommend_keys = frozenset(Limits.model_fields)

    def spec_fields(self, config: SweepConfig, signature: Signature) -> dict[str, Any]:
        """Return the method of the thresholds, the limit of AUPRO, and what differs from a default of other metrics.

        Args:
            config: of the sweep.
            signature: parameters of the model, with its number of folds.
        """
        policy = config.threshold.policy()
        if policy["method"] == CROSS_CONFORMAL and policy["folds"] is None:
            policy["folds"] = signature.folds
        rank = None if config.rank == "labels" else config.rank
        protocol = freeze_items(config.protocol.changes())
        fields = {"threshold": freeze_items(policy), "aupro_limit": config.aupro_limit}
        return {**fields, "rank": rank, "protocol": protocol, "extra_metrics": tuple(config.extra_metrics)}

    def options(self, kind: str) -> type[BaseOptions]:
        """Return the class of the options of a kind. An unregistered name is the name of an anomalib datamodule."""
        options: type[BaseOptions] = registry.load(registry.DATASETS.get(kind, registry.OTHER_DATASET))
        return options

    def kinds(self) -> Sequence[str]:
        """Return the names of all kinds of data."""
        return [*registry.DATASETS, AUTO, "the name of an anomalib datamodule"]

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
        splits = load_splits(config.detection_data, config.work_dir, index, progress)
        if config.rank == "synthetic":
            pixels = config.data.max_pixels
            splits = [with_synthetic(split, config.work_dir, index, pixels) for split in splits]
        return [with_rule_notes(split, config.protocol.mask) for split in splits]

    def problems(self, config: SweepConfig, splits: Sequence[AnySplit]) -> list[str]:
        """Return one sentence for each data set that does not fit `n_train`, `threshold: f1_on_val` or the protocol.

        Args:
            config: of the sweep.
            splits: the data of all categories.
        """
        problems = []
        for split in splits if config.threshold.method == "f1_on_val" else ():
            assert isinstance(split, Split)
            try:
                validation_part(split.real_test, config.threshold.share, config.threshold.seed)
            except DataError as error:
                problems += [f"{split.root}: {problem}" for problem in error.problems]
        of_detection = [split for split in splits if isinstance(split, Split)]
        problems += problems_of(of_detection, config.numbers_of_images)
        return problems + protocol_problems(config.protocol.protocol, of_detection, config.memory_limit)

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
        test, _ = without_holdout(spec, epoch_predictions.test.under(protocol_of(spec)))
        return metrics_of(test, epoch_predictions.val, dict(spec.threshold), spec.aupro_limit, spec.extra_metrics)

    def data_summary(self, split: AnySplit) -> dict[str, Any]:
        """Return the description of a split for the record."""
        assert isinstance(split, Split)
        return data_summary(split)

    def decision(self, scorer: Scorer, thresholds: Mapping[str, Any]) -> Callable[[RGB], object]:
        """Return the function that compares the score and the map of an image with the thresholds.

        Args:
            scorer: the trained model.
            thresholds: of the record; None for a missing one.
        """
        image_threshold, pixel_threshold = (thresholds.get(name) for name in ("image", "pixel"))

        def decide(pixels: RGB) -> object:
            scores, maps = scorer.score([scorer.prepare(pixels)])
            label = None if image_threshold is None else scores > image_threshold
            mask = None if pixel_threshold is None or maps is None else maps > pixel_threshold
            return label, mask

        return decide

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
        labelled, unlabelled = outcome.test.under(protocol_of(spec)).without_unlabelled()
        test, holdout = without_holdout(spec, labelled)
        evaluation = evaluate_predictions(
            test, outcome.calibration, dict(spec.threshold), spec.aupro_limit, spec.extra_metrics
        )
        write_artifacts(stage, evaluation, holdout, unlabelled, spec)
        counts = image_counts(evaluation, holdout)
        return {
            "data": {**self.data_summary(split), **counts, "validation": outcome.validation},
            "metrics": evaluation.metrics,
            "intervals": {name: list(ends) for name, ends in evaluation.intervals.items()},
            "defects": evaluation.defects,
            "thresholds": asdict(evaluation.thresholds),
            "warnings": vanished_masks(evaluation),
        }


def protocol_of(spec: RunSpec) -> Protocol:
    """The protocol of a run's pixel metrics."""
    return Protocol(**dict(spec.protocol))


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
        "test": len(split.real_test),
        "test_anomalous": sum(sample.label for sample in split.real_test),
        **({"unlabelled": len(split.unlabelled)} if split.unlabelled else {}),
        "masks": split.has_masks,
        "notes": list(split.notes),
        **({"excluded": split.excluded} if split.excluded else {}),
        **({"unified": split.unified} if split.unified > 1 else {}),
    }


def without_holdout(spec: RunSpec, test: Predictions) -> tuple[Predictions, Predictions | None]:
    """Separate the images that a search holds out.

    Args:
        spec: of the run.
        test: predictions for all test images.

    Returns:
        The predictions for the other test images, and those for the held-out images; None without such images.
    """
    if not spec.holdout:
        return test, None
    selection = holdout_part(test.samples, **dict(spec.holdout))
    return test.part(~selection), test.part(selection)


def image_counts(evaluation: Evaluation, holdout: Predictions | None) -> dict[str, int]:
    """Numbers of the evaluated images, of the anomalous ones, and of the images that left the test set.

    Args:
        evaluation: of the run.
        holdout: predictions for the held-out images of a search.
    """
    taken = 0 if evaluation.validation is None else len(evaluation.validation.samples)
    labels = evaluation.test.labels
    held_out = {} if holdout is None else {"holdout": len(holdout.samples)}
    return {"test": len(labels), "test_anomalous": int(labels.sum()), "taken": taken, **held_out}


def vanished_masks(evaluation: Evaluation) -> list[str]:
    """One sentence about the defects that have no pixel under the protocol; empty without such defects."""
    names = vanished(evaluation.test)
    if not names or evaluation.test.maps is None:
        return []
    height, width = evaluation.test.maps.shape[1:]
    more = f" and {len(names) - 1} more" if len(names) > 1 else ""
    size = "its own size" if evaluation.test.protocol.original else f"{height} x {width}"
    return [f"the mask of {names[0]}{more} has no pixel at {size}: pixel metrics ignore this defect"]


def write_artifacts(
    folder: Path,
    evaluation: Evaluation,
    holdout: Predictions | None,
    unlabelled: Predictions | None,
    spec: RunSpec,
) -> None:
    """Write the scores, the calibration scores, the gallery and the curves for the report.

    Args:
        folder: of the run.
        evaluation: of the run.
        holdout: predictions for the held-out images of a search. Their metrics are no part of the record, so that no
            trial is compared by them.
        unlabelled: predictions for images without a label.
        spec: of the run.
    """
    assert spec.aupro_limit is not None
    write_atomic(folder / SCORES, scores_csv(evaluation, holdout, unlabelled))
    if evaluation.calibration is not None:
        write_atomic(folder / CALIBRATION, calibration_csv(evaluation.calibration))
    gallery = draw_gallery(folder, evaluation.test, evaluation.thresholds)
    details: dict[str, Any] = {"curves": evaluation.curves, "gallery": gallery, **evaluation.tables}
    if holdout is not None:
        thresholds, calibration = evaluation.thresholds, evaluation.calibration
        details["holdout"] = {
            "images": len(holdout.samples),
            "metrics": evaluate(holdout, thresholds, spec.aupro_limit, spec.extra_metrics, calibration),
            "intervals": intervals(holdout.scores, holdout.labels, evaluation.thresholds.image),
        }
    write_atomic(folder / DETAILS, json.dumps(details, allow_nan=False))
