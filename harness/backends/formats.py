"""Export of a module to a TorchScript, ONNX or OpenVINO file."""

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
# Packages beside Torch for writing and checking each format; the extra `export` installs them.
NEEDED: dict[Format, tuple[str, ...]] = {
    "torchscript": (),
    "onnx": ("onnx", "onnxscript", "onnxruntime"),
    "openvino": ("onnx", "onnxscript", "openvino"),
}
INPUT = "images"
OPSET = 18
# Shape of the example for tracing. A size of 1, or two equal sizes, would be exported as constant sizes.
EXAMPLE = (2, 3, 83, 97)
ONNX_OPTIONS: dict[str, Any] = {"opset_version": OPSET, "external_data": False, "verbose": False}


def check_installed(file_format: Format) -> None:
    """Check that all packages for writing and checking a format are installed.

    Raises:
        ConfigError: a package is missing; the message names the command that installs it.
    """
    missing = [name for name in NEEDED[file_format] if find_spec(name) is None]
    if missing:
        raise ConfigError(
            f"--format {file_format}: {', '.join(missing)} not installed. Run, in the folder of harness: "
            "python -m pip install -e '.[export]'"
        )


def write_torchscript(module: nn.Module, file: Path) -> None:
    """Write a module as TorchScript, by tracing. Torch deprecates TorchScript, but old inspection programs need it.

    Args:
        module: takes images (n, 3, height, width).
        file: path of the new file.
    """
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        traced: Any = torch.jit.trace(module, torch.rand(EXAMPLE), check_trace=False)  # type: ignore[no-untyped-call]
        traced.save(str(file))


def write_onnx(module: nn.Module, file: Path, outputs: Sequence[str]) -> None:
    """Write a module as ONNX, for images of any number, height and width. The file contains the weights.

    Args:
        module: takes images (n, 3, height, width).
        file: path of the new file.
        outputs: names of the module's outputs.
    """
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
    """Convert an ONNX file to OpenVINO in full precision; the weights go to a .bin file beside the .xml file.

    Args:
        onnx: the ONNX file.
        file: path of the new .xml file.
    """
    import openvino

    openvino.save_model(openvino.convert_model(onnx), file, compress_to_fp16=False)


def write_module(module: nn.Module, file_format: Format, file: Path, outputs: Sequence[str]) -> None:
    """Write a module in one of the formats.

    Args:
        module: takes images (n, 3, height, width).
        file_format: the file's format.
        file: path with the format's suffix, in an existing folder.
        outputs: names of the module's outputs.
    """
    if file_format == "torchscript":
        write_torchscript(module, file)
        return
    onnx = file.with_suffix(".onnx")
    write_onnx(module, onnx, outputs)
    if file_format == "openvino":
        onnx_to_openvino(onnx, file)
        onnx.unlink()
