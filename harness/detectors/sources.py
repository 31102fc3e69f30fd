"""Input images of the networks: decoded, resized, cropped and normalised."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms.v2 import functional as transforms

from harness.backbones.normalization import OF_IMAGENET, Normalization
from harness.common import threads
from harness.common.errors import DataError
from harness.data.images import RGB, from_array, from_pil, is_large, read_image
from harness.data.listing import list_images
from harness.data.samples import Split

# A path, an array of 8 or 16 bits, RGB (height, width, 3) or grey (height, width), a PIL image, or a float tensor
# (3, height, width) in [0, 1].
ImageLike = str | Path | npt.NDArray[np.uint8] | npt.NDArray[np.uint16] | Image.Image | torch.Tensor


MOST_DECODERS = 4  # threads; each one holds a whole image


@dataclass(frozen=True)
class Preprocessing:
    """The steps from an image to the input of a network.

    Attributes:
        size: (height, width) after resizing with antialiasing.
        crop: (height, width) of the centre crop; None without a crop.
        normalization: mean and standard deviation of the values.
    """

    size: tuple[int, int]
    crop: tuple[int, int] | None = None
    normalization: Normalization = OF_IMAGENET

    @property
    def input_size(self) -> tuple[int, int]:
        """(height, width) of the network's input."""
        return self.crop or self.size

    def __call__(self, image: ImageLike) -> torch.Tensor:
        """Prepare an image.

        Returns:
            (3, height, width), normalised.

        Raises:
            DataError: the image can't be read, or has another type or shape.
        """
        tensor = transforms.resize(_unit_range(image), list(self.size), antialias=True)
        if self.crop is not None:
            tensor = transforms.center_crop(tensor, list(self.crop))
        mean, std = list(self.normalization.mean), list(self.normalization.std)
        normalized: torch.Tensor = transforms.normalize(tensor, mean, std)
        return normalized


def _unit_range(image: ImageLike) -> torch.Tensor:
    """The image as a tensor (3, height, width) in [0, 1]."""
    if isinstance(image, torch.Tensor):
        check_tensor(image)
        return image.float()
    return as_tensor(_pixels(image))


def check_tensor(image: torch.Tensor) -> None:
    """Check the type and shape of an image.

    Raises:
        DataError: the tensor has another type or shape.
    """
    if image.ndim != 3 or image.shape[0] != 3 or not image.is_floating_point():
        raise DataError(
            f"image: a {image.dtype} tensor of shape {tuple(image.shape)} found; "
            "expected float, (3, height, width), in [0, 1]."
        )


def _pixels(image: str | Path | npt.NDArray[Any] | Image.Image) -> RGB:
    if isinstance(image, str | Path):
        return read_image(image)
    return (from_pil(image) if isinstance(image, Image.Image) else from_array(np.asarray(image))).pixels


def as_tensor(pixels: RGB) -> torch.Tensor:
    """Convert pixels (height, width, 3) in 0 to 255 to a tensor (3, height, width) in [0, 1]."""
    return torch.from_numpy(pixels.copy()).permute(2, 0, 1).float() / 255


class ImageSource(Dataset[torch.Tensor]):
    """Images in a fixed order, as a Torch data set.

    Args:
        images: at least one image.
        preprocessing: preprocessing of the images.
        batch_size: number of images in a batch.
        num_workers: number of processes that decode images; 0 for threads of this process.
    """

    def __init__(
        self, images: Sequence[ImageLike], preprocessing: Preprocessing, batch_size: int = 32, num_workers: int = 0
    ) -> None:
        self.images, self.preprocessing = images, preprocessing
        self._batch_size, self._num_workers = batch_size, num_workers

    @property
    def input_size(self) -> tuple[int, int]:
        """(height, width) of the preprocessed images."""
        return self.preprocessing.input_size

    def key(self) -> dict[str, Any]:
        """The parameters that features depend on, beside the images' contents; the batch size changes the last bits."""
        values = self.preprocessing.normalization
        # The keys of version 0.1 have no normalisation; it always used ImageNet's values.
        normalized = {} if values == OF_IMAGENET else {"mean": values.mean, "std": values.std}
        size, crop = self.preprocessing.size, self.preprocessing.crop
        return {"size": size, "crop": crop, "batch_size": self._batch_size, **normalized}

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> torch.Tensor:
        return self.preprocessing(self.images[index])

    def subset(self, positions: npt.NDArray[np.int64]) -> ImageSource:
        """Some of the images, in the order of their positions (n,)."""
        images = [self.images[position] for position in positions]
        return ImageSource(images, self.preprocessing, self._batch_size, self._num_workers)

    def batches(self) -> Iterator[torch.Tensor]:
        """Batches (up to batch_size, 3, height, width); each image once, in order."""
        if self._num_workers:
            # Without a generator, the loader would draw from Torch's global one, even without shuffling.
            yield from DataLoader(self, self._batch_size, num_workers=self._num_workers, generator=torch.Generator())
            return
        read = partial(self._read, Lock())
        # Pillow and Torch decode and resize without Python's lock.
        with ThreadPoolExecutor(min(threads.count(), MOST_DECODERS)) as pool:
            for first in range(0, len(self), self._batch_size):
                batch = range(first, min(first + self._batch_size, len(self)))
                # An open image of Pillow, or one of the user's own type, may not be used by two threads.
                are_files = all(isinstance(self.images[index], str | Path) for index in batch)
                yield torch.stack(list(pool.map(read, batch) if are_files else map(self.__getitem__, batch)))

    def _read(self, lock: Lock, index: int) -> torch.Tensor:
        """One file; of large ones, one at a time."""
        with lock if is_large(Path(str(self.images[index]))) else nullcontext():
            return self[index]


def image_list(images: str | Path | Split | Iterable[ImageLike]) -> list[ImageLike]:
    """List images: those of a folder, the training images of a split, or the items of a data set.

    Raises:
        DataError: there are no images.
    """
    if isinstance(images, Split):
        return [sample.path for sample in images.train]
    if isinstance(images, str | Path):
        folder = Path(images)
        if not folder.is_dir():
            raise DataError(
                f"{folder}: {'a file' if folder.exists() else 'nothing'} found; expected a folder of images."
            )
        images = list_images(folder)
        if not images:
            raise DataError(f"{folder}: no images found; expected at least 1.")
    items = [_image(item) for item in images]
    if not items:
        raise DataError("fit: no images given; expected at least 1.")
    return items


def _image(item: Any) -> ImageLike:
    """The image of a data set's item: the item, the first of (image, label), or the item's `image`."""
    if isinstance(item, tuple) and item:
        item = item[0]
    image: ImageLike = getattr(item, "image", item)
    return image


def fingerprint(images: Sequence[ImageLike]) -> str | None:
    """Hash of the files' contents; None with images in memory, which the cache does not store.

    Raises:
        DataError: a file can't be read.
    """
    digest = sha256()
    for path in images:
        if not isinstance(path, str | Path):
            return None
        try:
            digest.update(sha256(Path(path).read_bytes()).digest())
        except OSError as error:
            raise DataError(f"{path}: can't be read as an image ({error.strerror}).") from error
    return digest.hexdigest()[:16]
