"""`kind: real_iad`: Real-IAD (Wang et al., CVPR 2024).

    root/realiad_{256,512,1024,raw}/<category>/{OK/S0001,NG/<defect>/S0001}/*.jpg, masks *.png
    root/realiad_jsons/[<split>/]<category>.json, root/realiad_jsons_sv/<category>.json ...

A JSON file has the lists `train` and `test` of `image_path`, `mask_path` and `anomaly_class`. Each part has images of
five views, C1 to C5.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

from pydantic import BaseModel, ConfigDict, field_validator

from harness.common.errors import DataError, StoreError, unknown_name
from harness.common.paths import PathText
from harness.common.reading import read_json
from harness.data.base import DataOptions, existing_dir
from harness.data.category_tree import confined
from harness.data.listing import list_images, name_in, subfolders
from harness.data.masks import left_out_note
from harness.data.samples import GOOD, Sample, SampleLists

IMAGES, JSONS, NORMAL = "realiad_", "realiad_jsons", "OK"
MASK = ".png"  # images are JPEG files
VIEWS = ("C1", "C2", "C3", "C4", "C5")


class _Entry(BaseModel):
    model_config = ConfigDict(extra="ignore", strict=True)

    image_path: str
    mask_path: str | None = None
    anomaly_class: str


class _Lists(BaseModel):
    """Schema of a JSON file."""

    model_config = ConfigDict(extra="ignore", strict=True)

    train: list[_Entry]
    test: list[_Entry]


class RealIADData(DataOptions):
    """Options of `kind: real_iad`.

    Attributes:
        root: the folder with the images and the JSON files.
        images: the folder of the images, such as `realiad_1024`; by default the only one.
        split: the folder of the JSON files, such as `realiad_jsons_sv` for a single view.
        views: the views to use, such as `[C1]`; by default all.
    """

    datamodules: ClassVar[tuple[str, ...]] = ("RealIAD",)
    folder_names: ClassVar[tuple[str, ...]] = (
        JSONS,
        *(f"{IMAGES}{size}" for size in ("256", "512", "1024", "raw")),
        NORMAL,
        "NG",
    )
    root: PathText
    images: str | None = None
    split: str = JSONS
    views: list[str] | None = None

    @field_validator("views")
    @classmethod
    def _known(cls, value: list[str] | None) -> list[str] | None:
        if value is not None and (not value or set(value) - set(VIEWS)):
            raise ValueError(f"found {value}; expected some of {', '.join(VIEWS)}")
        return value

    @classmethod
    def recognises(cls, root: Path) -> bool:
        """Whether the folder has images and JSON files under their usual names."""
        return (root / JSONS).is_dir() and bool(_image_folders(root))

    def categories(self, work_dir: Path) -> list[str]:
        """The categories of the config, or all with a JSON file, see `BaseOptions.categories`."""
        if self.category is not None:
            return super().categories(work_dir)
        return [file.stem for file in self._files()]

    def load(self, category: str, work_dir: Path) -> SampleLists:
        """List the samples of one category.

        Args:
            category, work_dir: see `DataOptions.load`.

        Raises:
            DataError: a folder or the JSON file is missing, or the JSON file is wrong.
        """
        del work_dir
        file = next((file for file in self._files() if file.stem == category), None)
        if file is None:
            names = [file.stem for file in self._files()]
            raise DataError(f"data.category: {unknown_name('category', category, names)} Root: {self.root}.")
        base = existing_dir(self._images() / category, "data.category")
        try:
            lists = _Lists.model_validate(read_json(file, _Lists))
        except StoreError as error:
            raise DataError(
                f"{error} Expected the lists train and test of image_path, mask_path and anomaly_class. Restore it."
            ) from error
        problems: list[str] = []
        train, test = (list(self._samples(entries, base, file, problems)) for entries in (lists.train, lists.test))
        if problems:
            raise DataError(problems)
        normal = tuple(sample for sample in train if not sample.label)
        left_out = len(train) - len(normal)
        # The splits `fuiad` have anomalous training images.
        notes = [f"{file}: {left_out} anomalous training images are not used."] * bool(left_out)
        notes += _masks_alone(base, [*lists.train, *lists.test], file)
        folder = f"{base.parent.name}/{category}"
        return SampleLists(base, normal, tuple(test), tuple(notes), folder)

    def _samples(self, entries: list[_Entry], base: Path, file: Path, problems: list[str]) -> Iterator[Sample]:
        for entry in entries:
            if self.views and not any(f"_{view}_" in Path(entry.image_path).name for view in self.views):
                continue
            label = int(entry.anomaly_class != NORMAL)
            if entry.mask_path and not label:
                problems.append(
                    f"{file}: the mask {entry.mask_path!r} of the normal image {entry.image_path!r} found; expected "
                    "null. Correct mask_path or anomaly_class."
                )
                continue
            try:
                image = confined(base, entry.image_path, file)
                masks = (str(confined(base, entry.mask_path, file)),) if label and entry.mask_path else ()
            except DataError as error:
                problems += error.problems
                continue
            name = name_in(image, base)
            yield Sample(str(image), name, label, entry.anomaly_class if label else GOOD, masks)

    def _root(self) -> Path:
        return existing_dir(Path(self.root), "data.root")

    def _images(self) -> Path:
        root = self._root()
        if self.images is not None:
            return existing_dir(root / self.images, "data.images")
        names = _image_folders(root)
        if len(names) != 1:
            raise DataError(
                f"data.images: {', '.join(names) or 'no folder of images'} found in {root}; expected one folder, such "
                f"as {IMAGES}1024. Name it with data.images."
            )
        return root / names[0]

    def _files(self) -> list[Path]:
        """The JSON files of the split. Some archives have a folder of splits inside a folder of the same name."""
        root = self._root()
        folders = [root / JSONS / self.split, root / self.split]
        for folder in folders:
            if files := sorted(folder.glob("*.json")):
                return files
        names = {name for folder in (root, root / JSONS) if folder.is_dir() for name in subfolders(folder)}
        names = {name for name in names if name.startswith(JSONS)}
        advice = "Restore it." if self.split in names else unknown_name("split", self.split, names)
        raise DataError(
            f"data.split: no JSON file found in {folders[0]} or {folders[1]}; expected <category>.json. {advice}"
        )


def _masks_alone(base: Path, entries: list[_Entry], file: Path) -> list[str]:
    """A sentence about masks on the disk that no entry of the JSON file names, also with `views`."""
    named = {os.path.normpath(base / name) for one in entries for name in (one.image_path, one.mask_path) if name}
    masks = [path for path in list_images(base, (MASK,)) if os.path.normpath(path) not in named]
    return left_out_note(base, masks, f"without an entry in {file.parent.name}/{file.name}")


def _image_folders(root: Path) -> list[str]:
    return [name for name in subfolders(root) if name.startswith(IMAGES) and not name.startswith(JSONS)]
