"""The archive of maps for MVTec AD 2: every private image in the form of the data set, or a clear refusal."""

from __future__ import annotations

import io
import json
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from harness import load_model, registry
from harness.common.errors import StoreError
from harness.ensemble.archive import check_archive, tar_gz
from harness.ensemble.mvtec_ad2 import MVTecAD2Submission
from harness.ensemble.submission_maps import SubmissionMaps
from harness.inference.result import Result
from harness.predictions.decision import Thresholds
from harness.results.store import ResultFolder
from tests.conftest import Cli, write_config
from tests.trees import SIZE, write_tree

CONFIG = """
name: private
data: {{kind: mvtec_ad2, root: {root}}}
weights: random
latency: false
save_models: all
grid: {{backend: native, model: padim, backbone: test_resnet, layers: [layer1], n_features: 5, image_size: 32}}
"""
CATEGORIES = ("can", "rice")


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> ResultFolder:
    """A sweep over two categories; not to be changed: copy it."""
    from typer.testing import CliRunner

    from harness.cli.main import app

    base = tmp_path_factory.mktemp("ad2")
    root = write_tree("mvtec_ad2", base / "data")
    shutil.copytree(root / "can", root / "rice")
    config = write_config(base / "private.yaml", CONFIG.format(root=root))
    result = CliRunner().invoke(app, ["sweep", str(config), "--output", str(base / "results")])
    assert result.exit_code == 0, result.output
    return ResultFolder(base / "results" / "private")


@pytest.fixture
def copy(swept: ResultFolder, tmp_path: Path) -> ResultFolder:
    """A copy of the sweep and of its data."""
    base = swept.root.parent.parent
    shutil.copytree(base / "data", tmp_path / "data")
    folder = ResultFolder(Path(shutil.copytree(swept.root, tmp_path / "private")))
    for record in folder.records():
        changed(folder.run_folder(record.run_id), lambda about: about["data"].update(root=moved(about, base, tmp_path)))
    return folder


def moved(about: dict[str, dict[str, str]], base: Path, target: Path) -> str:
    return str(target / Path(about["data"]["root"]).relative_to(base))


def changed(run: Path, change: Callable[[dict[str, dict[str, str]]], None]) -> None:
    file = run / "record.json"
    about = json.loads(file.read_text())
    change(about)
    file.write_text(json.dumps(about))


def run_of(folder: ResultFolder, category: str) -> Path:
    (record,) = (one for one in folder.records() if one.spec["category"] == category)
    return folder.run_folder(record.run_id)


def content(file: str | Path) -> dict[str, bytes]:
    with tarfile.open(file) as archive:
        return {member.name: archive.extractfile(member).read() for member in archive}  # type: ignore[union-attr]


def test_an_archive_of_a_sweep_has_every_private_image(swept: ResultFolder, cli: Cli) -> None:
    result = cli("submit", swept.root, "--format", "mvtec_ad2", "--partial")
    assert result.exit_code == 0, result.output
    files = content("submission.tar.gz")
    images = [f"test_private/00{n}_regular" for n in (0, 1)] + [f"test_private_mixed/00{n}_mixed" for n in (0, 1)]
    places = [f"{category}/{image}" for category in CATEGORIES for image in images]
    assert set(files) == {f"anomaly_images/{place}.tiff" for place in places} | {
        f"anomaly_images_thresholded/{place}.png" for place in places
    }
    predicted = {}
    for category in CATEGORIES:
        run = run_of(swept, category)
        root = json.loads((run / "record.json").read_text())["data"]["root"]
        # All images in one batch, as in the archive: another batch gives other last digits.
        results = load_model(run).predict([f"{root}/{image}.png" for image in images])
        predicted |= {f"{category}/{image}": result for image, result in zip(images, results, strict=True)}
    for place, prediction in predicted.items():
        whole, mask = prediction.map_at_image_size(), prediction.mask()
        assert whole is not None
        assert mask is not None
        anomaly_map = tifffile.imread(io.BytesIO(files[f"anomaly_images/{place}.tiff"]))
        assert (anomaly_map.dtype, anomaly_map.shape) == (np.float16, (SIZE, SIZE))
        assert np.array_equal(anomaly_map, whole.astype(np.float16))
        binary = np.asarray(Image.open(io.BytesIO(files[f"anomaly_images_thresholded/{place}.png"])))
        assert (binary.dtype, binary.shape) == (np.uint8, (SIZE, SIZE))
        assert np.array_equal(binary, np.where(mask, 255, 0))
    assert "Categories without a run: fabric, fruit_jelly, sheet_metal, vial, wallplugs, walnuts" in result.output
    assert "can: 2 images of test_private found; the data set has 321" in result.output
    assert "8 images: 4 of can, 4 of rice" in result.output
    first = Path("submission.tar.gz").read_bytes()
    assert cli("submit", swept.root, "--format", "mvtec_ad2", "--partial").exit_code == 0
    assert Path("submission.tar.gz").read_bytes() == first


def test_runs_by_name_give_their_categories(swept: ResultFolder, cli: Cli) -> None:
    run = run_of(swept, "rice")
    result = cli("submit", run, run, "--format", "mvtec_ad2", "--out", "rice.tar.gz", "--partial")
    assert result.exit_code == 0, result.output
    assert {name.split("/")[1] for name in content("rice.tar.gz")} == {"rice"}
    assert "Categories without a run: can, fabric" in result.output
    result = cli("submit", run, swept.root, "--format", "mvtec_ad2")
    assert result.exit_code == 2
    assert "a second run of category rice found" in result.stderr


def test_images_without_a_prediction_are_listed(copy: ResultFolder, cli: Cli) -> None:
    Path("submission.tar.gz").write_bytes(b"earlier")
    for category in CATEGORIES:
        private = Path("data", category, "test_private_mixed")
        shutil.copy(private / "000_mixed.png", private / "900_mixed.png")
    (Path("data") / "can" / "test_private" / "001_regular.png").unlink()
    result = cli("submit", copy.root, "--format", "mvtec_ad2")
    assert result.exit_code == 2
    assert "rice: 1 images of" in result.stderr
    assert result.stderr.count("without a prediction found (test_private_mixed/900_mixed.png)") == 2
    assert "can: 1 predicted images are missing in" in result.stderr
    assert Path("submission.tar.gz").read_bytes() == b"earlier"


@pytest.mark.parametrize(
    ("data_set", "messages"),
    [
        (
            {"can": 2, "fabric": 2, "rice": 2, "vial": 2},
            ["fabric, vial: no run found; expected a run for each of the 4 categories"],
        ),
        (
            {"can": 2, "rice": 3},
            [f"rice: 2 images of {part} found; the data set has 3." for part in MVTecAD2Submission.parts],
        ),
        ({"rice": 2}, ["can: no category of the data set, which has rice."]),
    ],
    ids=["category", "images", "unknown"],
)
def test_an_incomplete_archive_is_refused(
    swept: ResultFolder, cli: Cli, monkeypatch: pytest.MonkeyPatch, data_set: dict[str, int], messages: list[str]
) -> None:
    Path("submission.tar.gz").write_bytes(b"earlier")
    monkeypatch.setattr(MVTecAD2Submission, "categories", data_set)
    result = cli("submit", swept.root, "--format", "mvtec_ad2")
    assert result.exit_code == 2
    lines = result.stderr.splitlines()
    assert len(lines) == len(messages) + 1
    assert all(message in line for message, line in zip(messages, lines, strict=False))
    assert "not be complete. Add the runs and images, or give --partial" in lines[-1]
    assert [path.name for path in Path.cwd().iterdir()] == ["submission.tar.gz"]
    assert Path("submission.tar.gz").read_bytes() == b"earlier"


def test_a_part_without_images_is_refused(copy: ResultFolder, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MVTecAD2Submission, "categories", {"can": 2})
    run = run_of(copy, "can")
    rows = [line for line in (run / "scores.csv").read_text().splitlines() if "test_private_mixed" not in line]
    (run / "scores.csv").write_text("\n".join(rows) + "\n")
    shutil.rmtree(Path("data", "can", "test_private_mixed"))
    result = cli("submit", run, "--format", "mvtec_ad2")
    assert result.exit_code == 2
    first, last = result.stderr.splitlines()
    assert "can: 0 images of test_private_mixed found; the data set has 2." in first
    assert "give --partial" in last
    assert not Path("submission.tar.gz").exists()


def test_a_complete_archive_needs_no_option(swept: ResultFolder, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MVTecAD2Submission, "categories", dict.fromkeys(CATEGORIES, 2))
    result = cli("submit", swept.root, "--format", "mvtec_ad2")
    assert result.exit_code == 0, result.output
    assert len(content("submission.tar.gz")) == 16
    assert "the data set has" not in result.output
    assert "without a run" not in result.output


def test_a_long_list_of_images_says_how_many_more(copy: ResultFolder, cli: Cli) -> None:
    private = Path("data", "can", "test_private")
    for number in range(900, 923):
        shutil.copy(private / "000_regular.png", private / f"{number}_regular.png")
    result = cli("submit", copy.root, "--format", "mvtec_ad2")
    assert result.exit_code == 2
    assert "can: 23 images of" in result.stderr
    assert "test_private/919_regular.png and 3 more); expected a prediction" in result.stderr


def test_a_run_without_unlabelled_images_is_refused(copy: ResultFolder, cli: Cli) -> None:
    run = run_of(copy, "can")
    rows = [line for line in (run / "scores.csv").read_text().splitlines() if "test_private" not in line]
    (run / "scores.csv").write_text("\n".join(rows) + "\n")
    result = cli("submit", run, "--format", "mvtec_ad2")
    assert result.exit_code == 2
    assert "no unlabelled images found; expected predictions for test_private and test_private_mixed" in result.stderr


def test_a_run_without_threshold_is_refused(copy: ResultFolder, cli: Cli) -> None:
    run = run_of(copy, "can")
    changed(run, lambda about: about["thresholds"].pop("pixel") and None)
    result = cli("submit", run, "--format", "mvtec_ad2")
    assert result.exit_code == 2
    assert "no threshold of pixels found" in result.stderr


def test_other_runs_formats_and_names_are_refused(swept: ResultFolder, sweep_folder: ResultFolder, cli: Cli) -> None:
    for arguments, message in (
        ((sweep_folder.root, "--format", "mvtec_ad2"), "is of data.kind toy; expected runs of data.kind mvtec_ad2"),
        ((swept.root, "--format", "mvtec_ad3"), "unknown format of a submission 'mvtec_ad3'. Did you mean 'mvtec_ad2'"),
        ((swept.root, "--format", "mvtec_ad2", "--out", "a.zip"), "expected a file with the suffix .tar.gz"),
        ((swept.root, "--format", "mvtec_ad2", "--out", "no/a.tar.gz"), "--out: no folder found"),
        ((swept.root,), "`submit --format` takes detections"),
        ((swept.root, "--partial"), "--partial: found without --format"),
        (("nowhere", "--format", "mvtec_ad2"), "nowhere: nothing found"),
    ):
        result = cli("submit", *arguments)
        assert result.exit_code == 2, arguments
        assert message in result.stderr
    assert not list(Path.cwd().iterdir())


def test_an_interrupted_archive_leaves_the_old_one(
    swept: ResultFolder, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("submission.tar.gz").write_bytes(b"earlier")
    monkeypatch.setattr(MVTecAD2Submission, "problem", lambda *_: "wrong.")
    result = cli("submit", swept.root, "--format", "mvtec_ad2", "--partial")
    assert result.exit_code == 2
    assert "wrong." in result.stderr
    assert "11 more files are wrong" in result.stderr
    assert [path.name for path in Path.cwd().iterdir()] == ["submission.tar.gz"]
    assert Path("submission.tar.gz").read_bytes() == b"earlier"


def test_the_check_finds_every_wrong_file() -> None:
    form = MVTecAD2Submission()
    tiff, png = form.files(np.ones((4, 6), np.float16), np.eye(4, 6, dtype=bool))
    wide, grey = io.BytesIO(), io.BytesIO()
    tifffile.imwrite(wide, np.ones((4, 6), np.float32))
    Image.fromarray(np.full((4, 6), 7, np.uint8)).save(grey, format="PNG")
    names = form.names("can", "test_private/1.png")
    good = dict(zip(names, (tiff, png), strict=True))

    def checked(files: dict[str, bytes], size: tuple[int, int] = (4, 6)) -> None:
        with tar_gz(Path("a.tar.gz")) as add:
            for name, data in files.items():
                add(name, data)
        check_archive(Path("a.tar.gz"), dict.fromkeys(names, size), form.problem)

    checked(good)
    for files, size, message in (
        (good, (6, 4), r"float16 of shape \(4, 6\) found; expected finite float16 values, shape \(6, 4\)"),
        (good | {names[0]: wide.getvalue()}, (4, 6), "float32 of shape"),
        (good | {names[1]: grey.getvalue()}, (4, 6), "uint8 values 0 and 255"),
        ({names[0]: tiff}, (4, 6), r"1\.png: nothing found"),
        (good | {"more.txt": b""}, (4, 6), r"more\.txt: an unexpected file"),
        (
            good | {names[0]: form.files(np.full((4, 6), np.nan, np.float16), np.eye(4, 6, dtype=bool))[0]},
            (4, 6),
            "finite",
        ),
    ):
        with pytest.raises(StoreError, match=message):
            checked(files, size)
    checked(good)
    Path("a.tar.gz").write_bytes(Path("a.tar.gz").read_bytes()[:-20])
    with pytest.raises(StoreError, match="can't be read again"):
        check_archive(Path("a.tar.gz"), dict.fromkeys(names, (4, 6)), form.problem)


@pytest.mark.parametrize("threshold", [3e-7, 2.5e6, -4e5])
def test_values_beyond_16_bits_keep_their_order(threshold: float) -> None:
    values = np.linspace(-1.5, 3, 100, dtype=np.float32).reshape(10, 10) * np.float32(abs(threshold))
    maps = SubmissionMaps(Path("none"), threshold)
    anomaly_map, mask = maps.of(Result(0.0, values, Thresholds(), (10, 10)))
    assert np.array_equal(mask, values > threshold)
    assert len(np.unique(anomaly_map)) == 100
    assert np.array_equal(np.argsort(anomaly_map.ravel(), kind="stable"), np.arange(100))
    (note,) = maps.notes()
    assert "16-bit floats hold their values" in note


def test_a_centre_crop_and_huge_values_are_said() -> None:
    values = np.arange(16, dtype=np.float32).reshape(4, 4)
    values[0, 0] = 1e6
    maps = SubmissionMaps(Path("none"), 7.5)
    anomaly_map, mask = maps.of(Result(0.0, values, Thresholds(), (8, 8), (8, 8)))
    assert anomaly_map[0, 0] == anomaly_map.min() == 1
    assert anomaly_map.max() == np.finfo(np.float16).max
    assert mask.sum() == 9
    cropped = [note for note in maps.notes() if "centre crop" in note or "beyond it" in note]
    assert len(cropped) == 2


def test_every_format_names_a_kind_of_data() -> None:
    for name, target in registry.SUBMISSIONS.items():
        assert registry.load(target).kind in registry.DATASETS, name
