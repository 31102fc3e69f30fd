"""What the benchmarks run on: real images and weights where somebody put them beside the checkout."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from harness.backbones.resolve import Weights, resolve
from harness.common.errors import DataError
from harness.data.listing import list_images
from harness.detectors.embedding import embed, rows
from harness.detectors.features import build_extractor
from harness.detectors.sources import ImageSource, Preprocessing

SHARED = Path(os.environ.get("HARNESS_SHARED", Path(__file__).resolve().parents[2] / "shared"))
HAZELNUT = SHARED / "data" / "hazelnut_reduced"
MOBILENET = SHARED / "weights" / "mobilenetv2_100.safetensors"
NOISE = 0.1  # of a channel's standard deviation


def require() -> None:
    """Refuse to go on without them.

    Raises:
        DataError: with where they are expected.
    """
    if not (HAZELNUT.is_dir() and MOBILENET.is_file()):
        raise DataError(
            f"benchmarks: {HAZELNUT.name} and {MOBILENET.name} not found below {SHARED}; expected data/ and weights/ "
            "there, or in the folder that HARNESS_SHARED names."
        )


def training_images() -> list[Path]:
    """Normal hazelnuts."""
    return list_images(HAZELNUT / "train" / "good")


def embedding(backbone: str, layers: tuple[str, ...], pictures: list[Path]) -> torch.Tensor:
    """(patches, channels) at 256 x 256 pixels; mobilenetv2_100 with its ImageNet weights, others with random ones."""
    real = backbone == "mobilenetv2_100"
    weights = resolve(str(MOBILENET), backbone) if real else Weights("random", "random")
    extractor = build_extractor(backbone, layers, (256, 256), weights, seed=0)
    batches = ImageSource(pictures, Preprocessing((256, 256))).batches()
    return torch.cat([rows(embed(extractor(batch), layers)) for batch in batches])


def tiled(points: torch.Tensor, number: int) -> torch.Tensor:
    """`number` points: the given ones again and again, each time with noise of its own."""
    rng = np.random.default_rng(0)
    source = points.numpy()
    repeated: npt.NDArray[np.float32] = np.concatenate([source] * -(-number // len(source)))[:number]
    noise = rng.standard_normal(repeated.shape, dtype=np.float32)
    noise *= NOISE * source.std(axis=0)
    repeated += noise
    return torch.from_numpy(repeated)
