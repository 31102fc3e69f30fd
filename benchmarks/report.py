"""How long sheet and report take with many runs, and how soon the report answers in a browser.

The runs are made up, all as a sweep would leave them: records, scores of 100 test images, curves, pictures. Every run
has its own scores, so that intervals and paired tests are real work.
"""

from __future__ import annotations

import json
import shutil
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from harness.data.samples import Sample
from harness.metrics.evaluate import Evaluation, evaluate_predictions
from harness.predictions.detection import Predictions
from harness.report.excel import write_workbook
from harness.report.html import write_report
from harness.results.gallery import draw_gallery
from harness.results.record import RunRecord
from harness.results.run_folder import DETAILS, RECORD
from harness.results.scores import SCORES, scores_csv
from harness.results.store import ResultFolder

WORKBOOK_RUNS, REPORT_RUNS, GALLERIES = 5_000, 500, 200
IMAGES, SIDE = 100, 64
OPENED = 5


def measure(quick: bool) -> dict[str, Any]:
    """Seconds to write the workbook, to write the report, and until the report is ready in Chromium."""
    many, some = (200, 50) if quick else (WORKBOOK_RUNS, REPORT_RUNS)
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        large = made_up(root / "large", many, 0)
        begin = time.perf_counter()
        write_workbook(large)
        workbook = time.perf_counter() - begin
        size = large.workbook.stat().st_size
        shutil.rmtree(large.root)
        small = made_up(root / "small", some, min(some, GALLERIES))
        begin = time.perf_counter()
        write_report(small)
        report = time.perf_counter() - begin
        ready, gallery = _opened(small, 2 if quick else OPENED)
    return {
        "workbook": {"runs": many, "seconds": round(workbook, 1), "MB": round(size / 1e6, 1), "wanted": 10},
        "report": {
            "runs": some,
            "galleries": min(some, GALLERIES),
            "written_seconds": round(report, 1),
            "opens_seconds": round(statistics.median(ready), 2),
            "opens_at_worst": round(max(ready), 2),
            "gallery_opens_seconds": round(statistics.median(gallery), 2),
            "wanted": 3,
        },
    }


def made_up(root: Path, runs: int, galleries: int) -> ResultFolder:
    """A result folder of synthetic runs.

    Args:
        root: the new folder.
        runs: number of runs.
        galleries: number of runs with pictures.
    """
    folder = ResultFolder(root)
    folder.create()
    rng = np.random.default_rng(0)
    labels = np.arange(IMAGES) % 2
    for name in range(IMAGES):
        Image.fromarray(rng.integers(0, 255, (SIDE, SIDE, 3), dtype=np.uint8)).save(root / f"{name:03d}.png")
    samples = tuple(
        Sample(str(root / f"{i:03d}.png"), f"{i:03d}.png", int(label), "bad" if label else "good")
        for i, label in enumerate(labels)
    )
    hardness = rng.standard_normal(IMAGES)
    maps = rng.random((IMAGES, SIDE, SIDE), dtype=np.float32)
    maps[labels == 1, 20:40, 20:40] += 0.5
    masks = np.zeros(maps.shape, dtype=np.bool_)
    masks[labels == 1, 20:40, 20:40] = True
    policy = {"method": "fixed", "image": 1.0, "pixel": 1.0}
    # Pixels are measured and pictures drawn once, for all runs.
    pixels = evaluate_predictions(Predictions(samples, hardness + labels, maps, masks), None, policy)
    pictures = root / "pictures"
    pictures.mkdir()
    pictured = draw_gallery(pictures, pixels.test, pixels.thresholds)
    for number in range(runs):
        run = folder.run_folder(f"run-{number}")
        run.mkdir()
        scores = hardness + labels * (1 + 1.5 * rng.random()) + 0.5 * rng.standard_normal(IMAGES)
        images = evaluate_predictions(Predictions(samples, scores, None, None), None, policy)
        image_metrics = {name: value for name, value in images.metrics.items() if name.startswith("image_")}
        evaluation = replace(
            images, metrics={**pixels.metrics, **image_metrics}, curves={**pixels.curves, **images.curves}
        )
        if number < galleries:
            shutil.copytree(pictures / "heatmaps", run / "heatmaps")
        details = {"curves": evaluation.curves, "gallery": pictured if number < galleries else []}
        (run / DETAILS).write_text(json.dumps(details))
        (run / SCORES).write_text(scores_csv(evaluation))
        (run / RECORD).write_text(json.dumps(_record(number, evaluation, rng).as_dict()))
    return folder


def _record(number: int, evaluation: Evaluation, rng: np.random.Generator) -> RunRecord:
    """Settings of five models, ten ratios, ten numbers of neighbours ... in two categories."""
    ratio, neighbors = (number // 10) % 10, (number // 100) % 10
    spec = {
        "backend": ["anomalib", "native"][number % 2],
        "model": ["patchcore", "padim", "spade", "cflow", "stfpm"][(number // 2) % 5],
        "backbone": ["resnet18", "wide_resnet50_2"][(number // 1000) % 2],
        "layers": ["layer2", "layer3"],
        "image_size": [256, 256],
        "params": {"coreset_sampling_ratio": (1 + ratio) / 100, "num_neighbors": 1 + neighbors},
        "seed": 0,
        "data_kind": "mvtec",
        "category": ["bottle", "cable"][(number // 2000) % 2],
        "weights": "auto",
        "trainer": {"max_epochs": 1 + number // 4000},
        "train_batch_size": 32,
        "eval_batch_size": 32,
        "threshold": {"method": "fixed", "image": 1.0, "pixel": 1.0},
        "aupro_limit": 0.3,
    }
    cost: dict[str, float | None] = {
        "seconds_p50": 0.01 * (1 + rng.random()),
        "seconds_p95": 0.03,
        "images_per_second": 80.0,
        "peak_memory": 1e9,
        "model_size": 1e7,
    }
    return RunRecord(
        run_id=f"run-{number}",
        status="ok",
        spec=spec,
        axes=["coreset_sampling_ratio", "num_neighbors"],
        data={"kind": "mvtec", "category": spec["category"], "root": f"/data/{spec['category']}",
              "fingerprint": str(spec["category"]), "train": 200, "val": 20, "test": IMAGES,
              "test_anomalous": IMAGES // 2, "masks": True, "taken": 0, "validation": "held-out normal images"},
        weights={"policy": "auto", "source": "weights/", "sha256": "0" * 64, "backbone": spec["backbone"]},
        metrics=evaluation.metrics,
        intervals={name: list(ends) for name, ends in evaluation.intervals.items()},
        defects=evaluation.defects,
        thresholds={"image": 1.0, "pixel": 1.0, "fixed_by": "fixed in the config"},
        cost=cost,
        seconds={"fit": 10.0, "test": 1.0, "alone": 11.0, "spent": 2.0, "total": 2.5},
        device="cpu, 2 threads",
        provenance={"began": "2026-01-01T00:00:00", "ended": "2026-01-01T00:00:10", "packages": {}},
    )  # fmt: skip


def _opened(folder: ResultFolder, times: int) -> tuple[list[float], list[float]]:
    """Seconds until the page with its table and plots is ready, and until a run's gallery is there; a browser each."""
    from playwright.sync_api import sync_playwright

    program = next(p for p in map(shutil.which, ("chromium", "chromium-browser", "google-chrome")) if p)
    ready, gallery = [], []
    with sync_playwright() as driver:
        for _ in range(times):
            browser = driver.chromium.launch(executable_path=program, args=["--no-sandbox"])
            page = browser.new_page(viewport={"width": 1280, "height": 900})
            begin = time.perf_counter()
            page.goto(folder.report.resolve().as_uri())
            page.wait_for_selector("body[data-ready=true]")
            ready.append(time.perf_counter() - begin)
            begin = time.perf_counter()
            page.evaluate("openRun('run-0')")
            page.wait_for_selector("#gallery figure")
            gallery.append(time.perf_counter() - begin)
            browser.close()
    return ready, gallery
