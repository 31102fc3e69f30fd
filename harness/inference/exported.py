"""An exported file at work, by the runtime that it is for; for ONNX and OpenVINO Torch is not needed."""

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
# Without it OpenVINO computes with 16 bits on the processors that can, and scores differ by some percent.
OPENVINO_OPTIONS = {"INFERENCE_PRECISION_HINT": "f32"}

SIZES = 4  # of batches and images that OpenVINO compiles for

# (n, 3, height, width) in [0, 1] -> outputs in order.
Run = Callable[[Floats], Sequence[npt.NDArray[Any]]]


class ExportedFile:
    """See `harness.backends.base.Scorer`; images of a batch have one size.

    Args:
        file: .onnx, .xml or .pt, with its .json beside it.
        trust: whether a TorchScript file, which is a program, may be executed.

    Attributes:
        about: what the .json says.
        thresholds: see `harness.predictions.decision.Thresholds`.

    Raises:
        StoreError: the .json is missing or damaged.
        WeightsError: the file is damaged or was changed, or is TorchScript and not trusted.
        ConfigError: its runtime is not installed.
    """

    def __init__(self, file: Path, trust: bool = False) -> None:
        self.about = _read(file)
        if self.about["format"] == "torchscript" and not trust:
            raise WeightsError(
                f"{file}: TorchScript is a program, and loading it executes what it says. If you made this file "
                "yourself, or trust who did, say --trust (trust=True); ONNX and OpenVINO need no trust."
            )
        try:
            self.thresholds = Thresholds.from_dict(self.about["thresholds"])
            self.name = str(self.about["model"])
            self.device = f"cpu, {RUNTIMES[self.about['format']]}"
            resized, seen = (tuple(self.about["preprocessing"][key]) for key in ("resized_to", "cut_to"))
            self.resized: tuple[int, int] | None = None if resized == seen else (int(resized[0]), int(resized[1]))
            self.input_size: tuple[int, int] | None = (int(seen[0]), int(seen[1]))
            self._outputs = list(self.about["outputs"])
            self.notes: tuple[str, ...] = tuple(str(note) for note in self.about["notes"])
            if "score" not in self._outputs or not set(self._outputs) <= set(OUTPUTS):
                raise ValueError(f"outputs {self._outputs}")
        except (AttributeError, KeyError, TypeError, ValueError, IndexError) as error:
            raise _damaged(file, error) from error
        for part, expected in self.about["sha256"].items():
            beside = file.parent / part
            if not beside.is_file() or file_hash(beside) != expected:
                raise WeightsError(f"{beside}: missing, damaged or changed since it was exported. Export it again.")
        self._run = _runtime(self.about["format"], file)

    def answers(self, images: Floats) -> Mapping[str, npt.NDArray[Any]]:
        """All outputs, by name.

        Args:
            images: (n, 3, height, width), RGB in [0, 1].
        """
        return dict(zip(self._outputs, self._run(images), strict=True))

    def prepare(self, pixels: RGB) -> RGB:
        """As it is: the rest is in the file, and 8 bits take less memory than 32."""
        return pixels

    def score(self, prepared: Sequence[RGB]) -> tuple[npt.NDArray[np.float64], Floats | None]:
        """See `Scorer.score`. Images of different sizes go one after the other."""
        alike = len({one.shape for one in prepared}) == 1
        batches = [list(prepared)] if alike else [[one] for one in prepared]
        found = [self.answers(as_input(batch)) for batch in batches]
        maps = [one["anomaly_map"] for one in found if "anomaly_map" in one]
        scores = np.concatenate([one["score"] for one in found]).astype(np.float64)
        return scores, np.concatenate(maps) if maps else None

    def export(self, thresholds: Thresholds, chosen: str, file: Path) -> list[str]:
        """Not possible."""
        raise ConfigError("export: an exported file found; expected a run.")


def as_input(images: Sequence[RGB]) -> Floats:
    """Images of one size as an exported file takes them: (n, 3, height, width) in [0, 1]."""
    stacked = np.stack([one.transpose(2, 0, 1) for one in images]).astype(np.float32)
    stacked /= 255
    return stacked


def _read(file: Path) -> dict[str, Any]:
    beside = file.with_name(file.name + SUFFIX)
    try:
        about = json.loads(beside.read_text(encoding="utf-8"))
        if about["version"] > FORMAT:
            raise StoreError(f"{beside}: written by a newer harness (version {about['version']}, {FORMAT} known).")
        if about["format"] not in RUNTIMES or not isinstance(about["sha256"], dict):
            raise ValueError(f"format {about['format']!r}")
        if any(Path(part).name != part for part in about["sha256"]) or file.name not in about["sha256"]:
            raise ValueError("sha256 names other files")
    except FileNotFoundError as error:
        raise StoreError(
            f"{file}: no {beside.name} beside it; expected a model that `harness export` wrote."
        ) from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _damaged(file, error) from error
    found: dict[str, Any] = about
    return found


def _damaged(file: Path, error: Exception) -> StoreError:
    beside = file.with_name(file.name + SUFFIX)
    return StoreError(f"{beside}: damaged ({type(error).__name__}: {error}). Export the model again.")


def _runtime(name: str, file: Path) -> Run:
    package = RUNTIMES[name]
    if find_spec(package) is None:
        raise ConfigError(f"{file}: needs {package}, which is not installed. Run: python -m pip install {package}")
    try:
        return {"onnx": _onnx, "openvino": _openvino, "torchscript": _torchscript}[name](file)
    # Whatever a damaged file makes a runtime raise.
    except Exception as error:
        raise WeightsError(f"{file}: {package} can't load it ({type(error).__name__}: {str(error)[:200]}).") from error


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
        # For one size it is faster than for any; compiling takes as long as some images.
        shape = images.shape if images.shape in compiled or len(compiled) < SIZES else ()
        if shape not in compiled:
            model = core.read_model(str(file))
            if shape:
                model.reshape(list(shape))
            compiled[shape] = core.compile_model(model, "CPU", OPENVINO_OPTIONS)
        return list(compiled[shape](images).to_tuple())

    core.read_model(str(file))  # damaged files are found now
    return run


def _torchscript(file: Path) -> Run:
    import warnings

    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module = torch.jit.load(str(file), map_location="cpu")  # type: ignore[no-untyped-call]

    def run(images: Floats) -> Sequence[npt.NDArray[Any]]:
        with torch.inference_mode():
            return [one.numpy() for one in module(torch.from_numpy(images))]

    return run
