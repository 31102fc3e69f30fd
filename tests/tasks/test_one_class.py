"""Networks for one class: named classes only, repeats that vote, and their place in a blend."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from typer.testing import CliRunner

from harness import load_classifier
from harness.backends import formats
from harness.backends.supervised.one_class import classes, combine, merge, notes
from harness.backends.supervised.settings import Settings
from harness.backends.supervised.units import units
from harness.cli.main import app
from harness.data.images import read_image
from harness.ensemble.blend import blend
from harness.ensemble.recipe import load_recipe
from harness.export.write import export, images_of_check
from harness.metrics.classification import macro_f1
from harness.predictions.classification import ClassPredictions
from harness.results.record import RunRecord
from harness.results.store import ResultFolder
from tests.classified import CONFIG
from tests.conftest import Cli

SPECS = (("a", "good"), ("a", "cut"), ("b", "good"), ("c", "good"))


# ---- by hand


def test_labels_without_a_network_share_the_probability_of_null() -> None:
    positions = classes(SPECS, ["a"])
    assert positions == {"a": [0, 1]}
    # The second image is not claimed: null has more than each label, although less than both together.
    outputs = [("a", np.array([[0.6, 0.1, 0.3], [0.35, 0.25, 0.4]]))]
    merged, claims = merge(outputs, positions, 4, "mean")
    assert claims.tolist() == [1, 0]
    assert merged.ravel() == pytest.approx([0.6, 0.1, 0.15, 0.15, 0, 0, 0.5, 0.5])


def test_two_claims_share_their_null_too() -> None:
    outputs = [("a", np.array([[0.6, 0.1, 0.3]])), ("b", np.array([[0.8, 0.2]]))]
    merged, claims = merge(outputs, classes(SPECS, ["b", "a"]), 4, "mean")
    assert claims.tolist() == [2]
    assert merged.ravel() == pytest.approx([0.3, 0.05, 0.4, 0.25])


@pytest.mark.parametrize(
    ("choices", "shares"),
    [
        ([0, 0, 1], [2 / 3, 1 / 3, 0]),
        ([0, 2, 2], [1 / 3, 0, 2 / 3]),  # null has most votes
        ([0, 1, 2], [1 / 3, 1 / 3, 1 / 3]),
    ],
)
def test_a_vote_of_repeats_counts_null(choices: list[int], shares: list[float]) -> None:
    # Each network is sure of its choice, and less so than of it: a vote ignores by how much.
    repeats = [torch.full((1, 3), 0.3).index_fill_(1, torch.tensor(choice), 0.4) for choice in choices]
    assert combine(repeats, "vote").ravel().tolist() == pytest.approx(shares)
    assert combine(repeats, "mean").ravel().tolist() == pytest.approx([0.3 + share / 10 for share in shares])


def test_null_wins_a_tie_of_repeats() -> None:
    sure = {"cut": [0.1, 0.9, 0.0], "null": [0.0, 0.4, 0.6]}
    outputs = [("a", np.array([sure[name]])) for name in ("cut", "null")]
    positions = classes(SPECS, ["a"])
    assert merge(outputs, positions, 4, "vote")[1].tolist() == [0]
    # The mean of the first network's 0.9 and 0.4 is more than that of null.
    assert merge(outputs, positions, 4, "mean")[1].tolist() == [1]


def test_repeats_have_names_and_seeds_of_their_own() -> None:
    settings = Settings(image_size=(32, 32), only_classes=("a",), repeats=3)
    planned = list(units("one_class", settings, SPECS, 1))
    assert [unit.name for unit in planned] == ["fold1-a", "fold1-a-repeat1", "fold1-a-repeat2"]
    assert len({unit.seed(0) for unit in planned}) == 3
    # The first repeat is the network without repeats.
    (alone,) = units("one_class", Settings(image_size=(32, 32), only_classes=("a",)), SPECS, 1)
    assert alone == planned[0]
    (all_labels,) = units("baseline", settings, SPECS, 1)
    assert (all_labels.name, all_labels.positions) == ("fold1", (0, 1, 2, 3))


def test_the_notes_name_labels_without_a_network() -> None:
    claims, truth = np.array([1.0, 0.0, 2.0]), np.array([0, 1, 2])
    (note, conflicts) = notes(claims, truth, np.array([0, 2, 2]), {"a": [0, 1]}, 4)
    assert "networks for a only. Macro F1 of their 2 labels is 0.500. The other 2 labels" in note
    assert conflicts == "one_class: the networks of several classes claimed 1 of 3 images"
    (all_labels,) = notes(claims, truth, truth, classes(SPECS), 4)
    assert "claimed 1 of 3 images, and no network claimed 1" in all_labels
    assert notes(np.ones(3), truth, truth, classes(SPECS), 4) == []


# ---- real networks


POINT = {"model": "one_class", "backbone": "test_resnet", "image_size": 32}


def config(name: str, **params: Any) -> Path:
    """Write a configuration with one point."""
    Path("c.yaml").write_text(yaml.safe_dump(yaml.safe_load(CONFIG.format(name=name)) | {"grid": [POINT | params]}))
    return Path("c.yaml")


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ({"only_classes": ["washers"]}, "only_classes: found washers, expected some of bracket, gear, nut, washer."),
        ({"only_classes": "washers"}, "only_classes: found washers, expected some of bracket, gear, nut, washer."),
        ({"repeats": 0}, "repeats: found 0, expected a number from 1 to 1000"),
        ({"repeats": 1.5}, "repeats: found 1.5, expected a whole number"),
        ({"repeats": 2, "combine_repeats": "vot"}, "combine_repeats: found 'vot', expected one of mean, vote. Did you"),
        (
            {"combine_repeats": "vote"},
            "combine_repeats: vote found, which has no effect here; expected repeats above 1",
        ),
        ({"model": "baseline", "repeats": 2}, "repeats: 2 found, which has no effect here; expected model one_class"),
        ({"model": "baseline", "only_classes": ["gear"]}, "has no effect here; expected model one_class"),
    ],
)
def test_a_bad_value_is_one_sentence(cli: Cli, params: dict[str, Any], words: str) -> None:
    result = cli("plan", config("refused", **params))
    assert result.exit_code == 2
    assert words in " ".join(result.output.split())


@pytest.fixture(scope="module")
def voted(tmp_path_factory: pytest.TempPathFactory) -> ResultFolder:
    """Three networks for washers decide by mean in one run, by vote in another; a third run knows all labels."""
    root = tmp_path_factory.mktemp("voted")
    values = yaml.safe_load(CONFIG.format(name="voted"))
    washers = {"only_classes": ["washer"], "repeats": 3, "combine_repeats": ["mean", "vote"], "balance": "sampler",
               "bn_statistics": "recomputed"}  # fmt: skip
    values["grid"] = [POINT | washers, POINT | {"model": "baseline"}]
    (root / "c.yaml").write_text(yaml.safe_dump(values))
    result = CliRunner().invoke(app, ["sweep", str(root / "c.yaml"), "--output", str(root / "results")])
    assert result.exit_code == 0, result.output
    return ResultFolder(root / "results" / "voted")


def run_of(folder: ResultFolder, combination: str) -> RunRecord:
    """The run; a record leaves out the default, mean."""
    records = [record for record in folder.records() if record.spec["model"] == "one_class"]
    (record,) = [one for one in records if one.spec["params"].get("combine_repeats", "mean") == combination]
    return record


def baseline_of(folder: ResultFolder) -> RunRecord:
    return next(record for record in folder.records() if record.spec["model"] == "baseline")


@pytest.mark.parametrize("combination", ["mean", "vote"])
def test_a_run_of_some_classes_says_what_it_does_not_know(voted: ResultFolder, combination: str) -> None:
    record = run_of(voted, combination)
    predictions = ClassPredictions.load(voted.run_folder(record.run_id))
    (note,) = [text for text in record.warnings if "only_classes" in text]
    assert "networks for washer only" in note
    assert "The other 12 labels share the probability of null" in note
    is_washer = np.array([class_name == "washer" for class_name, _ in predictions.label_specs])
    others = predictions.probabilities[:, ~is_washer]
    assert np.ptp(others, axis=1).max() < 1e-6
    claimed = is_washer[predictions.predicted]
    # Without a claim, null has all of the probability.
    assert others[~claimed].sum(axis=1) == pytest.approx(1, abs=1e-5)
    assert 0 < claimed.sum() < len(claimed)
    if combination == "vote":
        shares = np.unique(3 * predictions.probabilities[claimed][:, is_washer])
        assert shares == pytest.approx(shares.round(), abs=1e-5)
    # All images and all labels count.
    assert record.metrics["macro_F1"] == pytest.approx(macro_f1(predictions.truth, predictions.predicted, 16))


def test_mean_and_vote_share_their_networks(voted: ResultFolder) -> None:
    mean, vote = (run_of(voted, name) for name in ("mean", "vote"))
    curves = [json.loads((voted.run_folder(one.run_id) / "details.json").read_text())["epochs"] for one in (mean, vote)]
    assert len(curves[0]) == 6
    assert {"fold0-washer", "fold0-washer-repeat1", "fold1-washer-repeat2"} < set(curves[0])
    assert curves[0] == curves[1]
    assert curves[0]["fold0-washer"] != curves[0]["fold0-washer-repeat1"]


@pytest.mark.parametrize("combination", ["mean", "vote"])
def test_the_saved_model_decides_as_the_run(voted: ResultFolder, combination: str) -> None:
    record = run_of(voted, combination)
    predictions = ClassPredictions.load(voted.run_folder(record.run_id))
    model = load_classifier(voted.run_folder(record.run_id), device="cpu")
    images = [read_image(Path(record.data["root"]) / name) for name in predictions.test_names]
    # Raw ones: the temperature changes those that a user sees.
    probabilities = model.scorer.probabilities([model.scorer.prepare(image) for image in images])
    np.testing.assert_allclose(probabilities, predictions.test_probabilities, atol=1e-4)
    assert any("networks for washer only" in note for note in model.notes)


@pytest.mark.slow
@pytest.mark.parametrize("file_format", ["torchscript", "onnx", "openvino"])
def test_the_exported_model_decides_as_the_run(voted: ResultFolder, tmp_path: Path, file_format: Any) -> None:
    model = load_classifier(voted.run_folder(run_of(voted, "vote").run_id), device="cpu")
    file = tmp_path / f"model{formats.SUFFIXES[file_format]}"
    _, check = export(model, file_format, file, images_of_check(model))
    assert check.sentence().startswith("Checked on 20 images: probabilities differ by at most ")


def test_a_run_of_some_classes_decides_these_classes_in_a_blend(voted: ResultFolder) -> None:
    run = voted.run_folder(run_of(voted, "mean").run_id)
    all_labels = voted.run_folder(baseline_of(voted).run_id)
    before, washer = (ClassPredictions.load(folder) for folder in (all_labels, run))
    is_washer = np.array([class_name == "washer" for class_name, _ in before.label_specs])
    claimed = is_washer[washer.predicted]
    recipe: dict[str, Any] = {"runs": {"all": str(all_labels), "washer": str(run)}, "soft": {"all": 1}}
    # Without a claim, the first label of the other classes is predicted. No rule takes this label.
    expected = np.where(claimed, washer.predicted, before.predicted)
    assert (expected != before.predicted).any()
    for rule in ({"take": "washer"}, {"take": "washer", "where_class": ["washer"]}, {"vote": {"washer": 1}}):
        Path("blend.yaml").write_text(yaml.safe_dump(recipe | {"rules": [rule]}))
        result = blend(load_recipe(Path("blend.yaml")))
        assert result.predictions.predicted.tolist() == expected.tolist()
        assert any("In a blend, use this run in rules" in text for text in result.warnings)


def test_repeats_are_averaged_weight_by_weight_one_by_one(voted: ResultFolder) -> None:
    record = run_of(voted, "vote")
    run, all_labels = (str(voted.run_folder(one)) for one in (record.run_id, baseline_of(voted).run_id))
    # The average of a run with itself is the run.
    runs = {"all": all_labels, "soup": {"average_weights": [run, run]}}
    Path("blend.yaml").write_text(yaml.safe_dump({"runs": runs, "soft": {"all": 1}, "rules": [{"take": "soup"}]}))
    result = blend(load_recipe(Path("blend.yaml")), device="cpu")
    assert result.alone["soup"] == pytest.approx(record.metrics["macro_F1"])
    assert result.steps[-1].changed > 0


def test_no_average_has_a_run_of_some_classes(voted: ResultFolder, cli: Cli) -> None:
    run = voted.run_folder(run_of(voted, "mean").run_id)
    all_labels = voted.run_folder(baseline_of(voted).run_id)
    runs = {"all": str(all_labels), "washer": str(run)}
    both = {"both": {"average_of": {"all": 1, "washer": 1}}}
    named = {"runs": runs, "soft": {"all": 1, "washer": 1}}
    for recipe in (named, {"runs": runs | both, "soft": {"all": 1}}, {"runs": {"washer": str(run)}}):
        Path("blend.yaml").write_text(yaml.safe_dump(recipe))
        result = cli("blend", "blend.yaml")
        assert result.exit_code == 2
        assert "for washer only found (only_classes); expected networks for all" in " ".join(result.output.split())
    for soft in ("fit", "equal"):
        Path("blend.yaml").write_text(yaml.safe_dump({"runs": runs, "soft": soft}))
        assert blend(load_recipe(Path("blend.yaml"))).shares == {"all": 1, "washer": 0}
    result = cli("submit", run, "--out", "submission.csv")
    assert result.exit_code == 2
    assert "Take this run in a rule of a blend." in " ".join(result.output.split())
    assert not Path("submission.csv").exists()
