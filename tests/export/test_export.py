"""Exported files: the same answers as the run in every format, for images of any number and size; refused otherwise."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms.v2 import functional as transforms

from harness import load_model
from harness.backends import formats
from harness.backends.formats import write_torchscript
from harness.backends.graph import Decision, Prepare, Resize, output_names
from harness.backends.native.export import whole
from harness.common.errors import ConfigError, ExportError, HarnessError, StoreError, WeightsError
from harness.common.files import file_hash
from harness.data.images import read_image
from harness.detectors.sources import Preprocessing
from harness.export.write import export
from harness.inference.exported import ExportedFile
from harness.predictions.decision import Thresholds, normalize
from harness.results.store import ResultFolder
from tests.conftest import Cli
from tests.trained import UNNAMED, run_of

NATIVE: list[tuple[str, dict[str, Any]]] = [
    ("patchcore", {"center_crop": None}),
    ("patchcore", {"center_crop": 64}),
    ("padim", {}),
    ("spade", {}),
    ("cflow", {}),
    *((name, {}) for name in UNNAMED),
]


@pytest.fixture(scope="module")
def images(toy_tree: Path) -> list[Path]:
    return sorted((toy_tree / "plate" / "test").rglob("*.png"))


def images_as_input(paths: Sequence[Path]) -> Any:
    return np.stack([read_image(path) for path in paths]).transpose(0, 3, 1, 2).astype(np.float32) / 255


@pytest.mark.parametrize("size", [(64, 64), (96, 40)])
@pytest.mark.parametrize("image_size", [(64, 64), (300, 171), (33, 57), (1, 9)])
def test_resizing_is_torchs(size: tuple[int, int], image_size: tuple[int, int]) -> None:
    image = torch.rand(2, 3, *image_size)
    # With 64 bits: with 32, Torch's own rounding of places is larger.
    theirs = transforms.resize(image.double(), list(size), antialias=True)
    assert (Resize(size)(image) - theirs).abs().max() < 1e-6


def test_preparing_is_the_detectors() -> None:
    view = Preprocessing((96, 80), (64, 51))
    image = torch.rand(3, 120, 130)
    prepared = Prepare(view.size, view.crop, view.normalization.mean, view.normalization.std)(image[None])[0]
    assert prepared.shape == (3, 64, 51)
    assert (prepared - view(image)).abs().max() < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize(("model", "params"), NATIVE)
def test_the_module_says_what_the_detector_says(
    trained: ResultFolder, images: list[Path], model: str, params: dict[str, Any]
) -> None:
    loaded = load_model(trained.run_folder(run_of(trained, "native", model, **params).run_id), device="cpu")
    detector: Any = loaded.scorer.detector
    expected = loaded.predict(images)
    with torch.no_grad():
        outputs = whole(detector, loaded.thresholds)(torch.from_numpy(images_as_input(images)))
    answers = dict(zip(output_names(loaded.thresholds, maps=True), outputs, strict=True))
    assert list(answers) == ["score", "normalized_score", "label", "anomaly_map", "mask"]
    assert answers["score"].numpy() == pytest.approx([one.score for one in expected], rel=1e-5)
    assert answers["label"].tolist() == [one.label for one in expected]
    assert answers["normalized_score"].numpy() == pytest.approx([one.normalized_score for one in expected], abs=1e-4)
    maps = np.stack([one.anomaly_map for one in expected if one.anomaly_map is not None])
    assert np.abs(answers["anomaly_map"].numpy() - maps).max() < 1e-5 * np.abs(maps).max()


def test_a_bank_larger_than_a_block(trained: ResultFolder, images: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    from harness.detectors.patchcore import PatchCoreHead

    record = run_of(trained, "native", "patchcore", center_crop=None)
    loaded = load_model(trained.run_folder(record.run_id), device="cpu")
    monkeypatch.setattr(PatchCoreHead, "BLOCK", 7)
    with torch.no_grad():
        scores = whole(loaded.scorer.detector, loaded.thresholds)(torch.from_numpy(images_as_input(images)))[0]
    assert scores.numpy() == pytest.approx([one.score for one in loaded.predict(images)], rel=1e-5)


def test_answers_of_a_run_without_thresholds() -> None:
    assert output_names(Thresholds(), maps=True) == ["score", "anomaly_map"]
    assert output_names(Thresholds(image=1.0), maps=False) == ["score", "label"]
    assert output_names(Thresholds(image=1.0, pixel=1.0), maps=True) == ["score", "label", "anomaly_map", "mask"]
    answers = Decision(Thresholds(image=2.0, image_scale=0.5))(torch.tensor([2.0, 2.5, 2.1]), None)
    assert answers.label is not None
    assert answers.label.tolist() == [False, True, True]
    assert answers.normalized_score is not None
    assert answers.normalized_score.tolist() == pytest.approx([normalize(x, 2.0, 0.5) for x in (2.0, 2.5, 2.1)])


def exported(
    trained: ResultFolder, tmp_path: Path, cli: Cli, chosen: str, backend: str, model: str, **params: Any
) -> Path:
    record = run_of(trained, backend, model, **params)
    file = tmp_path / f"{model}{formats.SUFFIXES[chosen]}"  # type: ignore[index]
    result = cli("export", trained.run_folder(record.run_id), "--format", chosen, "--out", file)
    assert result.exit_code == 0, result.output
    assert "no label differs" in result.stdout
    assert {path.name for path in tmp_path.iterdir()} == {
        file.name, f"{file.name}.json", *([f"{model}.bin"] if chosen == "openvino" else [])
    }  # fmt: skip
    return file


def check_file(trained: ResultFolder, file: Path, images: list[Path], backend: str, model: str, **params: Any) -> None:
    """Against the run itself, with images of other sizes and numbers than it was checked on."""
    record = run_of(trained, backend, model, **params)
    original = load_model(trained.run_folder(record.run_id), device="cpu")
    loaded = load_model(file, trust=True)
    odd = [Image.open(path).resize((120, 75)) for path in images[:3]]
    for batch in (images[:1], images[:5], odd, [*images[:2], odd[0]]):
        for one, other in zip(original.predict(batch), loaded.predict(batch), strict=True):
            assert other.score == pytest.approx(one.score, rel=1e-3)
            assert other.label == one.label
            assert one.anomaly_map is not None
            assert other.anomaly_map is not None
            assert np.abs(one.anomaly_map - other.anomaly_map).max() < 1e-3 * np.abs(one.anomaly_map).max()
    about = json.loads(file.with_name(f"{file.name}.json").read_text())
    assert about["run"] == record.run_id
    assert about["thresholds"]["image"] == record.thresholds["image"]
    assert about["checked"]["images"] == 10
    assert about["checked"]["largest_relative_difference"] < 1e-3
    assert about["cost"]["file_size"] == sum(file.with_name(name).stat().st_size for name in about["sha256"])
    assert about["cost"]["seconds_p95"] >= about["cost"]["seconds_p50"] > 0
    assert about["input"]["shape"] == ["batch", 3, "height", "width"]
    assert {"harness", "torch", "anomalib"} <= set(about["versions"])


@pytest.mark.parametrize(
    "chosen", ["torchscript", *(pytest.param(one, marks=pytest.mark.slow) for one in ("onnx", "openvino"))]
)
def test_native_formats(trained: ResultFolder, tmp_path: Path, cli: Cli, images: list[Path], chosen: str) -> None:
    run = ("native", "patchcore")
    file = exported(trained, tmp_path, cli, chosen, *run, center_crop=64)
    check_file(trained, file, images, *run, center_crop=64)


@pytest.mark.slow
def test_anomalib_through_its_engine(trained: ResultFolder, tmp_path: Path, cli: Cli, images: list[Path]) -> None:
    check_file(trained, exported(trained, tmp_path, cli, "onnx", "anomalib", "padim"), images, "anomalib", "padim")


# Every model as ONNX, from which OpenVINO is made; the other formats of those that ask most of them.
FURTHER = [
    *(("onnx", "native", model, params) for model, params in NATIVE if params != {"center_crop": 64}),
    *(("onnx", "anomalib", model, {}) for model in ("patchcore", "stfpm")),
    *(
        (chosen, "native", model, {})
        for chosen in ("openvino", "torchscript")
        for model in ("spade", "cflow", "mhpatchcore")
    ),
    *((chosen, "anomalib", "patchcore", {}) for chosen in ("openvino", "torchscript")),
]


@pytest.mark.slow
@pytest.mark.parametrize(("chosen", "backend", "model", "params"), FURTHER)
def test_further_models_and_formats(
    trained: ResultFolder,
    tmp_path: Path,
    cli: Cli,
    images: list[Path],
    chosen: str,
    backend: str,
    model: str,
    params: dict[str, Any],
) -> None:
    file = exported(trained, tmp_path, cli, chosen, backend, model, **params)
    check_file(trained, file, images, backend, model, **params)


@pytest.mark.slow
def test_predict_takes_an_exported_file_and_no_torch(
    trained: ResultFolder, tmp_path: Path, cli: Cli, images: list[Path]
) -> None:
    file = exported(trained, tmp_path, cli, "onnx", "native", "padim")
    script = f"""
import sys
from harness.cli.main import app
try:
    app(["predict", {str(file)!r}, {str(images[0])!r}, "--out", "out"], standalone_mode=False)
except BaseException as ended:
    assert ended.exit_code == 0, ended
assert not {{"torch", "timm", "anomalib"}} & set(sys.modules)
print("none of them")
"""
    process = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert "none of them" in process.stdout, process.stderr
    row = Path("out/predictions.csv").read_text().splitlines()[1].split(",")
    record = run_of(trained, "native", "padim")
    assert float(row[3]) == record.thresholds["image"]
    assert Path("out/000.outline.jpg").is_file()


def test_a_file_with_other_answers_is_refused(
    trained: ResultFolder, tmp_path: Path, images: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = load_model(trained.run_folder(run_of(trained, "native", "padim").run_id), device="cpu")
    right = formats.write_torchscript

    def wrong(module: Any, file: Path) -> None:
        module.scoring.head.mean += 0.01 * module.scoring.head.mean.abs().mean()
        right(module, file)

    monkeypatch.setattr("harness.backends.formats.write_torchscript", wrong)
    with pytest.raises(ExportError, match=r"score .* in the exported file, .* in Torch.* the file was removed"):
        export(loaded, "torchscript", tmp_path / "m.pt", images)
    assert list(tmp_path.iterdir()) == []


def test_a_file_with_another_map_is_refused(
    trained: ResultFolder, tmp_path: Path, images: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = load_model(trained.run_folder(run_of(trained, "native", "padim").run_id), device="cpu")

    class Wrong(torch.nn.Module):
        def __init__(self, inner: torch.nn.Module) -> None:
            super().__init__()
            self.inner = inner

        def forward(self, prepared: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            scores, maps = self.inner(prepared)
            return scores, maps.flip(2)

    def wrong(module: Any, file: Path) -> None:
        module.scoring = Wrong(module.scoring)
        write_torchscript(module, file)

    monkeypatch.setattr("harness.backends.formats.write_torchscript", wrong)
    with pytest.raises(ExportError, match=r"the anomaly map in the exported file differs from Torch's"):
        export(loaded, "torchscript", tmp_path / "m.pt", images)
    assert list(tmp_path.iterdir()) == []


def test_a_batch_is_tried_where_all_images_differ_in_size(
    trained: ResultFolder, tmp_path: Path, images: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = load_model(trained.run_folder(run_of(trained, "native", "padim").run_id), device="cpu")

    def fixed(module: Any, file: Path) -> None:
        monkeypatch.setattr(formats, "EXAMPLE", (1, 3, 64, 64))
        frozen = torch.jit.trace(lambda batch: module(batch[:1]), torch.rand(1, 3, 64, 64), check_trace=False)
        frozen.save(str(file))

    monkeypatch.setattr("harness.backends.formats.write_torchscript", fixed)
    with warnings.catch_warnings(), pytest.raises((ExportError, IndexError)):
        warnings.simplefilter("ignore")
        export(loaded, "torchscript", tmp_path / "m.pt", images[:1])


def test_an_export_in_the_runs_own_folder_does_not_hide_its_model(
    trained: ResultFolder, tmp_path: Path, cli: Cli, images: list[Path]
) -> None:
    record = run_of(trained, "native", "padim")
    run = tmp_path / "elsewhere"  # a copied run folder is a run
    shutil.copytree(trained.run_folder(record.run_id), run)
    result = cli("export", run, "--format", "torchscript", "--out", run / "model.pt")
    assert result.exit_code == 0, result.output
    loaded = load_model(run)
    assert loaded.run is not None
    assert loaded.run.file.name == "model.safetensors"
    assert loaded.predict(images[0]).score == load_model(trained.run_folder(record.run_id)).predict(images[0]).score


def test_a_file_with_another_label_is_refused(
    trained: ResultFolder, tmp_path: Path, images: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = load_model(trained.run_folder(run_of(trained, "native", "padim").run_id), device="cpu")

    def wrong(module: Any, file: Path) -> None:
        module.decision.thresholds = Thresholds(image=-1e9, pixel=1.0, image_scale=1.0, pixel_scale=1.0)
        write_torchscript(module, file)

    monkeypatch.setattr("harness.backends.formats.write_torchscript", wrong)
    with pytest.raises(ExportError, match="anomalous in the exported file, normal in Torch"):
        export(loaded, "torchscript", tmp_path / "m.pt", images)
    assert list(tmp_path.iterdir()) == []


def test_what_can_not_be_written_leaves_what_was_there(
    trained: ResultFolder, tmp_path: Path, images: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = load_model(trained.run_folder(run_of(trained, "native", "padim").run_id), device="cpu")
    (tmp_path / "m.pt").write_text("an earlier one")

    def fail(*_: Any) -> None:
        raise RuntimeError("no such operator\nand more")

    monkeypatch.setattr("harness.backends.formats.write_torchscript", fail)
    with pytest.raises(
        ConfigError, match=r"padim could not be written as torchscript \(RuntimeError: no such operator\)"
    ):
        export(loaded, "torchscript", tmp_path / "m.pt", images)
    assert [path.name for path in tmp_path.iterdir()] == ["m.pt"]
    assert (tmp_path / "m.pt").read_text() == "an earlier one"


class Writer(torch.nn.Module):
    """What loading it does shows in a file."""

    def __init__(self, target: str) -> None:
        super().__init__()
        self.target = target

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.sum(dim=[1, 2, 3])

    @torch.jit.export
    def __getstate__(self) -> tuple[str, bool]:
        return self.target, self.training

    @torch.jit.export
    def __setstate__(self, state: tuple[str, bool]) -> None:
        self.target, self.training = state
        torch.save(torch.zeros(1), self.target)


@pytest.mark.filterwarnings("ignore:.*torch.jit.*deprecated")
def test_torchscript_is_a_program_and_needs_trust(
    trained: ResultFolder, tmp_path: Path, cli: Cli, images: list[Path]
) -> None:
    file = exported(trained, tmp_path, cli, "torchscript", "native", "padim")
    about = json.loads((tmp_path / "padim.pt.json").read_text())
    written = tmp_path / "executed"
    torch.jit.script(Writer(str(written))).save(str(file))  # type: ignore[no-untyped-call]
    written.unlink(missing_ok=True)
    about["sha256"] = {file.name: file_hash(file)}
    (tmp_path / "padim.pt.json").write_text(json.dumps(about))
    with pytest.raises(WeightsError, match=r"TorchScript is a program.*say --trust"):
        load_model(file)
    result = cli("predict", file, images[0])
    assert result.exit_code == 2
    assert "say --trust" in result.stderr
    assert not written.exists()
    load_model(file, trust=True)
    assert written.exists()


def test_damaged_exports_are_refused(trained: ResultFolder, tmp_path: Path, cli: Cli) -> None:
    file = exported(trained, tmp_path, cli, "torchscript", "native", "padim")
    beside = tmp_path / "padim.pt.json"
    about, whole_file = json.loads(beside.read_text()), file.read_bytes()
    file.write_bytes(whole_file[:-100])
    with pytest.raises(WeightsError, match="damaged or changed since it was exported"):
        load_model(file, trust=True)
    file.write_bytes(whole_file)
    for change in ({"format": "exe"}, {"version": 99}, {"thresholds": {"eval": "1"}}, {"sha256": {"../x": "1"}},
                   {"sha256": {}}, {"preprocessing": {}}, {"outputs": 3}, {"outputs": ["os"]}, {"notes": 5},
                   {"thresholds": {"image": "1"}}, {"thresholds": {"image": 1, "image_scale": 0}}):  # fmt: skip
        beside.write_text(json.dumps({**about, **change}))
        with pytest.raises(HarnessError, match=r"padim\.pt\.json: (damaged|written by a newer)"):
            ExportedFile(file, trust=True)
    beside.write_text("{")
    with pytest.raises(StoreError, match="damaged"):
        load_model(file)
    beside.unlink()
    with pytest.raises(StoreError, match=r"no padim\.pt\.json beside it"):
        load_model(file)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--format", "tflite"], "--format: 'tflite' found; expected torchscript, onnx or openvino."),
        (["--format", "onnx", "--out", "model.pt"], "expected a name that ends in .onnx for onnx"),
        (["--format", "torchscript", "--check", "none*.png"], "none*.png: no match found"),
    ],
)
def test_what_is_wrong_is_said(trained: ResultFolder, cli: Cli, arguments: list[str], sentence: str) -> None:
    run = trained.run_folder(run_of(trained, "native", "padim").run_id)
    result = cli("export", run, *arguments)
    assert result.exit_code == 2
    assert sentence in result.stderr


def test_without_test_images_others_are_asked_for(
    trained: ResultFolder, tmp_path: Path, cli: Cli, images: list[Path]
) -> None:
    record = run_of(trained, "native", "padim")
    run = tmp_path / "copy" / "runs" / record.run_id
    shutil.copytree(trained.run_folder(record.run_id), run)
    values = json.loads((run / "record.json").read_text())
    values["data"]["root"] = str(tmp_path / "gone")
    (run / "record.json").write_text(json.dumps(values))
    result = cli("export", run, "--format", "torchscript")
    assert result.exit_code == 2
    assert "none of the 10 test images of the run found" in result.stderr
    assert "--check" in result.stderr
    result = cli("export", run, "--format", "torchscript", "--check", images[0].parent)
    assert result.exit_code == 0, result.output
    assert (run / "exported" / "model.pt").is_file()
    # An export in its folder does not hide the run's own model.
    assert load_model(run).run is not None


def test_a_missing_package_is_named(trained: ResultFolder, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(formats.NEEDED, "openvino", ("openvino", "no_such_package"))
    run = trained.run_folder(run_of(trained, "native", "padim").run_id)
    result = cli("export", run, "--format", "openvino")
    assert result.exit_code == 2
    assert "no_such_package not installed. Run" in result.stderr
