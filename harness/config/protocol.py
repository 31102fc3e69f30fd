"""The `protocol:` block: how anomaly maps and masks meet in the pixel metrics."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from harness.predictions.detection import Protocol


class ProtocolOptions(BaseModel):
    """How anomaly maps and masks meet in the pixel metrics. The default is that of earlier versions.

    Attributes:
        size: `input`: a mask is resized to its map by nearest neighbour. `original`: a map is resized bilinearly to its
            mask, as in the evaluation code of MVTec and in most papers.
        mask: which values of a mask are anomalous. `above_0`: all that are not 0. `above_half`: those above half of the
            range, such as 128 to 255; another result only for smooth edges and JPEG.
        min_area: the smallest region that the metrics of regions count, in pixels at this size.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    size: Literal["input", "original"] = "input"
    mask: Literal["above_0", "above_half"] = "above_0"
    min_area: int = Field(default=1, ge=1, le=10**9)

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, value: Any) -> Any:
        return {"size": value} if isinstance(value, str) else value

    @property
    def protocol(self) -> Protocol:
        """The same values for the metrics."""
        return Protocol(self.size, self.mask, self.min_area)

    def changes(self) -> dict[str, Any]:
        """The keys whose values are not the default: equal ones measure in the same way."""
        return self.model_dump(exclude_defaults=True)
