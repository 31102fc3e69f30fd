"""The pass of a network over image files, by the way to read them: one thread, threads, or worker processes.

The images are real hazelnuts, enlarged. The network reads all of them at 256 x 256 pixels, so that only the reading
takes longer for larger files. The ways follow each other in turn, and each pass reads all images.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

from PIL import Image

from benchmarks.inputs import MOBILENET, require, training_images
from harness.backbones.resolve import resolve
from harness.common import threads
from harness.detectors import sources
from harness.detectors.features import Extractor, build_extractor
from harness.detectors.sources import ImageSource, Preprocessing

SIDES = (256, 1024, 2048)
IMAGES, BATCH, ROUNDS = 24, 8, 3
SIZE = (256, 256)
PROCESSES = 2


def measure(quick: bool) -> dict[str, Any]:
    """Time of an image, by the side of the files: medians of rounds."""
    require()
    weights = resolve(str(MOBILENET), "mobilenetv2_100")
    extractor = build_extractor("mobilenetv2_100", ("blocks.2", "blocks.4"), SIZE, weights, seed=0)
    rows = []
    for side in SIDES[:2] if quick else SIDES:
        with tempfile.TemporaryDirectory() as folder:
            files = _write(Path(folder), side, 2 * BATCH if quick else IMAGES)
            rows.append({"files": f"PNG, {side} x {side}", **_row(extractor, files, 1 if quick else ROUNDS)})
    return {"threads": threads.count(), "time_of_an_image": rows}


def _write(folder: Path, side: int, number: int) -> list[Path]:
    files = []
    for index, source in enumerate(training_images()[:number]):
        files.append(folder / f"{index:02d}.png")
        Image.open(source).convert("RGB").resize((side, side)).save(files[-1])
    return files


def _row(extractor: Extractor, files: list[Path], rounds: int) -> dict[str, str]:
    ways: dict[str, Callable[[], float]] = {
        "one thread": partial(_seconds, extractor, files, 0, 1),
        "threads": partial(_seconds, extractor, files, 0, sources.MOST_DECODERS),
        f"{PROCESSES} processes": partial(_seconds, extractor, files, PROCESSES, 1),
    }
    taken: dict[str, list[float]] = {name: [] for name in ways}
    # The first round reads the files into the memory of the system.
    for number in range(rounds + 1):
        for name, way in ways.items():
            seconds = way()
            if number:
                taken[name].append(seconds)
    return {name: f"{1000 * statistics.median(values) / len(files):.1f} ms" for name, values in taken.items()}


def _seconds(extractor: Extractor, files: list[Path], workers: int, decoders: int) -> float:
    begin = time.perf_counter()
    with patch.object(sources, "MOST_DECODERS", decoders):
        for batch in ImageSource(files, Preprocessing(SIZE), BATCH, workers).batches():
            extractor(batch)
    return time.perf_counter() - begin
