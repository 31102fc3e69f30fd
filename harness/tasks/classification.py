"""`task: classification`: the class and the condition of each image."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from harness import registry
from harness.backends.base import AnySplit, Classified, EpochPredictions, Outcome, Signature
from harness.backends.scorers import LabelScorer
from harness.common.errors import ConfigError, unknown_name
from harness.common.files import write_atomic
from harness.common.tables import csv_text, guarded_path
from harness.config.spec import RunSpec
from harness.data.base import BaseOptions
from harness.data.images import RGB
from harness.data.index import FileIndex, Progress
from harness.data.labelled.base import LabelledOptions, LabelledSplit
from harness.data.labelled.split import load_labelled
from harness.metrics.classification import (
    accuracy,
    confused,
    confusion,
    f1_of_labels,
    groups,
    macro_f1,
    tail,
)
from harness.metrics.macro_f1 import macro_f1_interval
from harness.metrics.temperature import Temperature
from harness.predictions.classification import ClassPredictions
from harness.results.run_folder import DETAILS
from harness.tasks.examples import draw_examples

if TYPE_CHECKING:
    from harness.config.sweep import SweepConfig

PREDICTIONS = "predictions.csv"
OUT_OF_FOLD, TEST = "out of fold", "test"
EXAMPLES = 3  # images of each pair of confused labels


class Classification:
    """Classification: a label for each image. A label is a class with its condition."""

    name = "classification"
    backend = "supervised"
    config_keys = frozenset({"coverage"})
    recommend_keys = frozenset({"margin"})

    def spec_fields(self, config: SweepConfig, signature: Signature) -> dict[str, Any]:
        """Return empty values for the threshold and for AUPRO: a classification has neither.

        Args:
            config: of the sweep.
            signature: parameters of the model.
        """
        del config, signature
        return {"threshold": (), "aupro_limit": None}

    def options(self, kind: str) -> type[BaseOptions]:
        """Return the class of the options of a kind.

        Raises:
            ConfigError: the kind is unknown.
        """
        if kind not in registry.LABELLED_DATASETS:
            raise ConfigError(f"data.kind: {unknown_name('labelled data', kind, registry.LABELLED_DATASETS)}")
        options: type[BaseOptions] = registry.load(registry.LABELLED_DATASETS[kind])
        return options

    def kinds(self) -> Sequence[str]:
        """Return the names of all kinds of data."""
        return list(registry.LABELLED_DATASETS)

    def load(self, config: SweepConfig, index: FileIndex, progress: Progress | None) -> list[AnySplit]:
        """Read the data.

        Args:
            config: of the sweep.
            index: hashes and sizes of the data's files.
            progress: called with (files read, number of files).

        Returns:
            One split.

        Raises:
            DataError: the data has errors; one sentence for each.
        """
        assert isinstance(config.data, LabelledOptions)
        return [load_labelled(config.data, config.work_dir, index, progress)]

    def problems(self, config: SweepConfig, splits: Sequence[AnySplit]) -> list[str]:
        """Return no problem: `load` finds all of them.

        Args:
            config: of the sweep.
            splits: the data.
        """
        del config, splits
        return []

    def metrics(self) -> Sequence[registry.Metric]:
        """Return the registered metrics of a classification. Macro F1 is the default of `search.metric`."""
        return registry.CLASSIFICATION_METRICS

    def epoch_metrics(self, spec: RunSpec, epoch_predictions: EpochPredictions) -> Mapping[str, float | None]:
        """Return the metrics of an intermediate evaluation.

        Args:
            spec: of the run.
            epoch_predictions: out-of-fold predictions of the first fold after an epoch.

        Returns:
            Name of the metric -> value, None where undefined.
        """
        del spec
        assert isinstance(epoch_predictions, ClassPredictions)
        return metrics(epoch_predictions)

    def data_summary(self, split: AnySplit) -> dict[str, Any]:
        """Return the description of a split for the record."""
        assert isinstance(split, LabelledSplit)
        out_of_fold = sum(fold in split.run_folds for fold in split.folds)
        return {
            "kind": split.kind,
            "category": "",
            "root": str(split.root),
            "fingerprint": split.fingerprint,
            "test_fingerprint": split.test_fingerprint,
            "train": len(split.train),
            "judged": out_of_fold,
            "test": len(split.test),
            "labels": len(split.labels),
            "folds": list(split.run_folds),
            "notes": list(split.notes),
            **({"excluded": split.excluded} if split.excluded else {}),
            "sample_submission": str(split.sample_submission) if split.sample_submission else None,
            **({"group": split.group, "groups": len(set(split.groups))} if split.group else {}),
        }

    def decision(self, scorer: LabelScorer, thresholds: Mapping[str, Any]) -> Callable[[RGB], object]:
        """Return the function that selects the most probable label of an image.

        Args:
            scorer: the trained networks.
            thresholds: empty.
        """
        del thresholds
        return lambda pixels: scorer.probabilities([scorer.prepare(pixels)]).argmax(axis=1)

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
        del spec
        assert isinstance(outcome, Classified)
        assert isinstance(split, LabelledSplit)
        predictions = outcome.predictions
        paths = {sample.name: Path(sample.path) for sample in split.train}
        temperature = Temperature.of(predictions)
        write_files(stage, predictions, temperature, outcome, paths, split.distribution())
        ends = macro_f1_interval(predictions.truth, predictions.predicted, len(predictions.labels))
        return {
            "data": self.data_summary(split),
            "metrics": metrics(predictions),
            "intervals": {} if ends is None else {"macro_F1": list(ends)},
            "folds": outcome.folds,
            "temperature": vars(temperature),
            "recipe": outcome.recipe,
            "warnings": list(split.notes),
        }


def metrics(predictions: ClassPredictions) -> dict[str, float | None]:
    """All metrics of a run: on the test images for a name with `test_`, otherwise out of fold; None where undefined."""
    truth, predicted, k = predictions.truth, predictions.predicted, len(predictions.labels)
    classes, conditions = zip(*predictions.label_specs, strict=True)
    counts = confusion(truth, predicted, k)
    f1 = f1_of_labels(counts)
    rare = tail(counts)
    values = (
        macro_f1(truth, predicted, k),
        accuracy(truth, predicted),
        float(np.nanmean(f1[rare])) if rare.any() else float("nan"),
        *(float(np.mean([group.f1 for group in groups(truth, predicted, names)])) for names in (classes, conditions)),
        *(
            float("nan") if other is None else macro_f1(truth, other.argmax(axis=1), k)
            for other in (predictions.plain, predictions.network)
        ),
        macro_f1(predictions.test_truth, predictions.test_predicted, k),
        accuracy(predictions.test_truth, predictions.test_predicted),
    )
    keys = [metric.key for metric in registry.CLASSIFICATION_METRICS]
    return {key: None if np.isnan(value) else value for key, value in zip(keys, values, strict=True)}


def write_files(
    stage: Path,
    predictions: ClassPredictions,
    temperature: Temperature,
    outcome: Classified | None,
    paths: Mapping[str, Path],
    distribution: Mapping[str, list[int]] | None = None,
) -> None:
    """Write the files of a run beside its record.

    Args:
        stage: the run's folder.
        predictions: of the run.
        temperature: of the run.
        outcome: the trained networks and their curves; None for a run without networks of its own.
        paths: files of the images, by name; an image without a file gets no example.
        distribution: see `LabelledSplit.distribution`; None where the data is not known.
    """
    predictions.save(stage)
    write_atomic(stage / PREDICTIONS, predictions_csv(predictions, temperature))
    curves = {} if outcome is None else outcome.curves
    values = {**details(predictions, curves), "distribution": dict(distribution or {})}
    values["cam_note"] = draw_examples(stage, values["confused"], paths, predictions, outcome)
    write_atomic(stage / DETAILS, json.dumps(values, allow_nan=False))


def details(predictions: ClassPredictions, curves: Mapping[str, list[dict[str, float]]]) -> dict[str, Any]:
    """The content of details.json, for the report.

    Args:
        predictions: of the run.
        curves: see `harness.backends.base.Classified`.
    """
    truth, predicted, labels = predictions.truth, predictions.predicted, predictions.labels
    classes, conditions = zip(*predictions.label_specs, strict=True)
    counts = confusion(truth, predicted, len(labels))
    f1 = f1_of_labels(counts)
    pairs = confused(counts, labels)
    for pair in pairs:
        row, column = labels.index(pair["label"]), labels.index(pair["said"])
        wrong = np.flatnonzero((truth == row) & (predicted == column))
        probabilities = predictions.probabilities[:, column]
        examples = wrong[np.argsort(-probabilities[wrong], kind="stable")][:EXAMPLES]
        pair["examples"] = [{"name": predictions.names[i], "probability": float(probabilities[i])} for i in examples]
    return {
        "labels": [
            {"label": label, "images": int(counts[i].sum()), "right": int(counts[i, i]),
             "said": int(counts[:, i].sum()), "f1": None if np.isnan(f1[i]) else float(f1[i])}
            for i, label in enumerate(labels)
        ],
        "classes": [vars(group) for group in groups(truth, predicted, classes)],
        "states": [vars(group) for group in groups(truth, predicted, conditions)],
        "confusion": counts.tolist(),
        "confused": pairs,
        "epochs": dict(curves),
    }  # fmt: skip


def predictions_csv(predictions: ClassPredictions, temperature: Temperature) -> str:
    """The content of predictions.csv: for each image the predicted label, its probability, and the true label.

    Args:
        predictions: of the run.
        temperature: of the run; it calibrates the column `probability`.
    """
    rows: list[list[object]] = [["path", "label", "predicted_label", "probability", "fold", "role", "raw_probability"]]
    labels, raw, raw_test = predictions.labels, predictions.probabilities, predictions.test_probabilities
    calibrated, calibrated_test = temperature.apply(raw), temperature.apply(raw_test)
    for i, (name, predicted) in enumerate(zip(predictions.names, predictions.predicted, strict=True)):
        label, fold = labels[predictions.truth[i]], int(predictions.folds[i])
        probability, raw_probability = (f"{values[i, predicted]:.6f}" for values in (calibrated, raw))
        rows.append([guarded_path(name), label, labels[predicted], probability, fold, OUT_OF_FOLD, raw_probability])
    for i, (name, predicted) in enumerate(zip(predictions.test_names, predictions.test_predicted, strict=True)):
        label = labels[predictions.test_truth[i]] if predictions.test_truth[i] >= 0 else ""
        probability, raw_probability = (f"{values[i, predicted]:.6f}" for values in (calibrated_test, raw_test))
        rows.append([guarded_path(name), label, labels[predicted], probability, "", TEST, raw_probability])
    return csv_text(rows)
