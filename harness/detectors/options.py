"""The keyword arguments of every detector."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TypedDict

from harness.common.errors import ConfigError
from harness.detectors.arguments import check_pixels


class Options(TypedDict, total=False):
    """Keyword arguments of every detector.

    Attributes:
        image_size: size in pixels after resizing: one number, or (height, width). Default: `default_image_size`.
        center_crop: size in pixels of the centre crop after resizing. Default: no crop.
        precision: precision of the backbone: fp32, bf16 or fp16. Default: fp32.
        weights: auto, pretrained, random or a path. Default: auto.
        normalization: backbone (the values of the weights' training), imagenet, or a mapping with mean and std, three
            numbers each for RGB in 0 to 1. Default: backbone.
        device: auto, cpu, cuda, cuda:N or mps. Default: auto.
        seed: seed of all random numbers. Default: 0.
        batch_size: number of images in a batch. Default: 32.
        num_workers: number of processes that decode images. Default: 0, threads of this process.
        memory_limit: bytes of memory for features. Default: half of the available memory.
        cache: folder of the cache of costly stages. Default: no cache.
        cache_limit: largest size of the cache in bytes. Default: 20 GB.
        progress: whether to show progress. Default: True.
    """

    image_size: int | Sequence[int]
    center_crop: int | Sequence[int] | None
    precision: str
    weights: str
    normalization: str | Mapping[str, Sequence[float]]
    device: str
    seed: int
    batch_size: int
    num_workers: int
    memory_limit: int | None
    cache: str | Path | None
    cache_limit: int
    progress: bool


def check_names(detector: str, options: Iterable[str]) -> None:
    """Check that every keyword argument is a key of `Options`.

    Args:
        detector: name of the class, for the message.
        options: names of the arguments.

    Raises:
        TypeError: an argument is unknown.
    """
    if unknown := set(options) - set(Options.__annotations__):
        raise TypeError(f"{detector}: unknown argument {', '.join(sorted(unknown))}")


def image_sizes(options: Options, default: int) -> tuple[tuple[int, int], tuple[int, int] | None]:
    """Check the sizes of the images.

    Args:
        options: the arguments.
        default: default of `image_size`, in pixels.

    Returns:
        (height, width) after resizing, and (height, width) of the crop; None for no crop.

    Raises:
        ConfigError: a size is invalid, or the crop is larger than the image.
    """
    size = check_pixels("image_size", options.get("image_size", default))
    center_crop = options.get("center_crop")
    if center_crop is None:
        return size, None
    crop = check_pixels("center_crop", center_crop)
    if crop[0] > size[0] or crop[1] > size[1]:
        raise ConfigError(f"center_crop: found {crop}, expected at most the image size, {size}.")
    return size, crop
