"""Values that a config takes from the environment (`${oc.env:NAME}`) may be secret.

What people read (config.yaml, sheet, page, messages) shows the reference. record.json holds the values: `predict` needs
them.
"""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

SHORTEST = 6  # characters; a shorter value stands in other words too, and is only replaced where it is all of a value

# References by value, of the configs that this process has read: messages go by them.
_known: dict[str, str] = {}


@contextmanager
def references() -> Iterator[dict[str, str]]:
    """What configs take from the environment while they are resolved: references by value, however they are spelt."""
    from omegaconf import OmegaConf
    from omegaconf.resolvers import oc

    from harness.common.paths import expanded

    found: dict[str, str] = {}

    def looked_up(name: str, *default: Any) -> Any:
        value = oc.env(name, *default)
        if name in os.environ and value:
            found[value] = f"${{oc.env:{name}}}"
            with suppress(ValueError):
                found[expanded(value)] = found[value]
        return value

    def register(resolver: Any) -> None:
        with warnings.catch_warnings():
            # A later OmegaConf calls it otherwise; 2.3 means another thing by that name.
            warnings.simplefilter("ignore")
            OmegaConf.register_new_resolver("oc.env", resolver, replace=True)

    register(looked_up)
    try:
        yield found
    finally:
        register(oc.env)


def remember(found: Mapping[str, str]) -> None:
    """Conceal these values in the messages of this process."""
    _known.update(found)


def concealed(value: Any, found: Mapping[str, str] | None = None) -> Any:
    """A value, or what is in a list or mapping, with references in place of values from the environment.

    Args:
        value: plain values.
        found: references by value; None for those of this process.
    """
    found = _known if found is None else found
    if not found:
        return value
    if isinstance(value, str):
        return _in_text(value, found)
    if isinstance(value, Mapping):
        return {key: concealed(item, found) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(concealed(item, found) for item in value)
    return value


def _in_text(text: str, found: Mapping[str, str]) -> str:
    if text in found:
        return found[text]
    # The longest first: one value may begin with another.
    for value in sorted(found, key=len, reverse=True):
        # Also as messages quote it.
        for spelt in (value, repr(value)[1:-1], json.dumps(value)[1:-1], json.dumps(value, ensure_ascii=False)[1:-1]):
            if len(value) >= SHORTEST and spelt in text:
                text = text.replace(spelt, found[value])
    return text
