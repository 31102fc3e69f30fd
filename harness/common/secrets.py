"""Values that a config takes from the environment (`${oc.env:NAME}`) may be secret.

Files for readers (config.yaml, sheet, page) and messages show the reference. record.json holds the values, because
`predict` needs them.
"""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

SHORTEST = 6  # characters; a shorter value occurs in other words too, and is replaced only as a whole text

# References by value, from all configs of this process, for its messages.
_remembered: dict[str, str] = {}


@contextmanager
def references() -> Iterator[dict[str, str]]:
    """Collect references (`${oc.env:NAME}`) by value while configs take values from the environment."""
    from omegaconf import OmegaConf
    from omegaconf.resolvers import oc

    from harness.common.paths import expanded

    by_value: dict[str, str] = {}

    def look_up(name: str, *default: Any) -> Any:
        value = oc.env(name, *default)
        if name in os.environ and value:
            by_value[value] = f"${{oc.env:{name}}}"
            with suppress(ValueError):
                by_value[expanded(value)] = by_value[value]
        return value

    def register(resolver: Any) -> None:
        with warnings.catch_warnings():
            # Later versions of OmegaConf rename this function, and 2.3 uses the new name for another function.
            warnings.simplefilter("ignore")
            OmegaConf.register_new_resolver("oc.env", resolver, replace=True)

    register(look_up)
    try:
        yield by_value
    finally:
        register(oc.env)


def remember(by_value: Mapping[str, str]) -> None:
    """Conceal values in all later messages of this process.

    Args:
        by_value: references by value.
    """
    _remembered.update(by_value)


def concealed(value: Any, by_value: Mapping[str, str] | None = None) -> Any:
    """Plain values with references in place of values from the environment.

    Args:
        value: text, or a nested list or mapping; other types stay unchanged.
        by_value: references by value; None for all references of this process.
    """
    by_value = _remembered if by_value is None else by_value
    if not by_value:
        return value
    if isinstance(value, str):
        return _in_text(value, by_value)
    if isinstance(value, Mapping):
        return {key: concealed(item, by_value) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(concealed(item, by_value) for item in value)
    return value


def _in_text(text: str, by_value: Mapping[str, str]) -> str:
    if text in by_value:
        return by_value[text]
    # The longest first, because one value may contain another.
    for value in sorted(by_value, key=len, reverse=True):
        # Messages quote values as Python or JSON does.
        for quoted in (value, repr(value)[1:-1], json.dumps(value)[1:-1], json.dumps(value, ensure_ascii=False)[1:-1]):
            if len(value) >= SHORTEST and quoted in text:
                text = text.replace(quoted, by_value[value])
    return text
