"""Every kind of file a camera or an editor writes comes out as upright 8-bit RGB."""

from __future__ import annotations

import os
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from harness.common.errors import DataError
from harness.data.images import from_array, from_pil, probe, read, read_image
from harness.data.mask_images import read_mask, resize_nearest, resized_mask


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


def test_what_was_done_to_an_image_is_said(tmp_path: Path) -> None:
    grey16 = np.array([[0, 4096, 65535]], dtype=np.uint16)
    colour = Image.fromarray(np.arange(36, dtype=np.uint8).reshape(3, 4, 3))
    exif = Image.Exif()
    exif[274] = 3
    colour.save(tmp_path / "plain.png")
    Image.fromarray(grey16).save(tmp_path / "grey16.png")
    cv2.imwrite(str(tmp_path / "colour16.png"), np.full((2, 3, 3), 0x1234, dtype=np.uint16))
    cv2.imwrite(str(tmp_path / "colour16.tif"), np.full((2, 3, 3), 0x1234, dtype=np.uint16))
    colour.convert("L").save(tmp_path / "grey.png")
    colour.convert("LA").save(tmp_path / "grey_alpha.png")
    colour.convert("RGBA").save(tmp_path / "alpha.png")
    colour.convert("P").save(tmp_path / "palette.png")
    colour.convert("CMYK").save(tmp_path / "cmyk.jpg")
    colour.convert("1").save(tmp_path / "bilevel.png")
    colour.save(tmp_path / "turned.png", exif=exif)
    colour.save(tmp_path / "pages.tif", save_all=True, append_images=[colour, colour])
    notes = {file.name: read(file).notes for file in tmp_path.iterdir()}
    assert notes == {
        "plain.png": (),
        "grey16.png": ("16-bit grey scaled to 8 bits",),
        "colour16.png": ("upper 8 of 16 bits",),
        "colour16.tif": ("upper 8 of 16 bits",),
        "grey.png": ("grey repeated",),
        "grey_alpha.png": ("grey repeated", "transparency ignored"),
        "alpha.png": ("transparency ignored",),
        "palette.png": ("palette converted",),
        "cmyk.jpg": ("CMYK converted",),
        "bilevel.png": ("black and white repeated",),
        "turned.png": ("turned upright",),
        "pages.tif": ("page 1 of 3",),
    }
    assert (read_image(tmp_path / "colour16.png") == 0x12).all()
    assert np.array_equal(read_image(tmp_path / "alpha.png"), np.asarray(colour))
    assert np.array_equal(read_image(tmp_path / "turned.png"), np.asarray(colour)[::-1, ::-1])
    assert np.array_equal(read_image(tmp_path / "pages.tif"), np.asarray(colour))


def test_images_in_memory_are_read_like_files(tmp_path: Path) -> None:
    values = np.array([[0, 32768, 65535]], dtype=np.uint16)
    assert from_pil(Image.fromarray(values)).pixels[0, :, 0].tolist() == [0, 128, 255]
    assert from_array(values).pixels[0, :, 0].tolist() == [0, 128, 255]
    Image.effect_noise((64, 64), 50).save(tmp_path / "a.png")
    whole = (tmp_path / "a.png").read_bytes()
    (tmp_path / "a.png").write_bytes(whole[: len(whole) // 2])
    with Image.open(tmp_path / "a.png") as half, pytest.raises(DataError, match="can't be decoded"):
        from_pil(half)


@pytest.mark.parametrize(
    ("content", "reason"),
    [(b"", "the file is empty"), (b"hello", "no PNG, JPEG, BMP, TIFF or WebP"), (None, "No such file")],
)
def test_why_a_file_is_no_image(tmp_path: Path, content: bytes | None, reason: str) -> None:
    if content is not None:
        (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(DataError, match=rf"a\.png: can't be read as an image \({reason}"):
        read(tmp_path / "a.png")


def test_a_resized_mask_follows_its_file(tmp_path: Path) -> None:
    values = np.arange(35, dtype=np.uint8).reshape(5, 7) % 3
    Image.fromarray(values).save(tmp_path / "m.png")
    for size in ((5, 7), (3, 4), (11, 9)):
        assert np.array_equal(read_mask(tmp_path / "m.png", size), resize_nearest(values > 0, size))
    assert resized_mask(tmp_path / "m.png", (3, 4)) is resized_mask(tmp_path / "m.png", (3, 4))
    mask = resized_mask(tmp_path / "m.png", (3, 4))
    assert (mask.area, mask.pixels_of_file, mask.value) == ((values > 0).sum(), 35, 0)
    Image.fromarray((values > 1).astype(np.uint8) * np.uint8(9)).save(tmp_path / "m.png")
    os.utime(tmp_path / "m.png", ns=(1, 1))
    assert resized_mask(tmp_path / "m.png", (3, 4)).value == 9
    assert np.array_equal(read_mask(tmp_path / "m.png", (3, 4)), resize_nearest(values > 1, (3, 4)))
    (tmp_path / "m.png").unlink()
    with pytest.raises(DataError, match=r"m\.png"):
        read_mask(tmp_path / "m.png", (3, 4))
