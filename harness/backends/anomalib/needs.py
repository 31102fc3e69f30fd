"""What anomalib's image models need, beside a backbone: how they train, sizes, numbers of images, files, packages.

Facts of anomalib 2.7, read from its source and tried. Imports nothing heavy.
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
        multiple: both sides are multiples of it.
        least: smallest side.
        square: height equals width.
        only: the one size, whatever is asked for.
    """

    multiple: int = 1
    least: int = 1
    square: bool = False
    only: int | None = None

    def problem(self, size: tuple[int, int]) -> str | None:
        """What is wrong with (height, width); None where it fits."""
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
        parts = [
            "square" if self.square else "",
            f"multiples of {self.multiple}" if self.multiple > 1 else "",
            f"{self.least} pixels or more" if self.least > 1 else "",
        ]
        return ", ".join(part for part in parts if part) or "any"


@dataclass(frozen=True)
class Asset:
    """A file or a folder of images that a model downloads where it can't find it.

    Attributes:
        what: for a person.
        inside: where `weights/` may hold it.
        cached: where anomalib keeps it, below its own cache of weights; None where `parameter` says so.
        parameter: of the model, that names a folder.
        default: of that parameter; where a user names another folder, only that one is looked in.
        subfolders: whether images lie in folders of that folder, one a class.
    """

    what: str
    inside: str
    cached: str | None = None
    parameter: str | None = None
    default: str = ""
    subfolders: bool = False

    def path(self, parameters: Mapping[str, Any]) -> Path | None:
        """Where it is: as the parameter says, in `weights/`, or where anomalib keeps it; None where it is not here."""
        named = parameters.get(self.parameter) if self.parameter else None
        if named is not None and str(named) != self.default:
            return Path(str(named)) if self._usable(Path(str(named))) else None
        places = [Path(self.default), self.in_weights(parameters)] if self.parameter else [self.in_weights(parameters)]
        if self.cached is not None:
            places.append(anomalib_cache() / self.cached.format(**_named(parameters)))
        return next((place for place in places if self._usable(place)), None)

    def in_weights(self, parameters: Mapping[str, Any]) -> Path:
        """Where `weights/` may hold it."""
        return WEIGHTS_DIR / self.inside.format(**_named(parameters))

    def _usable(self, place: Path) -> bool:
        if self.parameter is None:
            return place.is_file()
        pattern = "*/*" if self.subfolders else "**/*"
        return place.is_dir() and any(path.suffix.lower() in (".jpg", ".jpeg", ".png") for path in place.glob(pattern))


def _named(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters that are part of a file's name; one that is left out is EfficientAd's own default."""
    size = parameters.get("model_size")
    return {"model_size": getattr(size, "value", size) or "small"}


def anomalib_cache() -> Path:
    """Where anomalib keeps weights that it downloaded; not made here."""
    import platformdirs

    return Path(platformdirs.user_cache_path("anomalib")) / "pre_trained"


@dataclass(frozen=True)
class Needs:
    """Of one model.

    Attributes:
        training: in epochs, in one pass over the images, or none.
        maps: whether anomaly maps come out.
        sizes: that it takes.
        least_images: normal training images.
        batch: training batch size that it demands; None for any.
        assets: what it downloads beside backbones.
        package: module that must be installed, and what to install for it.
        refused: why the harness does not run it; empty for all others.
        gflop: billion floating-point operations of a training image, where a processor takes minutes an epoch.
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
    """What a model needs; a model that is newer than this table has no rules."""
    return NEEDS.get(model, Needs())


def least_images(model: str, parameters: Mapping[str, Any]) -> int:
    """How many normal training images a model needs."""
    if model == "dfkde":
        # As many components as asked for, of centred features.
        return int(parameters.get("n_pca_components") or 16) + 1
    return needs_of(model).least_images
