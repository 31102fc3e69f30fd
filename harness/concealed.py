"""Values that a config takes from the environment (`${oc.env:NAME}`) may be secret.

What people read (config.yaml, sheet, page, messages) shows the reference. record.json holds the values: `predict` needs
them.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

REFERENCE = re.compile(r"\$\{oc\.env:([^,}]+)(?:,[^}]*)?\}")
SHORTEST = 6  # characters; a shorter value stands in other words too, and is only replaced where it is all of a value

# References by value, of the configs that this process has read: messages go by them.
_known: dict[str, str] = {}


def references(tree: Any) -> dict[str, str]:
    """What a config takes from the environment: references by value.

    Args:
        tree: of the YAML, before interpolation.
    """
    from harness.paths import expanded

    found: dict[str, str] = {}
    if isinstance(tree, dict):
        for value in tree.values():
            found |= references(value)
    elif isinstance(tree, list):
        for value in tree:
            found |= references(value)
    elif isinstance(tree, str):
        for match in REFERENCE.finditer(tree):
            name = match.group(1).strip()
            if value := os.environ.get(name):
                found[value] = f"${{oc.env:{name}}}"
                with suppress(ValueError):
                    found[expanded(value)] = f"${{oc.env:{name}}}"
    return found


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
        if len(value) >= SHORTEST and value in text:
            text = text.replace(value, found[value])
    return text
