"""`task: classification`: what is it, and in which state."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from harness import registry
from harness.backends.base import AnySplit, Classified, EpochPredictions, Outcome
from harness.common.errors import ConfigError, unknown_name
from harness.common.files import write_atomic
from harness.common.tables import csv_text, guarded_path
from harness.config.spec import RunSpec
from harness.data.base import BaseOptions
from harness.data.images import read_image
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
    macro_f1_interval,
    tail,
)
from harness.predictions.classification import ClassPredictions
from harness.results.store import DETAILS

if TYPE_CHECKING:
    from harness.config.sweep import SweepConfig

PREDICTIONS = "predictions.csv"
OUT_OF_FOLD, TO_BE_NAMED = "out of fold", "test"
EXAMPLES = 3  # images of each confused pair
FOLDER = "examples"
SIDE = 160  # pixels of an example's longer side


class Classification:
    """See `harness.tasks.base.Task`."""

    name = "classification"
    backend = "supervised"
    config_keys: frozenset[str] = frozenset()

    def spec_fields(self, config: SweepConfig) -> dict[str, Any]:
        """No threshold is fixed, and there are no regions."""
        del config
        return {"threshold": (), "aupro_limit": None}

    def options(self, kind: str) -> type[BaseOptions]:
        """See `Task.options`."""
        if kind not in registry.LABELLED_DATASETS:
            raise ConfigError(f"data.kind: {unknown_name('labelled data', kind, registry.LABELLED_DATASETS)}")
        found: type[BaseOptions] = registry.load(registry.LABELLED_DATASETS[kind])
        return found

    def kinds(self) -> Sequence[str]:
        """See `Task.kinds`."""
        return list(registry.LABELLED_DATASETS)

    def load(self, config: SweepConfig, index: FileIndex, progress: Progress | None) -> list[AnySplit]:
        """See `Task.load`."""
        assert isinstance(config.data, LabelledOptions)
        return [load_labelled(config.data, config.work_dir, index, progress)]

    def problems(self, config: SweepConfig, splits: Sequence[AnySplit]) -> list[str]:
        """See `Task.problems`; there are none that reading the data does not find."""
        del config, splits
        return []

    def metrics(self) -> Sequence[registry.Metric]:
        """The registered metrics of a classification; macro F1 is the one that a search goes by."""
        return registry.CLASSIFICATION_METRICS

    def epoch_metrics(self, spec: RunSpec, epoch_predictions: EpochPredictions) -> Mapping[str, float | None]:
        """See `Task.glance`."""
        del spec
        assert isinstance(epoch_predictions, ClassPredictions)
        return metrics(epoch_predictions)

    def data_summary(self, split: AnySplit) -> dict[str, Any]:
        """See `Task.describe`."""
        assert isinstance(split, LabelledSplit)
        judged = sum(fold in split.run_folds for fold in split.folds)
        return {
            "kind": split.kind,
            "category": "",
            "root": str(split.root),
            "fingerprint": split.fingerprint,
            "test_fingerprint": split.test_fingerprint,
            "train": len(split.train),
            "judged": judged,
            "test": len(split.test),
            "labels": len(split.labels),
            "folds": list(split.run_folds),
            "notes": list(split.notes),
            "sample_submission": str(split.sample_submission) if split.sample_submission else None,
        }

    def measure(self, spec: RunSpec, split: AnySplit, outcome: Outcome, stage: Path) -> Mapping[str, Any]:
        """See `Task.measure`."""
        del spec
        assert isinstance(outcome, Classified)
        assert isinstance(split, LabelledSplit)
        found = outcome.predictions
        write_files(stage, found, outcome.curves, {sample.name: Path(sample.path) for sample in split.train})
        ends = macro_f1_interval(found.truth, found.predicted, len(found.labels))
        return {
            "data": self.data_summary(split),
            "metrics": metrics(found),
            "intervals": {} if ends is None else {"macro_F1": list(ends)},
            "folds": outcome.folds,
            "warnings": list(split.notes),
        }


def metrics(found: ClassPredictions) -> dict[str, float | None]:
    """All figures of a run, out of fold unless the name begins with `test_`; None where undefined."""
    truth, said, k = found.truth, found.predicted, len(found.labels)
    counts = confusion(truth, said, k)
    f1 = f1_of_labels(counts)
    rare = tail(counts)
    by_state = groups(truth, said, [state for _, state in found.label_specs])
    values = (
        macro_f1(truth, said, k),
        accuracy(truth, said),
        float(np.nanmean(f1[rare])) if rare.any() else float("nan"),
        float(np.mean([one.f1 for one in groups(truth, said, [part for part, _ in found.label_specs])])),
        float(np.mean([one.f1 for one in by_state])),
        float("nan") if found.plain is None else macro_f1(truth, found.plain.argmax(axis=1), k),
        macro_f1(found.test_truth, found.test_predicted, k),
        accuracy(found.test_truth, found.test_predicted),
    )
    keys = [metric.key for metric in registry.CLASSIFICATION_METRICS]
    return {key: None if np.isnan(value) else value for key, value in zip(keys, values, strict=True)}


def write_files(
    stage: Path, found: ClassPredictions, curves: Mapping[str, list[dict[str, float]]], paths: Mapping[str, Path]
) -> None:
    """What lies beside a record.

    Args:
        stage: the run's folder.
        found: of the run.
        curves: see `harness.backends.base.Classified`.
        paths: of the images, by name; of those that are not there, no example is shown.
    """
    found.save(stage)
    write_atomic(stage / PREDICTIONS, predictions_csv(found))
    about = details(found, curves)
    _draw_examples(stage, about["confused"], paths)
    write_atomic(stage / DETAILS, json.dumps(about, allow_nan=False))


def details(found: ClassPredictions, curves: Mapping[str, list[dict[str, float]]]) -> dict[str, Any]:
    """What the report shows of a run beside its record."""
    k = len(found.labels)
    counts = confusion(found.truth, found.predicted, k)
    f1, said = f1_of_labels(counts), found.predicted
    pairs = confused(counts, found.labels)
    for pair in pairs:
        wanted = (found.labels.index(pair["label"]), found.labels.index(pair["said"]))
        wrong = np.flatnonzero((found.truth == wanted[0]) & (said == wanted[1]))
        surest = wrong[np.argsort(-found.probabilities[wrong, wanted[1]], kind="stable")][:EXAMPLES]
        pair["examples"] = [
            {"name": found.names[i], "probability": float(found.probabilities[i, wanted[1]])} for i in surest
        ]
    return {
        "labels": [
            {"label": label, "images": int(counts[i].sum()), "right": int(counts[i, i]),
             "said": int(counts[:, i].sum()), "f1": None if np.isnan(f1[i]) else float(f1[i])}
            for i, label in enumerate(found.labels)
        ],
        "classes": [vars(one) for one in groups(found.truth, said, [part for part, _ in found.label_specs])],
        "states": [vars(one) for one in groups(found.truth, said, [state for _, state in found.label_specs])],
        "confusion": counts.tolist(),
        "confused": pairs,
        "epochs": dict(curves),
    }  # fmt: skip


def _draw_examples(stage: Path, pairs: list[dict[str, Any]], paths: Mapping[str, Path]) -> None:
    """Small pictures of the examples under examples/, whose files are noted with them."""
    (stage / FOLDER).mkdir()
    for number, pair in enumerate(pairs):
        for place, example in enumerate(pair["examples"]):
            path = paths.get(example["name"])
            if path is None or not path.is_file():
                continue
            picture = Image.fromarray(read_image(path))
            picture.thumbnail((SIDE, SIDE))
            example["file"] = f"{FOLDER}/{number:02}-{place}.jpg"
            picture.save(stage / example["file"], quality=85)


def predictions_csv(found: ClassPredictions) -> str:
    """One row an image: what it was called, how surely, and what it is where that is known."""
    rows: list[list[object]] = [["path", "label", "predicted_label", "probability", "fold", "role"]]
    said, test_said = found.predicted, found.test_predicted
    for i, name in enumerate(found.names):
        label = found.labels[found.truth[i]]
        sure = f"{found.probabilities[i, said[i]]:.6f}"
        rows.append([guarded_path(name), label, found.labels[said[i]], sure, int(found.folds[i]), OUT_OF_FOLD])
    for i, name in enumerate(found.test_names):
        label = found.labels[found.test_truth[i]] if found.test_truth[i] >= 0 else ""
        best = test_said[i]
        sure = f"{found.test_probabilities[i, best]:.6f}"
        rows.append([guarded_path(name), label, found.labels[best], sure, "", TO_BE_NAMED])
    return csv_text(rows)
