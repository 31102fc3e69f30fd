"""Predictions of an exported classification by its runtime."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from harness.backends.scorers import LabelScorer, size_refused
from harness.common.errors import ConfigError
from harness.data.images import RGB
from harness.data.labelled.base import LabelSpec
from harness.inference.exported import Exported
from harness.metrics.conformal import Calibration
from harness.metrics.temperature import Temperature

BY_FOLD = "probabilities_by_fold"
OUTPUTS = {"probabilities": "(batch, labels) averaged over folds", BY_FOLD: "(batch, folds, labels)"}


class ExportedClassifier(Exported, LabelScorer):
    """An exported classification. See `Exported` for its arguments.

    Attributes:
        labels: all labels, in the order of the probabilities.
        label_specs: class and condition of each label.
        calibration: scores of the out-of-fold images; None for a run without them.
        coverage: the promised coverage of the label sets.
        temperature: calibrates the probabilities, which the file gives raw.
    """

    task = "classification"
    known = OUTPUTS
    needed = BY_FOLD
    map_note = "an exported file has no gradients; use the folder of the run"

    def read_facts(self) -> None:
        """Read labels and calibration; see `Exported.read_facts`."""
        self.labels = tuple(str(entry["label"]) for entry in self.about["labels"])
        self.label_specs: tuple[LabelSpec, ...] = tuple(
            (str(entry["class"]), str(entry["condition"])) for entry in self.about["labels"]
        )
        if not self.labels:
            raise ValueError("no labels")
        scores = self.about["calibration"]
        self.calibration = None if scores is None else Calibration(tuple(np.sort(_numbers(row)) for row in scores))
        self.coverage = float(self.about["coverage"])
        if not 0 < self.coverage < 1:
            raise ValueError(f"coverage {self.coverage}")
        earlier = {"note": "an earlier version wrote this file, without a temperature; export it again"}
        self.temperature = Temperature.from_dict(self.about.get("temperature", earlier))

    def by_fold(self, prepared: Sequence[RGB]) -> npt.NDArray[np.float64]:
        """Return probabilities (folds, n, labels) of the folds' networks.

        Args:
            prepared: n images, uint8 RGB of shape (height, width, 3).
        """
        rows = [outputs[BY_FOLD] for outputs in self.batches(prepared)]
        return np.concatenate(rows).transpose(1, 0, 2).astype(np.float64)

    def at_image_size(self, size: tuple[int, int]) -> ExportedClassifier:
        """Refuse: the image size is part of the file.

        Args:
            size: (height, width) of the read images.

        Raises:
            ConfigError: always.
        """
        reason = "an exported file, which resizes images to its own size"
        raise size_refused(size, reason, "no size", "Remove it, or use the folder of the run.")

    def export(self, file_format: str, file: Path) -> list[str]:
        """Refuse the export: an exported file holds no trainable model.

        Args:
            file_format: unused.
            file: unused.

        Raises:
            ConfigError: always.
        """
        raise ConfigError("export: an exported file found; expected a run's folder, or a sweep's.")


def _numbers(values: Any) -> npt.NDArray[np.float64]:
    numbers = np.asarray(values, dtype=np.float64)
    if numbers.ndim != 1 or not np.isfinite(numbers).all():
        raise ValueError("calibration without finite numbers")
    return numbers
