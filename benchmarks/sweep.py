"""A grid of 36 PatchCores on hazelnut_reduced: the native backend, its own largest point alone, and anomalib.

Ours are whole calls of the harness: reading and checking data, measuring, heatmaps, records and workbook included.
anomalib makes one run for each set of layers, at the smallest ratio, through its Engine; its other runs are estimated
from them: the same time, with the selection's part scaled by the number of selections.
"""

from __future__ import annotations

import contextlib
import io
import json
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from anomalib.models.components import KCenterGreedy

from benchmarks.inputs import HAZELNUT, MOBILENET, require
from harness.cli import sweep as commands

LAYERS = (("blocks.2",), ("blocks.2", "blocks.4"), ("blocks.1", "blocks.2", "blocks.4"))
RATIOS = (0.01, 0.05, 0.1, 0.25)
NEIGHBOURS = (1, 5, 9)
STRIDES = {"blocks.1": 4, "blocks.2": 8}
IMAGES = 50


def measure(quick: bool) -> dict[str, Any]:
    """Seconds of the grid, of its most expensive point, and of anomalib's runs."""
    require()
    layers = LAYERS[:2] if quick else LAYERS
    ratios = RATIOS[:2] if quick else RATIOS
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        # Once before the clock: what is compiled or imported on first use.
        _ours(root / "warm-up", LAYERS[:1], RATIOS[:1], NEIGHBOURS[:1])
        grid, point = [], []
        for repeat in range(1 if quick else 3):
            grid.append(_ours(root / f"grid{repeat}", layers, ratios, NEIGHBOURS))
            point.append(_ours(root / f"point{repeat}", layers[-1:], ratios[-1:], NEIGHBOURS[-1:]))
        timed = _ours(root / "timed", layers, ratios, NEIGHBOURS, timed=True)
        anomalib = [_anomalib(root / f"anomalib{number}", one, ratios[0]) for number, one in enumerate(layers)]
        ours = _metrics(root / "grid0")
        theirs: dict[str, dict[str, float]] = {}
        for number in range(len(layers)):
            theirs |= _metrics(root / f"anomalib{number}")
    total = sum(
        len(NEIGHBOURS) * (one["seconds"] - one["selecting"] + one["selecting"] * ratio / ratios[0])
        for one in anomalib
        for ratio in ratios
    )  # fmt: skip
    grid_seconds, point_seconds = sorted(grid)[len(grid) // 2], sorted(point)[len(point) // 2]
    return {
        "points": len(layers) * len(ratios) * len(NEIGHBOURS),
        "ours_grid_seconds": round(grid_seconds, 1),
        "ours_grid_with_single_images_timed_seconds": round(timed, 1),
        "ours_most_expensive_point_alone_seconds": round(point_seconds, 1),
        "grid_against_its_most_expensive_point": round(grid_seconds / point_seconds, 2),
        "wanted_at_most": 1.5,
        "anomalib_runs": anomalib,
        "anomalib_grid_seconds_estimated": round(total),
        "times_faster": round(total / grid_seconds),
        "wanted": 50,
        "results": {key: {"ours": ours[key], "anomalib": theirs[key]} for key in theirs},
    }


def _ours(output: Path, layers: Any, ratios: Any, neighbours: Any, timed: bool = False) -> float:
    return _sweep(output, "native", layers, ratios, neighbours, timed)


def _sweep(output: Path, backend: str, layers: Any, ratios: Any, neighbours: Any, timed: bool = False) -> float:
    output.mkdir()
    config = output / "sweep.yaml"
    grid = {
        "backend": backend,
        "model": "patchcore",
        "backbone": "mobilenetv2_100",
        "layers": [list(one) for one in layers],
        "coreset_sampling_ratio": list(ratios),
        "num_neighbors": list(neighbours),
    }
    data = {"kind": "mvtec", "root": str(HAZELNUT), "val": 0.0}
    # Single images are not timed: that is no part of fit and test, which is all that counts for anomalib.
    config.write_text(json.dumps({"data": data, "weights": str(MOBILENET), "latency": timed, "grid": grid}))
    begin = time.perf_counter()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        status = commands.sweep(config, [], output, None, False, False, False)
    assert status == 0, status
    return time.perf_counter() - begin


def _anomalib(output: Path, layers: tuple[str, ...], ratio: float) -> dict[str, Any]:
    with _timed_selection() as selecting:
        _sweep(output, "anomalib", [layers], [ratio], NEIGHBOURS[-1:])
    record = next(iter(_records(output)))
    fit_and_test = record["seconds"]["fit"] + record["seconds"]["test"]
    return {
        "layers": "+".join(layers),
        "ratio": ratio,
        "selections": int(IMAGES * (256 // STRIDES[layers[0]]) ** 2 * ratio),
        "seconds": round(fit_and_test, 1),
        "selecting": round(sum(selecting), 1),
    }


@contextlib.contextmanager
def _timed_selection() -> Iterator[list[float]]:
    original, seconds = KCenterGreedy.select_coreset_idxs, []

    def timed(self: KCenterGreedy) -> list[int]:
        begin = time.perf_counter()
        chosen: list[int] = original(self)
        seconds.append(time.perf_counter() - begin)
        return chosen

    KCenterGreedy.select_coreset_idxs = timed
    try:
        yield seconds
    finally:
        KCenterGreedy.select_coreset_idxs = original


def _records(output: Path) -> list[dict[str, Any]]:
    return [json.loads(file.read_text()) for file in (output / "sweep" / "runs").glob("*/record.json")]


def _metrics(output: Path) -> dict[str, dict[str, float]]:
    """Image and pixel AUROC by setting."""
    aurocs = {}
    for record in _records(output):
        spec = record["spec"]
        values = (spec["params"]["coreset_sampling_ratio"], spec["params"]["num_neighbors"])
        key = f"{'+'.join(spec['layers'])}, {values[0]}, {values[1]}"
        aurocs[key] = {name: round(record["metrics"][name], 4) for name in ("image_AUROC", "pixel_AUROC")}
    return aurocs
