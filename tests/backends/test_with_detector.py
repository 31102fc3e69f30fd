"""`with_detector`: the rule by hand, detectors that never learn from a validation image, and wrong values."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image
from sklearn.metrics import roc_auc_score

from harness import load_classifier
from harness.backends.base import RunContext
from harness.backends.supervised.class_detectors import build_detector, detector_problems, good_images
from harness.backends.supervised.fold import FoldResult, merge_folds
from harness.backends.supervised.good_rule import Classes, Rule, apply_rule, fit_rule
from harness.backends.supervised.with_detector import Models, add_detectors
from harness.common.errors import ConfigError, StoreError
from harness.config.load import load_config
from harness.data.labelled.base import LabelledSplit, LabelSpec
from harness.ensemble.average import predict_soup
from harness.ensemble.runs import class_run
from harness.metrics.classification import macro_f1
from harness.planning.prepare import PlannedRun, prepare
from harness.predictions.classification import ClassPredictions, truth_of
from harness.results.store import ResultFolder
from tests.conftest import ROOT, Cli

SPECS: tuple[LabelSpec, ...] = (("cable", "bent"), ("cable", "good"), ("cable", "torn"), ("tile", "good"))
DETECTOR = {"model": "patchcore", "coreset_sampling_ratio": 0.2}


def plan(folder: Path, value: Any = "none", **data: Any) -> PlannedRun:
    """A run on squares of one colour with a speckled background: good ones, and ones with a bright corner."""
    root = folder / "squares"
    if not root.exists():
        rng = np.random.default_rng(0)
        for name, count in (("square-good", 24), ("square-corner", 8), ("disc-good", 6)):
            (root / name).mkdir(parents=True)
            for number in range(count):
                pixels = rng.integers(0, 60, (32, 32, 3), dtype=np.uint8)
                pixels[8:24, 8:24] += 100
                if name.endswith("corner"):
                    pixels[16:24, 16:24] = 255
                Image.fromarray(pixels).save(root / name / f"{number}.png")
    config = {
        "task": "classification",
        "name": "squares",
        "data": {"kind": "labelled", "root": str(root), "folds": 2, "train_batch_size": 8, **data},
        "weights": "random",
        "device": "cpu",
        "output": str(folder / "results"),
        "trainer": {"max_epochs": 1},
        "save_models": "all",
        "latency": False,
        "grid": {"model": "baseline", "backbone": "test_resnet", "image_size": 32, "with_detector": value},
    }
    file = folder / "c.yaml"
    file.write_text(yaml.safe_dump(config))
    (run,) = prepare(load_config(file)).runs
    return run


def split_of(run: PlannedRun) -> LabelledSplit:
    assert isinstance(run.split, LabelledSplit)
    return run.split


def unsure(split: LabelledSplit) -> list[FoldResult]:
    """Results of networks that know the class, and nothing of the condition."""
    classes = np.array([name for name, _ in split.label_specs])
    folds = []
    for fold in split.run_folds:
        indices = split.val_indices(fold)
        inside = np.array([classes == split.train[index].part for index in indices], dtype=float)
        probabilities = 0.9 * inside / inside.sum(axis=1, keepdims=True) + 0.1 / len(classes)
        probabilities /= probabilities.sum(axis=1, keepdims=True)
        record = {"fold": fold, "macro_F1": 0.0, "accuracy": 0.0}
        none = np.zeros((0, len(classes)))
        folds.append(FoldResult(fold, indices, probabilities, probabilities, none, np.ones(len(indices)), record, 0, 0))
    return folds


def detected(run: PlannedRun, folder: Path) -> tuple[list[FoldResult], Models, list[str]]:
    folder.mkdir(exist_ok=True)
    context = RunContext(scratch=folder, device="cpu", num_workers=0, stage=str)
    detector = build_detector(DETECTOR, run.spec, "cpu", context)
    return add_detectors(detector, split_of(run), context, unsure(split_of(run)))


# ---- the rule


def test_only_the_share_of_good_inside_the_class_changes() -> None:
    classes = Classes.of([name for name, _ in SPECS], {"cable": 1})
    before = np.array([[0.1, 0.6, 0.2, 0.1], [0.0, 0.9, 0.0, 0.1], [0.1, 0.1, 0.0, 0.8]])
    rule = Rule({"cable": 0.0}, {"cable": 1.0}, network=1.0, score=-2.0, intercept=0.5)
    scores = np.array([np.exp(1.5), np.exp(1.5), np.nan])
    after = apply_rule(rule, classes, before, np.array([0, 0, 1]), scores)
    odds = np.log(0.6 / 0.3) + 0.5 - 2 * 1.5
    assert after[0, 1] == pytest.approx(0.9 / (1 + np.exp(-odds)))
    assert after[0, 0] / after[0, 2] == pytest.approx(0.1 / 0.2)
    assert after[:, :3].sum(axis=1) == pytest.approx(before[:, :3].sum(axis=1))
    # Conditions without any probability share equally what good has lost.
    assert after[1, 0] == after[1, 2] > 0
    assert np.array_equal(after[:, 3], before[:, 3])
    assert np.array_equal(after[2], before[2])
    assert np.array_equal(apply_rule(None, classes, before, np.array([0, 0, 1]), scores), before)


def test_the_fitted_rule_follows_the_detector_where_the_network_is_unsure() -> None:
    rng = np.random.default_rng(0)
    good = np.arange(60) % 4 > 0
    scores = np.exp(np.where(good, 0.0, 3.0) + rng.normal(0, 0.3, 60))
    names, unsure_shares = ["cable"] * 60, np.full(60, 0.5)
    rule = fit_rule(names, unsure_shares, scores, good)
    assert rule is not None
    assert rule.score < 0
    assert np.array_equal(rule.share(names, unsure_shares, scores) > 0.5, good)
    # A class that the rule does not know keeps the network's share, and so does an image without a score.
    assert rule.share(["tile"], np.array([0.3]), np.array([9.0])).tolist() == [0.3]
    assert rule.share(["cable"], np.array([0.3]), np.array([np.nan])).tolist() == [0.3]
    assert fit_rule(names, unsure_shares, 1 / scores, good) is None, "larger scores are no sign of a defect"
    assert fit_rule(names[:3], unsure_shares[:3], scores[:3], good[:3]) is None, "one defective image"


# ---- detectors


@pytest.mark.parametrize("folds", [2, 0.4])
def test_detectors_lift_macro_f1_of_unsure_networks(tmp_path: Path, folds: float) -> None:
    run = plan(tmp_path, DETECTOR, folds=folds)
    split = split_of(run)
    before = unsure(split)
    changed, models, warnings = detected(run, tmp_path / "scratch")
    predictions = merge_folds(changed, split, truth_of(split.train, split.labels))
    assert predictions.network is not None
    truth, labels = predictions.truth, len(split.labels)
    assert macro_f1(truth, predictions.predicted, labels) > macro_f1(truth, predictions.network.argmax(axis=1), labels)
    squares = [i for i, name in enumerate(predictions.names) if name.startswith("square")]
    good = split.labels.index("square-good")
    chance = predictions.probabilities[squares, good]
    assert roc_auc_score(truth[squares] == good, chance) > 0.95
    assert [fold.record["network_macro_F1"] for fold in changed] == [fold.record["macro_F1"] for fold in before]
    assert set(models.rules) == set(split.run_folds)
    assert any("no detector for disc" in text for text in warnings)


def test_a_detector_never_learns_from_a_validation_image(tmp_path: Path) -> None:
    run = plan(tmp_path, DETECTOR)
    split = split_of(run)
    _, before, _ = detected(run, tmp_path / "scratch")
    position = good_images(split, 0, "square")[0]
    assert split.folds[position] == 1
    Image.fromarray(np.full((32, 32, 3), 255, dtype=np.uint8)).save(split.train[position].path)
    _, after, _ = detected(run, tmp_path / "scratch")
    banks = {fold: (before.states[fold, "square"]["bank"], after.states[fold, "square"]["bank"]) for fold in (0, 1)}
    assert not banks[0][0].equal(banks[0][1]), "a training image of fold 0"
    assert banks[1][0].equal(banks[1][1]), "a validation image of fold 1"


# ---- the plan and wrong values


def test_runs_without_a_detector_keep_their_ids_and_share_their_networks(tmp_path: Path) -> None:
    from harness.backends.supervised import SupervisedBackend

    plain, none, beside = plan(tmp_path), plan(tmp_path, "none"), plan(tmp_path, DETECTOR)
    assert "with_detector" not in plain.spec.parameters
    assert plain.run_id == none.run_id != beside.run_id
    assert beside.spec.parameters["with_detector"] == DETECTOR
    backend = SupervisedBackend()
    assert backend.share_key(plain.spec) == backend.share_key(beside.spec)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (3, "with_detector: found 3, expected a name or a mapping"),
        ("patchcor", "with_detector: unknown native model 'patchcor'"),
        ({"backbone": "test_resnet"}, "expected a native detector such as patchcore, or a mapping with `model`"),
        ({"model": "patchcore", "ratio": 0.1}, "ratio is no parameter of patchcore; expected some of backbone"),
        ({"model": "patchcore", "num_neighbors": 0}, "with_detector: num_neighbors: found 0, expected a whole number"),
        ({"model": "patchcore", "backbone": "resnot"}, "resnot"),
        ({"model": "patchcore", "coreset_sampling_ratio": 1e-6}, "leaves an empty coreset"),
        ("cflow", "whose models may have scores of different scales"),
    ],
)
def test_a_wrong_value_is_an_error_before_any_training(tmp_path: Path, cli: Cli, value: Any, message: str) -> None:
    plan(tmp_path)
    config = yaml.safe_load((tmp_path / "c.yaml").read_text())
    config["grid"]["with_detector"] = value
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(config))
    result = cli("sweep", tmp_path / "c.yaml")
    assert result.exit_code == 2
    assert message in " ".join(result.output.split())
    assert not list((tmp_path / "results").rglob("record.json"))


def test_data_without_a_class_for_a_detector_is_an_error(tmp_path: Path) -> None:
    run = plan(tmp_path)
    split = split_of(run)
    (one_condition,) = detector_problems(
        "patchcore", run.spec, replace(split, label_specs=tuple((label, "") for label in split.labels)), "cpu"
    )
    assert "no class has a condition good, ok or normal beside others" in one_condition
    few = replace(split, folds=tuple(index % 12 for index in range(len(split.train))), run_folds=(0,))
    assert not list(detector_problems(DETECTOR, run.spec, few, "cpu"))
    squares = [index for index, sample in enumerate(split.train) if sample.label == "square-good"]
    folds = [1 if index in squares[:5] else 0 for index in range(len(split.train))]
    (too_few,) = detector_problems(DETECTOR, run.spec, replace(split, folds=tuple(folds), run_folds=(0,)), "cpu")
    assert "at most 5 good training images" in too_few
    assert "8 or more" in too_few
    with pytest.raises(ConfigError, match="with_detector"):
        build_detector({"model": 3}, run.spec, "cpu")


# ---- a whole run


@pytest.mark.slow
def test_predict_uses_the_detectors_and_export_refuses_them(tmp_path: Path, cli: Cli) -> None:
    plan(tmp_path, DETECTOR)
    result = cli("sweep", tmp_path / "c.yaml")
    assert result.exit_code == 0, result.output
    folder = ResultFolder(tmp_path / "results" / "squares")
    (record,) = folder.records()
    run_folder = folder.run_folder(record.run_id)
    predictions = ClassPredictions.load(run_folder)
    assert predictions.network is not None
    assert record.metrics["network_macro_F1"] == pytest.approx(
        macro_f1(predictions.truth, predictions.network.argmax(axis=1), 3)
    )
    assert "network_macro_F1" in json.dumps(record.folds)
    assert "network macro F1" in (folder.root / "report.html").read_text()
    classifier = load_classifier(run_folder, device="cpu")
    assert classifier.scorer.name.endswith("with patchcore")
    root = Path(record.data["root"])
    batch = [
        classifier.scorer.prepare(np.asarray(Image.open(root / name).convert("RGB"))) for name in predictions.names
    ]
    by_fold = classifier.scorer.by_fold(batch)
    own = by_fold[predictions.folds, np.arange(len(predictions.names))]
    assert np.abs(own - predictions.probabilities).max() < 1e-4
    assert np.abs(own - predictions.network).max() > 0.01
    with pytest.raises(
        StoreError, match="with patchcore found for average_weights; expected a run of trained networks alone"
    ):
        predict_soup([class_run(run_folder)], "cpu", str)
    refused = cli("export", run_folder, "--format", "onnx")
    assert refused.exit_code == 2
    assert "export: a run with `with_detector` found" in refused.output
    refused = cli("predict", run_folder, root / predictions.names[0], "--image-size", 96)
    assert refused.exit_code == 2
    assert "image_size: 96 x 96 found with a run with `with_detector`" in " ".join(refused.output.split())


def test_the_docs_have_the_measured_figures() -> None:
    measured = json.loads((ROOT / "benchmarks" / "results" / "with_detector.json").read_text())
    page = " ".join((ROOT / "docs" / "classification.md").read_text().split())
    for case in measured["cases"]:
        without, beside = (f"{value:.3f}" for value in case["macro_F1"])
        assert f"from {without} to {beside}" in page, case["data"]
