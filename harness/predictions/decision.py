"""A run's thresholds, and scores that they normalise to 0 to 1."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite
from typing import Any, TypeVar, cast

# A number, an array or a tensor.
Values = TypeVar("Values")
PROMISED, ESTIMATED = "promised", "estimated"
GUARANTEES = ("", PROMISED, ESTIMATED)


@dataclass(frozen=True)
class Thresholds:
    """Thresholds of raw scores. An image or pixel with a score above its threshold is anomalous.

    Attributes:
        image, pixel: the thresholds; None for a run without one.
        fixed_by: the samples that fixed them, as text for the sheet.
        image_scale, pixel_scale: threshold minus the median score of normal images (or of their pixels), for
            `normalize`. None without normal scores, or where the difference is not above 0.
        false_alarms: largest expected share of normal images above the image threshold; None where it is unknown.
        false_alarms_asked: the share that the config asks for. Few images give a threshold for a larger share only.
        guarantee: `promised` where the model scored images that it did not learn from; `estimated` where other models
            scored the images, which learnt from fewer images. "" without a share.
    """

    image: float | None = None
    pixel: float | None = None
    fixed_by: str = ""
    image_scale: float | None = None
    pixel_scale: float | None = None
    false_alarms: float | None = None
    false_alarms_asked: float | None = None
    guarantee: str = ""

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Thresholds:
        """Thresholds from the mapping of a record or an exported file.

        Args:
            values: by the names of the attributes.

        Raises:
            ValueError: a name is unknown, a value is no number, a scale is not above 0, or a share is not in 0 to 1.
        """
        shares = ("false_alarms", "false_alarms_asked")
        numbers = ("image", "pixel", "image_scale", "pixel_scale", *shares)
        if unknown := set(values) - {*numbers, "fixed_by", "guarantee"}:
            raise ValueError(f"thresholds: unknown key {', '.join(sorted(unknown))} found; remove it")
        for name in numbers:
            value = values.get(name)
            if value is not None and (
                isinstance(value, bool) or not isinstance(value, int | float) or not isfinite(value)
            ):
                raise ValueError(f"thresholds.{name}: {value!r} found, a number or null expected")
            if name.endswith("_scale") and value is not None and value <= 0:
                raise ValueError(f"thresholds.{name}: {value!r} found, a number above 0 expected")
            if name in shares and value is not None and not 0 < value < 1:
                raise ValueError(f"thresholds.{name}: {value!r} found, a share above 0 and below 1 expected")
        guarantee = str(values.get("guarantee", ""))
        if guarantee not in GUARANTEES:
            raise ValueError(
                f"thresholds.guarantee: {guarantee!r} found, {' or '.join(filter(None, GUARANTEES))} expected"
            )
        plain = {name: values.get(name) for name in numbers}
        return cls(**plain, fixed_by=str(values.get("fixed_by", "")), guarantee=guarantee)

    def notes(self) -> tuple[str, ...]:
        """One sentence for each value that predictions will lack, with the reason."""
        if self.image is None:
            return ("there is no threshold: images get scores, and no labels",)
        if self.image_scale is None:
            return (
                "no normalised scores: too few normal images fixed the threshold to measure how much normal scores "
                "differ. Use more training images, and run the sweep again",
            )
        return ()

    @property
    def span(self) -> tuple[float, float] | None:
        """Colour scale of maps: the threshold in its middle, the median of normal pixels at its lower end."""
        if self.pixel is None or self.pixel_scale is None:
            return None
        return self.pixel - self.pixel_scale, self.pixel + self.pixel_scale


def normalize(values: Values, threshold: float, scale: float) -> Values:
    """Normalise raw scores or maps to 0 to 1: 0.5 at the threshold, 0.25 at the median of normal scores.

    With z = (value - threshold) / scale the result is 0.5 + z / (2 (1 + |z|)). The result never reaches 0 or 1, so
    that the order of the scores stays.

    Args:
        values: raw scores or a raw map.
        threshold: a raw score.
        scale: threshold minus the median of normal scores, above 0.
    """
    z: Any = (cast(Any, values) - threshold) / scale
    return cast(Values, 0.5 + 0.5 * z / (1 + abs(z)))
