"""Every kind of data: the right images in the right roles, and a sentence for each mistake."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from shutil import copytree, rmtree

import pytest
import yaml

from harness.common.errors import ConfigError, DataError
from harness.config.load import load_config
from harness.config.sweep import SweepConfig
from harness.data.detect import detect
from harness.data.index import FileIndex
from harness.data.mask_images import union
from harness.data.samples import Saturation, Split
from harness.data.split import load_splits
from tests.conftest import Cli, write_config
from tests.trees import SIZE, TREES, WITHOUT_MASKS, image, mask, write_tree

# Training images, validation images, test images by type of defect, unlabelled images: of the first category.
CONTENTS: dict[str, tuple[int, int, dict[str, int], int]] = {
    "mvtec_ad": (4, 0, {"good": 2, "broken_large": 2}, 0),
    "mpdd": (4, 0, {"good": 2, "hole": 2, "parts_mismatch": 2}, 0),
    "vad": (4, 0, {"good": 2, "bad": 2}, 0),
    "btad": (4, 0, {"good": 2, "ko": 2}, 0),
    "autovi": (4, 0, {"good": 2, "obstruction": 2}, 0),
    "mvtec_loco": (4, 3, {"good": 2, "logical_anomalies": 2, "structural_anomalies": 2}, 0),
    "mvtec_ad2": (4, 3, {"good": 2, "bad": 2}, 4),
    "visa": (4, 0, {"good": 2, "bad": 2}, 0),
    "visa_prepared": (4, 0, {"good": 2, "bad": 2}, 0),
    "real_iad": (4, 0, {"good": 2, "HS": 6}, 0),
    "kolektor_sdd": (10, 0, {"good": 3, "defect": 2}, 0),
    "kolektor_sdd2": (5, 0, {"good": 2, "defect": 2}, 0),
    "dagm": (4, 0, {"good": 4, "defect": 2}, 0),
    "magnetic_tiles": (4, 0, {"good": 1, "Blowhole": 2}, 0),
    "folders": (4, 0, {"good": 1, "bent": 2}, 0),
}


def config_of(**data: object) -> SweepConfig:
    text = yaml.safe_dump({"data": data, "grid": {"model": "padim", "backend": "native"}})
    return load_config(write_config(Path("kinds.yaml"), text))


def splits(**data: object) -> list[Split]:
    return load_splits(config_of(**{"val": 0, **data}).detection_data, Path("work"), FileIndex(Path("index.json")))


def test_every_kind_has_a_tree() -> None:
    from harness import registry

    assert {kind for kind, _ in TREES.values()} | {"toy"} == set(registry.DATASETS)
    assert set(TREES) == set(CONTENTS)


@pytest.mark.parametrize("name", TREES)
def test_the_folder_alone_gives_the_kind_and_all_roles(name: str) -> None:
    root = write_tree(name, Path("root"))
    kind = TREES[name][0]
    split = splits(kind="auto", root=str(root))[0]
    train, val, test, unlabelled = CONTENTS[name]
    assert split.kind == kind
    assert f"data.kind auto: kind {kind} found." in split.notes
    assert (len(split.train), len(split.val), len(split.unlabelled)) == (train, val, unlabelled)
    assert Counter(sample.defect for sample in split.real_test) == test
    for sample in split.real_test:
        assert sample.label == (sample.defect != "good")
        assert bool(sample.masks) == (bool(sample.label) and name not in WITHOUT_MASKS)
        if sample.masks:
            assert union(sample.masks).sum() in {16 * 16, 8 * 16}
    named = detect(root)
    assert splits(**named)[0].fingerprint == split.fingerprint
    assert not any("auto" in note for note in splits(**named)[0].notes)


def test_the_categories_of_a_kind_are_an_axis() -> None:
    write_tree("dagm", Path("root"))
    assert [split.category for split in splits(kind="dagm", root="root")] == ["Class1", "Class2"]
    assert [split.category for split in splits(kind="dagm", root="root/Class2")] == [""]
    with pytest.raises(DataError, match=r"unknown category .Clas2.\. Did you mean .Class2."):
        splits(kind="dagm", root="root", category="Clas2")


def test_several_masks_of_an_image_are_all_kept() -> None:
    write_tree("mvtec_loco", Path("root"))
    samples = [sample for sample in splits(kind="mvtec_loco", root="root")[0].test if sample.label]
    assert [len(sample.masks) for sample in samples] == [1, 2, 1, 2]
    assert [int(union(sample.masks).sum()) for sample in samples] == [128, 256, 128, 256]
    assert {one.pixel_value for sample in samples for one in sample.saturation} == {254, 255}


def test_validation_images_fix_the_threshold_without_training_images() -> None:
    write_tree("mvtec_ad2", Path("root"))
    config = config_of(kind="mvtec_ad2", root="root")
    (split,) = load_splits(config.detection_data, Path("work"), FileIndex(Path("index.json")))
    assert split.held_out == (0, 0)
    assert {Path(sample.name).parts[0] for sample in split.val} == {"validation"}
    with pytest.raises(ConfigError, match=r"data: val: 0\.2 found, but mvtec_ad2 has its own validation images"):
        config_of(kind="mvtec_ad2", root="root", val=0.2)


def test_labelled_images_alone_make_the_test_comparable() -> None:
    write_tree("mvtec_ad2", Path("root"))
    (before,) = splits(kind="mvtec_ad2", root="root", val=None)
    image(Path("root/can/test_private/900_regular.png"), 900, grey=True)
    (after,) = splits(kind="mvtec_ad2", root="root", val=None)
    assert before.test_fingerprint == after.test_fingerprint
    assert before.fingerprint != after.fingerprint


def test_one_view_of_real_iad() -> None:
    write_tree("real_iad", Path("root"))
    (split,) = splits(kind="real_iad", root="root", views=["C1"])
    assert (len(split.train), len(split.test)) == (2, 4)
    with pytest.raises(ConfigError, match=r"data\.views: found \['C9'\]; expected some of C1"):
        config_of(kind="real_iad", root="root", views=["C9"])


def test_capital_letters_name_the_datamodules_of_anomalib() -> None:
    assert config_of(kind="Visa", root="x").data.kind == "Visa"
    assert config_of(kind="Kolektor", root="x").data.kind == "Kolektor"
    assert config_of(kind="MVTec_AD2", root="x").data.kind == "mvtec_ad2"


def replaced(path: str, old: str, new: str) -> Callable[[Path], None]:
    return lambda root: (root / path).write_text((root / path).read_text().replace(old, new)) and None


def removed(path: str) -> Callable[[Path], None]:
    return lambda root: (root / path).unlink()


def written(path: str, text: str) -> Callable[[Path], None]:
    return lambda root: (root / path).write_text(text) and None


OK_IMAGE = "S0001/audiojack_0001_OK_C1_20230921103000"
JSON = "realiad_jsons/realiad_jsons/audiojack.json"
CSV = "split_csv/1cls.csv"
MISTAKES: dict[str, tuple[str, dict[str, object], Callable[[Path], None], str]] = {
    "mvtec: an image without mask": (
        "autovi",
        {},
        removed("engine_wiring/ground_truth/obstruction/0001/0000.png"),
        r"no mask found for .*0001\.png",
    ),
    "mvtec: a mask without image": (
        "btad",
        {},
        lambda root: mask(root / "01/ground_truth/ko/0009.png"),
        r"no image found for the mask .*0009\.png",
    ),
    "mvtec: a folder of masks without a folder of images": (
        "mvtec_ad",
        {},
        lambda root: mask(root / "zipper/ground_truth/split_teeth/000_mask.png"),
        r"zipper/ground_truth/split_teeth: masks without images found; expected .*zipper/test\.",
    ),
    "mvtec: masks without a folder of their type": (
        "mvtec_ad",
        {},
        lambda root: mask(root / "zipper/ground_truth/000_mask.png"),
        r"zipper/ground_truth/000_mask\.png: masks without images found",
    ),
    "mvtec: masks of an empty folder of images": (
        "mvtec_ad",
        {},
        lambda root: [file.unlink() for file in (root / "zipper/test/broken_large").iterdir()] and None,
        r"no image found for the mask .*broken_large/000_mask\.png",
    ),
    "mvtec: an unknown category": ("mvtec_ad", {"category": "botle"}, lambda root: None, "unknown category 'botle'"),
    "mvtec: no test": (
        "mvtec_ad",
        {},
        lambda root: (root / "zipper/test").rename(root / "zipper/tests") and None,
        "test images: nothing found at .*zipper/test,",
    ),
    "mvtec: a damaged defects_config.json": (
        "autovi",
        {},
        written("engine_wiring/defects_config.json", "{"),
        r"engine_wiring/defects_config\.json: can't be used",
    ),
    "mvtec: a mask of an unknown defect": (
        "autovi",
        {},
        lambda root: mask(root / "engine_wiring/ground_truth/obstruction/0000/0000.png", 9),
        r"0000/0000\.png: pixel value 9 found; expected one of 254",
    ),
    "mvtec: a folder of masks without image": (
        "autovi",
        {},
        lambda root: mask(root / "engine_wiring/ground_truth/obstruction/0777/0000.png", 254),
        r"no image found for the mask .*0777/0000\.png",
    ),
    "loco: an unknown category": ("mvtec_loco", {"category": "pins"}, lambda root: None, "unknown category 'pins'"),
    "loco: an empty folder of validation images": (
        "mvtec_loco",
        {},
        lambda root: [file.unlink() for file in (root / "pushpins/validation/good").iterdir()] and None,
        "pushpins/validation/good: no images found; expected at least 1",
    ),
    "loco: all validation images excluded": (
        "mvtec_loco",
        {"exclude": ["*/validation/**"]},
        lambda root: None,
        "data.exclude: all 3 normal validation images of .*pushpins are left out",
    ),
    "loco: no masks": (
        "mvtec_loco",
        {},
        lambda root: rmtree(root / "pushpins/ground_truth"),
        "masks: nothing found at .*pushpins/ground_truth",
    ),
    "loco: an image without mask": (
        "mvtec_loco",
        {},
        lambda root: rmtree(root / "pushpins/ground_truth/logical_anomalies/001"),
        r"no mask found for .*logical_anomalies/001\.png",
    ),
    "loco: a folder of masks without a folder of images": (
        "mvtec_loco",
        {},
        lambda root: rmtree(root / "pushpins/test/structural_anomalies"),
        r"ground_truth/structural_anomalies: masks without images found; expected .*pushpins/test\.",
    ),
    "loco: no defects_config.json": (
        "mvtec_loco",
        {},
        removed("pushpins/defects_config.json"),
        "defects_config.json: nothing",
    ),
    "loco: a wrong defects_config.json": (
        "mvtec_loco",
        {},
        written("pushpins/defects_config.json", '[{"pixel_value": 300}]'),
        r"defects_config\.json: can't be used .*pixel_value",
    ),
    "loco: a mask of an unknown defect": (
        "mvtec_loco",
        {},
        lambda root: mask(root / "pushpins/ground_truth/logical_anomalies/000/000.png", 7),
        r"000\.png: pixel value 7 found; expected one of 254, 255",
    ),
    "loco: a folder of masks without image": (
        "mvtec_loco",
        {},
        lambda root: mask(root / "pushpins/ground_truth/logical_anomalies/777/000.png", 255),
        r"no image found for the mask .*777/000\.png",
    ),
    "ad2: no validation images": (
        "mvtec_ad2",
        {},
        lambda root: (root / "can/validation").rename(root / "can/valid") and None,
        "normal images: nothing found at .*can/validation/good",
    ),
    "ad2: an empty folder of validation images": (
        "mvtec_ad2",
        {},
        lambda root: [file.unlink() for file in (root / "can/validation/good").iterdir()] and None,
        "can/validation/good: no images found; expected at least 1 normal image, which fixes the threshold",
    ),
    "ad2: all validation images excluded": (
        "mvtec_ad2",
        {"exclude": ["can/validation/**"]},
        lambda root: None,
        "data.exclude: all 3 normal validation images of .*can are left out; expected some to stay",
    ),
    "ad2: an image without mask": (
        "mvtec_ad2",
        {},
        removed("can/test_public/ground_truth/bad/001_overexposed_mask.png"),
        "no mask found for .*001_",
    ),
    "ad2: an unknown category": (
        "mvtec_ad2",
        {"category": "cann"},
        lambda root: None,
        "unknown category 'cann'.*'can'",
    ),
    "ad2: no masks": (
        "mvtec_ad2",
        {},
        lambda root: rmtree(root / "can/test_public/ground_truth"),
        "masks: nothing found at .*test_public/ground_truth",
    ),
    "ad2: a mask without image": (
        "mvtec_ad2",
        {},
        removed("can/test_public/bad/001_overexposed.png"),
        r"no image found for the mask .*001_overexposed_mask\.png",
    ),
    "ad2: masks without the folder bad": (
        "mvtec_ad2",
        {},
        lambda root: rmtree(root / "can/test_public/bad"),
        r"can/test_public/ground_truth/bad: masks without images found; expected .*can/test_public\.",
    ),
    "ad2: no public test": (
        "mvtec_ad2",
        {},
        lambda root: (root / "can/test_public").rename(root / "can/test") and None,
        "is no category of kind mvtec_ad2 and has none; expected train/good",
    ),
    "visa: no split file": ("visa", {}, removed(CSV), r"unknown split '1cls'.* Expected .*split_csv/1cls\.csv"),
    "visa: no split folder": (
        "visa",
        {},
        lambda root: rmtree(root / "split_csv"),
        r"root has no folder split_csv and no prepared category",
    ),
    "visa: an anomaly without mask": (
        "visa",
        {},
        replaced(CSV, "Anomaly/000.JPG,candle/Data/Masks/Anomaly/000.png", "Anomaly/000.JPG,"),
        r"1cls\.csv: no mask of 'candle/Data/Images/Anomaly/000\.JPG' found.*Line 8",
    ),
    "visa: a mask of a normal image": (
        "visa",
        {},
        replaced(CSV, "Normal/0005.JPG,", "Normal/0005.JPG,candle/Data/Masks/Anomaly/000.png"),
        r"1cls\.csv: the mask 'candle/.*/000\.png' of the normal image 'candle/.*/0005\.JPG' found.*Line 7",
    ),
    "visa: a mask outside the root": (
        "visa",
        {},
        replaced(CSV, "candle/Data/Masks/Anomaly/000.png", "/etc/hostname"),
        r"1cls\.csv: '/etc/hostname' found, which leaves",
    ),
    "visa prepared: a folder of masks without a folder of images": (
        "visa_prepared",
        {},
        lambda root: rmtree(root / "visa_pytorch/candle/test/bad"),
        "candle/ground_truth/bad: masks without images found",
    ),
    "visa prepared: an image without mask": (
        "visa_prepared",
        {},
        removed("visa_pytorch/candle/ground_truth/bad/000.png"),
        r"no mask found for .*bad/000\.JPG",
    ),
    "visa prepared: a mask without image": (
        "visa_prepared",
        {},
        lambda root: mask(root / "visa_pytorch/candle/ground_truth/bad/099.png"),
        r"no image found for the mask .*bad/099\.png",
    ),
    "visa: an unknown split": (
        "visa",
        {"split": "1clas"},
        lambda root: None,
        "data.split: unknown split '1clas'.*'1cls'",
    ),
    "visa: a path that leaves the root": (
        "visa",
        {},
        replaced(CSV, "candle/Data/Images/Normal/0000.JPG", "../secret.JPG"),
        r"1cls\.csv: '\.\./secret\.JPG' found, which leaves .*Line 2",
    ),
    "visa: a missing image": (
        "visa",
        {},
        removed("candle/Data/Images/Normal/0003.JPG"),
        r"1cls\.csv: .*0003\.JPG.* is no file",
    ),
    "visa: a missing mask": (
        "visa",
        {},
        removed("candle/Data/Masks/Anomaly/001.png"),
        r"1cls\.csv: .*001\.png.* is no file",
    ),
    "visa: a wrong label": ("visa", {}, replaced(CSV, ",anomaly,", ",broken,"), "label 'broken' found; expected"),
    "visa: no column": ("visa", {}, replaced(CSV, "object,", "objects,"), r"1cls\.csv: no column object found"),
    "visa: an unknown category": (
        "visa",
        {"category": "candel"},
        lambda root: None,
        "unknown category 'candel'.*'candle'",
    ),
    "real_iad: no JSON files": (
        "real_iad",
        {"split": "realiad_jsons_sv"},
        lambda root: None,
        "no JSON file found in .*_sv",
    ),
    "real_iad: a path that leaves the root": (
        "real_iad",
        {},
        replaced(JSON, "OK/S0001/audiojack_0001_OK_C1", "../../OK/S0001/audiojack_0001_OK_C1"),
        r"audiojack\.json: '\.\./\.\./OK.* leaves",
    ),
    "real_iad: no JSON of the split": ("real_iad", {}, removed(JSON), "expected <category>.json. Restore it"),
    "real_iad: a missing image": (
        "real_iad",
        {},
        removed(f"realiad_256/audiojack/OK/{OK_IMAGE}.jpg"),
        rf"audiojack\.json: 'OK/{OK_IMAGE}\.jpg' found, but",
    ),
    "real_iad: a mask that leaves the root": (
        "real_iad",
        {},
        replaced(JSON, '"mask_path": "NG', '"mask_path": "../../NG'),
        r"audiojack\.json: '\.\./\.\./NG/HS/.*\.png' found, which leaves",
    ),
    "real_iad: a mask of a normal image": (
        "real_iad",
        {},
        replaced(JSON, '"mask_path": null', '"mask_path": "x.png"'),
        rf"audiojack\.json: the mask 'x\.png' of the normal image 'OK/{OK_IMAGE}\.jpg' found; expected null",
    ),
    "real_iad: a damaged JSON": ("real_iad", {}, written(JSON, '{"train": []}'), r"audiojack\.json: damaged .*test"),
    "real_iad: an unknown category": ("real_iad", {"category": "usb"}, lambda root: None, "unknown category 'usb'"),
    "real_iad: no folder of images": (
        "real_iad",
        {"images": "realiad_raw"},
        lambda root: None,
        "data.images: nothing found",
    ),
    "kolektor: an image without mask": (
        "kolektor_sdd",
        {},
        removed("kos01/Part0_label.bmp"),
        r"no mask found for .*Part0\.jpg",
    ),
    "kolektor: a mask without image": (
        "kolektor_sdd2",
        {},
        removed("test/20000.png"),
        r"test/20000_GT\.png, and no image for a mask",
    ),
    "kolektor: no test": (
        "kolektor_sdd2",
        {},
        lambda root: (root / "test").rename(root / "tests") and None,
        "nor the folder 'test'",
    ),
    "dagm: an unknown category": ("dagm", {"category": "Class9"}, lambda root: None, "unknown category 'Class9'"),
    "dagm: a mask without image": (
        "dagm",
        {},
        removed("Class1/Test/0005.PNG"),
        "no image found for the mask .*0005_label",
    ),
    "dagm: no masks": (
        "dagm",
        {},
        lambda root: (root / "Class1/Test/Label").rename(root / "Class1/Test/Labels") and None,
        "masks: nothing found at .*Test/Label",
    ),
    "magnetic_tiles: an image without mask": (
        "magnetic_tiles",
        {},
        removed("MT_Blowhole/Imgs/exp2_num_1.png"),
        r"no mask for .*exp2_num_1\.jpg",
    ),
    "magnetic_tiles: a mask without image": (
        "magnetic_tiles",
        {},
        removed("MT_Blowhole/Imgs/exp2_num_1.jpg"),
        "no image for the mask .*exp2_num_1",
    ),
    "magnetic_tiles: no normal tiles": (
        "magnetic_tiles",
        {},
        lambda root: (root / "MT_Free").rename(root / "MT_free_") and None,
        "normal images: nothing",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_has_a_sentence_and_ends_with_status_2(mistake: str, cli: Cli) -> None:
    name, data, spoil, message = MISTAKES[mistake]
    root = write_tree(name, Path("root"))
    spoil(root)
    block = {"kind": TREES[name][0], "root": "root", **data}
    text = yaml.safe_dump({"data": block, "weights": "random", "grid": {"model": "padim", "backend": "native"}})
    result = cli("sweep", write_config(Path("c.yaml"), text))
    assert result.exit_code == 2
    assert re.search(message, result.stderr)
    assert not Path("results/c/runs").exists()


@pytest.mark.parametrize("name", ["kolektor_sdd", "magnetic_tiles"])
def test_a_category_of_a_kind_without_categories_is_refused(name: str, cli: Cli) -> None:
    write_tree(name, Path("root"))
    text = f"data: {{kind: {TREES[name][0]}, root: root, category: one}}\ngrid: {{model: padim, backend: native}}"
    result = cli("sweep", write_config(Path("c.yaml"), text))
    assert result.exit_code == 2
    assert "data.category: found a category, but" in result.stderr


@pytest.mark.parametrize(
    ("name", "place", "category", "folder", "wrong"),
    [
        ("dagm", "root", "Class1", "Train", "Trian"),
        ("mvtec_ad", "root", "zipper", "train", "trian"),
        # A folder of training images without normal ones.
        ("btad", "root", "02", "train/ok", "train/oks"),
        ("mvtec_loco", "root", "pushpins", "validation", "valid"),
        ("visa_prepared", "root/visa_pytorch", "candle", "train", "trian"),
    ],
)
def test_folders_that_are_no_category_are_named(name: str, place: str, category: str, folder: str, wrong: str) -> None:
    write_tree(name, Path("root"))
    kind, kept = TREES[name][0], "kept"
    for other in Path(place).iterdir():
        if other.name != category:
            rmtree(other)
    copytree(Path(place, category), Path(place, kept))
    assert not any("left out" in note for split in splits(kind=kind, root="root") for note in split.notes)
    Path(place, category, folder).rename(Path(place, category, wrong))
    (split,) = splits(kind=kind, root="root")
    assert split.category == kept
    note = f"{place}: {category} left out, because no category of kind {kind} is in it."
    assert any(note in one for one in split.notes)
    assert not any("left out" in note for note in splits(kind=split.kind, root="root", category=kept)[0].notes)


def test_copies_of_kolektor_are_left_out_beside_their_originals_only() -> None:
    root = write_tree("kolektor_sdd2", Path("root"))
    (split,) = splits(kind="kolektor", root="root")
    assert not any("copy" in sample.name for sample in (*split.train, *split.test))
    (note,) = [note for note in split.notes if "left out" in note]
    assert note.endswith("root/train: copies of files left out: 10001 (copy).png, 10001_GT (copy).png.")
    (root / "train/10001.png").unlink()
    with pytest.raises(DataError, match=r"no mask found for .*10001 \(copy\)\.png"):
        splits(kind="kolektor", root="root")
    write_tree("kolektor_sdd", Path("parts"))
    image(Path("parts/kos02/Part0 (copy).jpg"), 20, grey=True)
    (parts,) = splits(kind="kolektor", root="parts")
    assert any("kos02: copies of files left out: Part0 (copy).jpg." in note for note in parts.notes)


def test_masks_of_autovi_lie_in_a_folder_of_their_image() -> None:
    root = write_tree("autovi", Path("root"))
    mask(root / "engine_wiring/ground_truth/obstruction/0001/0001.png", 254, slice(0, 4))
    (split,) = splits(kind="mvtec", root="root")
    anomalous = [sample for sample in split.test if sample.label]
    places = [[Path(file).relative_to(root.absolute()).as_posix() for file in sample.masks] for sample in anomalous]
    folder = "engine_wiring/ground_truth/obstruction"
    assert places == [[f"{folder}/0000/0000.png"], [f"{folder}/0001/0000.png", f"{folder}/0001/0001.png"]]
    assert {sample.saturation for sample in anomalous} == {(Saturation(254, 0.5, True),)}
    assert {sample.saturation for sample in split.test if not sample.label} == {()}
    (root / "engine_wiring/defects_config.json").unlink()
    (without,) = splits(kind="mvtec", root="root")
    assert not any(sample.saturation for sample in without.test)
    assert without.fingerprint != split.fingerprint


def test_an_unknown_folder_gets_the_nearest_right_names() -> None:
    Path("root/part/trian/godo").mkdir(parents=True)
    with pytest.raises(ConfigError, match=r"data\.root: no known kind of data .*part/trian \(did you mean train\?\)"):
        config_of(kind="auto", root="root")
    write_tree("dagm", Path("above/below"))
    with pytest.raises(ConfigError, match="above/below is of kind dagm: use it"):
        config_of(kind="auto", root="above")
    with pytest.raises(ConfigError, match=r"data\.root: no folder found; expected one with kind auto"):
        config_of(kind="auto")


@pytest.mark.parametrize(
    ("folders", "hint"),
    [
        (("train/good", "Test/good"), r"Test \(did you mean test\?\)"),
        (("part/train", "part/validation", "part/test_pubilc"), r"part/test_pubilc \(did you mean test_public\?\)"),
        (("Class1/Trian", "Class1/Test"), r"Class1/Trian \(did you mean Train\?\)"),
        (("candle/Data", "splitcsv"), r"splitcsv \(did you mean split_csv\?\)"),
    ],
)
def test_the_kind_with_the_most_right_names_gives_the_hint(folders: tuple[str, ...], hint: str) -> None:
    for folder in folders:
        Path("root", folder).mkdir(parents=True)
    with pytest.raises(DataError, match=f"Wrong names may be {hint}"):
        detect(Path("root"))


@pytest.mark.parametrize(
    ("name", "right", "wrong"),
    [
        ("mvtec_ad", "zipper/ground_truth", "zipper/ground_truht"),
        ("mvtec_ad", "zipper/train", "zipper/trian"),
        ("btad", "01/ground_truth", "01/groundtruth"),
        ("mvtec_ad2", "can/test_private", "can/tset_private"),
        ("mvtec_loco", "pushpins/validation", "pushpins/validaton"),
        ("real_iad", "realiad_512", "realiad512"),
        ("magnetic_tiles", "MT_Blowhole/Imgs", "MT_Blowhole/Igms"),
    ],
)
def test_the_command_shows_wrong_names_of_a_recognised_folder(name: str, right: str, wrong: str, cli: Cli) -> None:
    root = write_tree(name, Path("root"))
    (root / right).mkdir(exist_ok=True)
    (root / right).rename(root / wrong)
    result = cli("data", "root")
    assert f"Wrong names may be {wrong} (did you mean {Path(right).name}?). " in result.stdout


def test_names_of_defects_and_categories_are_no_wrong_names(cli: Cli) -> None:
    root = write_tree("mvtec_ad", Path("root"))
    (root / "zipper").rename(root / "trail")
    for part in ("test", "ground_truth"):
        (root / f"trail/{part}/broken_large").rename(root / f"trail/{part}/bead")
    for folder in ("root", "root/trail"):
        result = cli("data", folder)
        assert result.exit_code == 0, result.output
        assert "Wrong names" not in result.stdout


def test_a_hint_names_no_folder_that_is_at_its_place(cli: Cli) -> None:
    """A folder of texts is no folder `test`, beside the categories or in a category without a test."""
    root = write_tree("mvtec_ad", Path("root"))
    (root / "texts").mkdir()
    (root / "texts/licence.txt").write_text("CC BY 4.0")
    image(root / "tests/0.png", 0)
    visa = write_tree("visa", Path("visa"))
    for folder in ("dates", "tests"):
        image(visa / folder / "0.png", 0)
    for folder in (root, visa):
        result = cli("data", folder)
        assert result.exit_code == 0, result.output
        assert "Wrong names" not in result.stdout
    (Path("parts/texts")).mkdir(parents=True)
    Path("parts/texts/licence.txt").write_text("CC BY 4.0")
    image(Path("parts/pictures/0.png"), 0)
    with pytest.raises(DataError, match="1 images found, in an unknown layout"):
        detect(Path("parts"))


def one_folder_of_masks(root: Path) -> None:
    """Masks of two folders of images, and of a third one that does not exist."""
    image(root / "cut/0.png", 40, defect=True)
    rmtree(root / "bent_masks")
    for name in ("bent/0", "bent/1", "cut/0", "dent/0"):
        mask(root / f"masks/{name}.png")


LEFT_OUT: dict[str, tuple[str, dict[str, object], Callable[[Path], None], str]] = {
    "visa": (
        "visa",
        {},
        lambda root: [mask(root / f"candle/Data/Masks/Anomaly/{number:03}.png") for number in (7, 8)] and None,
        "candle/Data/Masks: 2 masks without a row in 1cls.csv are not used, such as Anomaly/007.png.",
    ),
    "real_iad": (
        "real_iad",
        {"views": ["C1"]},
        lambda root: mask(root / "realiad_256/audiojack/NG/HS/S0009/new.png"),
        "audiojack: 1 mask without an entry in realiad_jsons/audiojack.json is not used, such as NG/HS/S0009/new.png.",
    ),
    "mvtec: masks of normal images": (
        "mpdd",
        {},
        lambda root: mask(root / "connector/ground_truth/good/000_mask.png", empty=True),
        "ground_truth/good: 1 mask of normal images in test/good is not used, such as 000_mask.png.",
    ),
    "mvtec: training images of defects": (
        "vad",
        {},
        lambda root: None,
        "root/train: 2 images outside good are not used, such as bad/0.png.",
    ),
    "mvtec: a test image without a type": (
        "mpdd",
        {},
        lambda root: image(root / "connector/test/loose.png", 9),
        "connector/test: 1 image outside good and <defect> is not used, such as loose.png.",
    ),
    "ad2: validation images of defects": (
        "mvtec_ad2",
        {},
        lambda root: image(root / "can/validation/bad/000.png", 9),
        "can/validation: 1 image outside good is not used, such as bad/000.png.",
    ),
    "magnetic tiles": (
        "magnetic_tiles",
        {},
        lambda root: image(root / "MT_Crack/Images/0.jpg", 9),
        "root: MT_Crack left out, because only MT_<defect>/Imgs counts.",
    ),
    "kolektor": (
        "kolektor_sdd",
        {},
        lambda root: image(root / "ko51/Part0.jpg", 9),
        "root: ko51 left out, because KolektorSDD and KolektorSDD2 have no such folder.",
    ),
    "folder": (
        "folders",
        {"normal_dir": "good", "abnormal_dir": ["bent", "cut"], "mask_dir": "masks"},
        one_folder_of_masks,
        "root/masks: 1 mask without a folder of this name in abnormal_dir is not used, such as dent/0.png.",
    ),
    "folder: masks without defects": (
        "folders",
        {"normal_dir": "good", "abnormal_dir": None, "mask_dir": "bent_masks"},
        lambda root: None,
        "data.mask_dir: not used, because no abnormal_dir is in data.",
    ),
}


@pytest.mark.parametrize("name", LEFT_OUT)
def test_a_note_counts_what_a_reader_leaves_out(name: str) -> None:
    tree, data, change, note = LEFT_OUT[name]
    root = write_tree(tree, Path("root"))
    block = {"kind": TREES[tree][0], "root": "root", **data}
    if tree != "vad":
        assert not any("not used" in one or "left out" in one for one in splits(**{**block, **detect(root)})[0].notes)
    change(root)
    (sentence,) = [one for one in splits(**block)[0].notes if "not used" in one or "left out" in one]
    assert sentence.endswith(note), sentence


@pytest.mark.parametrize("name", TREES)
def test_the_command_prints_a_block_that_a_sweep_reads(name: str, cli: Cli) -> None:
    write_tree(name, Path("root"))
    result = cli("data", "root")
    assert result.exit_code == 0, result.output
    train, val, test, unlabelled = CONTENTS[name]
    rows = [line.split() for line in result.stdout.splitlines()]
    anomalous = sum(count for defect, count in test.items() if defect != "good")
    first = [row for row in rows if {"train", "validation", "test", "unlabelled"} & set(row[:2])]
    counts = Counter[str]()
    for row in first:
        part = next(word for word in row[:2] if word in {"train", "validation", "test", "unlabelled"})
        numbers = [int(word) for word in row if word.isdigit() and word != row[0]]
        counts[part] += numbers[0]
    categories = 2 if name in {"mvtec_ad", "btad", "dagm"} else 1
    assert counts["train"] == categories * train
    assert counts["validation"] == val
    assert counts["test"] == categories * sum(test.values())
    assert counts["unlabelled"] == unlabelled
    masked, unmasked = (0, anomalous) if name in WITHOUT_MASKS else (categories * anomalous, 0)
    assert f"{masked} anomalous test images with a mask, {unmasked} without" in result.stdout
    assert f"{SIZE} x {SIZE}" in result.stdout
    assert "Wrong names" not in result.stdout
    block = yaml.safe_load(result.stdout[result.stdout.index("\ndata:") :].split("\n\n")[0])["data"]
    assert splits(**block)[0].kind == TREES[name][0]


def test_the_command_shows_what_is_wrong_after_the_content(cli: Cli) -> None:
    root = write_tree("mvtec_ad", Path("root"))
    removed("zipper/ground_truth/broken_large/000_mask.png")(root)
    result = cli("data", "root")
    assert result.exit_code == 2
    assert "bottle" in result.stdout
    assert "no mask found for" in result.stderr
    assert cli("data", "nowhere").exit_code == 2


def test_the_command_says_once_what_every_category_leaves_out(cli: Cli) -> None:
    root = write_tree("mvtec_ad", Path("root"))
    (root / "cable/trian").mkdir(parents=True)
    result = cli("data", "root")
    assert result.exit_code == 0, result.output
    assert result.stdout.count("cable left out, because no category of kind mvtec is in it.") == 1


def test_a_json_entry_needs_its_keys() -> None:
    root = write_tree("real_iad", Path("root"))
    content = json.loads((root / JSON).read_text())
    del content["test"][0]["image_path"]
    (root / JSON).write_text(json.dumps(content))
    with pytest.raises(DataError, match="image_path"):
        splits(kind="real_iad", root="root")


def test_a_defect_without_a_mask_is_named_and_can_be_left_out() -> None:
    root = write_tree("real_iad", Path("root"))
    content = json.loads((root / JSON).read_text())
    entry = next(one for one in content["test"] if one["mask_path"])
    entry["mask_path"] = None
    (root / JSON).write_text(json.dumps(content))
    with pytest.raises(
        DataError, match=r"masks found for 5 of 6 anomalous images.*No mask: .*C1.*data\.exclude"
    ) as error:
        splits(kind="real_iad", root="root")
    name = f"audiojack/{entry['image_path']}"
    (named,) = re.findall(r"No mask: (\S+)\. ", str(error.value))
    assert named.endswith(name)
    (split,) = splits(kind="real_iad", root="root", exclude=[named])
    assert len(split.test) == 7
    assert all(sample.masks for sample in split.test if sample.label)
    assert any("1 image" in note for note in split.notes)
