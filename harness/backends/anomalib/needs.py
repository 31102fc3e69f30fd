"""The needs of anomalib's image models beside a backbone: training, image sizes, numbers of images, files, packages.

The table describes anomalib 2.7, by its source and by tests. This module has no heavy imports.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

# How a model trains.
EPOCHS, ONE_PASS, NOTHING = "epochs", "one pass", "no training"
WEIGHTS_DIR = Path("weights")


@dataclass(frozen=True)
class Sizes:
    """Image sizes that a model takes, in pixels.

    Attributes:
        multiple: number that divides both sides.
        least: minimum length of a side.
        square: whether height must equal width.
        only: the only accepted side length, for square images; None for no such rule.
    """

    multiple: int = 1
    least: int = 1
    square: bool = False
    only: int | None = None

    def problem(self, size: tuple[int, int]) -> str | None:
        """Return the problem of a size (height, width), or None if the model takes the size."""
        height, width = size
        if self.only is not None:
            wrong = size != (self.only, self.only)
        else:
            wrong = (
                bool(height % self.multiple or width % self.multiple)
                or min(size) < self.least
                or (self.square and height != width)
            )
        return f"image_size: {height}x{width} found, expected {self}." if wrong else None

    def __str__(self) -> str:
        if self.only is not None:
            return f"{self.only}x{self.only} only"
        rules = [
            "square" if self.square else "",
            f"multiples of {self.multiple}" if self.multiple > 1 else "",
            f"{self.least} pixels or more" if self.least > 1 else "",
        ]
        return ", ".join(rule for rule in rules if rule) or "any"


@dataclass(frozen=True)
class Asset:
    """A file or a folder of images that a model needs, and that anomalib downloads if it is missing.

    Attributes:
        description: readable name.
        inside: path inside `weights/`.
        cached: path inside anomalib's cache of weights; None for a folder that `parameter` names.
        parameter: the model's parameter that names the folder; None for a file.
        default: default of that parameter; a folder named by the user replaces all other candidates.
        subfolders: whether the folder has one subfolder of images for each class.
    """

    description: str
    inside: str
    cached: str | None = None
    parameter: str | None = None
    default: str = ""
    subfolders: bool = False

    def path(self, parameters: Mapping[str, Any]) -> Path | None:
        """Return the path of the asset in the user's folder, `weights/` or anomalib's cache; None if it is missing."""
        folder = parameters.get(self.parameter) if self.parameter else None
        if folder is not None and str(folder) != self.default:
            return Path(str(folder)) if self._usable(Path(str(folder))) else None
        paths = [Path(self.default), self.in_weights(parameters)] if self.parameter else [self.in_weights(parameters)]
        if self.cached is not None:
            paths.append(anomalib_cache() / self.cached.format(**_name_fields(parameters)))
        return next((path for path in paths if self._usable(path)), None)

    def in_weights(self, parameters: Mapping[str, Any]) -> Path:
        """Return the path of the asset in `weights/`, whether or not the path exists."""
        return WEIGHTS_DIR / self.inside.format(**_name_fields(parameters))

    def _usable(self, path: Path) -> bool:
        if self.parameter is None:
            return path.is_file()
        pattern = "*/*" if self.subfolders else "**/*"
        return path.is_dir() and any(file.suffix.lower() in (".jpg", ".jpeg", ".png") for file in path.glob(pattern))


def _name_fields(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters that are part of a file's name; "small" is EfficientAd's default."""
    size = parameters.get("model_size")
    return {"model_size": getattr(size, "value", size) or "small"}


def anomalib_cache() -> Path:
    """Return the folder of anomalib's downloaded weights, whether or not the folder exists."""
    import platformdirs

    return Path(platformdirs.user_cache_path("anomalib")) / "pre_trained"


@dataclass(frozen=True)
class Needs:
    """The needs of one model.

    Attributes:
        training: `EPOCHS`, `ONE_PASS` over the images, or `NOTHING`.
        maps: whether the model gives anomaly maps.
        sizes: accepted image sizes.
        least_images: minimum number of normal training images.
        batch: required training batch size; None for any.
        assets: files and folders beside the backbone.
        package: required module, and the pip requirement that installs the module.
        refused: why the harness does not run the model; empty for a supported model.
        gflop: billion floating-point operations for a training image, if an epoch takes minutes on a CPU; else None.
    """

    training: str = EPOCHS
    maps: bool = True
    sizes: Sizes = field(default_factory=Sizes)
    least_images: int = 1
    batch: int | None = None
    assets: tuple[Asset, ...] = ()
    package: tuple[str, str] | None = None
    refused: str = ""
    gflop: int | None = None


TEACHER = Asset(
    "its teacher network",
    "efficientad_pretrained_weights/pretrained_teacher_{model_size}.pth",
    cached="efficientad_pretrained_weights/pretrained_teacher_{model_size}.pth",
)
IMAGENETTE = Asset(
    "images of Imagenette",
    "imagenette",
    parameter="imagenet_dir",
    default="./datasets/imagenette",
    subfolders=True,
)
TEXTURES = Asset("images of textures (DTD)", "dtd", parameter="dtd_dir", default="./datasets/dtd")
CODEBOOK = Asset(
    "its vector-quantised network",
    "dsr/vq_model_pretrained_128_4096.pckl",
    cached="dsr/vq_model_pretrained_128_4096.pckl",
)
RADIO = Asset("its network", "anomalyvfm/model.safetensors", cached="anomalyvfm/model.safetensors")
CLIP = Asset(
    "CLIP's weights",
    "clip/vit_b_16_plus_240-laion400m_e31-8fb26589.pt",
    cached="../../clip/vit_b_16_plus_240-laion400m_e31-8fb26589.pt",
)

NEEDS: Mapping[str, Needs] = {
    "anomalydino": Needs(ONE_PASS),
    "anomalyvfm": Needs(NOTHING, assets=(RADIO,)),
    "cfa": Needs(sizes=Sizes(square=True, least=17)),
    "cflow": Needs(),
    "cfm": Needs(sizes=Sizes(only=224), refused="reads point clouds beside images, and the harness reads images only"),
    "csflow": Needs(sizes=Sizes(multiple=128)),
    "dfkde": Needs(ONE_PASS, maps=False),
    "dfm": Needs(ONE_PASS, sizes=Sizes(least=64), least_images=2),
    "dinomaly": Needs(sizes=Sizes(least=392)),
    "draem": Needs(sizes=Sizes(multiple=32), assets=(TEXTURES,)),
    "dsr": Needs(sizes=Sizes(multiple=32, least=64), assets=(CODEBOOK,)),
    "efficientad": Needs(sizes=Sizes(least=256), batch=1, assets=(TEACHER, IMAGENETTE)),
    "fastflow": Needs(sizes=Sizes(multiple=16)),
    "foundad": Needs(gflop=500),
    "fre": Needs(),
    "ganomaly": Needs(maps=False, sizes=Sizes(multiple=32, square=True)),
    "generalad": Needs(sizes=Sizes(square=True), gflop=1300),
    "glass": Needs(),
    "inpformer": Needs(sizes=Sizes(least=392, square=True)),
    "l2bt": Needs(sizes=Sizes(multiple=14)),
    "mhpatchcore": Needs(ONE_PASS, sizes=Sizes(least=224)),
    "padim": Needs(ONE_PASS, least_images=2),
    "patchcore": Needs(ONE_PASS),
    "patchflow": Needs(),
    "rad": Needs(ONE_PASS, sizes=Sizes(least=448)),
    "reversedistillation": Needs(sizes=Sizes(multiple=32)),
    "stfpm": Needs(),
    "superadd": Needs(ONE_PASS, sizes=Sizes(least=448), gflop=1400),
    "supersimplenet": Needs(sizes=Sizes(least=65)),
    "uflow": Needs(sizes=Sizes(only=448), gflop=600),
    "uninet": Needs(sizes=Sizes(multiple=32), gflop=300),
    "vlmad": Needs(NOTHING, maps=False, refused="asks a language model's server"),
    "winclip": Needs(
        NOTHING, sizes=Sizes(only=240), assets=(CLIP,), package=("open_clip", "open-clip-torch>=2.23,<2.26.1")
    ),
}


def needs_of(model: str) -> Needs:
    """Return the needs of a model; a model that is newer than this table has no rules."""
    return NEEDS.get(model, Needs())


def least_images(model: str, parameters: Mapping[str, Any]) -> int:
    """Return the minimum number of normal training images.

    Args:
        model: canonical name.
        parameters: the model's parameters.
    """
    if model == "dfkde":
        # n centred features have at most n - 1 components.
        return int(parameters.get("n_pca_components") or 16) + 1
    return needs_of(model).least_images
