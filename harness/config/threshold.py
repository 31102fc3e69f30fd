"""The `threshold:` block: how the thresholds behind F1Score are fixed."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

# Keys of `threshold:` that each method uses.
OF_METHOD: dict[str, set[str]] = {
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
        of_use = {"method", *OF_METHOD[self.method]}
        for name in sorted(self.model_fields_set - of_use):
            # A config as it was run has all keys, with their defaults.
            if getattr(self, name) != type(self).model_fields[name].default:
                raise ValueError(f"`{name}` is of no use to method {self.method!r}; expected {_listed(self.method)}")
        return self

    def policy(self) -> dict[str, Any]:
        """The method and what it uses: two equal ones fix the same threshold."""
        return self.model_dump(include={"method", *OF_METHOD[self.method]})


def _listed(method: str) -> str:
    return ", ".join(sorted(OF_METHOD[method])) or "nothing but the method"
