"""Probes: heads by hand, shared features, predictions of the saved file, refusals."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from harness import load_classifier
from harness.backends.supervised.probe.heads import HEADS
from harness.backends.supervised.probe.settings import ProbeSettings, unused
from harness.common.errors import ConfigError, WeightsError
from harness.data.images import read_image
from harness.export.write import export, images_of_check
from harness.predictions.classification import ClassPredictions
from harness.results.store import ResultFolder
from tests.conftest import Cli

CONFIG = """
task: classification
name: probes
data: {kind: toy, train: 60, test: 20, size: 32, folds: 2}
weights: random
device: cpu
save_models: all
latency: false
grid: {model: probe, probe_head: [logistic, knn, prototype], num_neighbors: 5, backbone: test_resnet, image_size: 32}
"""
SETTINGS = ProbeSettings((32, 32), C=0.5)


def fitted(settings: ProbeSettings, features: np.ndarray, targets: list[int], labels: int) -> torch.nn.Module:
    head = HEADS[settings.probe_head]
    tensors, _ = head.fit(features.astype(np.float32), np.array(targets), labels, settings)
    return head(tensors, settings, labels)


@pytest.mark.parametrize("labels", [2, 3])
@pytest.mark.parametrize("images", [12, 60])
def test_the_logistic_head_is_that_of_scikit_learn(labels: int, images: int) -> None:
    """Also with fewer images than features, and with two labels."""
    rng = np.random.default_rng(0)
    features = (rng.standard_normal((images, 20)) * np.linspace(0.1, 5, 20) + 3).astype(np.float32)
    targets = np.concatenate(
        [np.arange(labels), rng.choice(labels, images - labels, p=[0.7, *[0.3 / (labels - 1)] * (labels - 1)])]
    )
    scaler = StandardScaler().fit(features)
    theirs = LogisticRegression(C=0.5, class_weight="balanced", max_iter=1000, tol=1e-8)
    theirs.fit(scaler.transform(features), targets)
    probabilities = fitted(SETTINGS, features, targets.tolist(), labels)(torch.from_numpy(features)).numpy()
    assert np.abs(probabilities - theirs.predict_proba(scaler.transform(features))).max() < 2e-3


@pytest.mark.parametrize("head", HEADS)
def test_a_label_without_training_images_gets_no_probability(head: str) -> None:
    features = np.random.default_rng(0).standard_normal((12, 4))
    for targets in ([0, 2] * 6, [2] * 12):
        probabilities = fitted(replace(SETTINGS, probe_head=head), features, targets, 3)(torch.ones(2, 4)).numpy()
        assert probabilities.sum(axis=1) == pytest.approx([1, 1])
        assert probabilities[:, 1].max() == 0


def test_votes_of_neighbours_by_hand() -> None:
    # The mean is 0. The cosines to (1, 0) are 1, 0, -1 and 0; label 0 has one image.
    features, targets = np.array([[1.0, 0], [0, 1], [-1, 0], [0, -1]]), [0, 1, 1, 1]
    query, knn = torch.tensor([[2.0, 0]]), replace(SETTINGS, probe_head="knn", num_neighbors=4, temperature=1.0)
    own, other = math.e, 2 + 1 / math.e
    for weights, expected in (
        ("equal", 1 / 4),
        ("similarity", own / (own + other)),
        ("balanced", own / (own + other / 3)),
    ):
        votes = fitted(replace(knn, neighbor_weights=weights), features, targets, 2)(query)
        assert votes[0, 0].item() == pytest.approx(expected, abs=1e-6)


def test_prototypes_by_hand() -> None:
    features, targets = np.array([[1.0, 1], [1, -1], [-1, 1], [-1, -1]]), [0, 0, 1, 1]
    # The prototypes are (1, 0) and (-1, 0).
    head = fitted(replace(SETTINGS, probe_head="prototype", temperature=0.5), features, targets, 2)
    probabilities = head(torch.tensor([[3.0, 0], [0, 1]]))
    assert probabilities[:, 0].tolist() == pytest.approx([1 / (1 + math.exp(-4)), 0.5], abs=1e-6)


def test_a_regression_without_convergence_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.backends.supervised.probe.heads.ITERATIONS", 1)
    features = np.random.default_rng(0).standard_normal((20, 5)).astype(np.float32)
    _, warning = HEADS["logistic"].fit(features, np.array([0, 1] * 10), 2, SETTINGS)
    assert warning == "the logistic regression did not converge in 1 steps; choose a smaller C"


def test_settings_without_effect() -> None:
    assert set(unused({})) == {"num_neighbors", "neighbor_weights", "temperature"}
    assert set(unused({"probe_head": "knn", "neighbor_weights": "equal"})) == {"C", "temperature"}
    assert set(unused({"probe_head": "prototype"})) == {"C", "num_neighbors", "neighbor_weights"}


@pytest.fixture(scope="module")
def probes(tmp_path_factory: pytest.TempPathFactory) -> ResultFolder:
    from typer.testing import CliRunner

    from harness.cli.main import app

    root = tmp_path_factory.mktemp("probes")
    (root / "c.yaml").write_text(CONFIG)
    result = CliRunner().invoke(app, ["sweep", str(root / "c.yaml"), "--output", str(root / "results")])
    assert result.exit_code == 0, result.output
    return ResultFolder(root / "results" / "probes")


def test_all_heads_share_the_features(probes: ResultFolder) -> None:
    records = list(probes.records())
    assert [record.status for record in records] == ["ok"] * 3
    # The same features were timed once; the fit of a head comes on top.
    features = {record.seconds["fit"] - sum(fold["seconds"] for fold in record.folds) for record in records}
    assert max(features) - min(features) < 1e-6
    for record in records:
        predictions = ClassPredictions.load(probes.run_folder(record.run_id))
        assert len(predictions.names) == record.data["judged"] == len(set(predictions.names))
        assert predictions.test_by_fold.shape == (2, record.data["test"], 16)
        assert predictions.plain is None
        assert record.spec["trainer"] == {}
        assert record.weights["source"] == "random"
    assert probes.workbook.is_file()


def test_the_saved_probe_predicts_as_its_run(probes: ResultFolder, tmp_path: Path) -> None:
    for record in probes.records():
        folder = probes.run_folder(record.run_id)
        predictions = ClassPredictions.load(folder)
        classifier = load_classifier(folder, device="cpu")
        assert classifier.scorer.name.startswith(f"probe {record.spec['params']['probe_head']} test_resnet, 2 folds")
        images = images_of_check(classifier)[:5]
        rows = [
            predictions.test_names.index(next(n for n in predictions.test_names if path.as_posix().endswith(n)))
            for path in images
        ]
        prepared = [classifier.scorer.prepare(read_image(path)) for path in images]
        assert np.abs(classifier.scorer.by_fold(prepared) - predictions.test_by_fold[:, rows]).max() < 1e-3
        assert all(one.label_set for one in classifier.predict(images))
        assert classifier.at_image_size(32) is classifier
        with pytest.raises(ConfigError, match=r"image_size: 48 x 48 found with a probe, .*; expected 32 x 32"):
            load_classifier(folder, device="cpu", image_size=48)
        _, check = export(classifier, "torchscript", tmp_path / f"{record.run_id}.pt", images[:2])
        assert check.images == 2
    (tmp_path / "model.safetensors").write_bytes(b"no tensors")
    from harness.backends.supervised.probe.scorer import ProbeScorer

    with pytest.raises(WeightsError, match="not a saved probe"):
        ProbeScorer.from_file(tmp_path / "model.safetensors", "cpu")


@pytest.mark.slow
@pytest.mark.parametrize(("file_format", "suffix"), [("onnx", ".onnx"), ("openvino", ".xml")])
def test_neighbours_are_exported_to_every_format(
    probes: ResultFolder, tmp_path: Path, file_format: Any, suffix: str
) -> None:
    (record,) = (one for one in probes.records() if one.spec["params"]["probe_head"] == "knn")
    classifier = load_classifier(probes.run_folder(record.run_id), device="cpu")
    images = images_of_check(classifier)[:5]
    file, check = export(classifier, file_format, tmp_path / f"knn{suffix}", images)
    assert check.images == 5
    exported, expected = load_classifier(file).predict(images), classifier.predict(images)
    assert [one.labels for one in exported] == [one.labels for one in expected]


def test_submit_and_blend_take_a_probe(probes: ResultFolder, tmp_path: Path, cli: Cli) -> None:
    runs = [str(probes.run_folder(record.run_id)) for record in probes.records()]
    result = cli("submit", *runs, "--out", tmp_path / "submission.csv")
    assert result.exit_code == 0, result.output
    recipe = tmp_path / "blend.yaml"
    recipe.write_text(yaml.safe_dump({"name": "b", "runs": {"a": runs[0], "b": runs[1]}, "soft": "equal"}))
    result = cli("blend", recipe)
    assert result.exit_code == 0, result.output
    soup = {"name": "s", "runs": {"soup": {"average_weights": runs[:2]}, "b": runs[2]}, "soft": "equal"}
    recipe.write_text(yaml.safe_dump(soup))
    result = cli("blend", recipe)
    assert result.exit_code == 2
    assert "of trained networks alone" in " ".join(result.output.split())


@pytest.mark.parametrize(
    ("axes", "words"),
    [
        ("probe_head: logistics", "probe_head: found 'logistics', expected one of logistic, knn, prototype. Did you"),
        ("C: 0", "C: found 0.0, expected a number from 1e-06 to 1e+06."),
        ("probe_head: knn, num_neighbors: 0", "num_neighbors: found 0, expected a number from 1 to 10000."),
        ("probe_head: knn, num_neighbors: 900", "num_neighbors: found 900, but a fold has only"),
        ("probe_head: knn, neighbor_weights: distance", "neighbor_weights: found 'distance', expected one of balanced"),
        ("probe_head: prototype, temperature: 0", "temperature: found 0.0, expected a number from 0.001 to 10."),
        ("probe_head: prototype, C: 3", "C: 3 found, which has no effect here; expected probe_head logistic."),
        ("tta: flips", "tta: probe has no such parameter."),
        ("eval_image_size: 48", "eval_image_size: probe has no such parameter."),
        ("backbone: resnet", "resnet"),
    ],
)
def test_bad_values_are_named(cli: Cli, tmp_path: Path, axes: str, words: str) -> None:
    config = tmp_path / "c.yaml"
    grid = yaml.safe_load("{model: probe, backbone: test_resnet, image_size: 32}") | yaml.safe_load(f"{{{axes}}}")
    config.write_text(yaml.safe_dump(yaml.safe_load(CONFIG) | {"grid": grid}))
    result = cli("sweep", config, "--output", tmp_path / "results")
    assert result.exit_code == 2, result.output
    assert words in " ".join(result.output.split())
