"""The `recommend:` block: the margin of equal quality, and limits that the recommended configuration must keep."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from harness.common.errors import ConfigError
from harness.common.schema_errors import sentence
from harness.config.units import byte_size, seconds

MARGIN = 0.01


class Limits(BaseModel):
    """The limits of a recommendation. None is no limit.

    Attributes:
        margin: a configuration is as good as the best if its image AUROC (macro F1 in a classification) is lower by
            less than this.
        max_ms: median latency of a single image, in milliseconds.
        max_memory: peak memory of the process, in bytes.
        max_model: size of the saved model, in bytes.
        max_fit: time of the training, in seconds.
        min_recall: share of the anomalous test images that the threshold detects.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    margin: float = Field(default=MARGIN, ge=0, lt=1)
    max_ms: float | None = Field(default=None, gt=0)
    max_memory: int | None = Field(default=None, gt=0)
    max_model: int | None = Field(default=None, gt=0)
    max_fit: float | None = Field(default=None, gt=0)
    min_recall: float | None = Field(default=None, gt=0, le=1)

    @field_validator("max_memory", "max_model", mode="before")
    @classmethod
    def _bytes(cls, value: Any) -> Any:
        return byte_size(value)

    @field_validator("max_fit", mode="before")
    @classmethod
    def _seconds(cls, value: Any) -> Any:
        return seconds(value)


def limits_of(text: str) -> Limits:
    """The limits in the text of a stored config.

    Args:
        text: YAML of a config. Without a block `recommend`, or with several configs, there are no limits.

    Raises:
        ConfigError: the block has errors; one sentence for each.
    """
    try:
        configs = list(yaml.safe_load_all(text))
        block = configs[0].get("recommend") if len(configs) == 1 and isinstance(configs[0], dict) else None
        return Limits.model_validate(block or {})
    except (yaml.YAMLError, RecursionError) as error:
        raise ConfigError("no valid YAML; expected the config of a sweep.") from error
    except ValidationError as error:
        raise ConfigError([sentence(e, Limits, prefix=("recommend",)) for e in error.errors()]) from error


def with_options(limits: Limits, options: Mapping[str, str | None]) -> Limits:
    """Limits with the options of a command in place of their values.

    Args:
        limits: of the stored config.
        options: texts, by the name of the limit; None for an option that was not used.

    Raises:
        ConfigError: a text is no valid value; one sentence for each.
    """
    values = {name: _number(text) for name, text in options.items() if text is not None}
    try:
        return Limits.model_validate({**limits.model_dump(), **values})
    except ValidationError as error:
        problems = (sentence(e, Limits) for e in error.errors())
        raise ConfigError([f"--{text.replace('_', '-', 1)}" for text in problems]) from error


def _number(text: str) -> float | str:
    """A text as a number; a text with a unit stays, for `byte_size` and `seconds`."""
    try:
        return float(text)
    except ValueError:
        return text
