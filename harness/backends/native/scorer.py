"""A saved native detector at work."""

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
    """See `harness.backends.base.Scorer`.

    Args:
        detector: fitted.
    """

    def __init__(self, detector: Detector) -> None:
        self.detector = detector
        self.name = detector.name
        self.device = detector.device.description
        self.resized = detector.view.size if detector.view.crop else None
        self.input_size = detector.view.input_size
        self.notes: tuple[str, ...] = ()
        # Now, rather than with the first image.
        detector.extractor()

    @classmethod
    def from_file(cls, file: Path, device: str) -> NativeScorer:
        """See `harness.backends.base.Backend.load`; a safetensors file holds no code."""
        return cls(load(file, device, progress=False))

    def prepare(self, pixels: RGB) -> torch.Tensor:
        """(3, height, width), resized, cropped, normalised."""
        return self.detector.view(as_tensor(pixels))

    def score(self, prepared: Sequence[torch.Tensor]) -> tuple[npt.NDArray[np.float64], Floats | None]:
        """See `Scorer.score`."""
        scores = self.detector.score_batch(torch.stack(list(prepared)))
        return scores.images.double().cpu().numpy(), scores.maps.cpu().numpy()

    def export(self, thresholds: Thresholds, chosen: Format, file: Path) -> list[str]:
        """See `Scorer.export`."""
        from harness.backends.native.export import export

        return export(self.detector, thresholds, chosen, file)
