"""Runtimes of exported files: ONNX Runtime, OpenVINO and TorchScript."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy.typing as npt

from harness.common.errors import ConfigError, WeightsError
from harness.common.threads import count
from harness.predictions.detection import Floats

# The Python package of each format.
RUNTIMES = {"onnx": "onnxruntime", "openvino": "openvino", "torchscript": "torch"}
# OpenVINO computes with 16 bits on some processors by default. Scores then differ by some percent.
OPENVINO_OPTIONS = {"INFERENCE_PRECISION_HINT": "f32"}
SIZES = 4  # input shapes for which OpenVINO compiles the model

# (n, 3, height, width) in [0, 1] -> outputs in the order of the JSON file.
Run = Callable[[Floats], Sequence[npt.NDArray[Any]]]


def load_runtime(name: str, file: Path) -> Run:
    """Load an exported file with its runtime.

    Args:
        name: format of the file, a key of `RUNTIMES`.
        file: the exported file.

    Raises:
        ConfigError: the runtime is not installed.
        WeightsError: the runtime can't load the file.
    """
    package = RUNTIMES[name]
    if find_spec(package) is None:
        raise ConfigError(f"{file}: needs {package}, which is not installed. Run: python -m pip install {package}")
    try:
        return {"onnx": _onnx, "openvino": _openvino, "torchscript": _torchscript}[name](file)
    # A damaged file can make a runtime raise any exception.
    except Exception as error:
        raise WeightsError(
            f"{file}: {package} can't load this file ({type(error).__name__}: {str(error)[:200]}). Export it again."
        ) from error


def onnx_options() -> Any:
    """Options of ONNX Runtime with the number of threads of this process; its own default is all cores."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = count()
    options.inter_op_num_threads = 1
    return options


def openvino_options() -> dict[str, Any]:
    """Options of OpenVINO with the number of threads of this process; its own default is all cores."""
    return {**OPENVINO_OPTIONS, "INFERENCE_NUM_THREADS": count()}


def _onnx(file: Path) -> Run:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(file), onnx_options(), providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda images: session.run(None, {name: images})


def _openvino(file: Path) -> Run:
    import openvino

    core = openvino.Core()
    compiled: dict[tuple[int, ...], Any] = {}

    def run(images: Floats) -> Sequence[npt.NDArray[Any]]:
        # A model for one shape is faster than a model for any shape. Compiling takes as long as scoring some images.
        shape = images.shape if images.shape in compiled or len(compiled) < SIZES else ()
        if shape not in compiled:
            model = core.read_model(str(file))
            if shape:
                model.reshape(list(shape))
            compiled[shape] = core.compile_model(model, "CPU", openvino_options())
        return list(compiled[shape](images).to_tuple())

    core.read_model(str(file))  # a damaged file raises here, not at the first image
    return run


def _torchscript(file: Path) -> Run:
    import warnings

    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module = torch.jit.load(str(file), map_location="cpu")  # type: ignore[no-untyped-call]

    def run(images: Floats) -> Sequence[npt.NDArray[Any]]:
        with torch.inference_mode():
            return [output.numpy() for output in module(torch.from_numpy(images))]

    return run
