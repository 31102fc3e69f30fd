"""Synthetic defects on held-out images: the same ones each time, for every kind of image, and never half of them."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from harness.common.errors import DataError
from harness.data.images import MAX_PIXELS, read_image
from harness.data.index import FileIndex
from harness.data.mvtec import MVTecData
from harness.data.samples import Sample, Split
from harness.data.split import load_splits
from harness.data.synthetic import BACKGROUNDS, ENOUGH, HASHES, KINDS, LEAST, VISIBLE, background, with_synthetic
from harness.execution.jobs import timed_images


def held_out(root: Path, val: float = 0.25) -> Split:
    options = MVTecData.model_validate({"kind": "mvtec", "root": str(root), "val": val})
    (split,) = load_splits(options, Path("work"), FileIndex(Path("index.json")))
    return split


def drawn(split: Split, max_pixels: int = MAX_PIXELS) -> list[Sample]:
    """The synthetic samples, with an index of their own as a new process has it."""
    extended = with_synthetic(split, Path("work"), FileIndex(Path("none.json")), max_pixels)
    assert extended.real_test == split.test
    assert (extended.fingerprint, extended.test_fingerprint) == (split.fingerprint, split.test_fingerprint)
    return [sample for sample in extended.test if sample.synthetic]


def contents(samples: list[Sample]) -> dict[str, bytes]:
    return {sample.name: Path(sample.path).read_bytes() for sample in samples}


def write_images(root: Path, pixels: Callable[[int], Image.Image], train: int = 4, suffix: str = "png") -> Path:
    for role, count in (("train/good", train), ("test/good", 1)):
        (root / role).mkdir(parents=True)
        for i in range(count):
            pixels(i + 100 * role.startswith("test")).save(root / role / f"{i:03}.{suffix}")
    return root


def test_each_kind_lies_visibly_on_each_held_out_image(toy_tree: Path) -> None:
    split = held_out(toy_tree / "plate")
    samples = drawn(split)
    assert len(split.val) == 2
    assert len(samples) >= LEAST
    assert {*Counter((s.defect, background(s.name)) for s in samples).values()} == {LEAST // (2 * len(KINDS))}
    for sample in samples:
        normal = read_image(split.val[background(sample.name)].path).astype(int)
        difference = np.abs(read_image(sample.path) - normal).max(axis=2)
        assert difference.max() >= VISIBLE
        assert (difference > 0).mean() < 0.2
        assert (sample.label, sample.masks) == (1, ())


def test_single_images_are_timed_on_real_ones(toy_tree: Path) -> None:
    split = held_out(toy_tree / "plate")
    extended = with_synthetic(split, Path("work"), FileIndex(Path("none.json")), MAX_PIXELS)
    assert timed_images(extended) == timed_images(split)


def test_many_held_out_images_share_few_defects_evenly(tmp_path: Path) -> None:
    root = write_images(tmp_path / "many", lambda i: Image.new("RGB", (32, 32), (i, 90, 60)), train=60)
    samples = drawn(held_out(root, val=0.5))
    numbers = sorted({background(s.name) for s in samples})
    assert (len(samples), len(numbers)) == (3 * BACKGROUNDS, BACKGROUNDS)
    assert (numbers[0], numbers[-1]) == (0, 29)


def test_few_held_out_images_are_told(toy_tree: Path) -> None:
    split = held_out(toy_tree / "plate")
    extended = with_synthetic(split, Path("work"), FileIndex(Path("none.json")), MAX_PIXELS)
    assert extended.notes[-1].startswith(f"Synthetic defects lie on 2 held-out images; at least {ENOUGH} expected.")
    root = write_images(Path("enough"), lambda i: Image.new("RGB", (16, 16), (i, i, 99)), train=2 * ENOUGH)
    enough = held_out(root, val=0.5)
    assert with_synthetic(enough, Path("work"), FileIndex(Path("none.json")), MAX_PIXELS).notes == enough.notes


def test_the_same_images_each_time_and_others_for_other_held_out_images(toy_tree: Path) -> None:
    split = held_out(toy_tree / "plate")
    first = contents(drawn(split))
    shutil.rmtree("work")
    assert contents(drawn(split)) == first
    other = drawn(held_out(toy_tree / "plate", val=0.5))
    assert {s.path for s in other}.isdisjoint({s.path for s in drawn(split)})


def truncate(folder: Path) -> None:
    file = folder / "perlin" / "00000-0.png"
    file.write_bytes(file.read_bytes()[:100])


def change(folder: Path) -> None:
    Image.new("RGB", (64, 64)).save(folder / "scratch" / "00001-0.png")


BROKEN = {
    "half": lambda folder: shutil.rmtree(folder / "scratch"),
    "empty": lambda folder: [shutil.rmtree(folder), folder.mkdir()],
    "a file": lambda folder: (folder / "perlin" / "00000-0.png").write_text("no image"),
    "truncated": truncate,
    "changed": change,
    "no hashes": lambda folder: (folder / HASHES).unlink(),
    "damaged hashes": lambda folder: (folder / HASHES).write_text("["),
    "other hashes": lambda folder: (folder / HASHES).write_text("3"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_cache_is_made_again(toy_tree: Path, name: str) -> None:
    split = held_out(toy_tree / "plate")
    samples = drawn(split)
    before = contents(samples)
    BROKEN[name](Path(samples[0].path).parent.parent)
    assert contents(drawn(split)) == before
    assert [path.name for path in Path("work/_synthetic").iterdir()] == [Path(samples[0].path).parent.parent.name]


def test_a_stopped_call_leaves_nothing_half(toy_tree: Path, tmp_path: Path) -> None:
    split = held_out(Path(shutil.copytree(toy_tree / "plate", tmp_path / "plate")))
    last = Path(split.val[-1].path)
    content = last.read_bytes()
    last.unlink()
    with pytest.raises(DataError, match="can't be read as an image"):
        drawn(split)
    assert [*Path("work/_synthetic").iterdir()] == []
    last.write_bytes(content)
    assert len(drawn(split)) == LEAST


def test_where_images_can_not_be_written_that_is_told(toy_tree: Path) -> None:
    split = held_out(toy_tree / "plate")
    Path("work").write_text("a file")
    with pytest.raises(DataError, match="work/_synthetic: can't write images there"):
        drawn(split)


def grey_16_bits(i: int) -> Image.Image:
    values = np.random.default_rng(i).integers(20_000, 40_000, (48, 40)).astype(np.uint16)
    return Image.fromarray(values)


def noise(shape: tuple[int, ...]) -> Callable[[int], Image.Image]:
    return lambda i: Image.fromarray(np.random.default_rng(i).integers(0, 255, shape).astype(np.uint8))


IMAGES = {
    "16 pixels": noise((16, 16, 3)),
    "one pixel": noise((1, 1, 3)),
    "wide": noise((16, 900, 3)),
    "high": noise((900, 16, 3)),
    "grey": noise((40, 40)),
    "16 bits": grey_16_bits,
    "empty background": lambda i: Image.new("RGB", (40, 40), (255, 255, 255)),
    "black": lambda i: Image.new("L", (40, 40), 0),
    "transparent": noise((40, 40, 4)),
}


@pytest.mark.parametrize("name", IMAGES)
def test_every_kind_of_image_gets_defects(name: str) -> None:
    split = held_out(write_images(Path("images"), IMAGES[name]))
    visible = 0
    for sample in drawn(split):
        normal, pixels = read_image(split.val[background(sample.name)].path), read_image(sample.path)
        assert pixels.shape == normal.shape
        if (normal == normal[..., :1]).all():
            assert (pixels == pixels[..., :1]).all(), "a coloured defect on a grey image"
        visible += int(np.abs(pixels.astype(int) - normal).max() >= VISIBLE)
    # Where all pixels are equal, a patch of them shows nowhere; the scratches do.
    assert visible >= LEAST // len(KINDS) - 2 if name in {"empty background", "black"} else visible == LEAST


def test_a_large_image_keeps_the_limit_of_the_config() -> None:
    split = held_out(write_images(Path("images"), noise((40, 40, 3))))
    assert len(drawn(split, max_pixels=1600)) == LEAST
    with pytest.raises(DataError, match=r"40 x 40 pixels found"):
        drawn(split, max_pixels=1599)
