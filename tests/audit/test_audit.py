"""The audit on small real files: copies, odd images, wrong masks, scores, its files and its messages."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

import numpy as np
import pytest
from openpyxl import load_workbook
from PIL import Image

from harness.audit.audit import Audit, audit, first_to_look_at
from harness.audit.finding import CONTRADICTION, COPY, MASK, NEAR, ODD, UNREADABLE
from harness.audit.images import images_of, of_detection, of_folder
from harness.audit.unusual import Model
from harness.audit.write import write_audit
from harness.config.load import load_config
from harness.data.detect import detect, options_of
from harness.data.index import FileIndex
from harness.data.mvtec import MVTecData
from harness.data.split import load_splits
from tests.conftest import HAZELNUT, Cli, read_me, real_data, write_config
from tests.trees import TREES, write_tree


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Pictures of random texture, so that all are different, in MVTec AD's layout."""
    rng = np.random.default_rng(0)
    folders = {"train/good": 16, "test/good": 3, "test/cut": 3}
    for folder, count in folders.items():
        (tmp_path / "parts" / folder).mkdir(parents=True)
        for number in range(count):
            small = Image.fromarray(rng.integers(60, 196, (24, 24, 3), dtype=np.uint8))
            small.resize((96, 96), Image.Resampling.BICUBIC).save(tmp_path / "parts" / folder / f"{number:03}.png")
    return tmp_path / "parts"


def masks(tree: Path, *pixels: np.ndarray) -> None:
    (tree / "ground_truth" / "cut").mkdir(parents=True)
    for number, values in enumerate(pixels):
        Image.fromarray(values.astype(np.uint8) * 255).save(tree / "ground_truth" / "cut" / f"{number:03}_mask.png")


def look(tree: Path) -> Audit:
    return audit("parts", of_folder(tree), None)


def pairs(result: Audit, kind: str) -> set[tuple[str, str]]:
    return {(one.image.name, one.other.name) for one in result.of_kind(kind) if one.other}


def test_different_images_give_no_finding(tree: Path) -> None:
    result = look(tree)
    assert not result.findings
    assert "Nothing unusual found." in result.summary()[0]


def test_copies_and_the_side_that_stays(tree: Path) -> None:
    shutil.copy(tree / "test/good/000.png", tree / "train/good/900.png")
    source = Image.open(tree / "train/good/001.png")
    source.save(tree / "train/good/901.jpg", quality=50)
    source.resize((64, 64)).save(tree / "test/good/902.png")
    Image.open(tree / "train/good/002.png").crop((3, 2, 95, 94)).save(tree / "train/good/903.png")
    shutil.copy(tree / "train/good/003.png", tree / "test/cut/904.png")
    result = look(tree)
    assert pairs(result, COPY) == {("train/good/900.png", "test/good/000.png")}
    near = pairs(result, NEAR)
    assert ("train/good/903.png", "train/good/002.png") in near
    assert {name for pair in near for name in pair} >= {"train/good/901.jpg", "test/good/902.png"}
    assert pairs(result, CONTRADICTION) == {("train/good/003.png", "test/cut/904.png")}
    # Test images stay, and a contradiction is for a person to decide.
    assert result.excluded() == [f"train/good/{name}" for name in ("001.png", "900.png", "901.jpg", "903.png")]
    assert "are in training and test" in " ".join(result.summary())


def test_odd_images(tree: Path) -> None:
    Image.open(tree / "train/good/000.png").point(lambda value: value // 8).save(tree / "train/good/000.png")
    blurred = Image.open(tree / "train/good/001.png").resize((6, 6)).resize((96, 96), Image.Resampling.BICUBIC)
    blurred.save(tree / "train/good/001.png")
    Image.open(tree / "train/good/002.png").resize((80, 96)).save(tree / "train/good/002.png")
    Image.open(tree / "train/good/003.png").convert("L").save(tree / "train/good/003.png")
    reasons = {(one.image.name[-7:-4], one.reason.split(":")[0]) for one in look(tree).of_kind(ODD)}
    assert reasons >= {("000", "dark"), ("001", "blurred"), ("002", "size"), ("003", "mode")}


def test_wrong_masks(tree: Path) -> None:
    inside = np.zeros((96, 96), dtype=bool)
    inside[20:40, 20:40] = True
    masks(tree, inside, np.zeros((96, 96), dtype=bool), ~inside)
    reasons = {one.image.name: one.reason for one in look(tree).of_kind(MASK)}
    assert set(reasons) == {"test/cut/001.png", "test/cut/002.png"}
    assert "empty" in reasons["test/cut/001.png"]
    assert "border" in reasons["test/cut/002.png"]
    shutil.rmtree(tree / "ground_truth")
    masks(tree, np.ones((96, 96), dtype=bool), inside[:50], inside)
    reasons = {one.image.name: one.reason for one in look(tree).of_kind(MASK)}
    assert "full" in reasons["test/cut/000.png"]
    assert "96 x 50 pixels, its image 96 x 96" in reasons["test/cut/001.png"]


def test_files_and_the_exclusion_of_what_they_propose(tree: Path, tmp_path: Path) -> None:
    (tree / "train/good/000.png").write_text("no image")
    shutil.copy(tree / "train/good/001.png", tree / "train/good/900.png")
    result = look(tree)
    page, book, table, exclude = write_audit(tmp_path / "audit", result)
    with table.open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [(row["kind"], row["image"], row["exclude"]) for row in rows] == [
        (UNREADABLE, "train/good/000.png", "yes"),
        (COPY, "train/good/900.png", "yes"),
    ]
    assert load_workbook(book).sheetnames == ["Audit", "Read me", "Scores"]
    text = page.read_text()
    assert text.count("<article") == 2
    assert text.count("data:image/jpeg") == 2
    data = MVTecData(kind="mvtec", root=str(tree), val=0, exclude=str(exclude))
    (split,) = load_splits(data, tmp_path, FileIndex(tmp_path / "index.json"))
    assert split.excluded == 2


def test_a_classification_is_audited_too(tree: Path, tmp_path: Path) -> None:
    shutil.copy(tree / "train/good/001.png", tree / "test/cut/900.png")
    text = (
        f"task: classification\ndata: {{kind: labelled, root: {tree}}}\n"
        "grid: {model: classifier, backbone: resnet18}\n"
    )
    result = audit("parts", images_of(load_config(write_config(tmp_path / "c.yaml", text))), None)
    (contradiction,) = result.of_kind(CONTRADICTION)
    assert contradiction.reason.endswith("(both train)")


def test_scores_by_folds_and_what_is_left_out(tree: Path) -> None:
    model = Model("resnet18", ("layer1",), weights="random", device="cpu", image_size=32)
    result = audit("parts", of_folder(tree), model)
    assert len(result.scored.train) == 16
    assert len(result.scored.test) == 6
    assert len(first_to_look_at(result.scored)) == 1
    for number in range(8):
        (tree / f"train/good/{number:03}.png").unlink()
    few = audit("parts", of_folder(tree), model)
    assert not few.scored.train
    assert few.notes == ["Fewer than 10 training images are not scored: the data (8)."]


@real_data
@pytest.mark.slow
def test_a_defect_among_normal_images_has_a_high_score(tmp_path: Path) -> None:
    tree = Path(shutil.copytree(HAZELNUT, tmp_path / "hazelnut"))
    (tree / "train/good").chmod(0o755)
    defect = next((tree / "test/hole").iterdir())
    shutil.copy(defect, tree / "train/good/planted.png")
    result = audit("hazelnut", of_folder(tree), Model())
    assert "train/good/planted.png" in {image.name for image, _ in first_to_look_at(result.scored)}
    assert pairs(result, CONTRADICTION) == {("train/good/planted.png", f"test/hole/{defect.name}")}


def test_the_command_takes_a_folder_and_a_config(cli: Cli, tree: Path, tmp_path: Path) -> None:
    shutil.copy(tree / "train/good/001.png", tree / "test/good/900.png")
    shown = cli("audit", tree, "--no-model")
    assert shown.exit_code == 0, shown.output
    assert "exact copy: 1" in shown.output
    names = {path.name for path in (tmp_path / "results" / "parts" / "audit").iterdir()}
    assert names == {"audit.html", "audit.xlsx", "audit.csv", "exclude.txt"}
    text = f"data: {{kind: mvtec, root: {tree}}}\ngrid: {{backend: native, model: padim, backbone: resnet18}}\n"
    file = write_config(tmp_path / "c.yaml", text)
    shown = cli("audit", file, "data.exclude=results/parts/audit/exclude.txt", "--no-model", "--output", "other")
    assert shown.exit_code == 0, shown.output
    assert "Nothing unusual found." in shown.output
    assert (tmp_path / "other" / "c" / "audit" / "audit.html").is_file()


@pytest.mark.parametrize("name", TREES)
def test_a_folder_of_every_kind_has_the_images_of_its_sweep(name: str) -> None:
    root = write_tree(name, Path("root"))
    images = of_folder(root)
    options = options_of(detect(root)).model_copy(update={"val": 0})
    splits = load_splits(options, Path("work"), FileIndex(Path("index.json")))
    samples = [sample for split in splits for sample in (*split.train, *split.val, *split.real_test)]
    assert sorted(image.path for image in images) == sorted(sample.path for sample in samples)
    assert {image.path: image.masks for image in images} == {sample.path: sample.masks for sample in samples}
    assert {image.group for image in images} == {split.category for split in splits}
    # The names are those that data.exclude takes.
    excluded = next(image for image in images if image.role == "test")
    kept = of_detection(options.model_copy(update={"exclude": [excluded.name]}), Path("work"))
    assert {image.path for image in images} - {image.path for image in kept} == {excluded.path}


@pytest.mark.parametrize("name", ["mvtec_ad2", "visa", "real_iad"])
def test_the_command_takes_folders_of_other_kinds(name: str, cli: Cli) -> None:
    write_tree(name, Path("root"))
    shown = cli("audit", "root", "--no-model")
    assert shown.exit_code == 0, shown.output
    assert f"{len(of_folder(Path('root')))} images (" in shown.output
    assert Path("results/root/audit/audit.csv").is_file()


def test_bad_input_has_a_message(cli: Cli, tree: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    write_tree("mvtec_loco", tmp_path / "above" / "loco")
    for arguments, words in (
        (("audit", "nowhere"), "nothing found; expected a config or a folder"),
        (("audit", "empty"), "audit: empty: no images found; expected train/good"),
        (("audit", "above"), "audit: no known kind of data found in above; expected one of"),
        (("audit", "above"), "above/loco is of kind mvtec_loco: use it."),
        (("audit", tree, "data.val=0"), "an override found for the folder"),
        (("audit", tree, "--backbone", "resnet18"), "--backbone: found without --layers"),
    ):
        shown = cli(*arguments)
        assert shown.exit_code == 2, shown.output
        assert words in " ".join(shown.output.split())


def test_a_sweep_warns_of_exact_copies_on_read_me_and_on_the_page(cli: Cli, tree: Path, dummy: type) -> None:
    shutil.copy(tree / "train/good/001.png", tree / "test/good/900.png")
    file = write_config(Path("c.yaml"), f"data: {{kind: mvtec, root: {tree}}}\ngrid: {{backend: dummy, model: mean}}")
    shown = cli("sweep", file)
    assert shown.exit_code == 0, shown.output
    words = "1 of 7 test images are copies of training images, byte by byte"
    assert any(words in sentence for sentence in read_me(Path("results/c/models_comparing.xlsx")))
    page = Path("results/c/report.html").read_text()
    assert words in page
    assert "python -m harness audit" in page
