"""The key `coverage`: the promised coverage of prediction sets, also from the text of a stored config."""

from __future__ import annotations

from typing import Annotated

import yaml
from pydantic import Field, TypeAdapter, ValidationError

from harness.common.errors import ConfigError

COVERAGE = 0.9

Coverage = Annotated[float, Field(gt=0, lt=1, strict=True, allow_inf_nan=False)]


def checked_coverage(value: object, key: str = "coverage") -> float:
    """A value as a coverage.

    Args:
        value: of the key or of the option.
        key: name of the key or of the option, for the message.

    Raises:
        ConfigError: the value is no number between 0 and 1.
    """
    try:
        return TypeAdapter(Coverage).validate_python(value)
    except ValidationError as error:
        text = f"{key}: {value!r} found; expected a number between 0 and 1, such as {COVERAGE}. Change the value."
        raise ConfigError(text) from error


def coverage_of(text: str) -> float:
    """The promised coverage in the text of a stored config; 0.9 for a config of an earlier version.

    Args:
        text: YAML of a whole config.

    Raises:
        ConfigError: the text is no YAML, or the value is no number between 0 and 1.
    """
    try:
        config = yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError) as error:
        raise ConfigError("no valid YAML; expected the config of a sweep.") from error
    return checked_coverage(config.get("coverage", COVERAGE) if isinstance(config, dict) else COVERAGE)
