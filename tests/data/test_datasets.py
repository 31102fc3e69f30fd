"""From folders to splits: the same roles every time, and a sentence for everything that is wrong."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from harness.common.errors import DataError
from harness.data.base import DataOptions
from harness.data.folder import FolderData
from harness.data.index import FileIndex
from harness.data.mvtec import MVTecData
from harness.data.samples import Split
from harness.data.split import load_splits
from harness.data.toy import ToyData
from harness.data.toy_images import CATEGORIES, write_toy


def load(options: DataOptions, index: FileIndex | None = None) -> list[Split]:
    return load_splits(options, Path("work"), index or FileIndex(Path("index.json")))


def one(options: DataOptions) -> Split:
    (split,) = load(options)
    return split


def problems(options: DataOptions) -> str:
    with pytest.raises(DataError) as caught:
        load(options)
    return "\n".join(caught.value.problems)


@pytest.fixture
def tree(toy_tree: Path, tmp_path: Path) -> Path:
    """A copy of the toy tree to spoil."""
    return Path(shutil.copytree(toy_tree, tmp_path / "tree"))


def mvtec(root: Path, **options: object) -> MVTecData:
    return MVTecData.model_validate({"kind": "mvtec", "root": str(root), **options})


def test_mvtec_roles_labels_and_masks(tree: Path) -> None:
    split = one(mvtec(tree, category="plate", val=0.25))
    defects = CATEGORIES["plate"]
    assert (len(split.train), len(split.val), len(split.test)) == (6, 2, 4 + 2 * len(defects))
    assert {s.defect for s in split.test} == {"good", *defects}
    for sample in split.test:
        assert (sample.label == 1) == (sample.defect != "good")
        assert bool(sample.masks) == (sample.label == 1)
        for mask in sample.masks:
            assert Path(mask).parent.name == sample.defect
            assert Path(mask).stem == f"{Path(sample.path).stem}_mask"


def test_all_categories_by_default_and_a_root_that_is_one_itself(tree: Path) -> None:
    shutil.copytree(tree / "plate", tree / "another")
    assert [s.category for s in load(mvtec(tree))] == ["another", "plate"]
    assert [s.category for s in load(mvtec(tree / "plate"))] == [""]


def test_split_is_the_same_wherever_the_data_lies(tree: Path, tmp_path: Path) -> None:
    first = one(mvtec(tree, category="plate"))
    elsewhere = Path(shutil.copytree(tree, tmp_path / "moved" / "far"))
    second = one(mvtec(elsewhere, category="plate"))
    assert [s.name for s in first.val] == [s.name for s in second.val]
    assert first.fingerprint == second.fingerprint
    assert one(mvtec(tree, category="plate", split_seed=5)).fingerprint != first.fingerprint


def test_fingerprint_follows_contents(tree: Path) -> None:
    before = one(mvtec(tree, category="plate")).fingerprint
    image = next((tree / "plate/test/good").iterdir())
    Image.fromarray(np.zeros((64, 64, 3), np.uint8)).save(image)
    after = one(mvtec(tree, category="plate")).fingerprint
    assert before != after


def test_index_spares_reading_what_is_known(tree: Path) -> None:
    index = FileIndex(Path("index.json"))
    totals: list[int] = []
    load_splits(mvtec(tree), Path(), index, lambda done, total: totals.append(total))
    index.save()
    assert totals
    again: list[int] = []
    load_splits(mvtec(tree), Path(), FileIndex(Path("index.json")), lambda done, total: again.append(total))
    assert again == []


@pytest.mark.parametrize("suffix", [".jpg", ".bmp", ".tif", ".PNG"])
def test_any_image_format(tree: Path, suffix: str) -> None:
    for file in (tree / "plate").rglob("*.png"):
        Image.open(file).save(
            file.with_suffix(".x"), format={".jpg": "JPEG", ".bmp": "BMP", ".tif": "TIFF"}.get(suffix, "PNG")
        )
        file.unlink()
        file.with_suffix(".x").rename(file.with_suffix(suffix))
    split = one(mvtec(tree, category="plate"))
    assert len(split.train) == 7
    assert split.has_masks


def test_without_ground_truth_there_are_no_masks(tree: Path) -> None:
    shutil.rmtree(tree / "plate/ground_truth")
    assert not one(mvtec(tree, category="plate")).has_masks


def spoil_mask_name(base: Path) -> None:
    mask = next((base / "ground_truth").rglob("*_mask.png"))
    mask.rename(mask.with_name("other_mask.png"))


def spoil_mask_size(base: Path) -> None:
    Image.new("L", (10, 12)).save(next((base / "ground_truth").rglob("*_mask.png")))


def truncate(base: Path) -> None:
    for file in list((base / "train/good").iterdir())[:2]:
        file.write_bytes(file.read_bytes()[:300])


def no_image(base: Path) -> None:
    (base / "test/good/000.png").write_text("not an image")


@pytest.mark.parametrize(
    ("spoil", "parts"),
    [
        (lambda b: shutil.rmtree(b / "train"), ["normal training images: nothing found"]),
        (lambda b: [f.unlink() for f in (b / "train/good").iterdir()], ["no normal training images found"]),
        (lambda b: [f.unlink() for f in (b / "train/good").glob("00[1-9].png")], ["at least 2 are expected"]),
        (lambda b: shutil.rmtree(b / "test"), ["test images: nothing found"]),
        (lambda b: [shutil.rmtree(f) for f in (b / "test").iterdir()], ["masks without images found"]),
        (
            lambda b: [shutil.rmtree(f) for f in (*(b / "test").iterdir(), b / "ground_truth")],
            ["no test images found"],
        ),
        (spoil_mask_name, ["no mask found for", "no image found for the mask"]),
        (spoil_mask_size, ["10 x 12 pixels found, 64 x 64 expected"]),
        (truncate, ["can't be read as an image", "can't be read as an image"]),
        (no_image, ["test/good/000.png: can't be read as an image"]),
    ],
)
def test_what_is_wrong_is_said(tree: Path, spoil, parts: list[str]) -> None:
    spoil(tree / "plate")
    text = problems(mvtec(tree, category="plate"))
    position = 0
    for part in parts:
        assert part in text[position:], text
        position = text.index(part, position) + len(part)


def test_a_share_that_leaves_nothing_to_learn_from(tree: Path) -> None:
    assert "holds out all 8 normal training images" in problems(mvtec(tree, category="plate", val=0.99))


def test_missing_root_and_unknown_category(tree: Path) -> None:
    assert "data.root: nothing found at" in problems(mvtec(tree / "nowhere"))
    assert "unknown category 'plat'. Did you mean 'plate'?" in problems(mvtec(tree, category="plat"))
    assert "has neither a folder 'train' nor categories" in problems(mvtec(tree / "plate/test"))


# ---------------------------------------------------------------- folder


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    """good/ (10), bad/ (3), masks/ (3)."""
    root = tmp_path / "parts"
    rng = np.random.default_rng(0)
    for name, count in (("good", 10), ("bad", 3)):
        (root / name).mkdir(parents=True)
        for index in range(count):
            pixels = rng.integers(0, 255, (32, 48, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / name / f"{index}.png")
    (root / "masks").mkdir()
    for index in range(3):
        Image.new("L", (48, 32), 255).save(root / "masks" / f"{index}.png")
    return root


def folder(root: Path, **options: object) -> FolderData:
    values = {"kind": "folder", "root": str(root), "normal_dir": "good", "abnormal_dir": "bad", **options}
    return FolderData.model_validate(values)


def test_folder_takes_test_images_from_the_normal_ones(folders: Path) -> None:
    split = one(folder(folders, mask_dir="masks", test_split_ratio=0.2))
    assert (len(split.train), len(split.val), len(split.test)) == (7, 1, 5)
    assert sum(s.label for s in split.test) == 3
    assert split.has_masks


def test_folder_without_masks_or_with_normal_test_images(folders: Path) -> None:
    (folders / "checked").mkdir()
    shutil.copy(folders / "good/0.png", folders / "checked/a.png")
    split = one(folder(folders, normal_test_dir="checked"))
    assert (len(split.train) + len(split.val), len(split.test)) == (10, 4)
    assert not split.has_masks


def test_folder_without_bad_parts(folders: Path) -> None:
    split = one(folder(folders, abnormal_dir=None))
    assert {s.label for s in split.test} == {0}


def test_several_folders_of_defects_each_with_masks(folders: Path) -> None:
    shutil.copytree(folders / "bad", folders / "bent")
    shutil.copytree(folders / "masks", folders / "bent_masks")
    split = one(folder(folders, abnormal_dir=["bad", "bent"], mask_dir=["masks", "bent_masks"]))
    assert {s.defect for s in split.test} == {"good", "bad", "bent"}
    assert all(s.masks for s in split.test if s.label)
    assert "expected one for all, or one for each" in problems(
        folder(folders, abnormal_dir=["bad", "bent", "good"], mask_dir=["masks", "bent_masks"])
    )


def test_a_path_can_not_leave_the_root_unasked(folders: Path) -> None:
    (folders.parent / "outside").mkdir()
    assert "leaves data.root" in problems(folder(folders, abnormal_dir="../outside"))
    outside = folders.parent / "outside"
    shutil.copy(folders / "bad/0.png", outside)
    assert sum(s.label for s in one(folder(folders, abnormal_dir=str(outside))).test) == 1


def test_an_image_has_one_role(folders: Path) -> None:
    shutil.copytree(folders / "good", folders / "bad/inner")
    text = problems(folder(folders, normal_test_dir="bad/inner"))
    assert "10 images have more than one role" in text


def test_masks_in_the_folder_of_the_images_have_a_suffix(folders: Path) -> None:
    assert "no mask found for" in problems(folder(folders, mask_dir="bad"))


def test_all_missing_folders_are_told_at_once(folders: Path) -> None:
    text = problems(folder(folders, normal_dir="a", abnormal_dir="b", normal_test_dir="c"))
    assert [line.split(":")[0] for line in text.splitlines()] == [
        "data.normal_dir",
        "data.normal_test_dir",
        "data.abnormal_dir",
    ]


def test_images_with_values_out_of_range_are_found_at_once(folders: Path) -> None:
    Image.fromarray(np.full((8, 8), 200.0, np.float32)).save(folders / "good/x.tif")
    assert "x.tif: grey values from" in problems(folder(folders))


def test_mask_of_another_name(folders: Path) -> None:
    (folders / "masks/2.png").rename(folders / "masks/seven.png")
    text = problems(folder(folders, mask_dir="masks"))
    assert "no mask found for" in text
    assert "bad/2.png" in text
    assert "seven.png" in text


# ---------------------------------------------------------------- toy


def test_toy_data_is_deterministic_and_complete(tmp_path: Path) -> None:
    write_toy(tmp_path / "a", seed=3, size=48, train=2, good=1, bad=1)
    write_toy(tmp_path / "b", seed=3, size=48, train=2, good=1, bad=1)
    files = sorted(p.relative_to(tmp_path / "a") for p in (tmp_path / "a").rglob("*.png"))
    assert len(files) == sum(3 + 2 * len(defects) for defects in CATEGORIES.values())
    assert all((tmp_path / "a" / f).read_bytes() == (tmp_path / "b" / f).read_bytes() for f in files)
    write_toy(tmp_path / "c", seed=4, size=48, train=2, good=1, bad=1)
    assert any((tmp_path / "a" / f).read_bytes() != (tmp_path / "c" / f).read_bytes() for f in files)


def test_more_toy_images_leave_the_others_as_they_are(tmp_path: Path) -> None:
    write_toy(tmp_path / "a", categories=["plate"], size=48, train=2, good=1, bad=1)
    write_toy(tmp_path / "b", categories=["plate"], size=48, train=4, good=2, bad=2)
    for file in (tmp_path / "a").rglob("*.png"):
        assert file.read_bytes() == (tmp_path / "b" / file.relative_to(tmp_path / "a")).read_bytes()


def test_every_toy_defect_is_in_its_mask(toy_tree: Path) -> None:
    masks = list((toy_tree / "plate/ground_truth").rglob("*.png"))
    shares = [float((np.asarray(Image.open(mask)) > 0).mean()) for mask in masks]
    assert masks
    assert all(0 < share < 0.5 for share in shares)


def test_toy_kind_writes_once_and_refuses_unknown_categories() -> None:
    options = {"kind": "toy", "size": 48, "train": 3, "good": 1, "bad": 1}
    splits = load(ToyData.model_validate(options))
    assert [s.category for s in splits] == list(CATEGORIES)
    assert all(s.synthetic and s.has_masks for s in splits)
    before = {p: p.stat().st_mtime_ns for p in Path("work").rglob("*.png")}
    load(ToyData.model_validate(options))
    assert before == {p: p.stat().st_mtime_ns for p in Path("work").rglob("*.png")}
    assert "unknown toy category 'plat'" in problems(ToyData.model_validate({**options, "category": "plat"}))


def test_a_constant_score_fails_on_toy_data(tmp_path: Path) -> None:
    """So does the mean brightness: on no category does it tell good from bad well."""
    from harness.metrics.auroc import auroc
    from harness.metrics.ranking import Ranking

    write_toy(tmp_path)
    for split in load(mvtec(tmp_path)):
        labels = np.array([s.label == 1 for s in split.test])
        brightness = np.array([np.asarray(Image.open(s.path)).mean() for s in split.test])
        assert auroc(Ranking.of(np.zeros(len(labels)), labels)) == 0.5
        value = auroc(Ranking.of(brightness, labels))
        assert value is not None
        assert 0.1 < value < 0.9, split.category


def test_a_name_that_no_table_can_hold_is_refused_before_any_work(tmp_path: Path) -> None:
    write_toy(tmp_path / "toy", categories=["plate"], size=32, train=3, good=1, bad=1)
    good = tmp_path / "toy/plate/test/good"
    (good / "000.png").rename(good / os.fsdecode(b"caf\xe9.png"))
    with pytest.raises(DataError, match=r"caf\\udce9\.png: a name that is no UTF-8 found"):
        load(MVTecData(kind="mvtec", root=str(tmp_path / "toy")))
