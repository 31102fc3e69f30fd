"""What real users bring: masks of every kind, copies, folders of other names, paths and names as people write them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from openpyxl import load_workbook
from PIL import Image

from harness import registry
from harness.common.errors import ConfigError, DataError, ImageTooLargeError
from harness.common.paths import expanded, name_of_file, problem_of_name
from harness.config.load import load_config
from harness.config.stored import as_yaml
from harness.data.datamodule import DatamoduleData
from harness.data.folder import FolderData
from harness.data.images import FORMATS, read
from harness.data.index import FileIndex
from harness.data.mask_images import mask_reading, read_mask
from harness.data.masks import match_masks
from harness.data.mvtec import MVTecData
from harness.data.samples import Split
from harness.data.split import load_splits
from harness.results.store import ResultFolder
from tests.conftest import Cli, read_me, write_config
from tests.dummy import PARAMETERS
from tests.trees import write_tree

SQUARE = np.zeros((40, 50), dtype=bool)
SQUARE[8:20, 10:30] = True


def split_of(options: Any) -> Split:
    (split,) = load_splits(options, Path.cwd(), FileIndex(Path("index.json")))
    return split


def copied(tree: Path) -> Path:
    """A category of one's own, to be changed."""
    return Path(shutil.copytree(tree / "plate", Path("own").absolute()))


def save(file: Path, values: Any, mode: str | None = None) -> Path:
    Image.fromarray(np.asarray(values, dtype=np.uint8), mode).save(file)
    return file


@pytest.mark.parametrize("colour", [(1, 0, 0), (0, 3, 0), (0, 0, 255), (255, 255, 255), (7, 7, 7)])
def test_a_pixel_is_anomalous_where_some_channel_is_not_0(tmp_path: Path, colour: tuple[int, ...]) -> None:
    values = np.zeros((*SQUARE.shape, 3), np.uint8)
    values[SQUARE] = colour
    assert np.array_equal(read_mask(save(tmp_path / "m.png", values)), SQUARE)
    palette = Image.fromarray(SQUARE.astype(np.uint8), "P")
    palette.putpalette([0, 0, 0, *colour])
    palette.save(tmp_path / "p.png")
    assert np.array_equal(read_mask(tmp_path / "p.png"), SQUARE)


@pytest.mark.parametrize("paint", [(0, 0, 0), (255, 0, 0), (255, 255, 255)])
@pytest.mark.parametrize("below", [0, 255])
@pytest.mark.parametrize("alpha", [255, 120])
def test_what_is_painted_on_a_transparent_layer_is_anomalous(
    tmp_path: Path, paint: tuple[int, ...], below: int, alpha: int
) -> None:
    values = np.full((*SQUARE.shape, 4), below, np.uint8)
    values[..., 3] = 0
    values[SQUARE] = (*paint, alpha)
    if below and not any(paint):
        with pytest.raises(DataError, match="either may be meant"):
            read_mask(save(tmp_path / "m.png", values))
        return
    assert np.array_equal(read_mask(save(tmp_path / "m.png", values)), SQUARE)
    grey = Image.fromarray(SQUARE.astype(np.uint8) * 255)
    grey.save(tmp_path / "keyed.png", transparency=0)
    assert np.array_equal(read_mask(tmp_path / "keyed.png"), SQUARE)


def test_transparency_that_can_mean_two_things_is_refused(tmp_path: Path) -> None:
    values = np.zeros((40, 50, 4), np.uint8)
    with pytest.raises(DataError, match="transparent everywhere"):
        read_mask(save(tmp_path / "m.png", values))
    values[:20, :, 3] = 255
    values[:10, :, :3] = 255
    with pytest.raises(DataError, match="black and coloured"):
        read_mask(save(tmp_path / "m.png", values))
    values[..., 3] = 255
    # Opaque everywhere: the colours say it.
    assert read_mask(save(tmp_path / "m.png", values)).sum() == 10 * 50


def test_masks_in_16_bits_and_floats(tmp_path: Path) -> None:
    for name, values in (("a.png", SQUARE.astype(np.uint16) * 40_000), ("b.tif", SQUARE.astype(np.float32) * 1e-3)):
        Image.fromarray(values).save(tmp_path / name)
        assert np.array_equal(read_mask(tmp_path / name), SQUARE)
    Image.fromarray(np.where(SQUARE, np.nan, 0).astype(np.float32)).save(tmp_path / "c.tif")
    with pytest.raises(DataError, match="no numbers"):
        read_mask(tmp_path / "c.tif")


def test_a_mask_that_0_1_read_otherwise_gives_other_runs_and_only_then(toy_tree: Path) -> None:
    root = copied(toy_tree)
    options = MVTecData(kind="mvtec", root=str(root))
    before = split_of(options)
    mask = root / "ground_truth/dent/000_mask.png"
    pixels = read_mask(mask)
    assert not mask_reading(mask).differs_from_v01
    # 0.1 read a red of 1 as black: the same file was an empty mask there.
    values = np.zeros((*pixels.shape, 3), np.uint8)
    values[pixels] = (1, 0, 0)
    save(mask, values)
    assert mask_reading(mask).differs_from_v01
    as_now = split_of(options).fingerprint
    values[pixels] = (200, 0, 0)
    save(mask, values)
    assert not mask_reading(mask).differs_from_v01
    assert len({before.fingerprint, as_now, split_of(options).fingerprint}) == 3


def test_grey_and_inverted_masks_are_said(toy_tree: Path, cli: Cli) -> None:
    root = copied(toy_tree)
    truth = root / "ground_truth/dent"
    for number, mask in enumerate(sorted(truth.glob("*.png"))):
        smooth = np.linspace(0, 255, 64 * 64).reshape(64, 64)
        save(mask, smooth if number else np.full((64, 64), 255))
    notes = split_of(MVTecData(kind="mvtec", root=str(root))).notes
    assert len(notes) == 2
    assert notes[0].startswith("1 of 6 masks have grey values, such as ")
    assert "2 of 6 masks call most of the image anomalous" in notes[1]
    config = write_config(
        Path("c.yaml"), f"data: {{kind: mvtec, root: {root}}}\nweights: random\ngrid: {{model: padim}}"
    )
    output = cli("plan", config, "--no-check").output
    assert notes[0] in output
    assert notes[1] in output


def test_masks_go_by_name_whatever_the_case_and_once(tmp_path: Path) -> None:
    images, masks = tmp_path / "images", tmp_path / "masks"
    for folder in (images, masks):
        folder.mkdir()
    names = {
        "a.png": "a_MASK.PNG",
        "b.jpg": "b-Mask.bmp",
        "c.png": "c_GT.tif",
        "d_gt.png": "d_gt.png",
        "e.png": "e.png",
    }
    for image, mask in names.items():
        save(images / image, np.zeros((4, 4)))
        save(masks / mask, np.zeros((4, 4)))
    matches = match_masks(sorted(images.iterdir()), images, masks)
    assert {image.name: mask.name for image, (mask,) in matches.items()} == names
    save(masks / "e_mask.png", np.zeros((4, 4)))
    with pytest.raises(DataError, match=r"e\.png: 2 masks found .*, one expected"):
        match_masks(sorted(images.iterdir()), images, masks)


def test_masks_beside_their_images(toy_tree: Path) -> None:
    root = copied(toy_tree)
    for mask in (root / "ground_truth").rglob("*_mask.png"):
        shutil.move(mask, root / "test" / mask.parent.name / mask.name)
    shutil.rmtree(root / "ground_truth")
    split = split_of(MVTecData(kind="mvtec", root=str(root)))
    assert [bool(sample.masks) for sample in split.test] == [bool(sample.label) for sample in split.test]
    assert any("files beside the images are used as their masks" in note for note in split.notes)
    for masks in ("test/dent", None):
        options = FolderData(
            kind="folder", root=str(root), normal_dir="train/good", abnormal_dir="test/dent", mask_dir=masks
        )
        assert [Path(mask).name for sample in split_of(options).test for mask in sample.masks] == [
            "000_mask.png",
            "001_mask.png",
        ]


@pytest.mark.parametrize("name", ["Good", "OK", "ok", "Normal", "GOOD"])
def test_normal_parts_by_other_names(toy_tree: Path, name: str) -> None:
    root = copied(toy_tree)
    shutil.move(root / "test/good", root / "x")
    shutil.move(root / "x", root / "test" / name)
    split = split_of(MVTecData(kind="mvtec", root=str(root)))
    assert sum(not sample.label for sample in split.test) == 4
    assert {sample.defect for sample in split.test if not sample.label} == {"good"}
    shutil.move(root / "train/good", root / "y")
    shutil.move(root / "y", root / "train" / name)
    assert len(split_of(MVTecData(kind="mvtec", root=str(root))).train) == 7
    options = FolderData(kind="folder", root=str(root), normal_dir=f"train/{name}", abnormal_dir="test")
    with pytest.raises(DataError, match=f"has a folder '{name}', a name for normal images"):
        split_of(options)


def test_copies_of_training_images_are_said_everywhere(toy_tree: Path, cli: Cli, dummy: type) -> None:
    root = copied(toy_tree)
    for number in range(3):
        shutil.copy(root / f"train/good/00{number}.png", root / f"test/good/copy{number}.png")
    shutil.copy(root / "train/good/004.png", root / "train/good/twin.png")
    text = f"data: {{kind: mvtec, root: {root}, val: 0.5}}\nweights: random\ngrid: {{backend: dummy, model: plain}}"
    result = cli("sweep", write_config(Path("c.yaml"), text))
    assert result.exit_code == 0, result.output
    copies = [
        note for note in split_of(MVTecData(kind="mvtec", root=str(root), val=0.5)).notes if "byte by byte" in note
    ]
    counts = [int(note.split(" ")[0]) for note in copies if note.split(" ")[3] == "test"]
    assert sum(counts) == 3
    folder = ResultFolder(Path("results/c"))
    sheet = read_me(folder.workbook)
    for note in copies:
        assert result.output.count(note) == 2  # before the runs and after them
        assert note in sheet
        assert note in folder.report.read_text()


def test_an_image_is_what_it_contains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ghostscript must not be started by whatever an EPS is called; neither is any other program."""
    ran = tmp_path / "ran"
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin" / "gs"
    program.write_text(f"#!/bin/sh\necho yes > {ran}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent), prepend=":")
    eps = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n"
    for name in ("x.png", "x.jpg", "x.tif", "x.bmp", "x.webp"):
        (tmp_path / name).write_bytes(eps)
        with pytest.raises(DataError, match="no PNG, JPEG, BMP, TIFF or WebP"):
            read(tmp_path / name)
    assert not ran.exists()
    others = {"GIF", "PPM", "TGA", "ICO", "PCX", "SGI"}
    for kind in (*FORMATS, *others):
        Image.new("RGB", (16, 16), (9, 9, 9)).save(tmp_path / "any.png", kind)
        if kind in FORMATS:
            assert read(tmp_path / "any.png").pixels.shape == (16, 16, 3)
        else:
            with pytest.raises(DataError, match="no PNG"):
                read(tmp_path / "any.png")


def test_large_images_are_refused_before_they_are_decoded(tmp_path: Path, toy_tree: Path) -> None:
    bomb = tmp_path / "bomb.png"
    Image.new("1", (20_000, 20_000)).save(bomb)
    with pytest.raises(ImageTooLargeError, match="20000 x 20000 pixels found, at most 100 million expected"):
        read(bomb)
    root = copied(toy_tree)
    with pytest.raises(DataError, match=r"64 x 64 pixels found, at most 0\.004 million .* data\.max_pixels"):
        split_of(MVTecData(kind="mvtec", root=str(root), max_pixels=4_000))
    assert len(split_of(MVTecData(kind="mvtec", root=str(root), max_pixels=4_096)).train) == 7


def test_a_datamodule_whose_normal_images_have_no_mask() -> None:
    root = Path("ad2").absolute()
    category = root / "can"
    for name in ("train/good", "validation/good", "test_public/good", "test_public/bad", "test_private",
                 "test_private_mixed", "test_public/ground_truth/bad"):  # fmt: skip
        (category / name).mkdir(parents=True)
        mask = "_mask" if "truth" in name else ""
        for number in range(3):
            value = np.full((32, 32, 3), 40 * number + 20) if not mask else np.eye(32) * 255
            save(category / name / f"{number:03}_regular{mask}.png", value)
    split = split_of(DatamoduleData(kind="MVTecAD2", root=str(root), category="can"))  # type: ignore[call-arg]
    assert {sample.label: bool(sample.masks) for sample in split.test} == {0: False, 1: True}


@pytest.mark.parametrize(
    ("kind", "category", "masks"),
    [
        ("mvtec_loco", "pushpins", {"good": [0, 0], "logical_anomalies": [1, 2], "structural_anomalies": [1, 2]}),
        ("real_iad", "audiojack", {"good": [0, 0], "HS": [1] * 6}),
    ],
)
def test_a_datamodule_gives_all_masks_and_types(kind: str, category: str, masks: dict[str, list[int]]) -> None:
    root = write_tree(kind, Path("root").absolute())
    (name,) = registry.load(registry.DATASETS[kind]).datamodules
    split = split_of(DatamoduleData(kind=name, root=str(root), category=category))  # type: ignore[call-arg]
    numbers: dict[str, list[int]] = {}
    for sample in split.test:
        numbers.setdefault(sample.defect, []).append(len(sample.masks))
        assert all(Path(file).is_file() for file in sample.masks)
    assert {defect: sorted(counts) for defect, counts in numbers.items()} == masks


def test_paths_as_people_write_them(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("PARTS", "/data/parts")
    text = """
    data: {kind: mvtec, root: $PARTS/a}
    output: ~/out
    cache: ~/cache
    weights: ${oc.env:PARTS}/w.pth
    grid: {model: padim}
    """
    config = load_config(write_config(Path("c.yaml"), text))
    assert config.output == f"{tmp_path}/out"
    assert config.cache == f"{tmp_path}/cache"
    assert config.weights == "/data/parts/w.pth"
    assert config.data.root == "/data/parts/a"  # type: ignore[attr-defined]
    Path("$odd").mkdir()
    assert expanded("$odd") == "$odd"
    refused = {"$NOWHERE/x": r"\$NOWHERE is not set", "~nobody-at-all/x": "no such home", "a\x00b": "UTF-8"}
    for wrong, message in refused.items():
        with pytest.raises(ConfigError, match=f"output: .*{message}"):
            load_config(write_config(Path("c.yaml"), text), [f'output="{wrong}"'.replace("\x00", "\\0")])


def test_names_of_files_in_any_script() -> None:
    stems = ["line_甲", "line_乙", "línea", "линия", "_draft", "a b", "a-b", "a+b", "a", ".x", "-x", "%", "&"]
    names = [name_of_file(Path(f"{stem}.yaml")) for stem in stems]
    assert len(set(names)) == len(stems)
    assert names[:5] == stems[:5]
    assert not [name for name in names if problem_of_name(name)]
    assert name_of_file(Path("_toy.yaml")) != "_toy"
    assert not problem_of_name(name_of_file(Path("x" * 250)))
    for wrong in ("_toy", "..", "a/b", "", ".a", "x" * 121):
        assert problem_of_name(wrong)


def test_two_configs_of_one_name_do_not_share_a_folder_by_accident(toy_tree: Path, cli: Cli, dummy: type) -> None:
    text = f"data: {{kind: mvtec, root: {toy_tree}}}\nweights: random\ngrid: {{backend: dummy, model: plain}}"
    files = [Path(folder) / "line.yaml" for folder in ("one", "other")]
    for file in files:
        file.parent.mkdir()
        write_config(file, text)
    assert cli("sweep", files[0]).exit_code == 0
    assert cli("sweep", files[0]).exit_code == 0
    refused = cli("sweep", files[1])
    assert refused.exit_code == 2
    assert f"results/line has the results of {files[0].absolute()}" in refused.output.replace("\n", " ")
    assert cli("sweep", files[1], "name=line").exit_code == 0
    # A file that was moved goes on with its own results.
    files[1].unlink()
    moved = shutil.move(files[0], "line.yaml")
    assert cli("sweep", moved).exit_code == 0


def test_what_comes_from_the_environment_is_concealed(
    toy_tree: Path, cli: Cli, dummy: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(PARAMETERS, "mean", {**PARAMETERS["mean"], "flavour": ""})
    secret = "s3cret-t0ken-of-mine"
    root = Path(secret).absolute() / "parts"
    shutil.copytree(toy_tree / "plate", root)
    monkeypatch.setenv("PARTS", str(root))
    monkeypatch.setenv("TOKEN", f"{secret}!")
    monkeypatch.setenv("WHERE", "cpu")
    text = """
    data: {kind: mvtec, root: "${oc.env:PARTS}"}
    weights: random
    device: ${oc.env:WHERE}
    trainer: {max_epochs: 1}
    grid:
      - {backend: dummy, model: mean, flavour: ["${oc.env:TOKEN}", plain]}
      - {backend: dummy, model: mean, fail: true, flavour: "${oc.env:TOKEN}"}
    """
    config = load_config(write_config(Path("c.yaml"), text))
    assert "${oc.env:TOKEN}" in as_yaml(config)
    assert "device: ${oc.env:WHERE}" in as_yaml(config)
    again = load_config(write_config(Path("again.yaml"), as_yaml(config)), ["name=c"])
    assert again.model_dump() == config.model_dump()
    result = cli("sweep", "c.yaml")
    assert result.exit_code == 1, result.output
    report = cli("report", "results/c")
    folder = ResultFolder(Path("results/c"))
    book = load_workbook(folder.workbook)
    cells = [str(cell.value) for sheet in book for row in sheet.iter_rows() for cell in row]
    scripts = [file.read_text() for file in (folder.root / "report/runs").glob("*.js")]
    for shown in (folder.config.read_text(), folder.report.read_text(), result.output, report.output, *cells, *scripts):
        assert secret not in shown
    assert any("${oc.env:PARTS}" in cell for cell in cells)
    # Who needs the values has them.
    assert any(record.data["root"] == str(root) for record in folder.records())


def test_a_problem_names_its_entry_and_model(cli: Cli) -> None:
    text = """
    data: {kind: toy, category: plate, size: 64, train: 6, good: 2, bad: 1}
    weights: random
    grid:
      - {backend: native, model: patchcore, backbone: resnet18, layers: [layer2], image_size: 64}
      - {backend: native, model: [padim, spade], backbone: resnet18, layers: [layer9], image_size: 64}
      - {backend: native, model: padim, backbone: resnet18, layers: [layer1], n_features: 1000, image_size: 64}
      - {backend: native, model: padim, backbone: resnet19, image_size: 64}
    """
    output = cli("plan", write_config(Path("c.yaml"), text)).output
    assert "grid[1]: padim, grid[1]: spade: backbone resnet18 has no layer 'layer9'" in output
    assert "grid[2]: padim: n_features: found 1000" in output
    assert "grid[3]: padim: unknown backbone 'resnet19'. Did you mean 'resnet18'" in output
    assert "patchcore" not in output
    both = "grid: [{backend: native, model: [padim, spade], layers: [1, 1]}]"
    typed = text.split("grid:", maxsplit=1)[0] + both
    assert "(model spade)" in cli("plan", write_config(Path("d.yaml"), typed)).output


@pytest.mark.slow
def test_an_encoding_that_lacks_letters_stops_nothing(toy_tree: Path) -> None:
    shutil.copytree(toy_tree / "plate", "data/零件")
    text = "data: {kind: mvtec, root: data}\nweights: random\ngrid: {model: padim, layers: [layer1]}"
    write_config(Path("c.yaml"), text)
    for encoding in ("cp1252", "ascii"):
        process = subprocess.run(
            [sys.executable, "-m", "harness", "plan", "c.yaml", "--no-check"],
            env={**os.environ, "PYTHONIOENCODING": encoding},
            capture_output=True,
            check=False,
        )
        assert process.returncode == 0, process.stderr
        assert b"1 run" in process.stdout


@pytest.mark.parametrize(
    "form",
    ["${oc.env:SEC}", "${ oc.env:SEC}", "${oc.env:'SEC'}", "${oc.env:${oc.env:WHICH}}", "${oc.env:NOPE,${oc.env:SEC}}"],
)
def test_a_reference_is_concealed_however_it_is_spelt(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEC", "a-secret'\\folder")
    monkeypatch.setenv("WHICH", "SEC")
    text = f'data: {{kind: mvtec, root: "{form}"}}\ngrid: {{model: padim}}'
    config = load_config(write_config(Path("c.yaml"), text))
    assert config.data.root == "a-secret'\\folder"  # type: ignore[attr-defined]
    assert "secret" not in as_yaml(config)
    assert "${oc.env:SEC}" in as_yaml(config)


def test_images_that_end_as_masks_do_stay_images(tmp_path: Path) -> None:
    images, masks = tmp_path / "images", tmp_path / "masks"
    for folder in (images, masks):
        folder.mkdir()
        for name in ("0.png", "0_gt.png", "1.png", "1_label.png"):
            suffix = "" if folder == images or "0" in name else "_mask"
            save(folder / name.replace(".png", f"{suffix}.png"), np.zeros((4, 4)))
    matches = match_masks(sorted(images.iterdir()), images, masks)
    assert {image.name: mask.name for image, (mask,) in matches.items()} == {
        "0.png": "0.png",
        "0_gt.png": "0_gt.png",
        "1.png": "1_mask.png",
        "1_label.png": "1_label_mask.png",
    }


def test_folders_with_odd_names_are_taken_as_they_are(toy_tree: Path) -> None:
    root = copied(toy_tree)
    shutil.move(root / "train/good", root / "a$good")
    shutil.move(root / "test/good", root / "~good")
    options = FolderData(
        kind="folder", root=str(root), normal_dir="a$good", normal_test_dir="~good", abnormal_dir="test/dent"
    )
    assert len(split_of(options).test) == 6


def test_a_defect_by_the_name_of_normal_parts_with_masks_is_refused(toy_tree: Path) -> None:
    root = copied(toy_tree)
    for folder in ("test", "ground_truth"):
        shutil.move(root / folder / "dent", root / folder / "OK")
    with pytest.raises(DataError, match="a folder of normal images, by its name, has masks"):
        split_of(MVTecData(kind="mvtec", root=str(root)))
