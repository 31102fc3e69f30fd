"""Tiny synthetic data of every kind, with the file names and the quirks of the public data sets."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

SIZE = 48
SQUARE = (slice(12, 28), slice(16, 32))


def image(path: Path, number: int, defect: bool = False, grey: bool = False) -> None:
    """Write an image with noise, and with a bright square if it has a defect. The name gives the format."""
    rng = np.random.default_rng([number, defect])
    pixels = rng.normal(110, 6, (SIZE, SIZE, 3))
    if defect:
        pixels[SQUARE] += 90
    picture = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
    path.parent.mkdir(parents=True, exist_ok=True)
    (picture.convert("L") if grey else picture).save(path)


def mask(path: Path, value: int = 255, part: slice = slice(None), empty: bool = False) -> None:
    """Write a mask of the square, or of some of its rows."""
    pixels = np.zeros((SIZE, SIZE), np.uint8)
    if not empty:
        rows = range(*SQUARE[0].indices(SIZE))[part]
        pixels[rows.start : rows.stop, SQUARE[1]] = value
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def mvtec_ad(root: Path) -> None:
    for category in ("bottle", "zipper"):
        base = root / category
        for number in range(4):
            image(base / f"train/good/{number:03}.png", number)
        for number in range(2):
            image(base / f"test/good/{number:03}.png", 10 + number)
            image(base / f"test/broken_large/{number:03}.png", 20 + number, defect=True)
            mask(base / f"ground_truth/broken_large/{number:03}_mask.png")


def mpdd(root: Path) -> None:
    """MPDD (Jezek et al., 2021): as MVTec AD, with several types of defects in one category."""
    base = root / "connector"
    for number in range(4):
        image(base / f"train/good/{number:03}.png", number)
    for number in range(2):
        image(base / f"test/good/{number:03}.png", 10 + number)
        for place, name in enumerate(("hole", "parts_mismatch")):
            image(base / f"test/{name}/{number:03}.png", 20 + 10 * place + number, defect=True)
            mask(base / f"ground_truth/{name}/{number:03}_mask.png")


def vad(root: Path) -> None:
    """VAD (Baitieva et al., CVPR Workshops 2024): no masks, and defects among the training images too."""
    for number in range(4):
        image(root / f"train/good/{number}.png", number)
    for number in range(2):
        image(root / f"train/bad/{number}.png", 30 + number, defect=True)
        image(root / f"test/good/{number}.png", 10 + number)
        image(root / f"test/bad/{number}.png", 20 + number, defect=True)


def btad(root: Path) -> None:
    for category, suffix in (("01", "bmp"), ("02", "png")):
        base = root / category
        for number in range(4):
            image(base / f"train/ok/{number:04}.{suffix}", number)
        for number in range(2):
            image(base / f"test/ok/{number:04}.{suffix}", 10 + number)
            image(base / f"test/ko/{number:04}.{suffix}", 20 + number, defect=True)
            mask(base / f"ground_truth/ko/{number:04}.png")


def autovi(root: Path) -> None:
    base = root / "engine_wiring"
    for number in range(4):
        image(base / f"train/good/{number:04}.png", number)
    for number in range(2):
        image(base / f"test/good/{number:04}.png", 10 + number)
        image(base / f"test/obstruction/{number:04}.png", 20 + number, defect=True)
        mask(base / f"ground_truth/obstruction/{number:04}/0000.png", 254)
    defects(base, {254: (0.5, True)})


def defects(base: Path, saturation: dict[int, tuple[float, bool]]) -> None:
    """Write defects_config.json: (threshold, whether it is relative) by pixel value."""
    entries = [
        {
            "defect_name": f"d{value}",
            "pixel_value": value,
            "saturation_threshold": size,
            "relative_saturation": relative,
        }
        for value, (size, relative) in saturation.items()
    ]
    (base / "defects_config.json").write_text(json.dumps(entries))


def mvtec_loco(root: Path) -> None:
    base = root / "pushpins"
    for number in range(4):
        image(base / f"train/good/{number:03}.png", number)
    for number in range(3):
        image(base / f"validation/good/{number:03}.png", 5 + number)
    for number in range(2):
        image(base / f"test/good/{number:03}.png", 10 + number)
        for place, name in enumerate(("logical_anomalies", "structural_anomalies")):
            image(base / f"test/{name}/{number:03}.png", 20 + 10 * place + number, defect=True)
            mask(base / f"ground_truth/{name}/{number:03}/000.png", 255 - place, slice(0, 8))
            if number:
                mask(base / f"ground_truth/{name}/{number:03}/001.png", 255 - place, slice(8, None))
    defects(base, {255: (40, False), 254: (1.0, True)})


def mvtec_ad2(root: Path) -> None:
    base = root / "can"
    for number in range(4):
        image(base / f"train/good/{number:03}_regular.png", number, grey=True)
    for number in range(3):
        image(base / f"validation/good/{number:03}_regular.png", 5 + number, grey=True)
    for number in range(2):
        image(base / f"test_public/good/{number:03}_regular.png", 10 + number, grey=True)
        image(base / f"test_public/bad/{number:03}_overexposed.png", 20 + number, defect=True, grey=True)
        mask(base / f"test_public/ground_truth/bad/{number:03}_overexposed_mask.png")
        image(base / f"test_private/{number:03}_regular.png", 30 + number, defect=bool(number), grey=True)
        image(base / f"test_private_mixed/{number:03}_mixed.png", 40 + number, defect=bool(number), grey=True)


def visa(root: Path) -> None:
    rows = ["object,split,label,image,mask"]
    images, masks = root / "candle/Data/Images", root / "candle/Data/Masks/Anomaly"
    for number in range(6):
        image(images / f"Normal/{number:04}.JPG", number)
        rows.append(f"candle,{'train' if number < 4 else 'test'},normal,candle/Data/Images/Normal/{number:04}.JPG,")
    for number in range(2):
        image(images / f"Anomaly/{number:03}.JPG", 20 + number, defect=True)
        # The values of these masks are numbers of defects.
        mask(masks / f"{number:03}.png", value=number + 1)
        place = f"candle/Data/Images/Anomaly/{number:03}.JPG,candle/Data/Masks/Anomaly/{number:03}.png"
        rows.append(f"candle,test,anomaly,{place}")
    (root / "split_csv").mkdir()
    (root / "split_csv/1cls.csv").write_text("\n".join(rows) + "\n")


def visa_prepared(root: Path) -> None:
    base = root / "visa_pytorch/candle"
    for number in range(4):
        image(base / f"train/good/{number:04}.JPG", number)
    for number in range(2):
        image(base / f"test/good/{number:04}.JPG", 10 + number)
        image(base / f"test/bad/{number:03}.JPG", 20 + number, defect=True)
        mask(base / f"ground_truth/bad/{number:03}.png")


def real_iad(root: Path) -> None:
    base = root / "realiad_256/audiojack"
    train: list[dict[str, str | None]] = []
    test: list[dict[str, str | None]] = []
    for part in range(1, 4):
        for view in (1, 2):
            name = f"S{part:04}/audiojack_{part:04}_OK_C{view}_20230921103000"
            image(base / f"OK/{name}.jpg", 10 * part + view)
            entry = {"category": "audiojack", "anomaly_class": "OK", "image_path": f"OK/{name}.jpg", "mask_path": None}
            (train if part < 3 else test).append(entry)
            name = f"S{part:04}/audiojack_{part:04}_NG_HS_C{view}_20230921103000"
            image(base / f"NG/HS/{name}.jpg", 50 + 10 * part + view, defect=True)
            mask(base / f"NG/HS/{name}.png")
            places = {"image_path": f"NG/HS/{name}.jpg", "mask_path": f"NG/HS/{name}.png"}
            test.append({"category": "audiojack", "anomaly_class": "HS", **places})
    meta = {"normal_class": "OK", "prefix": "audiojack/"}
    (root / "realiad_jsons/realiad_jsons").mkdir(parents=True)
    content = json.dumps({"meta": meta, "train": train, "test": test})
    (root / "realiad_jsons/realiad_jsons/audiojack.json").write_text(content)


def kolektor_sdd(root: Path) -> None:
    for part in range(1, 6):
        for number in range(3):
            name = f"kos{part:02}/Part{number}"
            defect = part < 3 and number == 1
            image(root / f"{name}.jpg", 10 * part + number, defect, grey=True)
            mask(root / f"{name}_label.bmp", empty=not defect)


def kolektor_sdd2(root: Path) -> None:
    for number in range(10000, 10006):
        image(root / f"train/{number}.png", number, defect=number == 10005)
        mask(root / f"train/{number}_GT.png", empty=number != 10005)
    # The archive holds copies of a few files.
    image(root / "train/10001 (copy).png", 10001)
    mask(root / "train/10001_GT (copy).png", empty=True)
    for number in range(20000, 20004):
        image(root / f"test/{number}.png", number, defect=number > 20001)
        mask(root / f"test/{number}_GT.png", empty=number <= 20001)


def dagm(root: Path) -> None:
    for category in ("Class1", "Class2"):
        for part, first in (("Train", 576), ("Test", 1)):
            folder = root / category / part
            for number in range(first, first + 6):
                defect = number > first + 3
                image(folder / f"{number:04}.PNG", number, defect, grey=True)
                if defect:
                    mask(folder / f"Label/{number:04}_label.PNG")
            (folder / "Label/Labels.txt").write_text("1\n")


def magnetic_tiles(root: Path) -> None:
    for number in range(5):
        name = root / f"MT_Free/Imgs/exp1_num_{number}"
        image(name.with_suffix(".jpg"), number, grey=True)
        mask(name.with_suffix(".png"), empty=True)
    for number in range(2):
        name = root / f"MT_Blowhole/Imgs/exp2_num_{number}"
        image(name.with_suffix(".jpg"), 20 + number, defect=True, grey=True)
        mask(name.with_suffix(".png"))


def folders(root: Path) -> None:
    for number in range(5):
        image(root / f"good/{number}.png", number)
    for number in range(2):
        image(root / f"bent/{number}.png", 20 + number, defect=True)
        mask(root / f"bent_masks/{number}.png")


# Name -> (kind that the harness must find, function that writes the data into a new folder).
TREES: dict[str, tuple[str, Callable[[Path], None]]] = {
    "mvtec_ad": ("mvtec", mvtec_ad),
    "mpdd": ("mvtec", mpdd),
    "vad": ("mvtec", vad),
    "btad": ("mvtec", btad),
    "autovi": ("mvtec", autovi),
    "mvtec_loco": ("mvtec_loco", mvtec_loco),
    "mvtec_ad2": ("mvtec_ad2", mvtec_ad2),
    "visa": ("visa", visa),
    "visa_prepared": ("visa", visa_prepared),
    "real_iad": ("real_iad", real_iad),
    "kolektor_sdd": ("kolektor", kolektor_sdd),
    "kolektor_sdd2": ("kolektor", kolektor_sdd2),
    "dagm": ("dagm", dagm),
    "magnetic_tiles": ("magnetic_tiles", magnetic_tiles),
    "folders": ("folder", folders),
}
WITHOUT_MASKS = {"vad"}


def write_tree(name: str, root: Path) -> Path:
    """Write the data of one name of `TREES` into a new folder."""
    root.mkdir(parents=True)
    TREES[name][1](root)
    return root
