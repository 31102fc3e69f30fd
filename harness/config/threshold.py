"""The `threshold:` block: the method that computes the thresholds of F1Score."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

CROSS_CONFORMAL, HELD_OUT = "cross_conformal", "held_out"
FOLDS = 5  # of a detector that declares no other number
# Keys of `threshold:` by method.
KEYS: dict[str, set[str]] = {
    CROSS_CONFORMAL: {"false_alarms", "pixel_quantile", "folds", "seed"},
    HELD_OUT: {"false_alarms", "pixel_quantile"},
    "normal_quantile": {"quantile", "pixel_quantile"},
    "f1_on_val": {"share", "seed"},
    "fixed": {"image", "pixel"},
    "none": set(),
}
# Keys of a block without a method, which gets one of the two conformal methods.
DEFAULT_KEYS = {"false_alarms", "pixel_quantile", "folds"}


class Threshold(BaseModel):
    """How the thresholds behind F1Score are fixed. Never from the labels of images that the metrics are about.

    Attributes:
        method: `cross_conformal`: from the scores of all training images, each by a model that did not learn from the
            image; `held_out`: from the scores of held-out normal images (`data.val`);
            `normal_quantile`: a quantile of the scores of held-out normal images;
            `f1_on_val`: the best F1 on labelled images that leave the test set for this;
            `fixed`: the numbers given; `none`: no threshold, so no F1Score.
            By default `cross_conformal`, but `held_out` with a `data.val` above 0 or with a model
            without out-of-fold scores: a model of anomalib, or a flow.
        false_alarms: for the two conformal methods, the largest share of normal images above the threshold.
        folds: for `cross_conformal`, number of models that score the training images. By default 5.
        quantile: for `normal_quantile`, of image scores. With few held-out images a high quantile is their maximum.
        pixel_quantile: of the pixels of the same normal anomaly maps, for the pixel threshold.
        share: for `f1_on_val`, of each type of test images.
        seed: for `f1_on_val`, chooses these images; for `cross_conformal`, the images of each fold.
        image: for `fixed`, the threshold of the image score, raw.
        pixel: for `fixed`, the threshold of the pixel score, raw.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    method: Literal["cross_conformal", "held_out", "normal_quantile", "f1_on_val", "fixed", "none"] | None = None
    false_alarms: float = Field(default=0.01, gt=0, lt=1)
    folds: int | None = Field(default=None, ge=2)
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
        for name in sorted(self.model_fields_set - {"method", *self._keys()}):
            # The stored config of a sweep has all keys, with their defaults.
            if getattr(self, name) == type(self).model_fields[name].default:
                continue
            if self.method is None:
                methods = " or ".join(method for method, keys in KEYS.items() if name in keys)
                raise ValueError(f"`{name}` found without a method; expected method {methods}. Add the method")
            keys = ", ".join(sorted(self._keys())) or "only the method"
            raise ValueError(f"`{name}` has no effect with method {self.method!r}; expected {keys}. Remove the key")
        return self

    def _keys(self) -> set[str]:
        return DEFAULT_KEYS if self.method is None else KEYS[self.method]

    def policy(self) -> dict[str, Any]:
        """The method and its keys: equal policies give the same thresholds."""
        return self.model_dump(include={"method", *self._keys()})
