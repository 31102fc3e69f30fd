"""The maps of a run as the 16-bit floats of a submission."""

from __future__ import annotations

from collections.abc import Iterator
from math import frexp
from pathlib import Path

import numpy as np
import numpy.typing as npt

from harness.common.errors import StoreError
from harness.inference.result import Result

# Thresholds of maps that a 16-bit float holds as they are, with values up to 64 times the threshold.
PLAIN = (2.0**-4, 2.0**10)
Float16 = npt.NDArray[np.float16]


class SubmissionMaps:
    """The maps of one run as 16-bit floats.

    Args:
        folder: folder of the run, for messages.
        threshold: raw threshold of pixels.
    """

    def __init__(self, folder: Path, threshold: float) -> None:
        self._folder, self._threshold = folder, threshold
        # A power of two changes no digit of a float, so the order of the pixels stays.
        fits = not self._threshold or PLAIN[0] <= abs(self._threshold) <= PLAIN[1]
        self._exponent = 0 if fits else -frexp(self._threshold)[1]
        self._clipped = self._cropped = 0

    def of(self, result: Result) -> tuple[Float16, npt.NDArray[np.bool_]]:
        """The map and the mask of an image, at the size of the image.

        Raises:
            StoreError: the model has no maps.
        """
        whole = result.map_at_image_size()
        if whole is None:
            raise StoreError(f"{self._folder}: a model without maps found; expected one with maps.")
        outside = np.isnan(whole)
        mask = whole > self._threshold
        self._cropped += int(outside.any())
        whole[outside] = whole[~outside].min()
        scaled = np.ldexp(whole, self._exponent)
        limit = float(np.finfo(np.float16).max)
        self._clipped += int((np.abs(scaled) > limit).sum())
        return np.clip(scaled, -limit, limit).astype(np.float16), mask

    def notes(self) -> Iterator[str]:
        """What differs between the raw maps and those of the archive, one sentence each."""
        if self._exponent:
            yield f"the maps are multiplied by 2**{self._exponent}, so that 16-bit floats hold their values"
        if self._clipped:
            yield f"{self._clipped} pixels have the largest or smallest 16-bit float: their values are beyond it"
        if self._cropped:
            yield f"pixels outside the centre crop have the smallest value of their map ({self._cropped} images)"
