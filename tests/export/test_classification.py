"""Exported classifications: the probabilities, labels and label sets of the run, in every format."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from harness import load_classifier, load_model
from harness.backends import formats
from harness.backends.supervised.decoding import to_size
from harness.backends.supervised.export import EightBitResize
from harness.backends.supervised.one_class import merge, merge_tensors
from harness.common.errors import ExportError, HarnessError, StoreError, WeightsError
from harness.export.write import export, images_of_check
from harness.inference.classifier import Classifier
from harness.inference.exported import SUFFIX
from harness.inference.exported_classifier import ExportedClassifier
from harness.results.store import ResultFolder
from tests.conftest import Cli

pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.*deprecated")


def classifier(classified: ResultFolder, model: str) -> Classifier:
    record = next(one for one in classified.records() if one.spec["model"] == model)
    return load_classifier(classified.run_folder(record.run_id), device="cpu")


@pytest.mark.parametrize("image_size", [(64, 64), (75, 120), (31, 20), (96, 768), (400, 17)])
@pytest.mark.parametrize("size", [(32, 32), (48, 24)])
def test_resizing_is_pillows(image_size: tuple[int, int], size: tuple[int, int]) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (*image_size, 3), dtype=np.uint8)
    resized = EightBitResize(size)(torch.from_numpy(pixels.transpose(2, 0, 1)[None]) / 255) * 255
    difference = np.abs(np.rint(resized[0].numpy()) - to_size(pixels, size))
    # Tall images may take the other order of the two directions. Then a difference is one step of 8 bits at most.
    assert difference.max() <= (0 if image_size[0] < image_size[1] * 2 else 1)


@pytest.mark.parametrize("combination", ["mean", "vote"])
def test_merging_is_that_of_the_arrays(combination: str) -> None:
    rng = np.random.default_rng(0)
    sizes = [("a", 3), ("a", 3), ("a", 3), ("b", 2)]
    outputs = [(name, rng.dirichlet(np.ones(size), 50)) for name, size in sizes]
    positions = {"a": [0, 2], "b": [1]}
    tensors = [(name, torch.from_numpy(values).float()) for name, values in outputs]
    for labels in (3, 5):  # 5: two labels have no network
        merged, claims = merge_tensors(tensors, positions, labels, combination)
        expected, expected_claims = merge(outputs, positions, labels, combination)
        assert np.allclose(merged.numpy(), expected, atol=1e-6)
        assert claims.tolist() == expected_claims.tolist()
        assert {0, 1, 2} == set(expected_claims.tolist())


def check(original: Classifier, file: Path, images: list[Path]) -> None:
    """Alone, in batches, and of other sizes, with the label sets of the run."""
    loaded = load_classifier(file, trust=True)
    odd = [Image.open(path).resize((120, 75)) for path in images[:3]]
    for batch in (images[:1], images[:5], odd, [*images[:2], odd[0]]):
        for one, other in zip(original.predict(batch), loaded.predict(batch), strict=True):
            assert np.abs(one.probabilities - other.probabilities).max() < 1e-3
            assert np.abs(one.raw_probabilities - other.raw_probabilities).max() < 1e-3
            assert other.labels == one.labels
            assert other.label_specs == one.label_specs
            assert other.label_set is not None
            assert set(other.label_set) == set(one.label_set or ())
    assert loaded.temperature == original.temperature
    about = json.loads(file.with_name(file.name + SUFFIX).read_text())
    assert about["task"] == "classification"
    assert about["checked"]["images"] == 20
    assert about["checked"]["largest_difference"] < 1e-3
    assert about["cost"]["seconds_p50"] > 0


# OpenVINO reads the file of ONNX, so one model is enough for it.
@pytest.mark.parametrize(
    ("chosen", "model"),
    [*itertools.product(["torchscript", "onnx"], ["baseline", "one_class"]), ("openvino", "baseline")],
)
@pytest.mark.slow
def test_formats(classified: ResultFolder, tmp_path: Path, model: str, chosen: Any) -> None:
    original = classifier(classified, model)
    images = images_of_check(original)
    file, result = export(original, chosen, tmp_path / f"m{formats.SUFFIXES[chosen]}", images)
    assert result.sentence().startswith("Checked on 20 images: probabilities differ by at most ")
    check(original, file, images)


@pytest.mark.slow
def test_commands_without_torch(classified: ResultFolder, tmp_path: Path, cli: Cli) -> None:
    original = classifier(classified, "baseline")
    assert original.run is not None
    file, image = tmp_path / "c.onnx", images_of_check(original)[0]
    result = cli("export", original.run.folder, "--format", "onnx", "--out", file)
    assert result.exit_code == 0, result.output
    script = f"""
import sys
from harness.cli.main import app
try:
    app(["predict", {str(file)!r}, {str(image)!r}, "--coverage", "0.7", "--csv", "rows.csv"], standalone_mode=False)
except BaseException as ended:
    assert ended.exit_code == 0, ended
assert not {{"torch", "timm"}} & set(sys.modules), set(sys.modules)
print("none of them")
"""
    done_alone = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert "none of them" in done_alone.stdout, done_alone.stderr
    assert "a promised coverage of 0.7" in done_alone.stderr
    row = Path("rows.csv").read_text().splitlines()[1].split(",")
    assert row[1] == original.predict(image).label


@pytest.fixture
def exported(classified: ResultFolder, tmp_path: Path) -> Path:
    original = classifier(classified, "baseline")
    return export(original, "torchscript", tmp_path / "c.pt", images_of_check(original)[:2])[0]


def test_a_file_with_other_probabilities_is_refused(
    classified: ResultFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = classifier(classified, "baseline")
    right = formats.write_torchscript

    def wrong(module: Any, file: Path) -> None:
        with torch.no_grad():
            module.by_fold.folds[1].networks[0].head.bias[3] += 1
        right(module, file)
        with torch.no_grad():
            module.by_fold.folds[1].networks[0].head.bias[3] -= 1

    monkeypatch.setattr(formats, "write_torchscript", wrong)
    with pytest.raises(ExportError, match=r"probabilities in the exported file differ .* the file was removed"):
        export(original, "torchscript", tmp_path / "m.pt", images_of_check(original)[:2])
    assert list(tmp_path.iterdir()) == []


def test_the_wrong_function_names_the_right_one(exported: Path, trained: ResultFolder, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"an exported classification found; expected a detection. Use load_classif"):
        load_model(exported, trust=True)
    with pytest.raises(WeightsError, match="TorchScript is a program"):
        load_classifier(exported)
    about = json.loads((tmp_path / "c.pt.json").read_text())
    (tmp_path / "c.pt.json").write_text(json.dumps({**about, "task": "detection"}))
    with pytest.raises(StoreError, match=r"an exported detection found; expected a classification. Use load_model"):
        load_classifier(exported, trust=True)


def test_damaged_files_are_refused(exported: Path) -> None:
    beside = exported.with_name("c.pt.json")
    about = json.loads(beside.read_text())
    for change in ({"labels": 3}, {"labels": []}, {"labels": [{"label": "a"}]}, {"calibration": [["x"]]},
                   {"calibration": [[float("nan")]]}, {"calibration": 1}, {"coverage": 2},
                   {"temperature": 5}, {"temperature": {"value": 0}},
                   {"outputs": ["probabilities"]}, {"outputs": ["os", "probabilities_by_fold"]},
                   {"notes": 5}):  # fmt: skip
        beside.write_text(json.dumps({**about, **change}))
        with pytest.raises(HarnessError, match=r"c\.pt\.json: damaged"):
            ExportedClassifier(exported, trust=True)


def test_a_file_without_calibration_has_no_label_sets(exported: Path, classified: ResultFolder) -> None:
    beside = exported.with_name("c.pt.json")
    beside.write_text(json.dumps({**json.loads(beside.read_text()), "calibration": None}))
    about = json.loads(beside.read_text())
    del about["temperature"]
    beside.write_text(json.dumps(about))
    loaded = load_classifier(exported, trust=True)
    image = images_of_check(classifier(classified, "baseline"))[0]
    assert loaded.predict(image).label_set is None
    assert any("the file has no calibration" in note for note in loaded.notes)
    assert any("not calibrated: an earlier version wrote this file" in note for note in loaded.notes)
