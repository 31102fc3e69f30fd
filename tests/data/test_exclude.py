"""`data.exclude` for both tasks: paths, patterns, a file, and what matches nothing."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from harness.common.errors import ConfigError, DataError
from harness.config.load import load_config
from harness.data.folder import FolderData
from harness.data.index import FileIndex
from harness.data.labelled.files import LabelledData
from harness.data.labelled.split import load_labelled
from harness.data.mvtec import MVTecData
from harness.data.samples import Split
from harness.data.split import load_splits
from harness.data.toy import ToyData
from harness.tasks.detection import data_summary
from tests.conftest import Cli, write_config


@pytest.fixture
def tree(toy_tree: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(toy_tree, tmp_path / "tree"))


def split(root: Path, exclude: Any) -> Split:
    (loaded,) = load_splits(
        MVTecData(kind="mvtec", root=str(root), exclude=exclude, val=0), root, FileIndex(root / "i.json")
    )
    return loaded


def test_paths_and_patterns_leave_images_out(tree: Path) -> None:
    whole = split(tree, None)
    part = split(tree, ["plate/train/good/000.png", "./plate/train/good/001.png", "plate/test/*/000.png"])
    assert [s.name for s in whole.train[2:]] == [s.name for s in part.train]
    assert len(part.test) == sum(not s.name.endswith("/000.png") for s in whole.test)
    excluded = len(whole.train) + len(whole.test) - len(part.train) - len(part.test)
    assert data_summary(part)["excluded"] == excluded
    assert f"data.exclude: {excluded} images are left out, such as plate/train/good/000.png." in part.notes
    assert "excluded" not in data_summary(whole)
    # A category as the root: paths are relative to it.
    assert len(split(tree / "plate", ["train/good/000.png"]).train) == len(whole.train) - 1


def test_a_file_has_an_entry_a_line(tree: Path, tmp_path: Path) -> None:
    file = tmp_path / "exclude.txt"
    file.write_text("# near copies\nplate/train/good/000.png\n\n# plate/train/good/001.png\n")
    assert split(tree, str(file)).excluded == 1


def test_a_fingerprint_is_that_of_the_same_images_without_the_key(tree: Path) -> None:
    left_out = split(tree, ["plate/train/good/000.png"]).fingerprint
    before = split(tree, None).fingerprint
    (tree / "plate" / "train" / "good" / "000.png").unlink()
    assert split(tree, None).fingerprint == left_out != before


def test_an_unreadable_image_may_be_left_out(tree: Path) -> None:
    (tree / "plate" / "train" / "good" / "000.png").write_text("no image")
    assert split(tree, ["plate/train/good/000.png"]).excluded == 1


@pytest.mark.parametrize(
    ("exclude", "parts"),
    [
        (
            ["plate/train/good/00O.png"],
            ["'plate/train/good/00O.png' matches no image", "Did you mean plate/train/good/00"],
        ),
        (["*.jpeg"], ["'*.jpeg' matches no image", "relative to", "Correct or remove the entry."]),
        (["plate/train/*"], ["all 8 normal training images", "expected some to stay", "Remove entries."]),
        ("none.txt", ["no file found at", "expected a file with one path a line, or a list", "Correct the path."]),
        ([f"plate/{n}.png" for n in range(9)], ["4 more entries match no image. Correct or remove them."]),
    ],
)
def test_what_matches_nothing_is_an_error(tree: Path, exclude: Any, parts: list[str]) -> None:
    with pytest.raises(DataError) as error:
        split(tree, exclude)
    assert all(part in str(error.value) for part in parts), error.value


@pytest.mark.parametrize("value", ["[]", "['']", "3", "''"])
def test_other_values_are_refused(tmp_path: Path, value: str) -> None:
    text = f"data: {{kind: toy, exclude: {value}}}\ngrid: {{model: padim, backbone: resnet18}}\n"
    with pytest.raises(ConfigError) as error:
        load_config(write_config(tmp_path / "c.yaml", text))
    assert "data.exclude" in str(error.value)
    assert "expected" in str(error.value)


def test_entries_of_other_categories_are_no_mistake(tree: Path) -> None:
    shutil.copytree(tree / "plate", tree / "ring")
    data = MVTecData(kind="mvtec", root=str(tree), category="ring", exclude=["plate/train/good/000.png"])
    (loaded,) = load_splits(data, tree, FileIndex(tree / "i.json"))
    assert loaded.excluded == 0


def test_other_kinds_have_the_key(tree: Path, tmp_path: Path) -> None:
    folders = FolderData(
        kind="folder",
        name="parts",
        root=str(tree / "plate"),
        normal_dir="train/good",
        val=0,
        exclude=["train/good/000.png"],
    )
    (of_folders,) = load_splits(folders, tmp_path, FileIndex(tmp_path / "a.json"))
    assert of_folders.excluded == 1
    toy = ToyData(kind="toy", size=32, train=3, good=1, bad=1, val=0, exclude=["plate/train/good/000.png"])
    of_toy, *others = load_splits(toy, tmp_path, FileIndex(tmp_path / "b.json"))
    assert len(of_toy.train) == 2
    assert not others[0].excluded


def test_labelled_images_are_left_out_too(tree: Path) -> None:
    def load(exclude: list[str] | None) -> Any:
        data = LabelledData(kind="labelled", root=str(tree), folds=2, exclude=exclude)
        return load_labelled(data, tree, FileIndex(tree / "i.json"))

    whole, part = load(None), load(["plate/train/good/000.png"])
    assert len(part.train) == len(whole.train) - 1
    assert part.excluded == 1
    assert part.notes[0] == "data.exclude: 1 image is left out, such as plate/train/good/000.png."
    with pytest.raises(DataError, match=r"Did you mean plate/train/good/000.png"):
        load(["plate/train/good/000.pn"])


def test_the_command_says_how_many(cli: Cli, tree: Path, tmp_path: Path) -> None:
    text = f"data: {{kind: mvtec, root: {tree}}}\ngrid: {{backend: native, model: padim, backbone: resnet18}}\n"
    file = write_config(tmp_path / "c.yaml", text)
    shown = cli("plan", file, "data.exclude=[plate/train/good/000.png]", "--no-check")
    assert shown.exit_code == 0, shown.output
    assert "1 image is left out" in shown.output
    wrong = cli("plan", file, "data.exclude=[plate/train/good/900.png]", "--no-check")
    assert wrong.exit_code == 2
    assert "matches no image" in wrong.output
