"""Mean and standard deviation that a network's input is normalised by: those that its weights were trained with.

Importing this imports nothing heavy. What timm knows of a network is asked for only where nothing nearer says it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from harness.backbones.local import MODEL_STEMS, LocalWeights, file_name, local_weights
from harness.common.errors import ConfigError, WeightsError

Channels = tuple[float, float, float]
BACKBONE, IMAGENET, CUSTOM = "backbone", "imagenet", "custom"
CHANNELS = 3
EXPECTED = "expected backbone, imagenet, or {mean: [r, g, b], std: [r, g, b]} of values in 0 to 1"


@dataclass(frozen=True)
class Normalization:
    """(value - mean) / std, for RGB values in 0 to 1.

    Attributes:
        name: `imagenet`, `backbone` where the weights were trained with other values than ImageNet's, or `custom`.
        mean, std: of the red, green and blue channel.
    """

    # Whoever says them, the same values are the same input.
    name: str = field(compare=False)
    mean: Channels
    std: Channels

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {"name": self.name, "mean": list(self.mean), "std": list(self.std)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Normalization:
        """From `as_dict`.

        Raises:
            ConfigError: the values are no three numbers each.
        """
        return cls(str(values.get("name", CUSTOM)), *_checked("normalization", values))

    @property
    def text(self) -> str:
        """For a cell of a table."""
        if self.name != CUSTOM:
            return self.name
        return f"mean {'/'.join(f'{v:g}' for v in self.mean)}, std {'/'.join(f'{v:g}' for v in self.std)}"

    def same_values(self, other: Normalization) -> bool:
        """Whether both give the same input."""
        return (self.mean, self.std) == (other.mean, other.std)


# Deng et al. (2009), as torchvision computed it; what most of timm's networks were trained with.
OF_IMAGENET = Normalization(IMAGENET, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


@dataclass(frozen=True)
class TrainedWith:
    """What weights were trained with.

    Attributes:
        normalization: the values.
        source: what says so: the file, a JSON file beside it, or a tag of timm's.
        assumed: whether nothing says so for these very weights.
        note: a sentence where the assumption may be wrong; else empty.
    """

    normalization: Normalization
    source: str
    assumed: bool = False
    note: str = ""


def trained_with(backbone: str, local: LocalWeights | None) -> TrainedWith:
    """What the weights of a network were trained with.

    Args:
        backbone: timm's name, with or without a tag.
        local: the weights, where they lie on this machine; None for those of timm's own, and for random ones.

    Raises:
        WeightsError: the file, or the JSON file beside it, states values that are no mean and std.
    """
    default = _default_tag(backbone)
    if local is None:
        return TrainedWith(_of_tag(default), f"timm's {default}")
    if local.package is not None:
        return TrainedWith(_of_tag(local.package.network), f"timm's {local.package.network}")
    if (found := _stated(local.file)) is not None:
        (mean, std), where = found
        return TrainedWith(_named(mean, std), where)
    tagged = _tagged_name(backbone, local.file)
    if tagged is not None:
        return TrainedWith(_of_tag(tagged), f"timm's {tagged}")
    own, differing = _of_tag(default), _differing_tags(backbone)
    note = ""
    if differing:
        note = (
            f"normalization of {local.file.name}: assumed, as in timm's {default} (mean {own.mean}, std {own.std}); "
            f"those of {', '.join(differing)} were trained with other values. Name the file by its tag "
            f"({default}.safetensors), or give `mean` and `std` in a JSON file beside it"
        )
    return TrainedWith(own, f"timm's {default}", assumed=True, note=note)


def effective(asked: Any, own: Normalization) -> Normalization:
    """What a network is fed.

    Args:
        asked: `backbone`, `imagenet`, or a mapping with `mean` and `std`.
        own: what the weights were trained with.

    Raises:
        ConfigError: it is something else.
    """
    if asked == BACKBONE:
        return own
    if asked == IMAGENET:
        return OF_IMAGENET
    if not isinstance(asked, Mapping):
        raise ConfigError(f"normalization: found {asked!r}, {EXPECTED}.")
    mean, std = _checked("normalization", asked)
    return own if (mean, std) == (own.mean, own.std) else _named(mean, std, CUSTOM)


def _named(mean: Channels, std: Channels, otherwise: str = BACKBONE) -> Normalization:
    imagenet = (mean, std) == (OF_IMAGENET.mean, OF_IMAGENET.std)
    return OF_IMAGENET if imagenet else Normalization(otherwise, mean, std)


def _checked(where: str, values: Mapping[str, Any]) -> tuple[Channels, Channels]:
    mean, std = _channels(values.get("mean")), _channels(values.get("std"))
    if set(values) - {"name", "mean", "std"} or mean is None or std is None or not min(std) > 0:
        raise ConfigError(f"{where}: found {dict(values)!r}, {EXPECTED}; std is above 0.")
    return mean, std


def _channels(value: Any) -> Channels | None:
    """Three numbers from 0 to 1; None for anything else."""
    if not isinstance(value, Sequence) or isinstance(value, str) or len(value) != CHANNELS:
        return None
    if not all(isinstance(v, int | float) and not isinstance(v, bool) and 0 <= v <= 1 for v in value):
        return None
    return float(value[0]), float(value[1]), float(value[2])


def _stated(file: Path) -> tuple[tuple[Channels, Channels], str] | None:
    """What a file says of itself, or a JSON file beside it; with where it is said."""
    for where, values in _statements(file):
        # The hub's config.json has it there.
        inner = values.get("pretrained_cfg")
        chosen = inner if isinstance(inner, Mapping) and "mean" not in values else values
        # By timm's names, or by transformers'.
        pair = {key: chosen[name] for key in ("mean", "std") for name in (key, f"image_{key}") if name in chosen}
        if not pair:
            continue
        try:
            return _checked(where, pair), where
        except ConfigError as error:
            raise WeightsError(
                f"weights: {where}: found {pair!r}; expected `mean` and `std` of the weights, three numbers from 0 to "
                "1 each, std above 0. Correct them, or take both out."
            ) from error
    return None


def _statements(file: Path) -> list[tuple[str, Mapping[str, Any]]]:
    found: list[tuple[str, Mapping[str, Any]]] = []
    if file.suffix.lower() == ".safetensors":
        found.append((f"{file.name}'s metadata", _metadata(file)))
    beside = [file.with_suffix(".json"), *([file.with_name("config.json")] if file.stem in MODEL_STEMS else [])]
    for path in beside:
        if not path.is_file():
            continue
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            raise WeightsError(
                f"weights: {path}: can't be read as JSON ({error}); expected `mean` and `std` of the weights beside "
                "it, or no such file."
            ) from error
        if isinstance(values, Mapping):
            found.append((str(path), values))
    return found


def _metadata(file: Path) -> dict[str, Any]:
    from safetensors import safe_open

    try:
        with safe_open(file, framework="np") as opened:
            stated: Mapping[str, str] = opened.metadata() or {}
    # A damaged file is refused where it is loaded, with its reason.
    except Exception:  # noqa: BLE001
        return {}
    values = {}
    for key in ("mean", "std"):
        if key in stated:
            try:
                values[key] = json.loads(stated[key])
            except ValueError:
                # No number; refused by what checks it.
                values[key] = stated[key]
    return values


def _tagged_name(backbone: str, file: Path) -> str | None:
    """timm's full name, from the backbone's own tag or from the file's name."""
    if "." in backbone:
        return backbone
    name = file_name(file)
    return name if name.startswith(f"{backbone}.") and name.partition(".")[2] in _tags(backbone) else None


def pretrained_config(name: str) -> Any:
    """timm's pretrained_cfg; None for a name or a tag that it does not have, which is said elsewhere."""
    from timm.models import get_pretrained_cfg

    try:
        return get_pretrained_cfg(name)
    except RuntimeError:
        return None


@cache
def _of_tag(name: str) -> Normalization:
    """By timm's pretrained_cfg; ImageNet's where timm has none for the network."""
    config = pretrained_config(name)
    if config is None or len(config.mean) != CHANNELS or len(config.std) != CHANNELS:
        return OF_IMAGENET
    mean, std = tuple(map(float, config.mean)), tuple(map(float, config.std))
    return _named((mean[0], mean[1], mean[2]), (std[0], std[1], std[2]))


@cache
def _tags(backbone: str) -> tuple[str, ...]:
    from timm import list_pretrained

    return tuple(name.partition(".")[2] for name in list_pretrained(f"{backbone}.*"))


def _default_tag(backbone: str) -> str:
    config = pretrained_config(backbone)
    return f"{backbone}.{config.tag}" if "." not in backbone and config is not None and config.tag else backbone


def _differing_tags(backbone: str) -> list[str]:
    """Those of an architecture's tags that were trained with other values than its default one."""
    own = _of_tag(backbone)
    return [tag for tag in _tags(backbone) if not _of_tag(f"{backbone}.{tag}").same_values(own)]


def input_of(backbone: str, policy: str, asked: Any, before: str) -> Normalization | None:
    """What enters a run's identity: None where a network is fed what version 0.1 fed it.

    Args:
        backbone: timm's name.
        policy: auto, pretrained, random or a path.
        asked: see `effective`.
        before: what 0.1 took: `imagenet`, or `backbone` for that of timm's default weights.

    Raises:
        ConfigError: `asked` is nothing of the kind.
        WeightsError: what a weights file says of itself is no mean and std.
    """
    if asked == before == IMAGENET:
        # timm need not be asked, and takes seconds to import.
        return None
    try:
        local = local_weights(policy, backbone)
    except WeightsError:
        # Said when the weights are looked for.
        local = None
    chosen = effective(asked, trained_with(backbone, local).normalization)
    earlier = OF_IMAGENET if before == IMAGENET else _of_tag(backbone)
    return None if chosen.same_values(earlier) else chosen
