"""One number of threads for all libraries, restored afterwards; the same scores in any order of detectors."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from threadpoolctl import threadpool_info

from harness.common import threads
from harness.common.devices import pick
from harness.inference import runtimes

# Numba starts its threads once in a process, so that each order needs a process of its own.
SCRIPT = """
import json, sys
import cv2, torch
from threadpoolctl import threadpool_info
from harness.common import threads
from harness.detectors import PaDiM, PatchCore
from harness.detectors.stages import Stage, Stages

torch.set_num_threads(int(sys.argv[1]))
train, test, inside, after = sys.argv[3], sys.argv[4], [], []

def numbers():
    found = {pool["num_threads"] for pool in threadpool_info()} | {torch.get_num_threads(), cv2.getNumThreads()}
    if "numba" in sys.modules:
        found.add(sys.modules["numba"].get_num_threads())
    return sorted(found)

compute = Stages._compute
def observed(stages, stage, inputs):
    before = numbers()
    work = type(stage).compute
    def seen(self, context, *values):
        inside.append(numbers())
        value = work(self, context, *values)
        if "numba" in sys.modules:
            # As a stage that uses Numba for the first time leaves the number.
            assert torch.get_num_threads() == int(sys.argv[1]), type(self).__name__
        return value
    type(stage).compute = seen
    try:
        value = compute(stages, stage, inputs)
    finally:
        type(stage).compute = work
    after.append(torch.get_num_threads())
    return value
Stages._compute = observed

common = dict(backbone="resnet18", weights="random", device="cpu", image_size=64, progress=False)
detectors = {"patchcore": PatchCore(layers=["layer2"], coreset_sampling_ratio=0.1, **common),
             "padim": PaDiM(layers=["layer1"], n_features=20, **common)}
scores = {}
for name in sys.argv[2].split(","):
    detector = detectors[name].fit(train)
    found = detector.predict(test)
    scores[name] = [found.score.hex(), found.anomaly_map.tobytes().hex()]
print(json.dumps({"scores": scores, "inside": inside, "after": after, "description": detector.device.description}))
"""


@pytest.fixture
def two() -> Iterator[None]:
    """Two threads for Torch and OpenCV, and the earlier numbers afterwards."""
    before = torch.get_num_threads(), cv2.getNumThreads()
    torch.set_num_threads(2)
    cv2.setNumThreads(2)
    yield
    torch.set_num_threads(before[0])
    cv2.setNumThreads(before[1])


def pools() -> list[int]:
    """Numbers of the pools of BLAS and OpenMP."""
    return [pool["num_threads"] for pool in threadpool_info()]


@pytest.mark.usefixtures("two")
def test_all_libraries_get_the_number_of_torch_and_their_own_back() -> None:
    import numba

    numba.set_num_threads(min(2, numba.config.NUMBA_NUM_THREADS))
    torch.set_num_threads(1)
    before = pools(), numba.get_num_threads()
    with threads.same_number() as number:
        assert number == torch.get_num_threads() == cv2.getNumThreads() == numba.get_num_threads() == 1
        assert set(pools()) == {1}
    assert (pools(), numba.get_num_threads()) == before
    assert (torch.get_num_threads(), cv2.getNumThreads()) == (1, 2)


@pytest.mark.usefixtures("two")
def test_the_numbers_come_back_after_an_error_and_after_a_change_inside() -> None:
    before = pools()
    with pytest.raises(ZeroDivisionError), threads.same_number():
        torch.set_num_threads(1)
        cv2.setNumThreads(1)
        raise ZeroDivisionError
    assert (torch.get_num_threads(), cv2.getNumThreads()) == (2, 2)
    assert pools() == before


@pytest.mark.usefixtures("two")
def test_the_description_of_the_cpu_names_the_present_number() -> None:
    device = pick("cpu")
    assert device.description == "cpu, 2 threads"
    torch.set_num_threads(1)
    # The keys of the cache have this text: another number of threads sums in another order.
    assert device.description == "cpu, 1 threads"


@pytest.mark.parametrize(("requested", "number"), [("1", 1), (" 3,2", 3), ("", None), ("0", None), ("many", None)])
def test_the_number_is_known_before_torch(requested: str, number: int | None) -> None:
    """In a process without Torch, as for `plan`."""
    script = (
        "import sys; from harness.common import threads;print(threads.count(), threads.cores(), 'torch' in sys.modules)"
    )
    environment = {"OMP_NUM_THREADS": requested, "PYTHONPATH": str(Path(threads.__file__).parents[2])}
    process = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True
    )
    count, cores, imported = process.stdout.split()
    assert (int(count), imported) == (number or int(cores), "False")


@pytest.mark.usefixtures("two")
@pytest.mark.parametrize("number", [1, 2])
def test_runtimes_of_exported_files_get_the_number(number: int) -> None:
    openvino = pytest.importorskip("openvino")
    pytest.importorskip("onnxruntime")
    torch.set_num_threads(number)
    options = runtimes.onnx_options()
    assert (options.intra_op_num_threads, options.inter_op_num_threads) == (number, 1)
    source = openvino.opset13.parameter([1, 4], np.float32)
    model = openvino.Model([openvino.opset13.relu(source)], [source], "relu")
    compiled = openvino.Core().compile_model(model, "CPU", runtimes.openvino_options())
    # OpenVINO takes no more threads than the machine has cores.
    assert compiled.get_property("INFERENCE_NUM_THREADS") == min(number, threads.cores())


@pytest.mark.slow
def test_a_process_of_the_harness_starts_with_its_share() -> None:
    """In a process of its own: Torch takes the number of inter-op threads only once."""
    script = (
        "import torch; from harness.common import threads; threads.start(threads.count()); threads.start(1);"
        "print(torch.get_num_threads(), torch.get_num_interop_threads())"
    )
    environment = {**os.environ, **threads.shared(threads.cores())}
    process = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True
    )
    assert process.stdout.split() == ["1", "1"]


def measured(number: int, order: str, tree: Path) -> dict[str, Any]:
    """Scores and numbers of threads of detectors that run in one process, in an order."""
    base = next(path for path in tree.iterdir() if (path / "train").is_dir())
    test = next((base / "test" / "good").iterdir())
    command = [sys.executable, "-c", SCRIPT, str(number), order, str(base / "train" / "good"), str(test)]
    process = subprocess.run(command, capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stderr
    measurement: dict[str, Any] = json.loads(process.stdout.splitlines()[-1])
    return measurement


@pytest.mark.slow
@pytest.mark.parametrize("number", [2])
def test_the_order_of_detectors_changes_neither_scores_nor_threads(number: int, toy_tree: Path) -> None:
    first, last = (measured(number, order, toy_tree) for order in ("patchcore,padim", "padim,patchcore"))
    assert first["scores"] == last["scores"]
    for measurement in (first, last):
        assert len(measurement["inside"]) >= 4
        assert all(numbers == [number] for numbers in measurement["inside"]), measurement["inside"]
        assert set(measurement["after"]) == {number}
        assert measurement["description"] == f"cpu, {number} threads"
