"""Predictions of an exported detector by its runtime. ONNX and OpenVINO files do not need Torch."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from harness.common.errors import ConfigError, StoreError, WeightsError
from harness.common.files import file_hash
from harness.data.images import RGB
from harness.inference.runtimes import RUNTIMES, load_runtime
from harness.predictions.decision import Thresholds
from harness.predictions.detection import Floats

SUFFIX = ".json"
# Version of the JSON file by task. Harness 0.1 knows version 1.
FORMATS = {"detection": 1, "classification": 2}
OUTPUTS = {
    "score": "(batch,) raw; larger is more anomalous",
    "normalized_score": "(batch,) 0 to 1: 0.5 at the threshold, 0.25 at the median of held-out normal images",
    "label": "(batch,) whether the score is above the threshold",
    "anomaly_map": "(batch, height, width) raw, of what the model sees",
    "mask": "(batch, height, width) whether the map is above the pixel threshold",
}
OTHER = {
    "detection": "Use load_classifier in Python, or predict on the command line.",
    "classification": "Use load_model for this file.",
}


class Exported(ABC):
    """An exported model, ready to run: the part that both tasks share.

    Args:
        file: .onnx, .xml or .pt, with its .json in the same folder.
        trust: whether a TorchScript file may be executed. Such a file is a program.

    Attributes:
        task: the task of the model.
        known: descriptions of all outputs that a model of this task may have.
        needed: the output that each has.
        about: content of the .json file.
        name: the model's name.
        device: "cpu" and the runtime, for messages.
        notes: limits of the predictions that a user must know, one sentence each.
        size: bytes of the model's files.

    Raises:
        StoreError: the .json file is missing or damaged, or the model has another task.
        WeightsError: the model file is damaged or was changed, or is TorchScript without `trust`.
        ConfigError: the runtime is not installed.
    """

    task: ClassVar[str]
    known: ClassVar[Mapping[str, str]]
    needed: ClassVar[str]

    def __init__(self, file: Path, trust: bool = False) -> None:
        self.about = read_about(file)
        if (task := self.about.get("task", "detection")) != self.task:
            raise StoreError(f"{file}: an exported {task} found; expected a {self.task}. {OTHER[self.task]}")
        if self.about["format"] == "torchscript" and not trust:
            raise WeightsError(
                f"{file}: TorchScript is a program, and loading this file executes the program. If you trust the "
                "file's author, say --trust (trust=True). ONNX and OpenVINO files need no trust."
            )
        try:
            self.name = str(self.about["model"])
            self.device = f"cpu, {RUNTIMES[self.about['format']]}"
            self._outputs = list(self.about["outputs"])
            self.notes: tuple[str, ...] = tuple(str(note) for note in self.about["notes"])
            if self.needed not in self._outputs or not set(self._outputs) <= set(self.known):
                raise ValueError(f"outputs {self._outputs}")
            self.read_facts()
        except (AttributeError, KeyError, TypeError, ValueError, IndexError) as error:
            raise _damaged(file, error) from error
        self.size = 0
        for name, sha256 in self.about["sha256"].items():
            path = file.parent / name
            if not path.is_file() or file_hash(path) != sha256:
                raise WeightsError(f"{path}: missing, damaged or changed since it was exported. Export it again.")
            self.size += path.stat().st_size
        self._run = load_runtime(self.about["format"], file)

    @abstractmethod
    def read_facts(self) -> None:
        """Read the facts of the task from `about`.

        Raises:
            AttributeError, KeyError, TypeError, ValueError, IndexError: a fact is missing or wrong.
        """

    def answers(self, images: Floats) -> Mapping[str, npt.NDArray[Any]]:
        """Run the model and return all outputs by name, see `OUTPUTS`.

        Args:
            images: (n, 3, height, width), RGB in [0, 1].
        """
        return dict(zip(self._outputs, self._run(images), strict=True))

    def prepare(self, pixels: RGB) -> RGB:
        """Return the pixels unchanged: the file itself prepares them, and 8 bits take less memory than 32."""
        return pixels

    def batches(self, prepared: Sequence[RGB]) -> list[Mapping[str, npt.NDArray[Any]]]:
        """Run images of one size in one batch, and images of different sizes one by one.

        Args:
            prepared: n images, uint8 RGB of shape (height, width, 3).

        Returns:
            The outputs of each batch, in the order of the images.
        """
        batches = [prepared] if len({pixels.shape for pixels in prepared}) == 1 else [[pixels] for pixels in prepared]
        return [self.answers(as_input(batch)) for batch in batches]


class ExportedFile(Exported):
    """An exported detector; a `harness.backends.scorers.Scorer`. See `Exported` for its arguments.

    Attributes:
        resized: (height, width) before the centre crop; None without a crop.
        input_size: (height, width) of the network's input.
        thresholds: raw thresholds and scales.
    """

    task = "detection"
    known = OUTPUTS
    needed = "score"

    def read_facts(self) -> None:
        """Read thresholds and sizes; see `Exported.read_facts`."""
        self.thresholds = Thresholds.from_dict(self.about["thresholds"])
        resized, crop = (tuple(self.about["preprocessing"][key]) for key in ("resized_to", "cut_to"))
        self.resized: tuple[int, int] | None = None if resized == crop else (int(resized[0]), int(resized[1]))
        self.input_size: tuple[int, int] | None = (int(crop[0]), int(crop[1]))

    def score(self, prepared: Sequence[RGB]) -> tuple[npt.NDArray[np.float64], Floats | None]:
        """Score images. Images of one size form a batch; images of different sizes are scored one by one.

        Args:
            prepared: n images, uint8 RGB of shape (height, width, 3).

        Returns:
            Scores (n,) and maps (n, height, width); None instead of maps for a model without maps.
        """
        outputs = self.batches(prepared)
        maps = [output["anomaly_map"] for output in outputs if "anomaly_map" in output]
        scores = np.concatenate([output["score"] for output in outputs]).astype(np.float64)
        return scores, np.concatenate(maps) if maps else None

    def as_exported(self) -> ExportedFile:
        """The scorer that an exported file agrees with: this one."""
        return self

    def export(self, thresholds: Thresholds, file_format: str, file: Path) -> list[str]:
        """Refuse the export: an exported file holds no trainable model.

        Args:
            thresholds: unused.
            file_format: unused.
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


def check_device(device: str) -> None:
    """Check the device of an exported model.

    Args:
        device: as the user names it.

    Raises:
        ConfigError: the device is another one than the cpu.
    """
    if device not in {"auto", "cpu"}:
        raise ConfigError(f"device: {device} found; expected auto or cpu: an exported file runs on the cpu.")


def task_of(file: Path) -> str:
    """The task of an exported model; `detection` for any other file.

    Raises:
        StoreError: the .json file is damaged.
    """
    if not file.with_name(file.name + SUFFIX).is_file():
        return "detection"
    return str(read_about(file).get("task", "detection"))


def read_about(file: Path) -> dict[str, Any]:
    """Read the .json file of an exported model.

    Raises:
        StoreError: the .json file is missing or damaged.
    """
    json_file = file.with_name(file.name + SUFFIX)
    try:
        about: dict[str, Any] = json.loads(json_file.read_text(encoding="utf-8"))
        if about["version"] > max(FORMATS.values()):
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
