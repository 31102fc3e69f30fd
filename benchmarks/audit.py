"""The audit: planted copies and defects that it finds, false findings, and its time.

The images are hazelnuts. A copy is the same bytes, another encoding, another size, or a box of the image. For the time,
10,000 images are mixtures of two turned hazelnuts, so that all are different. Defects are planted two at a time among
the normal training images, and each must be among the 5% with the highest scores.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from benchmarks.inputs import HAZELNUT, require
from harness.audit.copies import copy_findings
from harness.audit.images import TRAIN, AuditImage, of_folder
from harness.audit.scan import scan
from harness.audit.unusual import Model, score
from harness.data.images import RGB, read_image

Change = Callable[[RGB, Path, np.random.Generator], None]
SIZE = 256


def measure(quick: bool) -> dict[str, Any]:
    """Copies, defects and times."""
    require()
    images = of_folder(HAZELNUT).images
    with tempfile.TemporaryDirectory() as folder:
        copies = [_copies(images, name, target, change, Path(folder)) for name, target, change in _changes()]
    with tempfile.TemporaryDirectory() as folder:
        mixtures = _mixtures(images, 200 if quick else 10_000, Path(folder))
        large = _large(mixtures, Path(folder))
        scores = _scores(mixtures[: 50 if quick else 1000])
    return {"copies": copies, "defects": _defects(images, quick), "large": large, "scores": scores}


def _changes() -> list[tuple[str, str, Change]]:
    return [
        ("the same bytes", "100%", lambda pixels, file, rng: _jpeg(pixels, file, 0)),
        ("JPEG, quality 50", "95%", lambda pixels, file, rng: _jpeg(pixels, file, 50)),
        ("JPEG, quality 30", "95%", lambda pixels, file, rng: _jpeg(pixels, file, 30)),
        ("half the size", "95%", lambda pixels, file, rng: _resized(pixels, file, 0.5)),
        ("1.5 times the size, JPEG, quality 60", "95%", lambda pixels, file, rng: _resized(pixels, file, 1.5)),
        ("up to 2% cut at each side, JPEG 60", "no goal", lambda pixels, file, rng: _cut(pixels, file, rng, 0.02)),
        ("up to 5% cut at each side, JPEG 60", "no goal", lambda pixels, file, rng: _cut(pixels, file, rng, 0.05)),
    ]  # fmt: skip


def _jpeg(pixels: RGB, file: Path, quality: int) -> None:
    if quality:
        cv2.imwrite(f"{file}.jpg", pixels[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])


def _resized(pixels: RGB, file: Path, factor: float) -> None:
    method = cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC
    resized = np.asarray(cv2.resize(pixels, None, fx=factor, fy=factor, interpolation=method), dtype=np.uint8)
    _jpeg(resized, file, 60 if factor > 1 else 95)


def _cut(pixels: RGB, file: Path, rng: np.random.Generator, share: float) -> None:
    left, right, top, bottom = (rng.uniform(0, share, 4) * SIZE).round().astype(int)
    _jpeg(pixels[top : SIZE - bottom, left : SIZE - right], file, 60)


def _copies(images: Sequence[AuditImage], name: str, target: str, change: Change, folder: Path) -> dict[str, Any]:
    """Recall and false pairs with a copy of every second image in the other role."""
    rng = np.random.default_rng(0)
    planted = {}
    for number, image in enumerate(images[::2]):
        file = folder / f"{abs(hash(name))}-{number}"
        change(read_image(image.path), file, rng)
        path = file.with_suffix(".jpg")
        if not path.exists():
            path.write_bytes(Path(image.path).read_bytes())
        planted[image.name] = replace(image, path=str(path), name=path.name, role="test", masks=())
    recall, false = _recall_and_false([*images, *planted.values()], {(one, copy.name) for one, copy in planted.items()})
    return {"planted": name, "images": len(images) + len(planted), "recall": recall, "false": false, "wanted": target}


def _recall_and_false(images: Sequence[AuditImage], truth: set[tuple[str, str]]) -> tuple[float, float]:
    scans, _ = scan(images)
    pairs = {frozenset((finding.image.name, finding.other.name)) for finding in copy_findings(scans) if finding.other}
    true_pairs = {frozenset(pair) for pair in truth}
    return len(pairs & true_pairs) / len(true_pairs), len(pairs - true_pairs) / len(images)


def _mixtures(images: Sequence[AuditImage], number: int, folder: Path) -> list[AuditImage]:
    """Training images of two turned hazelnuts each."""
    rng = np.random.default_rng(0)
    sources = [read_image(image.path) for image in images]
    mixed = []
    for index in range(number):
        turned = []
        for source in rng.choice(len(sources), 2, replace=False):
            turn = cv2.getRotationMatrix2D((SIZE / 2, SIZE / 2), rng.uniform(0, 360), 1)
            turned.append(
                cv2.warpAffine(sources[source], turn, (SIZE, SIZE), borderMode=cv2.BORDER_REFLECT).astype(np.float32)
            )
        path = folder / f"{index:05}.png"
        cv2.imwrite(str(path), (turned[0] / 2 + turned[1] / 2).round().astype(np.uint8)[..., ::-1])
        mixed.append(AuditImage(str(path), path.name, TRAIN, "", "good", False))
    return mixed


def _large(mixtures: Sequence[AuditImage], folder: Path) -> dict[str, Any]:
    """Time, recall and false pairs among many images; 1% of them have a copy as JPEG."""
    truth, copies = set(), []
    kept = mixtures[: len(mixtures) - len(mixtures) // 100]
    for image in kept[::100]:
        file = folder / f"copy-{image.name}"
        _jpeg(read_image(image.path), file, 50)
        copies.append(replace(image, path=f"{file}.jpg", name=f"{file.name}.jpg", role="test"))
        truth.add((image.name, copies[-1].name))
    images = [*kept, *copies]
    begin = time.perf_counter()
    recall, false = _recall_and_false(images, truth)
    seconds = round(time.perf_counter() - begin, 1)
    return {
        "images": len(images),
        "planted": len(truth),
        "seconds": seconds,
        "wanted_seconds": 300,
        "recall": recall,
        "false": false,
    }


def _defects(images: Sequence[AuditImage], quick: bool) -> dict[str, Any]:
    """Ranks of defects among the training images, two defects at a time."""
    normal = [image for image in images if image.role == TRAIN]
    defects = [replace(image, role=TRAIN, anomalous=False) for image in images if image.anomalous]
    ranks = []
    for start in range(0, 2 if quick else len(defects), 2):
        planted = defects[start : start + 2]
        scored = score([*normal, *planted], Model(), lambda text: None).train
        ordered = [image.name for image, _ in sorted(scored, key=lambda pair: -pair[1])]
        ranks += [ordered.index(image.name) + 1 for image in planted]
    total = len(normal) + 2
    top = -(-total * 5 // 100)
    share = sum(rank <= top for rank in ranks) / len(ranks)
    return {"images": total, "ranks": ranks, "in_top_5_percent": share, "wanted": "80%"}


def _scores(images: Sequence[AuditImage]) -> dict[str, Any]:
    begin = time.perf_counter()
    score(images, Model(), lambda text: None)
    return {"images": len(images), "seconds": round(time.perf_counter() - begin, 1)}
