"""Every kind of file a camera or an editor writes comes out as upright 8-bit RGB."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from harness.errors import DataError
from harness.images import probe, read_image, read_mask, resize_nearest


def test_16_bit_grey_is_scaled_not_clipped(tmp_path: Path) -> None:
    values = np.array([[0, 32768, 65535]], dtype=np.uint16)
    for suffix in (".png", ".tif"):
        file = tmp_path / f"a{suffix}"
        Image.fromarray(values).save(file)
        assert read_image(file)[0, :, 0].tolist() == [0, 128, 255]


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK", "1", "RGB"])
def test_modes_become_rgb(tmp_path: Path, mode: str) -> None:
    file = tmp_path / ("a.jpg" if mode == "CMYK" else "a.png")
    Image.new("RGB", (6, 4), (255, 255, 255)).convert(mode).save(file)
    image = read_image(file)
    assert image.shape == (4, 6, 3)
    assert image.dtype == np.uint8
    assert image.min() >= 250


def test_float_images(tmp_path: Path) -> None:
    Image.fromarray(np.array([[0.0, 1.0]], dtype=np.float32)).save(tmp_path / "a.tif")
    assert read_image(tmp_path / "a.tif")[0, :, 1].tolist() == [0, 255]
    Image.fromarray(np.array([[0.0, 7.0]], dtype=np.float32)).save(tmp_path / "b.tif")
    with pytest.raises(DataError, match="0 to 1 expected"):
        read_image(tmp_path / "b.tif")


def test_rotated_photos_are_turned_upright(tmp_path: Path) -> None:
    picture = Image.fromarray(np.arange(12, dtype=np.uint8).reshape(3, 4) * 20)
    exif = Image.Exif()
    exif[274] = 6  # orientation: rotate by 90 degrees
    picture.save(tmp_path / "a.png", exif=exif)
    assert probe(tmp_path / "a.png") == (4, 3)
    assert read_image(tmp_path / "a.png")[:, :, 0].tolist() == np.rot90(np.asarray(picture), -1).tolist()


def test_damaged_files_are_named(tmp_path: Path) -> None:
    Image.new("RGB", (64, 64), (9, 8, 7)).save(tmp_path / "a.png")
    whole = (tmp_path / "a.png").read_bytes()
    (tmp_path / "a.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"a\.png: can't be read as an image"):
        probe(tmp_path / "a.png")


def test_masks_are_what_is_not_zero(tmp_path: Path) -> None:
    Image.fromarray(np.array([[0, 1, 255]], dtype=np.uint8)).save(tmp_path / "m.png")
    assert read_mask(tmp_path / "m.png").tolist() == [[False, True, True]]


def test_masks_are_resized_like_torch_does(tmp_path: Path) -> None:
    import torch

    mask = np.random.default_rng(0).random((37, 53)) > 0.5
    for size in ((16, 16), (37, 53), (64, 100)):
        theirs = torch.nn.functional.interpolate(torch.from_numpy(mask)[None, None].float(), size, mode="nearest")
        assert np.array_equal(resize_nearest(mask, size), theirs[0, 0].numpy() > 0)
