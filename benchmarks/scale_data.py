"""Whole commands at size: `plan` of a large grid and of a large folder of images, and `report` of many runs.

Other programs on a machine change the time that passes. So the seconds of CPU time count, of all threads together.
"""

from __future__ import annotations

import os
import struct
import subprocess
import sys
import tempfile
import time
import zlib
from pathlib import Path
from typing import Any

from openpyxl import load_workbook

from benchmarks.report import made_up
from harness.config.load import load_config
from harness.planning.prepare import prepare

POINTS, IMAGES, RUNS, GALLERIES = 20_000, 100_000, 5_000, 200
NEIGHBOURS = 10  # values of this axis
GRID = """
name: scale
data: {data}
weights: random
device: cpu
output: {output}
grid: {{backend: native, model: patchcore, backbone: resnet18, layers: [layer2, layer3], image_size: 128, {axes}}}
"""
# A child whose parent has more memory would report the parent's as its own. So it reads its own value.
PROGRAM = """
import atexit, runpy, sys
status = lambda: [line for line in open("/proc/self/status") if line.startswith("VmHWM:")]
atexit.register(lambda: sys.stderr.write(status()[0]))
runpy.run_module(sys.argv.pop(1), run_name="__main__", alter_sys=True)
"""


def measure(quick: bool) -> dict[str, Any]:
    """Seconds of CPU time, seconds that passed, and peak memory of each command."""
    points, images, runs = (200, 500, 50) if quick else (POINTS, IMAGES, RUNS)
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        return {"plan": _plan(root, points), "images": _images(root, images), "report": _report(root, runs)}


def _plan(root: Path, points: int) -> dict[str, Any]:
    ratios = [round(0.01 + 0.0001 * number, 4) for number in range(points // NEIGHBOURS)]
    axes = f"coreset_sampling_ratio: {ratios}, num_neighbors: {list(range(1, NEIGHBOURS + 1))}"
    config = root / "grid.yaml"
    config.write_text(GRID.format(data="{kind: toy, category: plate}", output=root / "grid", axes=axes))
    command = ("harness", "plan", str(config))
    # The first call draws the toy images.
    _cost(*command, "--no-check")
    return {
        "points": points,
        "without_checks": _cost(*command, "--no-check"),
        "with_checks": _cost(*command),
        # A module of few lines; its package is imported first.
        "import_of_timm": _cost("timm.version"),
        "wanted": {"seconds": 3, "MB": 300},
    }


def _images(root: Path, images: int) -> dict[str, Any]:
    folder = root / "images"
    for number in range(images):
        kind = ("good", "good", "good", "good", "bad")[number % 5]
        if number < 5:
            (folder / kind).mkdir(parents=True, exist_ok=True)
        (folder / kind / f"{number:06d}.png").write_bytes(_image(number))
    config = root / "images.yaml"
    data = f"{{kind: folder, root: {folder}, normal_dir: good, abnormal_dir: bad}}"
    config.write_text(GRID.format(data=data, output=root / "index", axes="num_neighbors: 1"))
    first = _cost("harness", "plan", str(config), "--no-check")
    # A sweep saves the index of the files.
    prepared = prepare(load_config(config))
    prepared.folder.create()
    prepared.index.save()
    again = _cost("harness", "plan", str(config), "--no-check")
    return {"images": images, "first": first, "again": again, "wanted": {"seconds": 20}}


def _report(root: Path, runs: int) -> dict[str, Any]:
    folder = made_up(root / "runs", runs, min(runs, GALLERIES))
    command = _cost("harness", "report", str(folder.root))
    book = load_workbook(folder.workbook, read_only=True)
    cells = sum(sum(value is not None for value in row) for sheet in book for row in sheet.iter_rows(values_only=True))
    book.close()
    plain = _cost("benchmarks.plain_workbook", str(runs), str(round(cells / runs)), str(root / "plain.xlsx"))
    return {"runs": runs, "command": command, "cells": cells, "openpyxl_alone": plain, "wanted": {"seconds": 10}}


def _cost(*command: str) -> dict[str, float]:
    """The cost of a module in a process of its own, with the arguments of its command line."""
    begin = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *command], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    errors = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(errors)
    return {
        "cpu_seconds": round(usage.ru_utime + usage.ru_stime, 1),
        "seconds": round(time.perf_counter() - begin, 1),
        "MB": round(int(errors.split()[-2]) * 1024 / 1e6),
    }


def _image(number: int) -> bytes:
    """A grey PNG of 4 x 4 pixels; each number has other pixels."""
    rows = b"".join(b"\0" + struct.pack(">I", number) for _ in range(4))
    header = struct.pack(">IIBBBBB", 4, 4, 8, 0, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
        for name, content in chunks
    )
