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
from harness.audit.images import UNLABELLED, images_of, of_detection, of_folder
from harness.audit.unusual import Model
from harness.audit.write import DATASET, NOTE, write_audit
from harness.common.errors import DataError
from harness.config.load import load_config, load_configs
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
        (NOTE, "", ""),
    ]
    assert rows[-1]["reason"] == "Training images are not scored, because --no-model asks for it."
    assert DATASET not in rows[0]
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
    result = audit("parts", images_of([load_config(write_config(tmp_path / "c.yaml", text))]), None)
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
    images = of_folder(root).images
    options = options_of(detect(root)).model_copy(update={"val": 0})
    splits = load_splits(options, Path("work"), FileIndex(Path("index.json")))
    samples = [sample for split in splits for sample in (*split.train, *split.val, *split.test)]
    assert sorted(image.path for image in images) == sorted(sample.path for sample in samples)
    assert {image.path: image.masks for image in images} == {sample.path: sample.masks for sample in samples}
    assert {image.group for image in images} == {split.category for split in splits}
    unlabelled = [image for image in images if image.role == UNLABELLED]
    assert len(unlabelled) == sum(len(split.unlabelled) for split in splits)
    assert {(image.label, image.anomalous) for image in unlabelled} <= {("", None)}
    # The names are those that data.exclude takes.
    excluded = next(image for image in images if image.role == "test")
    kept = of_detection(options.model_copy(update={"exclude": [excluded.name]}), Path("work")).images
    assert {image.path for image in images} - {image.path for image in kept} == {excluded.path}


@pytest.mark.parametrize("name", ["mvtec_ad2", "visa", "real_iad"])
def test_the_command_takes_folders_of_other_kinds(name: str, cli: Cli) -> None:
    write_tree(name, Path("root"))
    shown = cli("audit", "root", "--no-model")
    assert shown.exit_code == 0, shown.output
    assert f"{len(of_folder(Path('root')).images)} images (" in shown.output
    assert Path("results/root/audit/audit.csv").is_file()


def picture(file: Path, seed: int, size: int = 96) -> None:
    """A picture of random texture, as those of `tree`."""
    file.parent.mkdir(parents=True, exist_ok=True)
    small = Image.fromarray(np.random.default_rng([9, seed]).integers(60, 196, (24, 24, 3), dtype=np.uint8))
    small.resize((size, size), Image.Resampling.BICUBIC).save(file)


def textured(root: Path) -> Path:
    """MVTec AD 2 with pictures of random texture."""
    write_tree("mvtec_ad2", root)
    for number, file in enumerate(sorted(root.rglob("*.png"))):
        if "ground_truth" not in file.parts:
            picture(file, number, 48)
    return root / "can"


def test_unlabelled_images_are_looked_at_too(tmp_path: Path) -> None:
    can = textured(tmp_path / "root")
    private = can / "test_private"
    shutil.copy(can / "train/good/000_regular.png", private / "900_regular.png")
    shutil.copy(can / "test_public/good/000_regular.png", private / "901_regular.png")
    shutil.copy(private / "000_regular.png", can / "test_private_mixed/902_mixed.png")
    picture(private / "903_regular.png", 903, 40)
    for number in range(30):
        # More unlabelled images in another light do not make the labelled ones odd.
        picture(file := can / f"test_private_mixed/8{number:02}_mixed.png", 800 + number, 48)
        Image.open(file).point(lambda value: value // 4).save(file)
    (can / "validation/bad").mkdir()
    picture(can / "validation/bad/000.png", 950, 48)
    result = look(tmp_path / "root")
    copies = {(one.image.name, one.other.name, one.exclude) for one in result.of_kind(COPY) if one.other}
    assert copies == {
        ("can/train/good/000_regular.png", "can/test_private/900_regular.png", True),
        ("can/test_private/901_regular.png", "can/test_public/good/000_regular.png", False),
        ("can/test_private_mixed/902_mixed.png", "can/test_private/000_regular.png", False),
    }
    odd = result.of_kind(ODD)
    assert {one.image.role for one in odd} == {UNLABELLED}
    assert "size: 40 x 40 pixels; 11 of 11 images have 48 x 48 pixels" in [one.reason for one in odd]
    assert sum(one.reason.startswith("dark") for one in odd) == 30
    assert result.excluded() == ["can/train/good/000_regular.png"]
    first, *others = result.summary()
    assert first.startswith("49 images (7 for training, 38 unlabelled) looked at.")
    assert not any("in training and test" in sentence for sentence in others)
    # What the reader left out stands in all files.
    (note,) = [note for note in result.notes if "outside good is not used" in note]
    page, book, table, exclude = write_audit(tmp_path / "audit", result)
    assert note in table.read_text()
    assert note in page.read_text()
    assert note in read_me(book)
    assert "# can/test_private/901_regular.png" in exclude.read_text().splitlines()


def test_a_config_with_several_data_sets_is_audited_at_once(cli: Cli, tree: Path, tmp_path: Path) -> None:
    can = textured(tmp_path / "root")
    # A copy in one data set, and an image that both data sets have.
    shutil.copy(tree / "train/good/001.png", tree / "test/good/900.png")
    shutil.copy(tree / "train/good/002.png", can / "test_public/good/900_regular.png")
    shutil.copy(can / "train/good/000_regular.png", can / "test_public/good/901_regular.png")
    (tmp_path / "root/cam").mkdir()
    blocks = [{"kind": "mvtec", "root": str(tree)}, {"kind": "mvtec_ad2", "root": str(tmp_path / "root")}]
    text = f"data: {blocks}\ngrid: {{backend: native, model: padim, backbone: resnet18}}\n"
    shown = cli("audit", write_config(tmp_path / "c.yaml", text), "--no-model")
    assert shown.exit_code == 0, shown.output
    names = [f"{block['kind']} {block['root']}" for block in blocks]
    folder = tmp_path / "results/c/audit"
    with (folder / "audit.csv").open(newline="") as stream:
        rows = [row for row in csv.DictReader(stream) if row["kind"] == COPY]
    assert [(row["data_set"], row["image"], row["other_image"]) for row in rows] == [
        (names[0], "train/good/001.png", "test/good/900.png"),
        (names[1], "can/train/good/000_regular.png", "can/test_public/good/901_regular.png"),
    ]
    output = " ".join(shown.output.split())
    assert "of 2 data sets looked at." in output
    assert "2 copies are in training and test" in output
    assert "The exclude files propose to leave out 2 images." in output
    page = (folder / "audit.html").read_text()
    assert f"{names[0]}, train, good" in page
    assert "exclude-1.txt at <code>data[1].exclude</code>" in page
    assert any(
        sentence.startswith(f"{names[1]}: ") and "cam left out" in sentence
        for sentence in read_me(folder / "audit.xlsx")
    )
    # Each data set takes its own file.
    for position, name in enumerate(names):
        content = (folder / f"exclude-{position}.txt").read_text()
        assert f"leave out of {name}. Use this file at data[{position}].exclude." in content
    overrides = [f"data[{position}].exclude=results/c/audit/exclude-{position}.txt" for position in (0, 1)]
    again = cli("audit", tmp_path / "c.yaml", *overrides, "--no-model", "--output", "other")
    assert again.exit_code == 0, again.output
    assert "exact copy" not in again.output


def test_two_data_sets_of_one_folder_have_different_names(tmp_path: Path) -> None:
    write_tree("btad", tmp_path / "root")
    blocks = [{"kind": "mvtec", "root": "root", "category": category} for category in ("01", "02")]
    text = f"data: {blocks}\ngrid: {{backend: native, model: padim, backbone: resnet18}}\n"
    configs = load_configs(write_config(tmp_path / "c.yaml", text))
    content = images_of(configs)
    assert {(image.dataset, image.group) for image in content.images} == {
        ("data[0] mvtec root", "01"),
        ("data[1] mvtec root", "02"),
    }
    with pytest.raises(DataError, match=r"data\[2\]: the same images as in data\[0\] found"):
        images_of([*configs, configs[0]])


def test_bad_input_has_a_message(cli: Cli, tree: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    write_tree("mvtec_loco", tmp_path / "above" / "loco")
    blocks = [{"kind": "mvtec", "root": str(tree)}, {"kind": "mvtec", "root": "empty"}]
    text = f"data: {blocks}\ngrid: {{backend: native, model: padim, backbone: resnet18}}\n"
    several = write_config(tmp_path / "several.yaml", text)
    for arguments, words in (
        (("audit", "nowhere"), "nothing found; expected a config or a folder"),
        (("audit", "empty"), "audit: empty: no images found; expected train/good"),
        (("audit", "above"), "audit: no known kind of data found in above; expected one of"),
        (("audit", "above"), "above/loco is of kind mvtec_loco: use it."),
        (("audit", several), "data[1].root: "),
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
