"""A module as a file: TorchScript, ONNX, OpenVINO."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from harness.common.errors import ConfigError

Format = Literal["torchscript", "onnx", "openvino"]
SUFFIXES: dict[Format, str] = {"torchscript": ".pt", "onnx": ".onnx", "openvino": ".xml"}
# What writing and checking each takes beside Torch; of the extra `export`.
NEEDED: dict[Format, tuple[str, ...]] = {
    "torchscript": (),
    "onnx": ("onnx", "onnxscript", "onnxruntime"),
    "openvino": ("onnx", "onnxscript", "openvino"),
}
INPUT = "images"
OPSET = 18
# Sizes of the example that a module is traced with: none is 1 or equal to another, which would be taken for fixed.
EXAMPLE = (2, 3, 83, 97)
ONNX_OPTIONS: dict[str, Any] = {"opset_version": OPSET, "external_data": False, "verbose": False}


def check_installed(chosen: Format) -> None:
    """Whether this format can be written and checked here.

    Raises:
        ConfigError: a package is missing; says how to get it.
    """
    missing = [name for name in NEEDED[chosen] if find_spec(name) is None]
    if missing:
        raise ConfigError(
            f"--format {chosen}: {', '.join(missing)} not installed. Run, in the folder of harness: "
            "python -m pip install -e '.[export]'"
        )


def write_torchscript(module: nn.Module, file: Path) -> None:
    """By tracing; Torch calls it deprecated, and floors with old programs load nothing else."""
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        traced: Any = torch.jit.trace(module, torch.rand(EXAMPLE), check_trace=False)  # type: ignore[no-untyped-call]
        traced.save(str(file))


def write_onnx(module: nn.Module, file: Path, outputs: Sequence[str]) -> None:
    """For images of any number, height and width; weights in the same file."""
    axes = {0: torch.export.Dim("batch"), 2: torch.export.Dim("height"), 3: torch.export.Dim("width")}
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module,
            (torch.rand(EXAMPLE),),
            file,
            dynamo=True,
            dynamic_shapes=(axes,),
            input_names=[INPUT],
            output_names=list(outputs),
            **ONNX_OPTIONS,
        )


def onnx_to_openvino(onnx: Path, file: Path) -> None:
    """`file` (.xml), and the weights beside it (.bin), in full precision."""
    import openvino

    openvino.save_model(openvino.convert_model(onnx), file, compress_to_fp16=False)
