"""Which file on this machine a weights policy names. Imports nothing heavy: a plan asks."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from harness.backbones.packages import WeightsPackage, installed
from harness.common.errors import WeightsError
from harness.common.files import file_hash

AUTO, PRETRAINED, RANDOM = "auto", "pretrained", "random"
DEFAULT_DIR = Path("weights")
SUFFIXES = (".safetensors", ".pth", ".pt", ".ckpt")
# What the hub calls the file in a network's folder.
MODEL_STEMS = ("model", "pytorch_model")


@dataclass(frozen=True)
class LocalWeights:
    """A weights file on this machine.

    Attributes:
        file: where it is.
        package: that it belongs to; None for a file of the user's.
    """

    file: Path
    package: WeightsPackage | None = None


def local_weights(policy: str, backbone: str) -> LocalWeights | None:
    """The weights file for `backbone`, None where the policy names none on this machine.

    `auto` looks in `weights/`, then in installed packages (see `harness.backbones.packages`), where `pretrained` looks
    too. A folder's name looks in that folder, a file's name gives that file. In a folder, a file belongs to a backbone
    if it is called so: `resnet18.pth`, torchvision's `resnet18-f37072fd.pth`, the hub's `resnet18.a1_in1k.safetensors`
    or `resnet18/model.safetensors`. Of several the first is taken: .safetensors before .pth before .pt before .ckpt,
    then the shortest name.

    Raises:
        WeightsError: a path that does not exist, or a folder without a file for the backbone.
    """
    if policy == RANDOM:
        return None
    if policy in {AUTO, PRETRAINED}:
        own = find_in(DEFAULT_DIR, backbone) if policy == AUTO else None
        if own is not None:
            return LocalWeights(own)
        package = installed(backbone)
        return None if package is None else LocalWeights(package.file, package)
    path = Path(policy)
    if path.is_file():
        if path.suffix.lower() not in SUFFIXES:
            raise WeightsError(f"weights: {path}: found a {path.suffix or 'nameless'} file, expected {_suffixes()}.")
        return LocalWeights(path)
    if path.is_dir():
        found = find_in(path, backbone)
        if found is None:
            raise WeightsError(
                f"weights: no file for backbone {backbone!r} found in {path}; expected {backbone}.safetensors "
                f"(or .pth, .pt, .ckpt). There are: {', '.join(p.name for p in weight_files(path)) or 'none'}."
            )
        return LocalWeights(found)
    raise WeightsError(f"weights: {policy!r} found; expected auto, pretrained, random, or an existing file or folder.")


def find_in(folder: Path, backbone: str) -> Path | None:
    """The file for `backbone` in a folder, if there is one."""
    stem, _, _tag = backbone.partition(".")
    candidates = [path for path in weight_files(folder) if _belongs(file_name(path), backbone, stem)]
    return min(candidates, key=_preference) if candidates else None


def weight_files(folder: Path) -> list[Path]:
    """Weight files in a folder, sorted."""
    if not folder.is_dir():
        return []
    found = [path for path in folder.iterdir() if path.is_file() and path.suffix.lower() in SUFFIXES]
    found += [path for path in folder.glob("*/*") if path.stem in MODEL_STEMS and path.suffix.lower() in SUFFIXES]
    return sorted(found)


def local_hash(policy: str, backbone: str | None) -> str | None:
    """Hash of the local weights file of a policy; part of a run's identity. None where there is no such file."""
    found = local_weights(policy, backbone) if backbone else None
    return file_hash(found.file) if found else None


def file_name(path: Path) -> str:
    """What a weights file is called: its name without the suffix, or its folder's, where it is called as on the hub."""
    return path.parent.name if path.stem in MODEL_STEMS else path.stem


def _belongs(name: str, backbone: str, stem: str) -> bool:
    if name in {backbone, stem}:
        return True
    # A tag or torchvision's hash after the name; another tag than the one asked for is another network's weights.
    rest = name.removeprefix(stem)
    return name != rest and rest[0] in ".-" and backbone == stem


def _preference(path: Path) -> tuple[int, int, str]:
    return SUFFIXES.index(path.suffix.lower()), len(path.name), path.name


def _suffixes() -> str:
    return " or ".join(SUFFIXES)
