"""`eval_image_size`: several sizes share one training, and every step after it uses the size of the run."""

from __future__ import annotations

import csv
import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from harness import load_classifier
from harness.backends.supervised.classifier import SupervisedScorer
from harness.backends.supervised.decoding import ImagesBySize
from harness.backends.supervised.network import Member, build
from harness.backends.supervised.settings import Settings
from harness.common.devices import pick
from harness.common.errors import ConfigError
from harness.config.load import load_config
from harness.export.write import export, images_of_check
from harness.inference.classifier import Classifier
from harness.inference.exported import SUFFIX
from harness.inference.promise import Promise
from harness.metrics.conformal import Calibration
from harness.metrics.temperature import Temperature
from harness.planning.prepare import prepare
from harness.predictions.classification import ClassPredictions
from harness.report.facts import parameter
from harness.results.record import RunRecord
from harness.results.store import ResultFolder
from harness.search.points import Space
from tests.conftest import Cli

CONFIG = """
task: classification
name: sizes
data: {kind: toy, train: 100, test: 20, size: 64, folds: 2, train_batch_size: 16}
weights: random
device: cpu
trainer: {max_epochs: 2}
save_models: all
latency: false
grid: {model: baseline, backbone: test_resnet, image_size: 32, lr: 5.0e-3, balance: none}
"""
VIT = "test_vit_relpos"  # its position embeddings fit one size
POINTS = (
    "grid.eval_image_size=[32, 48]",
    "grid.tta={flips: [none, horizontal], scales: [1.0, 1.25]}",
    "grid.tta_average=[probabilities, logits]",
)


@pytest.fixture(scope="module")
def sizes(tmp_path_factory: pytest.TempPathFactory) -> ResultFolder:
    """A finished sweep of two sizes with two averages; not to be changed."""
    from typer.testing import CliRunner

    from harness.cli.main import app

    root = tmp_path_factory.mktemp("sizes")
    (root / "c.yaml").write_text(CONFIG)
    result = CliRunner().invoke(app, ["sweep", str(root / "c.yaml"), *POINTS, "--output", str(root / "results")])
    assert result.exit_code == 0, result.output
    return ResultFolder(root / "results" / "sizes")


def run_of(folder: ResultFolder, size: int | None, average: str | None = None) -> RunRecord:
    key = (size, average)
    (record,) = [
        one
        for one in folder.records()
        if (one.spec["params"].get("eval_image_size"), one.spec["params"].get("tta_average")) == key
    ]
    return record


def predictions(folder: ResultFolder, *run: Any) -> ClassPredictions:
    return ClassPredictions.load(folder.run_folder(run_of(folder, *run).run_id))


def trainings(folder: ResultFolder, runs: list[RunRecord]) -> set[str]:
    """The curves of the runs. Two trainings never have equal times of all their epochs."""
    return {
        json.dumps(json.loads((folder.run_folder(one.run_id) / "details.json").read_text())["epochs"]) for one in runs
    }


def test_all_sizes_and_averages_share_one_training(sizes: ResultFolder) -> None:
    runs = sizes.records()
    assert len({one.run_id for one in runs}) == 4
    assert len(trainings(sizes, list(runs))) == 1
    assert not list((sizes.root / ".unfinished").iterdir())
    probabilities = [
        predictions(sizes, size, average).probabilities for size in (None, 48) for average in (None, "logits")
    ]
    for one in range(4):
        for other in range(one):
            assert not np.array_equal(probabilities[one], probabilities[other])
    # Averages are without views the same, and sizes are not.
    plain = [predictions(sizes, size, average).plain for size in (None, 48) for average in (None, "logits")]
    assert all(one is not None for one in plain)
    assert np.array_equal(plain[0], plain[1])  # type: ignore[arg-type]
    assert np.array_equal(plain[2], plain[3])  # type: ignore[arg-type]
    assert not np.array_equal(plain[0], plain[2])  # type: ignore[arg-type]


def test_a_run_predicts_at_its_own_size(sizes: ResultFolder) -> None:
    for size, side in ((None, 32), (48, 48)):
        record = run_of(sizes, size)
        classifier = load_classifier(sizes.run_folder(record.run_id), device="cpu")
        assert classifier.scorer.prepare(np.zeros((20, 30, 3), dtype=np.uint8)).shape == (3, side, side)
        stored = predictions(sizes, size)
        paths = [Path(record.data["root"]) / name for name in stored.test_names[:4]]
        results = classifier.predict(paths)
        assert isinstance(results, list)
        raw = np.stack([one.raw_probabilities for one in results])
        assert np.allclose(raw, stored.test_by_fold[:, :4].mean(axis=0), atol=1e-5)
        # Temperature and label sets are those of this size.
        assert classifier.temperature == Temperature.of(stored)
        expected = Promise.by(Calibration.of(stored), 0.9).label_sets(stored.test_by_fold[:, :4], classifier.labels)
        assert [set(one.label_set or ()) for one in results] == [set(one or ()) for one in expected]


def test_the_sheet_shows_the_size_of_each_run(sizes: ResultFolder) -> None:
    assert parameter(run_of(sizes, None), "eval_image_size") == "32x32"
    assert parameter(run_of(sizes, 48), "eval_image_size") == "48x48"


def test_the_size_of_the_training_is_no_run_of_its_own(cli: Cli) -> None:
    Path("c.yaml").write_text(CONFIG)
    result = cli("plan", "c.yaml", "grid.eval_image_size=[32, [32, 32], 48, [48, 48]]", "--no-check")
    assert "sizes: 2 runs (4 points, 2 equal to another)" in result.output
    identity = next(word for word in cli("plan", "c.yaml", "--no-check").output.split() if "px-s0-" in word)
    assert identity in result.output


def test_a_search_knows_the_runs_of_a_grid(cli: Cli) -> None:
    space = {
        "model": "baseline",
        "backbone": "test_resnet",
        "image_size": 32,
        "eval_image_size": {"choice": [32, 48, [48, 64]]},
        "tta": {"choice": ["none", "flips", {"flips": ["horizontal", "none"], "multiply": 1}]},
    }
    Path("c.yaml").write_text(CONFIG.split("grid:", maxsplit=1)[0] + yaml.safe_dump({"search": {"space": space}}))
    prepared = prepare(load_config(Path("c.yaml")))
    searched = Space(prepared.config, prepared.splits)
    for size, tta in itertools.product(space["eval_image_size"]["choice"], space["tta"]["choice"]):  # type: ignore[index]
        point = {"eval_image_size": size, "tta": tta}
        (run,) = searched.runs(point)
        assert searched.point_of_record(run.record("ok", data={})) == point


@pytest.mark.slow
def test_a_retry_takes_up_the_training(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("c.yaml").write_text(CONFIG)
    read = ImagesBySize.at

    def failing(self: ImagesBySize, size: tuple[int, int]) -> Any:
        if size == (48, 48):
            raise OSError("the disk fails")
        return read(self, size)

    with monkeypatch.context() as patched:
        patched.setattr(ImagesBySize, "at", failing)
        assert cli("sweep", "c.yaml", POINTS[0]).exit_code == 1
    folder = ResultFolder(Path("results/sizes"))
    assert sorted(one.status for one in folder.records()) == ["failed", "ok"]
    assert len(list((folder.root / ".unfinished").iterdir())) == 1
    result = cli("sweep", "c.yaml", POINTS[0], "--retry-failed")
    assert result.exit_code == 0, result.output
    assert [one.status for one in folder.records()] == ["ok", "ok"]
    assert len(trainings(folder, list(folder.records()))) == 1
    assert not list((folder.root / ".unfinished").iterdir())


@pytest.mark.parametrize(
    ("override", "words"),
    [
        (
            "grid.eval_image_size=[48, 64]",
            f"eval_image_size: 48 x 48, 64 x 64 found, but backbone {VIT} takes only",
        ),
        (
            "grid.tta={scales: [1, 1.5, 2]}",
            f"tta.scales: 1.5, 2 found, but backbone {VIT} takes only images of 32 x 32",
        ),
    ],
)
def test_a_network_with_fixed_positions_is_refused_once(cli: Cli, override: str, words: str) -> None:
    Path("c.yaml").write_text(CONFIG)
    result = cli("sweep", "c.yaml", f"grid.backbone={VIT}", override)
    assert result.exit_code == 2, result.output
    text = " ".join(result.output.split())
    assert words in text
    assert text.count("takes only images") == 1
    assert not list(Path("results/sizes").glob("runs/*"))


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("grid.eval_image_size=8", "eval_image_size: expected a number from 16 up, or [height, width]; found 8"),
        ("grid.eval_image_size=[[32, 48, 64]]", "eval_image_size: expected a number from 16 up, or [height, width]"),
        ("grid.tta={rotations: 45}", "tta.rotations: found 45, expected some of 0, 90, 180, 270 degrees."),
        ("grid.tta_average=logit", "tta_average: found 'logit', expected one of probabilities, logits. Did you mean"),
    ],
)
def test_a_wrong_value_is_one_sentence(cli: Cli, override: str, words: str) -> None:
    Path("c.yaml").write_text(CONFIG)
    result = cli("sweep", "c.yaml", "grid.tta=flips", override)
    assert result.exit_code == 2, result.output
    assert words in " ".join(result.output.split())


def test_an_average_without_views_makes_no_run(cli: Cli) -> None:
    Path("c.yaml").write_text(CONFIG)
    result = cli("plan", "c.yaml", "grid.tta_average=logits", "--no-check")
    assert result.exit_code == 2
    assert "tta_average: logits found, which has no effect here; expected tta" in " ".join(result.output.split())


@pytest.mark.filterwarnings("ignore:.*torch.jit.*deprecated")
@pytest.mark.parametrize("chosen", ["torchscript", pytest.param("onnx", marks=pytest.mark.slow)])
def test_an_exported_file_reads_images_at_the_size_of_the_run(sizes: ResultFolder, tmp_path: Path, chosen: Any) -> None:
    """The file also has the views with a scale, and the average of logits."""
    original = load_classifier(sizes.run_folder(run_of(sizes, 48, "logits").run_id), device="cpu")
    suffix = {"torchscript": "pt", "onnx": "onnx"}[chosen]
    file, _ = export(original, chosen, tmp_path / f"c.{suffix}", images_of_check(original)[:3])
    about = json.loads(file.with_name(file.name + SUFFIX).read_text())
    assert about["checked"]["largest_difference"] < 1e-3
    assert about["spec"]["params"]["eval_image_size"] == 48
    with pytest.raises(ConfigError, match=r"image_size: 64 x 64 found with an exported file, which resizes images"):
        load_classifier(file, trust=True, image_size=64)


# ---- predict --image-size


def rows_of(file: str) -> list[dict[str, str]]:
    with Path(file).open(newline="") as stream:
        return list(csv.DictReader(stream))


def test_another_size_is_said_and_has_no_promise(sizes: ResultFolder, cli: Cli) -> None:
    run = sizes.run_folder(run_of(sizes, None).run_id)
    Image.new("RGB", (70, 50), (200, 90, 30)).save("part.png")
    result = cli("predict", run, "part.png", "--csv", "rows.csv", "--image-size", 48)
    assert result.exit_code == 0, result.output
    why = "images are read at 48 x 48 pixels, which is not the size of the run"
    text = " ".join(result.output.split())
    assert f"there are no label sets and no answers: {why}" in text
    assert f"probabilities are not calibrated: {why}" in text
    assert "promised coverage of" not in text
    (row,) = rows_of("rows.csv")
    assert (row["answer"], row["label_set"], row["reading"]) == ("", "", "at 48 x 48 pixels")
    assert row["probability"] == row["raw_probability"]
    # The same networks as those of the run at this size.
    expected = load_classifier(sizes.run_folder(run_of(sizes, 48).run_id), device="cpu").predict("part.png")
    predicted = load_classifier(run, device="cpu", image_size=48).predict("part.png")
    assert np.array_equal(predicted.raw_probabilities, expected.raw_probabilities)  # type: ignore[union-attr]
    assert float(row["raw_probability"]) == pytest.approx(predicted.raw_probabilities.max(), abs=1e-6)  # type: ignore[union-attr]


def test_the_size_of_the_run_keeps_its_promise(sizes: ResultFolder, cli: Cli) -> None:
    run = sizes.run_folder(run_of(sizes, 48).run_id)
    Image.new("RGB", (70, 50), (200, 90, 30)).save("part.png")
    outputs = []
    for options in ([], ["--image-size", 48, "--coverage", 0.9]):
        result = cli("predict", run, "part.png", "--csv", "rows.csv", *options)
        assert result.exit_code == 0, result.output
        assert "promised coverage of 0.9" in result.output
        outputs.append([{**row, "seconds": ""} for row in rows_of("rows.csv")])
    assert outputs[0] == outputs[1]
    assert outputs[0][0]["label_set"]


def test_a_size_that_cannot_be_is_refused(sizes: ResultFolder, cli: Cli) -> None:
    run = sizes.run_folder(run_of(sizes, None).run_id)
    Image.new("RGB", (70, 50)).save("part.png")
    for options, words in (
        (["--image-size", 8], "image_size: 8 found; expected a whole number of pixels, 16 or more."),
        (["--image-size", 48, "--coverage", 0.8], "coverage: 0.8 found with image_size 48, which is not the size"),
    ):
        result = cli("predict", run, "part.png", *options)
        assert result.exit_code == 2, result.output
        assert words in " ".join(result.output.split())


def test_a_transformer_predicts_at_its_own_size_only() -> None:
    settings = Settings(image_size=(32, 32))
    member = Member(0, "", (0, 1), build(VIT, 2, settings, None, 0).eval())
    specs = [("nut", "good"), ("nut", "cut")]
    scorer = SupervisedScorer("baseline", ["a", "b"], specs, settings, [member], VIT, pick("cpu"))
    classifier = Classifier(scorer, None, Promise(0.9, None, ""), Temperature())
    assert classifier.at_image_size(32) is classifier
    words = f"image_size: 48 x 48 found, which backbone {VIT} does not take after its training"
    with pytest.raises(ConfigError, match=rf"{words} \(AssertionError.*\); expected 32 x 32, the size of the run"):
        classifier.at_image_size(48)


def test_images_of_one_size_are_in_memory_at_a_time(tmp_path: Path) -> None:
    from harness.backends.base import RunContext

    Image.new("RGB", (40, 40), (10, 20, 30)).save("a.png")
    stages: list[str] = []
    # A limit of no bytes: both sizes go to files of their own.
    context = RunContext(tmp_path, "cpu", 0, stages.append, memory_limit=0)
    images = ImagesBySize("of no other test", ["a.png"], context)
    small = images.at((16, 16))
    assert images.at((16, 16)) is small
    large = images.at((24, 32))
    assert (small.shape, large.shape) == ((1, 3, 16, 16), (1, 3, 24, 32))
    for pixels in (small, large):
        assert np.array_equal(pixels[0, :, 0, 0], [10, 20, 30])
    assert stages == ["reading images"] * 2
    assert torch.from_numpy(np.array(large)).shape == (1, 3, 24, 32)
