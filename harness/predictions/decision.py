"""Where normal ends: a run's thresholds, and scores brought to 0 ... 1 by them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite
from typing import Any, TypeVar, cast

# A number, an array or a tensor.
Values = TypeVar("Values")


@dataclass(frozen=True)
class Thresholds:
    """Where normal ends, in raw scores; what is above is anomalous.

    Attributes:
        image, pixel: None where none is fixed.
        fixed_by: which samples chose them, for the sheet.
        image_scale, pixel_scale: how far a threshold is above the median of normal scores (of the pixels of normal
            images), for `normalize`; None where there are none to tell, or it is not above.
    """

    image: float | None = None
    pixel: float | None = None
    fixed_by: str = ""
    image_scale: float | None = None
    pixel_scale: float | None = None

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Thresholds:
        """As a record or an exported file holds them.

        Raises:
            ValueError: one is no number or not known, or a scale is not above 0.
        """
        numbers = ("image", "pixel", "image_scale", "pixel_scale")
        if unknown := set(values) - {*numbers, "fixed_by"}:
            raise ValueError(f"thresholds: unknown {', '.join(sorted(unknown))}")
        for name in numbers:
            value = values.get(name)
            if value is not None and (
                isinstance(value, bool) or not isinstance(value, int | float) or not isfinite(value)
            ):
                raise ValueError(f"thresholds.{name}: {value!r} found, a number or null expected")
            if name.endswith("_scale") and value is not None and value <= 0:
                raise ValueError(f"thresholds.{name}: {value!r} found, a number above 0 expected")
        return cls(**{name: values.get(name) for name in numbers}, fixed_by=str(values.get("fixed_by", "")))

    def notes(self) -> tuple[str, ...]:
        """What answers will be without, and why, one sentence each."""
        if self.image is None:
            return ("there is no threshold: images get scores, and no labels",)
        if self.image_scale is None:
            return (
                "no normalised scores: too few normal images were held out to say how far good parts differ; a larger "
                "data.val, or more training images, and the sweep again give them",
            )
        return ()

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
