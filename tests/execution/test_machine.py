"""What a machine does to a process: it is killed, its disk is full, it may not write. Real signals, real limits."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from csv import DictReader
from pathlib import Path

import pytest
from PIL import Image

from harness.results.store import ResultFolder
from tests.conftest import write_config

CONFIG = """
name: machine
data: {{kind: mvtec, root: {root}, category: plate, val: 0.3}}
weights: random
latency: false
device: cpu
grid: {{backend: native, model: padim, backbone: resnet18, layers: [layer1], n_features: [5, 6], image_size: 64}}
"""
# Root may read and write everything, unless it does without that right.
UNPRIVILEGED = (
    ["setpriv", "--bounding-set=-dac_override,-dac_read_search", "--inh-caps=-dac_override,-dac_read_search"]
    if os.geteuid() == 0
    else []
)


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "harness", *map(str, arguments)]


def output_of(*arguments: object, status: int, prefix: list[str] | None = None) -> str:
    """Run it to its end; gives what it said, which is no traceback."""
    process = subprocess.run([*(prefix or []), *command(*arguments)], capture_output=True, text=True, check=False)
    output = process.stdout + process.stderr
    assert "Traceback" not in output, output
    assert process.returncode == status, output
    return output


def killed(arguments: list[object], moment: Callable[[], bool], number: int) -> None:
    """Start it, and send the signal as soon as that is so."""
    process = subprocess.Popen(command(*arguments), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while not moment():
        assert process.poll() is None, "it ended before it could be killed"
        time.sleep(0.002)
    process.send_signal(number)
    process.wait()


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory, toy_tree: Path) -> ResultFolder:
    """A finished sweep; not to be changed: copy it."""
    root = tmp_path_factory.mktemp("machine")
    config = write_config(root / "m.yaml", CONFIG.format(root=toy_tree))
    output_of("sweep", config, "--output", root, status=0)
    return ResultFolder(root / "machine")


@pytest.fixture
def folder(swept: ResultFolder, tmp_path: Path) -> ResultFolder:
    shutil.copytree(swept.root, tmp_path / "machine")
    return ResultFolder(tmp_path / "machine")


def scores(file: Path) -> list[tuple[str, str]]:
    with file.open() as stream:
        return [(row["path"], row["score"]) for row in DictReader(stream)]


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("number", [9, 15], ids=["SIGKILL", "SIGTERM"])
def test_predict_export_and_report_are_killed(folder: ResultFolder, toy_tree: Path, number: int) -> None:
    images = toy_tree / "plate/test"
    rows = Path("rows.csv")
    whole = ["predict", folder.root, images, "--recursive", "--batch", "1"]
    killed([*whole, "--csv", rows], lambda: rows.is_file() and rows.read_text().count("\n") > 2, number)
    output_of(*whole, "--csv", rows, status=0)
    output_of(*whole, "--csv", "undisturbed.csv", status=0)
    assert scores(rows) == scores(Path("undisturbed.csv"))
    best = max(folder.records(), key=lambda record: record.rank())
    exported = folder.run_folder(best.run_id) / "exported"
    export = ["export", folder.root, "--format", "torchscript", "--check", images]
    killed(export, lambda: any(exported.glob(".export-*/model.pt")), number)
    if number == 15:
        assert not list(exported.iterdir())
    output_of(*export, status=0)
    assert sorted(path.name for path in exported.iterdir()) == ["model.pt", "model.pt.json"]
    shutil.rmtree(folder.root / "report")
    killed(["report", folder.root], (folder.root / "report").exists, number)
    output_of("report", folder.root, status=0)
    assert folder.report.is_file()
    assert not list(folder.root.rglob("*.tmp"))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["rgb.png", "grey16.png", "turned.jpg", "painted.png", "cmyk.tif"])
def test_a_large_image_takes_16_bytes_a_pixel(tmp_path: Path, kind: str) -> None:
    side = 6000
    plain = Image.new("RGB", (side, side))
    turned = plain.getexif()
    turned[0x0112] = 6
    painted = Image.new("RGBA", (side, side))
    painted.paste((9, 9, 9, 255), (0, 0, 99, 99))
    {
        "rgb.png": lambda file: plain.save(file, compress_level=1),
        "grey16.png": lambda file: Image.new("I;16", (side, side)).save(file, compress_level=1),
        "turned.jpg": lambda file: plain.save(file, exif=turned),
        "painted.png": lambda file: painted.save(file, compress_level=1),
        "cmyk.tif": lambda file: Image.new("CMYK", (side, side)).save(file, compression="tiff_lzw"),
    }[kind](tmp_path / kind)
    code = (
        "import sys; from resource import getrusage, RUSAGE_SELF; from harness.data.images import read\n"
        "from harness.data.mask_images import mask_reading\n"
        "before = getrusage(RUSAGE_SELF).ru_maxrss\n"
        "(mask_reading if 'painted' in sys.argv[1] else read)(sys.argv[1])\n"
        "print((getrusage(RUSAGE_SELF).ru_maxrss - before) * 1024)"
    )
    process = subprocess.run([sys.executable, "-c", code, kind], capture_output=True, text=True, check=True)
    assert int(process.stdout) / side**2 < 16.5


@pytest.mark.slow
def test_a_pipe_that_closes_ends_predict_as_it_ends_other_programs(folder: ResultFolder, toy_tree: Path) -> None:
    images = sorted((toy_tree / "plate/test").rglob("*.png"))
    with subprocess.Popen(
        command("predict", folder.root, *images, "--batch", 1), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline().startswith(b"path,score")
        process.stdout.close()
        error_text = process.stderr.read()
    assert process.returncode == 141
    assert b"Traceback" not in error_text
    assert b"error" not in error_text


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_disk_that_is_full_is_a_sentence_and_nothing_is_left(
    swept: ResultFolder, toy_tree: Path, tmp_path: Path
) -> None:
    """Files may have so many bytes and no more: the system refuses the rest, as on a full disk."""
    config = write_config(tmp_path / "m.yaml", CONFIG.format(root=toy_tree))
    refused = 0
    for limit in (1_000, 30_000, 400_000):
        process = subprocess.run(
            command("sweep", config, "--output", "full"),
            capture_output=True,
            text=True,
            check=False,
            preexec_fn=lambda most=limit: resource.setrlimit(resource.RLIMIT_FSIZE, (most, most)),
        )
        output = process.stdout + process.stderr
        assert "Traceback" not in output, output
        assert process.returncode in (1, 2), (limit, output)
        assert "File too large" in output, (limit, output)
        refused += 1
        left = [path for path in Path("full").rglob("*") if path.suffix == ".tmp" or ".work/" in path.as_posix()]
        assert not left, (limit, left)
    assert refused == 3
    output_of("sweep", config, "--output", "full", status=0)
    metrics = {record.run_id: record.metrics for record in ResultFolder(Path("full/machine")).records()}
    assert metrics == {record.run_id: record.metrics for record in swept.records()}


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.skipif(bool(UNPRIVILEGED) and not shutil.which("setpriv"), reason="needs setpriv of util-linux")
def test_without_the_right_to_write(folder: ResultFolder, toy_tree: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    shutil.copytree(toy_tree, data)
    config = write_config(tmp_path / "m.yaml", CONFIG.format(root=data))
    closed = [*data.rglob("*"), data, *folder.root.rglob("*"), folder.root]
    for path in closed:
        path.chmod(0o555 if path.is_dir() else 0o444)
    try:
        # Reading is all that data needs, and a result folder where nothing is made.
        output_of("sweep", config, "--output", "out", status=0, prefix=UNPRIVILEGED)
        output_of("plan", config, "--output", folder.root.parent, "--no-check", status=0, prefix=UNPRIVILEGED)
        output_of("predict", folder.root, data / "plate/test/good", status=0, prefix=UNPRIVILEGED)
        for arguments in (
            ("sweep", config, "--output", folder.root.parent, "--fresh"),
            ("report", folder.root),
            ("export", folder.root, "--format", "torchscript"),
            ("make-data", folder.root / "new"),
        ):
            output = output_of(*arguments, status=2, prefix=UNPRIVILEGED)
            assert "Permission denied" in output
            assert "error: " in output
        hidden = data / "plate/test/good/000.png"
        hidden.chmod(0)
        output = output_of("sweep", config, "--output", "other", status=2, prefix=UNPRIVILEGED)
        assert f"{hidden}: can't be read (Permission denied)" in output
        (data / "plate/test/dent").chmod(0)
        output = output_of("sweep", config, "--output", "other", status=2, prefix=UNPRIVILEGED)
        assert "Permission denied" in output
    finally:
        for path in sorted(closed, key=lambda path: len(path.parts)):
            path.chmod(0o755)
