"""The weights file on this machine for a policy. Imports nothing heavy, because a plan uses this module."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from harness.backbones.packages import WeightsPackage, installed
from harness.common.errors import WeightsError
from harness.common.files import file_hash

AUTO, PRETRAINED, RANDOM = "auto", "pretrained", "random"
DEFAULT_DIR = Path("weights")
SUFFIXES = (".safetensors", ".pth", ".pt", ".ckpt")
# The hub's names for the file in a network's folder.
MODEL_STEMS = ("model", "pytorch_model")


@dataclass(frozen=True)
class LocalWeights:
    """A weights file on this machine.

    Attributes:
        file: its path.
        package: the package that contains the file; None for a file of the user.
    """

    file: Path
    package: WeightsPackage | None = None


def local_weights(policy: str, backbone: str) -> LocalWeights | None:
    """The weights file of a backbone on this machine, by a policy.

    `auto` searches `weights/` and then installed packages (see `harness.backbones.packages`). `pretrained` searches
    installed packages only. The path of a folder searches this folder; the path of a file gives this file.

    In a folder, the name gives the backbone of a file: `resnet18.pth`, torchvision's `resnet18-f37072fd.pth`, the hub's
    `resnet18.a1_in1k.safetensors` or `resnet18/model.safetensors`. Of several files the first counts: .safetensors
    before .pth before .pt before .ckpt, then the shortest name.

    Args:
        policy: auto, pretrained, random or a path.
        backbone: timm's name.

    Returns:
        None for random weights, and where this machine has no file.

    Raises:
        WeightsError: the path does not exist or has a wrong suffix, or the folder has no file for the backbone.
    """
    if policy == RANDOM:
        return None
    if policy in {AUTO, PRETRAINED}:
        file = find_in(DEFAULT_DIR, backbone) if policy == AUTO else None
        if file is not None:
            return LocalWeights(file)
        package = installed(backbone)
        return None if package is None else LocalWeights(package.file, package)
    path = Path(policy)
    if path.is_file():
        if path.suffix.lower() not in SUFFIXES:
            raise WeightsError(f"weights: {path}: found a {path.suffix or 'nameless'} file, expected {_suffixes()}.")
        return LocalWeights(path)
    if path.is_dir():
        file = find_in(path, backbone)
        if file is None:
            raise WeightsError(
                f"weights: no file for backbone {backbone!r} found in {path}; expected {backbone}.safetensors "
                f"(or .pth, .pt, .ckpt). The folder has: {', '.join(p.name for p in weight_files(path)) or 'none'}."
            )
        return LocalWeights(file)
    raise WeightsError(f"weights: {policy!r} found; expected auto, pretrained, random, or an existing file or folder.")


def find_in(folder: Path, backbone: str) -> Path | None:
    """The weights file of a backbone in a folder; None where the folder has none.

    Args:
        folder: may be missing.
        backbone: timm's name.
    """
    stem, _, _tag = backbone.partition(".")
    candidates = [path for path in weight_files(folder) if _belongs(file_name(path), backbone, stem)]
    return min(candidates, key=_preference) if candidates else None


def weight_files(folder: Path) -> list[Path]:
    """Weights files in a folder, sorted; empty for a missing folder."""
    if not folder.is_dir():
        return []
    files = [path for path in folder.iterdir() if path.is_file() and path.suffix.lower() in SUFFIXES]
    files += [path for path in folder.glob("*/*") if path.stem in MODEL_STEMS and path.suffix.lower() in SUFFIXES]
    return sorted(files)


def local_hash(policy: str, backbone: str | None) -> str | None:
    """Hash of the local weights file of a policy, for the identity of a run.

    Args:
        policy: auto, pretrained, random or a path.
        backbone: timm's name; None for a model without a backbone.

    Returns:
        None without such a file.

    Raises:
        WeightsError: see `local_weights`.
    """
    weights = local_weights(policy, backbone) if backbone else None
    return file_hash(weights.file) if weights else None


def file_name(path: Path) -> str:
    """The name of a weights file without its suffix; for a file with the hub's name, the name of its folder."""
    return path.parent.name if path.stem in MODEL_STEMS else path.stem


def _belongs(name: str, backbone: str, stem: str) -> bool:
    if name in {backbone, stem}:
        return True
    # A tag or torchvision's hash may follow the name. A backbone with a tag accepts no other tag.
    rest = name.removeprefix(stem)
    return name != rest and rest[0] in ".-" and backbone == stem


def _preference(path: Path) -> tuple[int, int, str]:
    return SUFFIXES.index(path.suffix.lower()), len(path.name), path.name


def _suffixes() -> str:
    return " or ".join(SUFFIXES)
