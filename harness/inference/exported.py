"""Predictions of an exported file by its runtime. ONNX and OpenVINO files do not need Torch."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from harness.common.errors import ConfigError, StoreError, WeightsError
from harness.common.files import file_hash
from harness.data.images import RGB
from harness.predictions.decision import Thresholds
from harness.predictions.detection import Floats

SUFFIX = ".json"
FORMAT = 1
RUNTIMES = {"onnx": "onnxruntime", "openvino": "openvino", "torchscript": "torch"}
OUTPUTS = {
    "score": "(batch,) raw; larger is more anomalous",
    "normalized_score": "(batch,) 0 to 1: 0.5 at the threshold, 0.25 at the median of held-out normal images",
    "label": "(batch,) whether the score is above the threshold",
    "anomaly_map": "(batch, height, width) raw, of what the model sees",
    "mask": "(batch, height, width) whether the map is above the pixel threshold",
}
# OpenVINO computes with 16 bits on some processors by default. Scores then differ by some percent.
OPENVINO_OPTIONS = {"INFERENCE_PRECISION_HINT": "f32"}

SIZES = 4  # input shapes for which OpenVINO compiles the model

# (n, 3, height, width) in [0, 1] -> outputs in the order of the JSON file.
Run = Callable[[Floats], Sequence[npt.NDArray[Any]]]


class ExportedFile:
    """An exported model that scores images; a `harness.backends.base.Scorer`.

    Args:
        file: .onnx, .xml or .pt, with its .json in the same folder.
        trust: whether a TorchScript file may be executed. Such a file is a program.

    Attributes:
        about: content of the .json file.
        name: the detector's name.
        device: "cpu" and the runtime, for messages.
        resized: (height, width) before the centre crop; None without a crop.
        input_size: (height, width) of the network's input.
        thresholds: raw thresholds and scales.
        notes: limits of the predictions that a user must know, one sentence each.

    Raises:
        StoreError: the .json file is missing or damaged.
        WeightsError: the model file is damaged or was changed, or is TorchScript without `trust`.
        ConfigError: the runtime is not installed.
    """

    def __init__(self, file: Path, trust: bool = False) -> None:
        self.about = _read(file)
        if self.about["format"] == "torchscript" and not trust:
            raise WeightsError(
                f"{file}: TorchScript is a program, and loading this file executes the program. If you trust the "
                "file's author, say --trust (trust=True). ONNX and OpenVINO files need no trust."
            )
        try:
            self.thresholds = Thresholds.from_dict(self.about["thresholds"])
            self.name = str(self.about["model"])
            self.device = f"cpu, {RUNTIMES[self.about['format']]}"
            resized, crop = (tuple(self.about["preprocessing"][key]) for key in ("resized_to", "cut_to"))
            self.resized: tuple[int, int] | None = None if resized == crop else (int(resized[0]), int(resized[1]))
            self.input_size: tuple[int, int] | None = (int(crop[0]), int(crop[1]))
            self._outputs = list(self.about["outputs"])
            self.notes: tuple[str, ...] = tuple(str(note) for note in self.about["notes"])
            if "score" not in self._outputs or not set(self._outputs) <= set(OUTPUTS):
                raise ValueError(f"outputs {self._outputs}")
        except (AttributeError, KeyError, TypeError, ValueError, IndexError) as error:
            raise _damaged(file, error) from error
        for name, sha256 in self.about["sha256"].items():
            path = file.parent / name
            if not path.is_file() or file_hash(path) != sha256:
                raise WeightsError(f"{path}: missing, damaged or changed since it was exported. Export it again.")
        self._run = _runtime(self.about["format"], file)

    def answers(self, images: Floats) -> Mapping[str, npt.NDArray[Any]]:
        """Run the model and return all outputs by name, see `OUTPUTS`.

        Args:
            images: (n, 3, height, width), RGB in [0, 1].
        """
        return dict(zip(self._outputs, self._run(images), strict=True))

    def prepare(self, pixels: RGB) -> RGB:
        """Return the pixels unchanged: the file itself prepares them, and 8 bits take less memory than 32."""
        return pixels

    def score(self, prepared: Sequence[RGB]) -> tuple[npt.NDArray[np.float64], Floats | None]:
        """Score images. Images of one size form a batch; images of different sizes are scored one by one.

        Args:
            prepared: n images, uint8 RGB of shape (height, width, 3).

        Returns:
            Scores (n,) and maps (n, height, width); None instead of maps for a model without maps.
        """
        batches = [prepared] if len({pixels.shape for pixels in prepared}) == 1 else [[pixels] for pixels in prepared]
        outputs = [self.answers(as_input(batch)) for batch in batches]
        maps = [output["anomaly_map"] for output in outputs if "anomaly_map" in output]
        scores = np.concatenate([output["score"] for output in outputs]).astype(np.float64)
        return scores, np.concatenate(maps) if maps else None

    def export(self, thresholds: Thresholds, chosen: str, file: Path) -> list[str]:
        """Refuse the export: an exported file holds no trainable model.

        Args:
            thresholds: unused.
            chosen: unused.
            file: unused.

        Raises:
            ConfigError: always.
        """
        raise ConfigError("export: an exported file found; expected a run's folder, or a sweep's.")


def as_input(images: Sequence[RGB]) -> Floats:
    """Stack images of one size to the input of an exported file: (n, 3, height, width) in [0, 1]."""
    stacked = np.stack([pixels.transpose(2, 0, 1) for pixels in images]).astype(np.float32)
    stacked /= 255
    return stacked


def _read(file: Path) -> dict[str, Any]:
    json_file = file.with_name(file.name + SUFFIX)
    try:
        about: dict[str, Any] = json.loads(json_file.read_text(encoding="utf-8"))
        if about["version"] > FORMAT:
            raise StoreError(f"{json_file}: written by a newer harness (version {about['version']}). Update harness.")
        if about["format"] not in RUNTIMES or not isinstance(about["sha256"], dict):
            raise ValueError(f"format {about['format']!r}")
        if any(Path(name).name != name for name in about["sha256"]) or file.name not in about["sha256"]:
            raise ValueError("sha256 names other files")
    except FileNotFoundError as error:
        raise StoreError(
            f"{file}: no {json_file.name} beside it; expected a model that `harness export` wrote."
        ) from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _damaged(file, error) from error
    return about


def _damaged(file: Path, error: Exception) -> StoreError:
    json_file = file.with_name(file.name + SUFFIX)
    return StoreError(f"{json_file}: damaged ({type(error).__name__}: {error}). Export the model again.")


def _runtime(name: str, file: Path) -> Run:
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


def _onnx(file: Path) -> Run:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
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
            compiled[shape] = core.compile_model(model, "CPU", OPENVINO_OPTIONS)
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
