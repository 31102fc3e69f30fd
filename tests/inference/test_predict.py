"""The command `predict`: a row for every image, whatever it is; pictures at the image's own size; exit statuses."""

from __future__ import annotations

import csv
import os
import shutil
import signal
import subprocess
import sys
import time
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from harness import load_model
from harness.data.images import read_image
from harness.inference.pictures import stems
from harness.inference.rows import COLUMNS
from harness.predictions.decision import normalize
from harness.report.recommended import recommended_runs
from harness.report.results import Results
from harness.results.store import ResultFolder
from tests.conftest import Cli
from tests.trained import run_of, scores_of


@pytest.fixture
def run(trained: ResultFolder) -> Path:
    return trained.run_folder(run_of(trained, "native", "patchcore", center_crop=None).run_id)


@pytest.fixture
def images(toy_tree: Path, tmp_path: Path) -> Path:
    """Three images, one in a folder below."""
    folder = tmp_path / "images"
    shutil.copytree(toy_tree / "plate" / "test" / "dent", folder)
    (folder / "more").mkdir()
    shutil.copy(toy_tree / "plate" / "test" / "good" / "000.png", folder / "more" / "000.png")
    return folder


def rows_of(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(StringIO(text)))


@pytest.mark.parametrize(("backend", "model"), [("native", "padim"), ("anomalib", "patchcore")])
def test_rows_have_the_scores_of_the_sweep(trained: ResultFolder, cli: Cli, backend: str, model: str) -> None:
    record = run_of(trained, backend, model)
    run = trained.run_folder(record.run_id)
    expected = {path: (row["score"], row["predicted_label"]) for path, row in scores_of(trained, record).items()}
    # The held-out images too: their scores fixed the threshold.
    held_out = rows_of((run / "calibration.csv").read_text())
    threshold = float(record.thresholds["image"])
    labels = ["1" if float(row["score"]) > threshold else "0" for row in held_out]
    expected |= {
        Path(record.data["root"]) / row["path"]: (row["score"], label)
        for row, label in zip(held_out, labels, strict=True)
    }
    result = cli("predict", run, *expected, "--batch", 5, "--device", "cpu")
    assert result.exit_code == 0, result.output
    rows = rows_of(result.stdout)
    assert [row["path"] for row in rows] == [str(path) for path in expected]
    for row, (score, label) in zip(rows, expected.values(), strict=True):
        assert float(row["score"]) == pytest.approx(float(score), rel=1e-4)
        assert row["predicted_label"] == label
        assert float(row["threshold"]) == threshold
        assert (float(row["normalized_score"]) > 0.5) == (row["predicted_label"] == "1")
        assert float(row["seconds"]) > 0
        assert (row["reading"], row["error"]) == ("", "")
    normal = sum(row["predicted_label"] == "0" for row in rows)
    assert f"12 images: {normal} normal, {12 - normal} anomalous." in result.stderr


def test_a_sweep_is_its_recommended_run(trained: ResultFolder, cli: Cli, images: Path) -> None:
    (best,) = recommended_runs(Results.of(trained))
    result = cli("predict", trained.root, images / "000.png")
    assert result.exit_code == 0
    assert f"the run of the recommended configuration of {trained.root}: {best.run_id}" in result.stderr
    assert float(rows_of(result.stdout)[0]["threshold"]) == best.thresholds["image"]


def test_a_named_run_loads_what_it_needs(run: Path, images: Path) -> None:
    """Tables, sheets, and the libraries of trainings would make the first prediction slower."""
    code = (
        "import sys\nfrom harness import load_model\n"
        f"load_model({str(run)!r}, device='cpu').predict({str(images / '000.png')!r})\n"
        "unused = {'pandas', 'openpyxl', 'matplotlib', 'scipy', 'lightning', 'anomalib', 'numba', 'sympy'}\n"
        "print((unused | {'torch._dynamo', 'torch._inductor'}) & set(sys.modules))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "set()"


def test_folders_patterns_and_lists(run: Path, cli: Cli, images: Path) -> None:
    def paths(*arguments: object, text: str | None = None) -> list[str]:
        from typer.testing import CliRunner

        from harness.cli.main import app

        result = CliRunner().invoke(app, ["predict", str(run), *map(str, arguments)], input=text)
        assert result.exit_code == 0, result.output
        return [str(Path(row["path"]).relative_to(images)) for row in rows_of(result.stdout)]

    assert paths(images) == ["000.png", "001.png"]
    assert paths(images, "--recursive") == ["000.png", "001.png", "more/000.png"]
    assert paths(images / "*.png") == ["000.png", "001.png"]
    assert paths(images / "**" / "000.png") == ["000.png", "more/000.png"]
    # In the order given, each once.
    assert paths(images / "001.png", images) == ["001.png", "000.png"]
    assert paths("-", text=f"{images / '001.png'}\n\n{images / 'more'}\r\n") == ["001.png", "more/000.png"]
    odd = images / "a[1]*.png"
    shutil.copy(images / "000.png", odd)
    assert paths(odd) == ["a[1]*.png"]
    assert paths("-", text=f"{odd}\n") == ["a[1]*.png"]


def test_what_is_unreadable_is_a_row_and_the_rest_goes_on(run: Path, cli: Cli, images: Path) -> None:
    whole = (images / "000.png").read_bytes()
    (images / "broken.png").write_bytes(whole[: len(whole) // 2])
    (images / "empty.png").touch()
    Image.fromarray(np.full((9, 9), 3.0, np.float32)).save(images / "float.tif")
    (images / "notes.txt").write_text("not an image")
    Image.fromarray(read_image(images / "000.png")).convert("RGBA").save(images / "z.png")
    result = cli("predict", run, images, images / "notes.txt", images / "gone.png", "--batch", 2)
    assert result.exit_code == 1
    rows = {Path(row["path"]).name: row for row in rows_of(result.stdout)}
    assert list(rows) == [
        "000.png",
        "001.png",
        "broken.png",
        "empty.png",
        "float.tif",
        "z.png",
        "notes.txt",
        "gone.png",
    ]
    assert "truncated" in rows["broken.png"]["error"]
    assert "the file is empty" in rows["empty.png"]["error"]
    assert "0 to 1 expected" in rows["float.tif"]["error"]
    assert "no PNG, JPEG, BMP, TIFF or WebP" in rows["notes.txt"]["error"]
    assert "No such file" in rows["gone.png"]["error"]
    assert rows["z.png"]["reading"] == "transparency ignored"
    assert rows["z.png"]["score"] == rows["000.png"]["score"]
    assert rows["broken.png"]["score"] == rows["broken.png"]["predicted_label"] == ""
    assert "8 images: " in result.stderr
    assert "5 failed (see their rows)." in result.stderr


def test_pictures_have_the_size_of_their_images(run: Path, cli: Cli, images: Path, tmp_path: Path) -> None:
    Image.open(images / "000.png").resize((150, 90)).save(images / "000.jpg")
    out = tmp_path / "out"
    result = cli("predict", run, images, "--recursive", "--out", out)
    assert result.exit_code == 0, result.output
    assert result.stdout == ""
    rows = rows_of((out / "predictions.csv").read_text())
    assert [Path(row["path"]).name for row in rows] == ["000.jpg", "000.png", "001.png", "000.png"]
    names = {str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()}
    stems_ = ("000", "000-png", "001", "more/000")
    assert names == {"predictions.csv"} | {
        f"{stem}.{kind}" for stem in stems_ for kind in ("overlay.jpg", "outline.jpg", "map.tiff")
    }
    for kind in ("overlay.jpg", "outline.jpg"):
        assert read_image(out / f"000.{kind}").shape == (90, 150, 3)
        assert read_image(out / f"more/000.{kind}").shape == (64, 64, 3)
    whole = np.asarray(Image.open(out / "000-png.map.tiff"))
    assert whole.dtype == np.float32
    expected = load_model(run).predict(images / "000.png").map_at_image_size()
    assert expected is not None
    assert np.allclose(whole, expected, rtol=1e-4)


def test_maps_as_16_bit_png(trained: ResultFolder, cli: Cli, images: Path, tmp_path: Path) -> None:
    record = run_of(trained, "native", "patchcore", center_crop=64)
    run = trained.run_folder(record.run_id)
    for kind in ("png", "tiff"):
        assert cli("predict", run, images / "000.png", "--out", tmp_path / kind, "--map", kind).exit_code == 0
    steps = np.asarray(Image.open(tmp_path / "png" / "000.map.png"))
    raw = np.asarray(Image.open(tmp_path / "tiff" / "000.map.tiff"))
    assert steps.dtype == np.uint16
    valid = ~np.isnan(raw)
    assert 0.4 < valid.mean() < 0.5  # 64 of 96 pixels each way
    assert (steps[~valid] == 0).all()
    assert np.array_equal(steps[valid] >= 32768, raw[valid] >= record.thresholds["pixel"])
    unit = normalize(raw[valid], record.thresholds["pixel"], record.thresholds["pixel_scale"])
    assert np.abs(steps[valid] / 65535 - unit).max() < 1e-5


def test_file_names_do_not_meet() -> None:
    paths = [
        Path(name)
        for name in ("/a/x/1.png", "/a/x/1.jpg", "/a/X/1.PNG", "/a/y z/1.png", "/a/x/1-jpg.png", "/a/ö/1.png")
    ]
    file_names = stems(paths)
    assert len({name.lower() for name in file_names.values()}) == len(paths)
    assert file_names[paths[0]] == "x/1"
    assert file_names[paths[3]] == "y z/1"
    assert stems([Path("../up/1.png")])[Path("../up/1.png")] == "1"
    assert stems([Path("..png")])[Path("..png")] == "image"
    assert len(stems([Path("x" * 240 + ".png")])[Path("x" * 240 + ".png")]) == 80


def test_paths_do_not_start_formulas(run: Path, cli: Cli, images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(images)
    shutil.copy("000.png", "=1+1.png")
    result = cli("predict", run, "=1+1.png")
    assert result.exit_code == 0
    (row,) = rows_of(result.stdout)
    assert row["path"] == "./=1+1.png"
    assert Path(row["path"]).is_file()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["{run}/nowhere", "{images}"], "nothing found; expected a run's folder"),
        (["{run}", "{images}/none*.png"], "none*.png: no match found"),
        (["{run}", "{images}/*.nothing", "{empty}"], "no images found in this folder"),
        (["{run}", "{outer}"], "There are 3 in folders below it: say --recursive."),
        (["{run}", "-"], "no paths on standard input"),
        (["{run}", "{images}", "--map", "bmp"], "--map: 'bmp' found; expected tiff or png."),
        (["{run}", "{images}", "--device", "cuda:7"], "device: cuda:7 found"),
        (["{run}", "{images}", "--csv", "{images}"], "is a folder; expected a file"),
        (["{run}", "{images}", "--csv", "{images}/000.png"], "is one of the images"),
        (["{run}", "{images}", "--csv", "{run}/record.json"], "exists and holds no predictions"),
        (["{run}", "{images}/000.png", "--out", "{images}"], "holds input images"),
        (["{run}", "{images}", "--out", "{images}/../note"], "--out: can't write to"),
        (["{run}", ""], "an empty name found"),
        (["{run}", "{images}", "--category", "cable"], "--category: 'cable' found"),
    ],
)
def test_what_is_wrong_is_said_before_any_work(
    run: Path, cli: Cli, images: Path, tmp_path: Path, toy_tree: Path, arguments: list[str], sentence: str
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "note").write_text("a file")
    (tmp_path / "outer").mkdir()
    shutil.copytree(images, tmp_path / "outer" / "inner")
    places = {"run": run, "images": images, "empty": tmp_path / "empty", "outer": tmp_path / "outer"}
    result = cli("predict", *(argument.format(**places) for argument in arguments))
    assert result.exit_code == 2
    assert sentence in result.stderr
    assert result.stdout == ""
    assert (images / "000.png").read_bytes() == (toy_tree / "plate" / "test" / "dent" / "000.png").read_bytes()


def test_pictures_of_an_earlier_call_are_no_images(run: Path, cli: Cli, images: Path) -> None:
    for _ in range(2):
        result = cli("predict", run, images, "--recursive", "--out", images / "found")
        assert result.exit_code == 0, result.output
        assert len(rows_of((images / "found" / "predictions.csv").read_text())) == 3


def test_an_image_without_pictures_is_said_and_the_rest_goes_on(run: Path, cli: Cli, images: Path) -> None:
    Image.new("RGB", (65501, 2)).save(images / "line.png")
    result = cli("predict", run, images, "--out", "out", "--batch", 2)
    assert result.exit_code == 1
    rows = {Path(row["path"]).name: row for row in rows_of(Path("out/predictions.csv").read_text())}
    assert len(rows) == 3
    assert "a JPEG has at most 65500" in rows["line.png"]["error"]
    assert float(rows["line.png"]["score"]) > 0
    assert rows["001.png"]["error"] == ""
    assert Path("out/001.overlay.jpg").is_file()
    assert "1 failed" in result.stderr


def test_images_of_two_pixels(trained: ResultFolder, cli: Cli, images: Path) -> None:
    run = trained.run_folder(run_of(trained, "native", "patchcore", center_crop=64).run_id)
    for size in ((1, 1), (300, 2), (2, 300)):
        Image.new("RGB", size, (9, 99, 199)).save(images / f"{size[0]}x{size[1]}.png")
    result = cli("predict", run, images, "--out", "out")
    assert result.exit_code == 0, result.output


@pytest.mark.slow
def test_names_that_are_no_text(run: Path, images: Path) -> None:
    odd = os.fsencode(images) + b"/caf\xe9.png"
    shutil.copy(os.fsencode(images / "000.png"), odd)
    command = [sys.executable, "-m", "harness", "predict", str(run), "-", "--csv", "rows.csv"]
    process = subprocess.run(command, input=odd + b"\n", capture_output=True, check=False)
    assert process.returncode == 0, process.stderr
    assert Path("rows.csv").read_bytes().splitlines()[1].startswith(odd + b",")
    to_stdout = subprocess.run(command[:-2], input=odd + b"\n", capture_output=True, check=True)
    assert to_stdout.stdout.splitlines()[1].startswith(odd + b",")


@pytest.mark.slow
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_rows_that_can_not_be_written_are_said(run: Path, images: Path) -> None:
    command = [sys.executable, "-m", "harness", "predict", str(run), str(images)]
    with Path("/dev/full").open("w") as full:
        process = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert process.returncode == 2
    assert "standard output: rows can't be written (No space left on device)" in process.stderr
    assert "Traceback" not in process.stderr
    with subprocess.Popen(
        [*command, "--batch", "1"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as gone:
        assert gone.stdout is not None
        assert gone.stderr is not None
        gone.stdout.close()
        error_text = gone.stderr.read()
    assert "Traceback" not in error_text
    assert gone.returncode == 141


def test_no_threshold_no_labels(toy_tree: Path, cli: Cli, images: Path, tmp_path: Path) -> None:
    from harness.detectors import PaDiM

    good = toy_tree / "plate" / "train" / "good"
    PaDiM("resnet18", ["layer1"], n_features=5, image_size=32, weights="random", progress=False).fit(good).save(
        "m.safetensors"
    )
    result = cli("predict", "m.safetensors", images, "--out", "out")
    assert result.exit_code == 0
    assert "2 images: 2 scored." in result.stderr
    assert "there is no threshold" in result.stderr
    row = rows_of(Path("out/predictions.csv").read_text())[0]
    assert (row["predicted_label"], row["threshold"], row["normalized_score"]) == ("", "", "")
    assert not Path("out/000.outline.jpg").exists()
    assert Path("out/000.overlay.jpg").is_file()
    refused = cli("predict", "m.safetensors", images, "--out", "out", "--map", "png")
    assert refused.exit_code == 2
    assert "expected tiff" in refused.stderr


def test_columns(run: Path, cli: Cli, images: Path) -> None:
    header = cli("predict", run, images / "000.png").stdout.splitlines()[0].split(",")
    assert header[:5] == ["path", "score", "predicted_label", "threshold", "seconds"]
    assert tuple(header) == COLUMNS


@pytest.mark.slow
def test_stopped_with_ctrl_c_the_rows_so_far_are_there(run: Path, images: Path, tmp_path: Path) -> None:
    """A real process and a real signal, while it waits for its input's images."""
    names = "\n".join([str(images / "000.png")] * 1 + [str(images / "more" / "000.png")])
    slow = tmp_path / "slow.png"
    os.mkfifo(slow)  # reading it never ends
    command = [sys.executable, "-m", "harness", "predict", str(run), "-", "--batch", "1", "--csv", "rows.csv"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert process.stdin is not None
    process.stdin.write(f"{names}\n{slow}\n")
    process.stdin.close()
    rows = Path("rows.csv")
    end = time.monotonic() + 120
    while not rows.exists() or rows.read_text().count("\n") < 3:
        assert process.poll() is None
        assert time.monotonic() < end
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    with slow.open("wb"):  # lets the reader end
        pass
    assert process.wait(60) == 130
    assert len(rows_of(rows.read_text())) == 2
