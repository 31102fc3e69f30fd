"""Hooks of MkDocs: the reference of the configuration, made from the schema each time the site is built.

A page asks for a table with `<!-- reference: NAME -->`; `TABLES` lists the names.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel

from harness import registry
from harness.backends.supervised import recipes
from harness.backends.supervised.probe import settings as probe
from harness.backends.supervised.settings import CHOICES, LIMITS, NEEDS, Settings
from harness.backends.supervised.tta import KINDS
from harness.config.protocol import ProtocolOptions
from harness.config.search import Search
from harness.config.sweep import SweepConfig
from harness.config.threshold import KEYS as METHOD_KEYS
from harness.config.threshold import Threshold
from harness.data.base import BaseOptions, DataOptions
from harness.data.labelled.base import Group, LabelledOptions
from harness.data.labelled.tables import Columns

MARKER = re.compile(r"<!-- reference: ([\w.]+) -->")
HEAD = ("| key | type | default | meaning |", "| --- | --- | --- | --- |")
NAMES: Mapping[Any, str] = {str: "text", int: "whole number", float: "number", bool: "true or false", dict: "mapping"}
PLURALS = {"whole number": "whole numbers", "mapping": "mappings"}
SIGNS = (("ge", "from {}"), ("gt", "above {}"), ("le", "to {}"), ("lt", "below {}"))
REQUIRED = "required"
# The short form of a large default.
LARGE = {100_000_000: "100000000", 20 * 10**9: "20 GB", 2**32: "2<sup>32</sup>"}
# Keys whose default is worked out from something else.
COMPUTED = {("SweepConfig", "name"): "the file's name", ("Search", "holdout"): "0.3 or 0"}
# Keys that an attribute can't be called.
KEYS = {("Columns", "part"): "class"}


def descriptions(cls: type) -> dict[str, str]:
    """Name -> description, from the section `Attributes` or `Args` of the class's docstring and of its bases."""
    found: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        text = inspect.cleandoc(base.__dict__.get("__doc__") or "")
        for section in re.findall(r"^(?:Attributes|Args):\n((?:[ ]{4}.*\n?|\n)+)", text, flags=re.MULTILINE):
            for names, said in re.findall(r"^[ ]{4}(\w[\w, ]*): (.*(?:\n[ ]{8}.*)*)", section, flags=re.MULTILINE):
                found |= {name: re.sub(r"\s+", " ", said) for name in names.split(", ")}
    return found


def described_type(annotation: Any) -> str:
    """A type in words."""
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return ", ".join(f"`{value}`" for value in inner)
    if origin in {Union, UnionType}:
        return " or ".join(dict.fromkeys(described_type(one) for one in inner if one is not NoneType))
    if origin in {list, tuple}:
        return f"list of {PLURALS.get(described_type(inner[0]), described_type(inner[0]))}"
    if hasattr(annotation, "__metadata__"):
        return "path"
    if origin is dict or (inspect.isclass(annotation) and issubclass(annotation, BaseModel)):
        return "mapping"
    return NAMES.get(annotation, "any")


def limits(metadata: list[Any]) -> str:
    """The bounds of a number, in words."""
    said = [
        text.format(LARGE.get(bound, bound))
        for name, text in SIGNS
        for one in metadata
        if (bound := getattr(one, name, None)) is not None
    ]
    return f", {', '.join(said).replace(', to', ' to')}" if said else ""


def default_of(value: Any) -> str:
    """A default, as YAML writes it."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, BaseModel):
        return ""
    if isinstance(value, list | tuple):
        return f"`[{', '.join(map(str, value))}]`"
    return f"`{LARGE.get(value, value) if isinstance(value, int) else value}`"


def rows_of_model(cls: type[BaseModel], without: type[BaseModel] | None = None) -> Iterator[tuple[str, str, str, str]]:
    """Key, type, default and meaning of each field.

    Args:
        cls: of the fields.
        without: a base whose fields are left out.
    """
    said = descriptions(cls)
    left_out = set(without.model_fields) if without else set()
    for name, field in cls.model_fields.items():
        if name in left_out:
            continue
        given = REQUIRED if field.is_required() else default_of(field.get_default(call_default_factory=True))
        default = COMPUTED.get((cls.__name__, name), given)
        if any(getattr(one, "func", None) is not None for one in field.metadata):
            kind = "path"
        else:
            kind = described_type(field.annotation)
        key = KEYS.get((cls.__name__, name), name)
        yield f"`{key}`", kind + limits(field.metadata), default, said[name]


def rows_of_settings() -> Iterator[tuple[str, str, str, str]]:
    """The axes of a classification."""
    names = ", ".join(f"`{name}`" for name in recipes.CHOICES)
    yield f"`{recipes.KEY}`", names, "`auto`, if the grid sets no value of a recipe", recipes.DESCRIPTION
    said = descriptions(Settings)
    assert is_dataclass(Settings)
    for field in fields(Settings):
        name = field.name
        if name in {"image_size", "normalization"}:
            continue
        if name in CHOICES:
            kind = ", ".join(f"`{value}`" for value in CHOICES[name])
        elif name in LIMITS:
            kind = f"number from {LIMITS[name][0]:g} to {LIMITS[name][1]:g}"
        elif name == "optimizer":
            kind = "name of timm"
        elif name == "with_detector":
            kind = "`none`, a name, or a mapping"
        elif name == "tta":
            kind = f"`none`, or {', '.join(f'`{name}`' for name in KINDS)} joined by `+`, or a mapping"
        elif name == "eval_image_size":
            kind = "number of pixels, or [height, width]"
        else:
            kind = "true or false" if isinstance(field.default, bool) else "list of text"
        other, values = NEEDS.get(name, ("", ()))
        only = f" Only with {' or '.join(f'`{other}: {value}`' for value in values)}." if values else ""
        yield f"`{name}`", kind, default_of(field.default), said[name] + only


def rows_of_probe() -> Iterator[tuple[str, str, str, str]]:
    """The axes of a probe."""
    said = descriptions(probe.ProbeSettings)
    for field in fields(probe.ProbeSettings):
        name = field.name
        if name in {"image_size", "normalization"}:
            continue
        if name in probe.CHOICES:
            kind = ", ".join(f"`{value}`" for value in probe.CHOICES[name])
        else:
            kind = f"number from {probe.LIMITS[name][0]:g} to {probe.LIMITS[name][1]:g}"
        other, values = probe.NEEDS.get(name, ("", ()))
        only = f" Only with {' or '.join(f'`{other}: {value}`' for value in values)}." if values else ""
        yield f"`{name}`", kind, default_of(field.default), said[name] + only


def rows_of_detector(name: str) -> Iterator[tuple[str, str, str, str]]:
    """The arguments of a native detector."""
    cls = registry.load(registry.DETECTORS[name])
    said = descriptions(cls)
    hints = inspect.get_annotations(cls.__init__, eval_str=True)
    for parameter in inspect.signature(cls.__init__).parameters.values():
        if parameter.name == "self" or parameter.kind is parameter.VAR_KEYWORD:
            continue
        kind = "list of text" if parameter.name == "layers" else described_type(hints[parameter.name])
        yield f"`{parameter.name}`", kind, default_of(parameter.default), said[parameter.name]


def tables() -> dict[str, Callable[[], Iterator[tuple[str, str, str, str]]]]:
    """Name -> rows of every table that a page may ask for."""
    found: dict[str, Callable[[], Iterator[tuple[str, str, str, str]]]] = {
        "sweep": lambda: rows_of_model(SweepConfig),
        "threshold": lambda: rows_of_model(Threshold),
        "protocol": lambda: rows_of_model(ProtocolOptions),
        "search": lambda: rows_of_model(Search),
        "data": lambda: rows_of_model(BaseOptions),
        "data.detection": lambda: rows_of_model(DataOptions, BaseOptions),
        "data.classification": lambda: rows_of_model(LabelledOptions, BaseOptions),
        "columns": lambda: rows_of_model(Columns),
        "group": lambda: rows_of_model(Group),
        "training": rows_of_settings,
        "probe": rows_of_probe,
    }
    for kind, target in registry.DATASETS.items():
        found[f"detection.{kind}"] = lambda target=target: rows_of_model(registry.load(target), DataOptions)
    for kind, target in registry.LABELLED_DATASETS.items():
        found[f"classification.{kind}"] = lambda target=target: rows_of_model(registry.load(target), LabelledOptions)
    for name in registry.DETECTORS:
        found[f"detector.{name}"] = lambda name=name: rows_of_detector(name)
    return found


def table(name: str) -> str:
    """A table in Markdown.

    Raises:
        KeyError: there is no such table, or a key has no description.
    """
    rows = ("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in tables()[name]())
    return "\n".join([*HEAD, *rows])


def metrics_table(group: str) -> str:
    """The metrics of the registry, each with the first sentence of its function.

    Args:
        group: a level, or `on_request` for the metrics of `extra_metrics` of all levels.
    """
    lines = ["| metric | better | meaning |", "| --- | --- | --- |"]
    for metric in registry.METRICS:
        if metric.on_request if group == "on_request" else metric.level == group and not metric.on_request:
            text = inspect.getdoc(registry.load(metric.function)) or ""
            meaning = re.sub(r"\s+", " ", text.split("\n\n")[0])
            better = "larger" if metric.higher_is_better else "smaller"
            name = f"`{metric.key}`{' (optional)' if metric.optional and not metric.on_request else ''}"
            lines.append(f"| {name} | {better} | {meaning} |")
    return "\n".join(lines)


def methods() -> str:
    """The methods of a threshold, each with the keys that it uses."""
    lines = ["| method | keys |", "| --- | --- |"]
    for method, keys in METHOD_KEYS.items():
        lines.append(f"| `{method}` | {', '.join(f'`{key}`' for key in sorted(keys)) or 'none'} |")
    return "\n".join(lines)


def expand(text: str) -> str:
    """A page with its tables."""

    def one(match: re.Match[str]) -> str:
        name = match[1]
        if name.startswith("metrics."):
            return metrics_table(name.removeprefix("metrics."))
        return methods() if name == "threshold.methods" else table(name)

    return MARKER.sub(one, text)


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Called by MkDocs for every page."""
    return expand(markdown)


if __name__ == "__main__":
    print(expand((Path(__file__).parent / "configuration.md").read_text()))
