"""Predictions of a saved native detector."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch

from harness.data.images import RGB
from harness.detectors.base import Detector
from harness.detectors.saving import load
from harness.detectors.sources import as_tensor
from harness.predictions.detection import Floats

if TYPE_CHECKING:
    from harness.backends.formats import Format
    from harness.predictions.decision import Thresholds


class NativeScorer:
    """Scores images with a fitted detector; see `harness.backends.scorers.Scorer`.

    Args:
        detector: the fitted detector.
    """

    def __init__(self, detector: Detector) -> None:
        self.detector = detector
        self.name = detector.name
        self.device = detector.device.description
        self.resized = detector.preprocessing.size if detector.preprocessing.crop else None
        self.input_size = detector.preprocessing.input_size
        self.notes = tuple(detector.limits())
        detector.prepare()

    @classmethod
    def from_file(cls, file: Path, device: str) -> NativeScorer:
        """Load a saved detector. A safetensors file contains no code.

        Args:
            file: the saved detector.
            device: auto, cpu, cuda, cuda:N or mps.

        Raises:
            WeightsError: the file is damaged.
        """
        return cls(load(file, device, progress=False))

    def prepare(self, pixels: RGB) -> torch.Tensor:
        """Resize, crop and normalise an image; return (3, height, width)."""
        return self.detector.preprocessing(as_tensor(pixels))

    def score(self, prepared: Sequence[torch.Tensor]) -> tuple[npt.NDArray[np.float64], Floats | None]:
        """Score prepared images.

        Returns:
            Scores (n,), and maps (n, height, width).
        """
        scores = self.detector.score_batch(torch.stack(list(prepared)))
        return scores.images.double().cpu().numpy(), scores.maps.cpu().numpy()

    def as_exported(self) -> NativeScorer:
        """The scorer that an exported file agrees with; see `harness.backends.scorers.Scorer`."""
        exported = self.detector.as_exported()
        return self if exported is self.detector else NativeScorer(exported)

    def export(self, thresholds: Thresholds, file_format: Format, file: Path) -> list[str]:
        """Write the detector with preprocessing, normalisation and thresholds to one file.

        Args:
            thresholds: see `harness.predictions.decision.Thresholds`.
            file_format: the file's format.
            file: path with the format's suffix, in an existing folder.

        Returns:
            The names of the outputs.
        """
        from harness.backends.native.export import export

        return export(self.detector, thresholds, file_format, file)
