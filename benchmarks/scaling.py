"""What a large plan costs on a cluster: each part measured by itself, and put together by the formula of scaling.md."""

from __future__ import annotations

import json
import math
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

from harness.config.load import load_config
from harness.execution.jobs import Job, grouped
from harness.execution.launchers.node import home_of, records_of_job, work_folder
from harness.execution.launchers.shipping import unpack
from harness.planning.prepare import prepare
from harness.report.excel import write_workbook
from harness.results.store import ResultFolder

GROUPS, NODES = 1_000, 100
CONFIG = """
name: scaling
data: {{kind: toy, category: plate}}
weights: random
device: cpu
save_models: {models}
output: {output}
grid: {{backend: native, model: patchcore, backbone: resnet18, layers: [layer2, layer3], image_size: 128,
        coreset_sampling_ratio: {ratios}, num_neighbors: [1, 5, 9]}}
"""
RUNS = 6  # of a group


def measure(quick: bool) -> dict[str, Any]:
    """Seconds and bytes of each part; and of the whole, on paper."""
    repeats, rows = (2, 50) if quick else (7, 1_000)
    with tempfile.TemporaryDirectory() as scratch:
        parts = _parts(Path(scratch), repeats, rows)
    return {"parts": parts, "groups": GROUPS, "nodes": NODES, "runs": RUNS, "predicted": predicted(parts)}


def predicted(parts: dict[str, float], groups: int = GROUPS, nodes: int = NODES) -> dict[str, float]:
    """The formula of scaling.md: T = start + plan + max(waves * group, runs * landing) + workbook, one job a node."""
    runs = groups * RUNS
    nodes_take = math.ceil(groups / nodes) * parts["group_seconds"]
    driver_takes = runs * (parts["message_seconds"] + parts["landing_seconds"])
    ends = runs * parts["workbook_seconds_a_run"]
    begins = parts["start_seconds"] + runs * (parts["plan_seconds_a_run"] + parts["claim_seconds_a_run"])
    return {
        "begins_seconds": round(begins, 1),
        "nodes_seconds": round(nodes_take, 1),
        "driver_seconds": round(driver_takes, 1),
        "ends_seconds": round(ends, 1),
        "total_seconds": round(begins + max(nodes_take, driver_takes) + ends, 1),
        # Beyond so many nodes, what they make waits for the sweep's process.
        "nodes_that_one_driver_serves": math.floor(
            parts["group_seconds"] / (RUNS * (parts["message_seconds"] + parts["landing_seconds"]))
        ),
        "gigabytes_received": round(runs * parts["bytes_a_run"] / 1e9, 2),
    }


def _parts(scratch: Path, repeats: int, rows: int) -> dict[str, float]:
    import ray
    from ray.util.queue import Queue

    start = time.perf_counter()
    ray.init(address="local", log_to_driver=False, include_dashboard=False, num_cpus=2)
    started = time.perf_counter() - start
    try:
        prepared = prepare(load_config(_config(scratch, [0.01, 0.1])))
        (runs,) = grouped(prepared.runs).values()
        job, folder = Job(prepared.config, tuple(runs), "scaling"), ResultFolder(scratch / "landed")
        folder.create()
        messages: list[Any] = []
        queue = type("Kept", (), {"put": lambda _, message: messages.append(message)})()
        times = [_timed(lambda: _make(job, queue)) for _ in range(repeats)]
        records = _records(messages)
        messages.clear()
        _make(replace(job, config=load_config(_config(scratch, [0.01, 0.1], "all"))), queue)
        with_models = _records(messages)
        remote = Queue(actor_options={"num_cpus": 0})
        sent, heavy = (
            [_timed(lambda m=message: _sent(remote, m)) for message in some * repeats]  # type: ignore[misc]
            for some in (records, with_models)
        )
        landed = [_timed(lambda m=message: _commit(folder, m)) for message in records * repeats]  # type: ignore[misc]
        many = [round(0.01 + 0.0002 * number, 5) for number in range(math.ceil(rows / 3))]
        planned = _timed(lambda: prepare(load_config(_config(scratch, many)))) / (3 * len(many))
        claimed = [_timed(lambda n=number: _claim(folder, n)) for number in range(rows)]  # type: ignore[misc]
        _copies(folder, rows)
        return {
            "start_seconds": round(started, 2),
            "group_seconds": round(median(times), 2),
            "message_seconds": round(median(sent), 5),
            "landing_seconds": round(median(landed), 5),
            "plan_seconds_a_run": round(planned, 6),
            "claim_seconds_a_run": round(median(claimed), 6),
            "workbook_seconds_a_run": round(_timed(lambda: write_workbook(folder)) / rows, 6),
            "bytes_a_run": round(median(_size(message) for message in records)),
            "message_seconds_with_model": round(median(heavy), 5),
            "bytes_with_model": round(median(_size(message) for message in with_models)),
        }
    finally:
        ray.shutdown()


def _config(scratch: Path, ratios: list[float], models: str = "none") -> Path:
    file = scratch / "c.yaml"
    file.write_text(CONFIG.format(output=scratch / "results", ratios=ratios, models=models))
    return file


def _timed(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def _make(job: Job, queue: Any) -> None:
    """A group on a node, from its images to what is sent."""
    home = home_of(Path("scaling"), "benchmark")
    list(records_of_job(0, job, queue, home, str(Path.cwd())))
    shutil.rmtree(work_folder() / home)


def _records(messages: list[Any]) -> list[Any]:
    """Of the last group."""
    return [message for message in messages if message[0] == "record"][-RUNS:]


def _size(message: Any) -> int:
    return sum(map(len, message[3].values()))


def _sent(queue: Any, message: Any) -> None:
    queue.put(message)
    queue.get()


def _commit(folder: ResultFolder, message: Any) -> None:
    """What the sweep's process does with a run."""
    _, _, record, packed = message
    unpack(packed, folder.stage(record.run_id))
    folder.commit(record)


def _claim(folder: ResultFolder, number: int) -> None:
    with folder.claim(f"run{number}") as mine:
        assert mine


def _copies(folder: ResultFolder, rows: int) -> None:
    """As many records as the workbook is to have."""
    first = folder.records()[0]
    scores = (folder.run_folder(first.run_id) / "scores.csv").read_text()
    for number in range(rows - len(folder.records())):
        params = {**first.spec["params"], "coreset_sampling_ratio": 0.2 + number / 10_000}
        record = replace(first, run_id=f"copy{number}", spec={**first.spec, "params": params})
        own = folder.run_folder(record.run_id)
        own.mkdir()
        (own / "record.json").write_text(json.dumps(record.as_dict()))
        (own / "scores.csv").write_text(scores)
