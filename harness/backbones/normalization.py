"""Mean and standard deviation that normalise a network's input, as in the training of its weights.

This module imports nothing heavy, because a plan uses it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from harness.backbones.local import MODEL_STEMS, LocalWeights, file_name, local_weights
from harness.backbones.tags import tags_of
from harness.common.errors import ConfigError, WeightsError

Channels = tuple[float, float, float]
BACKBONE, IMAGENET, CUSTOM = "backbone", "imagenet", "custom"
CHANNELS = 3
EXPECTED = "expected backbone, imagenet, or {mean: [r, g, b], std: [r, g, b]} of values in 0 to 1"


@dataclass(frozen=True)
class Normalization:
    """(value - mean) / std, for RGB values in 0 to 1.

    Attributes:
        name: `imagenet`; `backbone` for other values from the training of the weights; or `custom`.
        mean, std: of the red, green and blue channel.
    """

    # Equal values give an equal input under any name.
    name: str = field(compare=False)
    mean: Channels
    std: Channels

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON: name, mean and std."""
        return {"name": self.name, "mean": list(self.mean), "std": list(self.std)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Normalization:
        """A normalization from `as_dict`.

        Raises:
            ConfigError: mean or std is not three numbers from 0 to 1, or a std is 0.
        """
        return cls(str(values.get("name", CUSTOM)), *_checked("normalization", values))

    @property
    def text(self) -> str:
        """Text for a cell of a table."""
        if self.name != CUSTOM:
            return self.name
        return f"mean {'/'.join(f'{v:g}' for v in self.mean)}, std {'/'.join(f'{v:g}' for v in self.std)}"


# Of the images of Deng et al. (2009), computed by torchvision; most of timm's networks were trained with these values.
OF_IMAGENET = Normalization(IMAGENET, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


@dataclass(frozen=True)
class TrainedWith:
    """The normalization in the training of weights.

    Attributes:
        normalization: mean and std.
        source: of the values: the weights file, a JSON file beside it, or a tag of timm.
        assumed: whether no source states the values for these weights.
        note: a warning where the assumption may be wrong; may be empty.
    """

    normalization: Normalization
    source: str
    assumed: bool = False
    note: str = ""


def trained_with(backbone: str, local: LocalWeights | None) -> TrainedWith:
    """The normalization in the training of a network's weights.

    Args:
        backbone: timm's name, with or without a tag.
        local: weights on this machine; None for weights of the hub and for random weights.

    Raises:
        WeightsError: the file, or the JSON file beside it, states values that are no mean and std.
    """
    default = _default_tag(backbone)
    if local is None:
        return TrainedWith(_of_tag(default), f"timm's {default}")
    if local.package is not None:
        return TrainedWith(_of_tag(local.package.network), f"timm's {local.package.network}")
    if (stated := _stated(local.file)) is not None:
        (mean, std), source = stated
        return TrainedWith(_named(mean, std), source)
    tagged = _tagged_name(backbone, local.file)
    if tagged is not None:
        return TrainedWith(_of_tag(tagged), f"timm's {tagged}")
    assumed, differing = _of_tag(default), _differing_tags(backbone)
    note = ""
    if differing:
        note = (
            f"normalization of {local.file.name}: assumed, as in timm's {default} (mean {assumed.mean}, "
            f"std {assumed.std}). Weights of {', '.join(differing)} were trained with other values. Name the file by "
            f"its tag ({default}.safetensors), or give `mean` and `std` in a JSON file beside it"
        )
    return TrainedWith(assumed, f"timm's {default}", assumed=True, note=note)


def effective(value: Any, trained: Normalization) -> Normalization:
    """The normalization of a network's input.

    Args:
        value: of the key `normalization`: `backbone`, `imagenet`, or a mapping with `mean` and `std`.
        trained: the normalization in the training of the weights.

    Raises:
        ConfigError: the value is something else.
    """
    if value == BACKBONE:
        return trained
    if value == IMAGENET:
        return OF_IMAGENET
    if not isinstance(value, Mapping):
        raise ConfigError(f"normalization: found {value!r}, {EXPECTED}.")
    mean, std = _checked("normalization", value)
    return trained if (mean, std) == (trained.mean, trained.std) else _named(mean, std, CUSTOM)


def _named(mean: Channels, std: Channels, other_name: str = BACKBONE) -> Normalization:
    imagenet = (mean, std) == (OF_IMAGENET.mean, OF_IMAGENET.std)
    return OF_IMAGENET if imagenet else Normalization(other_name, mean, std)


def _checked(source: str, values: Mapping[str, Any]) -> tuple[Channels, Channels]:
    mean, std = _channels(values.get("mean")), _channels(values.get("std"))
    if set(values) - {"name", "mean", "std"} or mean is None or std is None or not min(std) > 0:
        raise ConfigError(f"{source}: found {dict(values)!r}, {EXPECTED}; std is above 0.")
    return mean, std


def _channels(value: Any) -> Channels | None:
    """Three numbers from 0 to 1; None for anything else."""
    if not isinstance(value, Sequence) or isinstance(value, str) or len(value) != CHANNELS:
        return None
    if not all(isinstance(v, int | float) and not isinstance(v, bool) and 0 <= v <= 1 for v in value):
        return None
    return float(value[0]), float(value[1]), float(value[2])


def _stated(file: Path) -> tuple[tuple[Channels, Channels], str] | None:
    """Mean and std that a weights file or a JSON file beside it states, and the name of their source."""
    for source, values in _statements(file):
        # The hub's config.json nests the values.
        inner = values.get("pretrained_cfg")
        block = inner if isinstance(inner, Mapping) and "mean" not in values else values
        # timm calls it `mean`, and transformers `image_mean`.
        pair = {key: block[name] for key in ("mean", "std") for name in (key, f"image_{key}") if name in block}
        if not pair:
            continue
        try:
            return _checked(source, pair), source
        except ConfigError as error:
            raise WeightsError(
                f"weights: {source}: found {pair!r}; expected `mean` and `std` of the weights, three numbers from 0 to "
                "1 each, std above 0. Correct or remove both."
            ) from error
    return None


def _statements(file: Path) -> list[tuple[str, Mapping[str, Any]]]:
    statements: list[tuple[str, Mapping[str, Any]]] = []
    if file.suffix.lower() == ".safetensors":
        status = file.stat()
        statements.append((f"{file.name}'s metadata", _metadata(file, status.st_size, status.st_mtime_ns)))
    json_files = [file.with_suffix(".json"), *([file.with_name("config.json")] if file.stem in MODEL_STEMS else [])]
    for path in json_files:
        if not path.is_file():
            continue
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            raise WeightsError(
                f"weights: {path}: can't be read as JSON ({error}); expected `mean` and `std` of the weights beside "
                "it. Correct or remove the file."
            ) from error
        if isinstance(values, Mapping):
            statements.append((str(path), values))
    return statements


@cache
def _metadata(file: Path, _size: int, _changed: int) -> dict[str, Any]:
    """Mean and std in the metadata of a file, read once a process for each size and modification time."""
    from safetensors import safe_open

    try:
        with safe_open(file, framework="np") as opened:
            metadata: Mapping[str, str] = opened.metadata() or {}
    # The user sees the error when the file is loaded.
    except Exception:  # noqa: BLE001
        return {}
    values = {}
    for key in ("mean", "std"):
        if key in metadata:
            try:
                values[key] = json.loads(metadata[key])
            except ValueError:
                # `_checked` refuses the text.
                values[key] = metadata[key]
    return values


def _tagged_name(backbone: str, file: Path) -> str | None:
    """timm's name with a tag, from the backbone or from the file; None without a tag."""
    if "." in backbone:
        return backbone
    name = file_name(file)
    return name if name.startswith(f"{backbone}.") and name.partition(".")[2] in _tags(backbone) else None


def _of_tag(name: str) -> Normalization:
    """The normalization in the training that timm's name means; that of ImageNet where timm has no such network."""
    network, _, tag = name.partition(".")
    tags = tags_of(network)
    training = tags.get(tag) if tag else next(iter(tags.values()), None)
    if training is None or len(training.mean) != CHANNELS or len(training.std) != CHANNELS:
        return OF_IMAGENET
    mean, std = training.mean, training.std
    return _named((mean[0], mean[1], mean[2]), (std[0], std[1], std[2]))


def _tags(backbone: str) -> list[str]:
    """Tags with published weights."""
    return [name for name, tag in tags_of(backbone).items() if name and tag.published]


def _default_tag(backbone: str) -> str:
    tag = "" if "." in backbone else next(iter(tags_of(backbone)), "")
    return f"{backbone}.{tag}" if tag else backbone


def _differing_tags(backbone: str) -> list[str]:
    """Tags of a network that were trained with other values than its default tag."""
    default = _of_tag(backbone)
    return [tag for tag in _tags(backbone) if _of_tag(f"{backbone}.{tag}") != default]


def input_of(backbone: str, policy: str, value: Any, earlier: str) -> Normalization | None:
    """The normalization for the identity of a run.

    Args:
        backbone: timm's name.
        policy: auto, pretrained, random or a path.
        value: see `effective`.
        earlier: normalization of version 0.1: `imagenet`, or `backbone` for that of timm's default weights.

    Returns:
        None where version 0.1 normalised the input in the same way.

    Raises:
        ConfigError: the value is not valid.
        WeightsError: a weights file states values that are no mean and std.
    """
    if value == earlier == IMAGENET:
        return None
    try:
        local = local_weights(policy, backbone)
    except WeightsError:
        # The user sees the error when the weights are resolved.
        local = None
    normalization = effective(value, trained_with(backbone, local).normalization)
    old = OF_IMAGENET if earlier == IMAGENET else _of_tag(backbone)
    return None if normalization == old else normalization
