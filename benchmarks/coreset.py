"""The coreset's selection: ours, anomalib's KCenterGreedy, and fpsample's exact sampler, on the same points, in turn.

anomalib's time for a whole coreset is extrapolated from `SELECTIONS` of them (its selections cost the same from the
first to the last), its projection counted once. Both covering radii are taken in the points' own space, after the same
number of selections. Peak memory is that of a process of its own.

fpsample (pip install fpsample) is compiled. Only its plain sampler is exact with more than 8 channels. Its time is
extrapolated in the same way. Its selections are compared with ours one by one.
"""

from __future__ import annotations

import multiprocessing
import statistics
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from anomalib.models.components import KCenterGreedy

from benchmarks.inputs import embedding, require, tiled, training_images
from harness.common.errors import DataError
from harness.detectors.coreset import Ints, k_center, start_row

SELECTIONS = 300
MOBILENET_3 = ("mobilenetv2_100", ("blocks.1", "blocks.2", "blocks.4"))
MOBILENET_2 = ("mobilenetv2_100", ("blocks.2", "blocks.4"))
# name, backbone and layers, points (None: all there are), ratio, the ratio of times that is aimed for
CASES: tuple[tuple[str, tuple[str, tuple[str, ...]], int | None, float, int], ...] = (
    ("resnet18 (random), layer2+layer3", ("resnet18", ("layer2", "layer3")), None, 0.1, 60),
    ("mobilenetv2_100, blocks.1+2+4", MOBILENET_3, None, 0.01, 60),
    ("mobilenetv2_100, blocks.1+2+4", MOBILENET_3, None, 0.1, 100),
    ("mobilenetv2_100, blocks.2+4, tiled with noise", MOBILENET_2, 780_000, 0.001, 40),
    ("mobilenetv2_100, blocks.2+4, tiled with noise", MOBILENET_2, 780_000, 0.01, 40),
)


def measure(quick: bool) -> dict[str, Any]:
    """One row a case."""
    require()
    if find_spec("fpsample") is None:
        raise DataError("fpsample: not installed; expected the peer of this benchmark. Run: pip install fpsample")
    pictures = training_images()[: 4 if quick else None]
    rows = []
    for name, backbone, number, ratio, target in CASES:
        points = embedding(backbone[0], backbone[1], pictures)
        if number is not None:
            points = tiled(points, number // 20 if quick else number)
        rows.append({"data": name, **_case(points, ratio, target, quick)})
    return {"selections_timed": SELECTIONS, "cases": rows}


def _case(points: torch.Tensor, ratio: float, target: int, quick: bool) -> dict[str, Any]:
    size = int(len(points) * ratio)
    timed = min(SELECTIONS, size)
    start = start_row(points, 0)
    # The kernel is compiled on its first use on a machine, and then kept: that is no part of a selection.
    k_center(points[:1000], 10)
    ours, theirs, fpsamples = [], [], []
    # The other cases take the peers minutes each time.
    for _ in range(1 if quick or len(points) > 100_000 else 3):
        begin = time.perf_counter()
        order = k_center(points, size, start)
        ours.append(time.perf_counter() - begin)
        seconds, chosen = _anomalib(points, timed, size)
        theirs.append(seconds)
        seconds, sampled = _fpsample(points, start, timed, size)
        fpsamples.append(seconds)
    our_radius, their_radius = (_radius(points, list(rows)) for rows in (order.rows[:timed], chosen))
    return {
        "points": len(points),
        "channels": points.shape[1],
        "ratio": ratio,
        "selections": size,
        "ours_seconds": round(statistics.median(ours), 2),
        "anomalib_seconds_estimated": round(statistics.median(theirs), 1),
        "fpsample_seconds_estimated": round(statistics.median(fpsamples), 1),
        "times_faster": round(statistics.median(t / o for t, o in zip(theirs, ours, strict=True))),
        "times_faster_than_fpsample": round(statistics.median(t / o for t, o in zip(fpsamples, ours, strict=True)), 1),
        "equal_selections_of_fpsample": f"{int((order.rows[:timed] == sampled).sum())} of {timed}",
        "wanted": target,
        f"our_radius_after_{timed}": round(our_radius, 4),
        f"anomalib_radius_after_{timed}": round(their_radius, 4),
        "our_radius_at_the_end": round(_radius(points, order.rows.tolist()), 4),
        "peak_memory_of_features": round(_peak(points, size), 2),
    }


def _anomalib(points: torch.Tensor, timed: int, size: int) -> tuple[float, list[int]]:
    """Seconds for `size` selections, from `timed` of them; and those."""
    torch.manual_seed(0)
    sampler = KCenterGreedy(points, (timed + 0.5) / len(points))
    begin = time.perf_counter()
    sampler.model.fit(points)
    sampler.model.transform(points)
    projection = time.perf_counter() - begin
    begin = time.perf_counter()
    chosen = sampler.select_coreset_idxs()
    selecting = time.perf_counter() - begin - projection
    return projection + selecting * size / timed, chosen


def _fpsample(points: torch.Tensor, start: int, timed: int, size: int) -> tuple[float, Ints]:
    """Seconds for `size` selections, from `timed` of them; and those."""
    import fpsample

    values = points.numpy()
    begin = time.perf_counter()
    chosen: Ints = fpsample.fps_sampling(values, timed, start_idx=start)
    return (time.perf_counter() - begin) * size / timed, chosen


def _radius(points: torch.Tensor, rows: list[int]) -> float:
    """The largest distance of a point to the nearest chosen one."""
    centers = points[rows]
    return max(float(torch.cdist(part, centers).amin(dim=1).max()) for part in torch.split(points, 4096))


def _peak(points: torch.Tensor, size: int) -> float:
    """Largest memory of a process that holds the points and selects, beyond what it had before, as a share of them."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "points.npy"
        np.save(path, points.numpy())
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            return float(pool.apply(_grown, (str(path), size)))


def _grown(path: str, size: int) -> float:
    # Compiled code and the buffers of the linear algebra library are there once, whatever the points.
    k_center(np.random.default_rng(0).standard_normal((4096, 384), dtype=np.float32), 100)
    before = _high_water()
    points = np.load(path)
    k_center(points, size)
    return (_high_water() - before) / float(points.nbytes)


def _high_water() -> int:
    """The most memory that this process has had, in bytes (getrusage would count its parent's, too)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return 1024 * int(line.split()[1])
    raise LookupError("VmHWM")
