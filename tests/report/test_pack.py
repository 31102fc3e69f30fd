"""`pack`: a zip file that opens elsewhere, and one HTML file."""

from __future__ import annotations

import shutil
import zipfile
from pathlib import Path

import pytest

from harness.report.pack import write_pack
from harness.report.results import Results
from harness.results.store import ResultFolder
from tests.conftest import Cli


@pytest.fixture
def copied(sweep_folder: ResultFolder) -> ResultFolder:
    """A copy, in the working directory, of a finished sweep with a model."""
    folder = ResultFolder(Path(shutil.copytree(sweep_folder.root, "copied")))
    next(folder.runs.iterdir()).joinpath("model.ckpt").write_bytes(b"large")
    return folder


def test_the_zip_has_reports_and_pictures_and_no_models(copied: ResultFolder, cli: Cli) -> None:
    copied.report.unlink()
    result = cli("pack", copied.root)
    assert result.exit_code == 0, result.output
    with zipfile.ZipFile("copied.zip") as archive:
        assert archive.testzip() is None
        names = set(archive.namelist())
    assert {f"copied/{name}" for name in ("report.html", "models_comparing.xlsx", "results.csv", "summary.csv",
                                          "config.yaml", "READ-ME.txt", "report/plotly.min.js")} <= names  # fmt: skip
    pictures = {f"copied/{file.relative_to(copied.root).as_posix()}" for file in copied.runs.glob("*/heatmaps/*.jpg")}
    assert pictures
    assert pictures <= names
    assert not [name for name in names if "model." in name]
    assert f"{len(pictures)} pictures, no models." in result.output


def test_pictures_of_the_best_runs_come_first_until_the_limit(copied: ResultFolder) -> None:
    assert write_pack(Results.of(copied), Path("all.zip")) != []
    pictures = list(copied.runs.glob("*/heatmaps/*.jpg"))
    size = Path("all.zip").stat().st_size
    limit = size - sum(file.stat().st_size for file in pictures) // 2 + 200_000
    sentences = write_pack(Results.of(copied), Path("some.zip"), limit)
    assert Path("some.zip").stat().st_size <= limit
    with zipfile.ZipFile("some.zip") as archive:
        packed = [name for name in archive.namelist() if name.endswith(".jpg")]
        letter = archive.read("copied/READ-ME.txt").decode()
    assert 0 < len(packed) < len(pictures)
    best = max((record for record in copied.records() if record.status == "ok"), key=lambda record: record.rank())
    assert best.run_id in packed[0]
    assert f"{len(pictures) - len(packed)} pictures were left out" in letter
    assert sentences[1] in letter


def test_links_are_not_followed(copied: ResultFolder, tmp_path: Path, cli: Cli) -> None:
    secret = tmp_path / "secret.jpg"
    secret.write_bytes(b"secret")
    folder = next(copied.runs.glob("*/heatmaps"))
    (folder / "0-link.jpg").symlink_to(secret)
    (copied.root / "report").mkdir(exist_ok=True)
    assert cli("pack", copied.root, "--out", "packed.zip").exit_code == 0
    with zipfile.ZipFile("packed.zip") as archive:
        assert not [name for name in archive.namelist() if "link" in name]


def test_the_single_file_has_the_plots_and_the_details_of_all_runs(copied: ResultFolder, cli: Cli) -> None:
    result = cli("pack", copied.root, "--single")
    assert result.exit_code == 0, result.output
    page = Path("copied.html").read_text()
    assert 'src="report/' not in page
    for record in copied.records():
        if record.status == "ok":
            assert f'harness.loaded("{record.run_id}"' in page


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "nowhere: nothing found; expected a sweep's result folder"),
        (["copied", "--out", "/dev/null/a.zip"], "--out: can't write to /dev/null"),
    ],
)
def test_bad_input(copied: ResultFolder, cli: Cli, arguments: list[str], message: str) -> None:
    result = cli("pack", *arguments)
    assert result.exit_code == 2
    assert message in " ".join(result.output.split())
