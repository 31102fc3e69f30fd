"""Images as the networks take them: decoded once, resized, cropped, normalised."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms.v2 import functional as transforms

from harness.backbones.normalization import OF_IMAGENET, Normalization
from harness.common.errors import DataError
from harness.data.base import Split
from harness.data.images import RGB, from_array, from_pil, list_images, read_image

# A path, RGB (height, width, 3) or grey (height, width) of 8 or 16 bits, a PIL image, or a float tensor
# (3, height, width) in [0, 1].
ImageLike = str | Path | npt.NDArray[np.uint8] | npt.NDArray[np.uint16] | Image.Image | torch.Tensor


@dataclass(frozen=True)
class Preprocessing:
    """What of an image a network sees.

    Attributes:
        size: (height, width) it is resized to, with antialiasing.
        crop: (height, width) of the centre that is kept; None for all of it.
        normalization: of its values.
    """

    size: tuple[int, int]
    crop: tuple[int, int] | None = None
    normalization: Normalization = OF_IMAGENET

    @property
    def input_size(self) -> tuple[int, int]:
        """(height, width) of the network's input."""
        return self.crop or self.size

    def __call__(self, picture: ImageLike) -> torch.Tensor:
        """(3, height, width), normalised.

        Raises:
            DataError: the picture can't be read, or is none.
        """
        image = transforms.resize(_unit(picture), list(self.size), antialias=True)
        if self.crop is not None:
            image = transforms.center_crop(image, list(self.crop))
        input_size: torch.Tensor = transforms.normalize(
            image, list(self.normalization.mean), list(self.normalization.std)
        )
        return input_size


def _unit(picture: ImageLike) -> torch.Tensor:
    """(3, height, width) in [0, 1]."""
    if isinstance(picture, torch.Tensor):
        check_tensor(picture)
        return picture.float()
    return as_tensor(_pixels(picture))


def check_tensor(image: torch.Tensor) -> None:
    """Whether it may be an image.

    Raises:
        DataError: another type or shape.
    """
    if image.ndim != 3 or image.shape[0] != 3 or not image.is_floating_point():
        raise DataError(
            f"image: a {image.dtype} tensor of shape {tuple(image.shape)} found; "
            "expected float, (3, height, width), in [0, 1]."
        )


def _pixels(picture: str | Path | npt.NDArray[Any] | Image.Image) -> RGB:
    if isinstance(picture, str | Path):
        return read_image(picture)
    return (from_pil(picture) if isinstance(picture, Image.Image) else from_array(np.asarray(picture))).pixels


def as_tensor(pixels: RGB) -> torch.Tensor:
    """(height, width, 3) in 0 to 255 -> (3, height, width) in [0, 1]."""
    return torch.from_numpy(pixels.copy()).permute(2, 0, 1).float() / 255


class ImageSource(Dataset[torch.Tensor]):
    """Pictures in a fixed order.

    Args:
        pictures: at least one.
        view: what of them is seen.
        batch_size: images at a time.
        num_workers: processes that decode; 0 is this one.
    """

    def __init__(
        self, pictures: Sequence[ImageLike], view: Preprocessing, batch_size: int = 32, num_workers: int = 0
    ) -> None:
        self.pictures, self.view = pictures, view
        self._batch_size, self._num_workers = batch_size, num_workers

    def key(self) -> dict[str, Any]:
        """What features depend on beside the pictures' contents; the batch size, in their last bits."""
        values = self.view.normalization
        # Without ImageNet's, so that what version 0.1 cached is still known.
        normalized = {} if values.same_values(OF_IMAGENET) else {"mean": values.mean, "std": values.std}
        return {"size": self.view.size, "crop": self.view.crop, "batch_size": self._batch_size, **normalized}

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, index: int) -> torch.Tensor:
        return self.view(self.pictures[index])

    def batches(self) -> Iterator[torch.Tensor]:
        """(up to batch_size, 3, height, width), each image once, in order."""
        # A generator of its own: a loader draws a number from Torch's even where nothing is shuffled.
        own = torch.Generator()
        loader: DataLoader[Any] = DataLoader(self, self._batch_size, num_workers=self._num_workers, generator=own)
        yield from loader


def image_list(images: str | Path | Split | Iterable[ImageLike]) -> list[ImageLike]:
    """What somebody may mean by images: a folder's, a split's training images, or the items of a data set.

    Raises:
        DataError: there are none.
    """
    if isinstance(images, Split):
        return [sample.path for sample in images.train]
    if isinstance(images, str | Path):
        folder = Path(images)
        if not folder.is_dir():
            raise DataError(
                f"{folder}: {'a file' if folder.exists() else 'nothing'} found, a folder of images expected."
            )
        images = list_images(folder)
        if not images:
            raise DataError(f"{folder}: no images found.")
    pictures = [_picture(item) for item in images]
    if not pictures:
        raise DataError("fit: no images given; at least 1 expected.")
    return pictures


def _picture(item: Any) -> ImageLike:
    """An item of a data set: the picture itself, the first of (image, label), or an item's `image`."""
    if isinstance(item, tuple) and item:
        item = item[0]
    picture: ImageLike = getattr(item, "image", item)
    return picture


def contents(pictures: Sequence[ImageLike]) -> str | None:
    """Fingerprint of files; None where pictures are in memory only, so that no later call could know them again.

    Raises:
        DataError: a file can't be read.
    """
    digest = sha256()
    for one in pictures:
        if not isinstance(one, str | Path):
            return None
        try:
            digest.update(sha256(Path(one).read_bytes()).digest())
        except OSError as error:
            raise DataError(f"{one}: can't be read as an image ({error.strerror}).") from error
    return digest.hexdigest()[:16]
