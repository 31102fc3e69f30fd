"""A trained model at work in Python: the same scores again, whatever an image comes as; damaged files are refused."""

from __future__ import annotations

import json
import pickle
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from harness import load_model
from harness.common.errors import DataError, HarnessError, StoreError, WeightsError
from harness.data.images import read_image
from harness.inference.result import Result
from harness.predictions.decision import Thresholds, normalize
from harness.predictions.drawing import at_image_size
from harness.report.recommended import recommended_runs
from harness.report.results import Results
from harness.results.scores import read_calibration
from harness.results.store import ResultFolder
from tests.trained import UNNAMED, run_of, scores_of

MODELS: list[tuple[str, str, dict[str, Any]]] = [
    ("native", "patchcore", {"center_crop": None}),
    ("native", "patchcore", {"center_crop": 64}),
    ("native", "padim", {}),
    ("native", "spade", {}),
    ("native", "cflow", {}),
    ("anomalib", "patchcore", {}),
    ("anomalib", "padim", {}),
    ("anomalib", "stfpm", {}),
    *(("native", name, {}) for name in UNNAMED),
]


@pytest.mark.parametrize(("backend", "model", "params"), MODELS)
def test_scores_are_those_of_the_sweep(trained: ResultFolder, backend: str, model: str, params: dict[str, Any]) -> None:
    record = run_of(trained, backend, model, **params)
    rows = scores_of(trained, record)
    loaded = load_model(trained.run_folder(record.run_id))
    assert len(rows) == 10
    for batch_size in (1, 3):
        results = loaded.predict(list(rows), batch_size=batch_size)
        for result, (path, row) in zip(results, rows.items(), strict=True):
            assert result.score == pytest.approx(float(row["score"]), rel=1e-4)
            assert result.path == str(path)
            assert result.threshold == record.thresholds["image"]
            assert result.anomaly_map is not None
            assert np.isfinite(result.anomaly_map).all()
    labels = [str(int(bool(result.label))) for result in results]
    assert labels == [row["predicted_label"] for row in rows.values()]


def test_best_run_of_a_sweep(trained: ResultFolder) -> None:
    best = max(trained.records(), key=lambda record: record.rank())
    run = load_model(trained.root).run
    assert run is not None
    assert run.record.run_id == best.run_id


@pytest.fixture(scope="module")
def native(trained: ResultFolder) -> Any:
    return load_model(trained.run_folder(run_of(trained, "native", "patchcore", center_crop=None).run_id))


def test_one_image_in_every_form(native: Any, toy_tree: Path) -> None:
    path = toy_tree / "plate" / "test" / "good" / "000.png"
    pixels = read_image(path)
    tensor = torch.from_numpy(pixels.copy()).permute(2, 0, 1) / 255
    expected = native.predict(path)
    assert isinstance(expected, Result)
    for image in (str(path), pixels, Image.fromarray(pixels), tensor, pixels.astype(np.uint16) * 257):
        predicted = native.predict(image)
        assert isinstance(predicted, Result)
        assert predicted.score == expected.score
        assert np.array_equal(predicted.anomaly_map, expected.anomaly_map)
    for batch in ([path, pixels], np.stack([pixels] * 2), torch.stack([tensor] * 2), iter([path, path])):
        predicted = native.predict(batch)
        assert isinstance(predicted, list)
        assert [one.score for one in predicted] == pytest.approx([expected.score] * 2, rel=1e-5)
    assert native.predict([]) == []
    grey = Image.fromarray(pixels).convert("L")
    assert native.predict(np.asarray(grey)).score == native.predict(grey).score
    assert native.predict(grey).reading == ("grey repeated",)


@pytest.mark.parametrize(
    ("image", "sentence"),
    [
        (np.zeros((4, 4, 3)), "float64 array"),
        (np.zeros((4, 4, 2), np.uint8), r"shape \(4, 4, 2\) found"),
        (np.zeros((0, 4), np.uint8), "empty array"),
        (torch.zeros(3, 4, 4, dtype=torch.uint8), "uint8 tensor"),
        (torch.full((3, 4, 4), 255.0), r"expected values in \[0, 1\]"),
        ([object()], "object found"),
        (None, "NoneType found"),
        (5, "int found"),
        (torch.zeros(3, 0, 5), "no pixels"),
        ("nowhere.png", "No such file"),
    ],
)
def test_what_is_no_image_is_said(native: Any, image: Any, sentence: str) -> None:
    with pytest.raises(DataError, match=sentence):
        native.predict(image)


@pytest.mark.parametrize(("backend", "model"), [("native", "cflow"), ("native", "padim"), ("anomalib", "patchcore")])
def test_threads_get_what_one_gets(trained: ResultFolder, toy_tree: Path, backend: str, model: str) -> None:
    loaded = load_model(trained.run_folder(run_of(trained, backend, model).run_id))
    paths = sorted((toy_tree / "plate" / "test").rglob("*.png")) * 3
    alone = [loaded.predict(path).score for path in paths]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda path: loaded.predict(path).score, paths))
    assert together == alone


def test_maps_at_the_size_of_the_image(trained: ResultFolder, toy_tree: Path, tmp_path: Path) -> None:
    loaded = load_model(trained.run_folder(run_of(trained, "native", "patchcore", center_crop=64).run_id))
    Image.open(toy_tree / "plate" / "test" / "good" / "000.png").resize((300, 150)).save(tmp_path / "wide.png")
    result = loaded.predict(tmp_path / "wide.png")
    whole = result.map_at_image_size()
    assert result.anomaly_map is not None
    assert whole is not None
    assert result.anomaly_map.shape == (64, 64)
    assert whole.shape == (150, 300)
    # 64 of 96 pixels in the middle are seen: a sixth of the image is missing at each side.
    assert np.isnan(whole[:25]).all()
    assert np.isnan(whole[:, :50]).all()
    inside = whole[25:125, 50:250]
    assert not np.isnan(inside).any()
    assert inside.max() == pytest.approx(result.anomaly_map.max(), rel=0.05)
    mask = result.mask()
    assert mask is not None
    assert mask.shape == (150, 300)


def test_places_are_kept_at_image_size() -> None:
    small = np.zeros((8, 8), np.float32)
    small[2, 5] = 1
    whole = at_image_size(small, (80, 160), None)
    assert np.unravel_index(np.argmax(whole), whole.shape)[0] // 10 == 2
    assert np.unravel_index(np.argmax(whole), whole.shape)[1] // 20 == 5


def test_normalised_scores() -> None:
    assert normalize(3.0, 3.0, 2.0) == 0.5
    assert normalize(1.0, 3.0, 2.0) == 0.25  # the median of normal ones
    assert normalize(5.0, 3.0, 2.0) == 0.75
    steps = [normalize(float(x), 3.0, 2.0) for x in (-1e6, -10, 0, 3, 10, 1e3, 1e6)]
    assert steps == sorted(set(steps))
    assert 0 < steps[0] < steps[-1] < 1
    assert Result(5.0, None, Thresholds(image=3.0), (1, 1)).normalized_score is None
    assert Result(5.0, None, Thresholds(image=3.0, image_scale=2.0), (1, 1)).normalized_score == 0.75
    assert Result(5.0, None, Thresholds(), (1, 1)).label is None
    assert Result(3.0, None, Thresholds(image=3.0), (1, 1)).label is False


def test_the_scale_is_the_distance_to_the_median_of_held_out_images(trained: ResultFolder) -> None:
    record = run_of(trained, "native", "spade")
    calibration = read_calibration(trained.run_folder(record.run_id))
    assert calibration is not None
    expected = record.thresholds["image"] - float(np.median(calibration.scores))
    assert record.thresholds["image_scale"] == pytest.approx(expected, rel=1e-9)
    assert record.thresholds["pixel_scale"] > 0


@pytest.fixture
def copied(trained: ResultFolder, tmp_path: Path) -> ResultFolder:
    shutil.copytree(trained.root, tmp_path / "copy")
    return ResultFolder(tmp_path / "copy")


@pytest.mark.parametrize(("backend", "model"), [("native", "padim"), ("anomalib", "padim")])
def test_a_changed_model_is_refused(copied: ResultFolder, backend: str, model: str) -> None:
    record = run_of(copied, backend, model)
    file = copied.model_file(record.run_id)
    assert file is not None
    whole = file.read_bytes()
    # One bit of one weight: the libraries would load it, and it would score otherwise.
    middle = len(whole) // 2
    file.write_bytes(whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :])
    with pytest.raises(WeightsError, match=r"not the file that the run wrote .* changed or is damaged"):
        load_model(file.parent)


@pytest.mark.parametrize(("backend", "model"), [("native", "padim"), ("anomalib", "padim")])
@pytest.mark.parametrize("left", [0, 100, 0.5])
def test_truncated_files_are_refused_without_a_checksum_too(
    copied: ResultFolder, backend: str, model: str, left: float
) -> None:
    record = run_of(copied, backend, model)
    file = copied.model_file(record.run_id)
    assert file is not None
    whole = file.read_bytes()
    file.write_bytes(whole[: int(left * len(whole)) if left < 1 else int(left)])
    _forget_checksum(file.parent)
    with pytest.raises(WeightsError, match=r"no saved detector|damaged"):
        load_model(file.parent)


class Opener:
    """What unpickling it does shows in a file."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> Any:
        return (Path.touch, (self.target,))


def test_a_checkpoint_executes_nothing_unless_trusted(copied: ResultFolder, tmp_path: Path) -> None:
    record = run_of(copied, "anomalib", "padim")
    file = copied.model_file(record.run_id)
    assert file is not None
    checkpoint = torch.load(file, weights_only=False)
    checkpoint["surprise"] = Opener(tmp_path / "executed")
    torch.save(checkpoint, file)
    _forget_checksum(file.parent)
    with pytest.raises(WeightsError, match=r"not only tensors.*executes code .* use --trust"):
        load_model(file.parent)
    assert not (tmp_path / "executed").exists()
    rows = scores_of(copied, record)
    results = load_model(file.parent, trust=True).predict(list(rows))
    assert (tmp_path / "executed").exists()
    assert [one.score for one in results] == pytest.approx([float(row["score"]) for row in rows.values()], rel=1e-4)


@pytest.mark.parametrize("content", [pickle.dumps([1, 2]), b"", b"not a model"])
def test_other_files_are_no_checkpoint(copied: ResultFolder, content: bytes) -> None:
    folder = copied.run_folder(run_of(copied, "anomalib", "padim").run_id)
    (folder / "model.ckpt").write_bytes(content)
    _forget_checksum(folder)
    for trust in (False, True):
        with pytest.raises(WeightsError, match=r"model\.ckpt: damaged"):
            load_model(folder, trust=trust)


def test_a_checkpoint_of_another_model_is_refused(copied: ResultFolder) -> None:
    folder = copied.run_folder(run_of(copied, "anomalib", "padim").run_id)
    shutil.copy(copied.run_folder(run_of(copied, "anomalib", "stfpm").run_id) / "model.ckpt", folder)
    _forget_checksum(folder)
    with pytest.raises(WeightsError, match="does not fit anomalib's Padim"):
        load_model(folder)


def test_altered_metadata_is_refused(copied: ResultFolder) -> None:
    from safetensors import safe_open
    from safetensors.torch import save_file

    folder = copied.run_folder(run_of(copied, "native", "padim").run_id)
    with safe_open(folder / "model.safetensors", framework="pt") as stream:
        about = json.loads(stream.metadata()["harness"])
        tensors = {name: stream.get_tensor(name) for name in stream.keys()}  # noqa: SIM118
    for change in ({"detector": "os.system"}, {"backbone": "hf-hub:evil/model"}, {"layers": ["layer9"]}, {"format": 99},
                   {"parameters": {"n_features": 7, "device": "cpu"}}, {"options": {}}, {"layers": ["layer1"]},
                   {"backbone": "resnet34"}, {"weights": {"policy": "x"}}):  # fmt: skip
        save_file(tensors, folder / "model.safetensors", {"harness": json.dumps({**about, **change})})
        _forget_checksum(folder)
        with pytest.raises(HarnessError):
            load_model(folder)


def _forget_checksum(folder: Path) -> None:
    """As a run of an older version."""
    record = json.loads((folder / "record.json").read_text())
    (folder / "record.json").write_text(json.dumps({**record, "model": {}}))


def test_no_model_to_be_had(copied: ResultFolder, sweep_folder: ResultFolder, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="nothing found; expected a run's folder"):
        load_model(tmp_path / "nowhere")
    (tmp_path / "a.txt").write_text("")
    with pytest.raises(StoreError, match=r"a file \.txt found"):
        load_model(tmp_path / "a.txt")
    failed = next(record for record in sweep_folder.records() if record.status == "failed")
    with pytest.raises(StoreError, match="this run failed"):
        load_model(sweep_folder.run_folder(failed.run_id))
    with pytest.raises(StoreError, match=r"saved models of 2 categories found; name one with --category.*plate"):
        load_model(sweep_folder.root)
    with pytest.raises(StoreError, match=r"--category: 'cable' found; .* has fabric, plate"):
        load_model(sweep_folder.root, category="cable")
    (best,) = recommended_runs(Results.of(copied))
    (copied.run_folder(best.run_id) / str(best.model["file"])).unlink()
    with pytest.raises(StoreError, match=r"the model of this run was not kept\. Set save_models"):
        load_model(copied.run_folder(best.run_id))
    run = load_model(copied.root).run
    assert run is not None
    assert f"configuration ({best.run_id}) was not" in run.note
    for record in copied.records():
        for file in copied.run_folder(record.run_id).glob("model.*"):
            file.unlink()
    with pytest.raises(StoreError, match=f"the models of its {len(copied.records())} runs were not kept"):
        load_model(copied.root)
    (copied.run_folder(best.run_id) / "record.json").write_text("{")
    with pytest.raises(StoreError, match="damaged"):
        load_model(copied.run_folder(best.run_id))


@pytest.mark.parametrize(
    "change",
    [
        {"thresholds": {"image": "abc"}},
        {"thresholds": {"image": 1.0, "image_scale": 0.0}},
        {"spec": {}},
        {"spec": {"params": None}},
        {"spec": {"image_size": [1]}},
        {"spec": {"backbone": "nothing"}},
        {"spec": {"params": {"nothing": 1}}},
        {"model": {"sha256": 5}},
    ],
)
def test_an_altered_record_is_a_clear_error(copied: ResultFolder, change: dict[str, Any]) -> None:
    folder = copied.run_folder(run_of(copied, "anomalib", "padim").run_id)
    record = json.loads((folder / "record.json").read_text())
    for name, block in change.items():
        record[name] = {**record[name], **block} if block else {}
    (folder / "record.json").write_text(json.dumps(record))
    with pytest.raises(HarnessError, match=r"Make the run again|was changed|repeat the run"):
        load_model(folder)


def test_a_run_is_found_by_its_model_and_by_a_copy(trained: ResultFolder, tmp_path: Path, toy_tree: Path) -> None:
    record = run_of(trained, "native", "padim")
    run = trained.run_folder(record.run_id)
    assert load_model(run / "model.safetensors").thresholds.image == record.thresholds["image"]
    shutil.copytree(run, tmp_path / "mine")
    image = toy_tree / "plate" / "test" / "good" / "000.png"
    assert load_model(tmp_path / "mine").predict(image).score == load_model(run).predict(image).score
    with pytest.raises(StoreError, match=r"--category: 'cable' found; the run .* is of 'plate'"):
        load_model(run, category="cable")
    with pytest.raises(HarnessError, match="device: 'gpu' found"):
        load_model(run, device="gpu")


def test_a_saved_detector_has_scores_and_no_labels(toy_tree: Path, tmp_path: Path) -> None:
    from harness.detectors import PaDiM

    good = toy_tree / "plate" / "train" / "good"
    detector = PaDiM("resnet18", ["layer1"], n_features=5, image_size=32, weights="random", progress=False).fit(good)
    loaded = load_model(detector.save(tmp_path / "own.safetensors"))
    result = loaded.predict(good / "000.png")
    assert result.score == pytest.approx(detector.predict(good / "000.png").score, rel=1e-6)
    assert result.label is None
    assert "no threshold" in loaded.notes[0]
