"""The `threshold:` block: the method that computes the thresholds of F1Score."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

# Keys of `threshold:` by method.
KEYS: dict[str, set[str]] = {
    "normal_quantile": {"quantile", "pixel_quantile"},
    "f1_on_val": {"share", "seed"},
    "fixed": {"image", "pixel"},
    "none": set(),
}


class Threshold(BaseModel):
    """How the thresholds behind F1Score are fixed. Never from the labels of images that the metrics are about.

    Attributes:
        method: `normal_quantile`: a quantile of the scores of held-out normal images (`data.val`);
            `f1_on_val`: the best F1 on labelled images that leave the test set for this;
            `fixed`: the numbers given; `none`: no threshold, so no F1Score.
        quantile: for `normal_quantile`, of image scores. With few held-out images a high quantile is their maximum.
        pixel_quantile: for `normal_quantile`, of the pixels of held-out normal anomaly maps.
        share: for `f1_on_val`, of each type of test images.
        seed: for `f1_on_val`, chooses these images.
        image: for `fixed`, the threshold of the image score, raw.
        pixel: for `fixed`, the threshold of the pixel score, raw.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    method: Literal["normal_quantile", "f1_on_val", "fixed", "none"] = "normal_quantile"
    quantile: float = Field(default=0.99, gt=0, le=1)
    pixel_quantile: float = Field(default=0.999, gt=0, le=1)
    share: float = Field(default=0.3, gt=0, lt=1)
    seed: int = Field(default=0, ge=0, lt=2**32)
    image: float | None = None
    pixel: float | None = None

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, value: Any) -> Any:
        return {"method": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _keys_of_the_method(self) -> Threshold:
        if self.method == "fixed" and self.image is None and self.pixel is None:
            raise ValueError("method 'fixed' expects `image`, `pixel` or both, as numbers")
        for name in sorted(self.model_fields_set - {"method", *KEYS[self.method]}):
            # The stored config of a sweep has all keys, with their defaults.
            if getattr(self, name) != type(self).model_fields[name].default:
                keys = ", ".join(sorted(KEYS[self.method])) or "only the method"
                raise ValueError(f"`{name}` has no effect with method {self.method!r}; expected {keys}. Remove the key")
        return self

    def policy(self) -> dict[str, Any]:
        """The method and its keys: equal policies give the same thresholds."""
        return self.model_dump(include={"method", *KEYS[self.method]})
