"""Where normal ends: a run's thresholds, and scores brought to 0 ... 1 by them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeVar, cast

# A number, an array or a tensor.
Values = TypeVar("Values")


@dataclass(frozen=True)
class Cut:
    """Where normal ends, in raw scores; see `harness.metrics.thresholds.Thresholds`.

    Attributes:
        image, pixel: thresholds; None where the run fixed none.
        image_scale, pixel_scale: for `normalize`; None where nothing is known.
        fixed_by: which samples chose the thresholds.
    """

    image: float | None = None
    pixel: float | None = None
    image_scale: float | None = None
    pixel_scale: float | None = None
    fixed_by: str = ""

    @property
    def span(self) -> tuple[float, float] | None:
        """Colour scale of maps: from the median of normal pixels, over the threshold in its middle, as far above."""
        if self.pixel is None or self.pixel_scale is None:
            return None
        return self.pixel - self.pixel_scale, self.pixel + self.pixel_scale


def normalize(values: Values, threshold: float, scale: float) -> Values:
    """Raw scores or maps to 0 ... 1: 0.5 at the threshold, 0.25 at the median of normal ones.

    With z = (value - threshold) / scale it is 0.5 + z / (2 (1 + |z|)), which never reaches its ends: what is more
    anomalous stays so.

    Args:
        values: raw.
        threshold: in raw scores.
        scale: threshold - median of normal ones, above 0.
    """
    z: Any = (cast(Any, values) - threshold) / scale
    return cast(Values, 0.5 + 0.5 * z / (1 + abs(z)))
