"""The submission of MVTec AD 2 (Heckler-Kram et al., arXiv:2503.21622): maps of the private test images.

anomaly_images/<category>/<part>/<image>.tiff               float16, (height, width) of the image
anomaly_images_thresholded/<category>/<part>/<image>.png    0 for normal pixels, 255 for anomalous pixels
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import tifffile
from PIL import Image

from harness.data.mvtec_ad2 import PRIVATE

CONTINUOUS, THRESHOLDED = "anomaly_images", "anomaly_images_thresholded"


class MVTecAD2Submission:
    """The files of a submission.

    Attributes:
        kind: the kind of data of its runs.
        parts: folders of the images.
        categories: for each category of the data set the number of images in each part.
    """

    kind: ClassVar[str] = "mvtec_ad2"
    parts: ClassVar[tuple[str, ...]] = PRIVATE
    categories: ClassVar[Mapping[str, int]] = {
        "can": 321,
        "fabric": 314,
        "fruit_jelly": 255,
        "rice": 277,
        "sheet_metal": 142,
        "vial": 276,
        "wallplugs": 232,
        "walnuts": 228,
    }

    def names(self, category: str, image: str) -> tuple[str, str]:
        """The paths of the files of one image in the archive.

        Args:
            category: of the image.
            image: path of the image below the folder of the category.

        Returns:
            The path of the map, and of the mask.
        """
        place = PurePosixPath(category) / PurePosixPath(image).with_suffix("")
        return f"{CONTINUOUS}/{place}.tiff", f"{THRESHOLDED}/{place}.png"

    def files(self, anomaly_map: npt.NDArray[np.float16], mask: npt.NDArray[np.bool_]) -> tuple[bytes, bytes]:
        """The content of the files of one image.

        Args:
            anomaly_map: (height, width) of the image; larger is more anomalous.
            mask: same shape, True is anomalous.

        Returns:
            The TIFF file of the map, and the PNG file of the mask.
        """
        tiff, png = io.BytesIO(), io.BytesIO()
        tifffile.imwrite(tiff, anomaly_map, photometric="minisblack", metadata=None)
        Image.fromarray(mask.astype(np.uint8) * np.uint8(255)).save(png, format="PNG")
        return tiff.getvalue(), png.getvalue()

    def problem(self, name: str, content: bytes, size: tuple[int, int]) -> str:
        """Check a file of an archive.

        Args:
            name: its path in the archive.
            content: of the file.
            size: (height, width) of its image.

        Returns:
            A sentence about what is wrong; empty for a good file.
        """
        if name.startswith(f"{CONTINUOUS}/"):
            pixels = tifffile.imread(io.BytesIO(content))
            good = pixels.dtype == np.float16 and pixels.shape == size and bool(np.isfinite(pixels).all())
            expected = "finite float16 values"
        else:
            with Image.open(io.BytesIO(content)) as picture:
                pixels = np.asarray(picture)
            good = pixels.dtype == np.uint8 and pixels.shape == size and bool(np.isin(pixels, (0, 255)).all())
            expected = "uint8 values 0 and 255"
        return (
            "" if good else f"{name}: {pixels.dtype} of shape {pixels.shape} found; expected {expected}, shape {size}."
        )
