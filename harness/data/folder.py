"""`kind: folder`: folders of good and bad parts, by the argument names of anomalib's `Folder`."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from pydantic import Field, field_validator

from harness.common.errors import DataError
from harness.common.paths import PathText, expanded
from harness.data.base import GOOD, DataOptions, Sample, SampleLists, existing_dir, is_normal
from harness.data.images import EXTENSIONS, list_images
from harness.data.masks import SUFFIXES, Listed, apart, match_masks

Dirs = str | list[str] | None


class FolderData(DataOptions):
    """Options of `kind: folder`. Folders are relative to `root` (which may be left out) or absolute.

    `mask_dir` is one folder, or one for each of `abnormal_dir`. Where there is no `normal_test_dir`, the share
    `test_split_ratio` of the normal images is taken for the test, as anomalib does.

    Attributes:
        name: of the data, shown as its category.
        root: the folder that all other folders are relative to.
        normal_dir: one or several folders of normal images.
        abnormal_dir: one or several folders of anomalous images.
        normal_test_dir: one or several folders of normal images for the test.
        mask_dir: one folder of masks, or one for each of `abnormal_dir`.
        test_split_ratio: the share of normal images that goes to the test where `normal_test_dir` is left out.
        extensions: of image files; by default all that the harness reads.
    """

    name: str | None = None
    root: PathText = "."
    normal_dir: str | list[str]
    abnormal_dir: Dirs = None
    normal_test_dir: Dirs = None
    mask_dir: Dirs = None
    test_split_ratio: float = Field(default=0.2, ge=0, lt=1)
    extensions: list[str] | None = None

    @field_validator("category")
    @classmethod
    def _no_category(cls, value: object) -> None:
        if value is not None:
            raise ValueError("folders have no categories; use `name`, or `kind: mvtec`")

    @field_validator("extensions")
    @classmethod
    def _readable(cls, value: list[str] | None) -> list[str] | None:
        for extension in value or []:
            if extension.lower() not in EXTENSIONS:
                raise ValueError(f"{extension!r} is not read; expected of {', '.join(EXTENSIONS)}")
        return value

    def categories(self, work_dir: Path) -> list[str]:
        """The `name` of the data, as anomalib has it, or none."""
        del work_dir
        return [self.name or ""]

    def load(self, category: str, work_dir: Path) -> SampleLists:
        """See `DataOptions.load`."""
        del category, work_dir
        root = existing_dir(Path(self.root), "data.root")
        problems: list[str] = []
        notes: list[str] = []
        roles = (("normal_dir", self.normal_dir), ("normal_test_dir", self.normal_test_dir))
        found: dict[str, list[Sample]] = {}
        for key, dirs in (*roles, ("abnormal_dir", self.abnormal_dir)):
            try:
                found[key] = self._samples(root, key, dirs, int(key == "abnormal_dir"), notes)
            except DataError as error:
                problems += error.problems
        if problems:
            raise DataError(problems)
        normal, good, bad = found["normal_dir"], found["normal_test_dir"], found["abnormal_dir"]
        if not good and self.normal_test_dir is None and normal:
            normal, good = self._take_test_images(normal)
        return SampleLists(root, tuple(normal), tuple(good + bad), tuple(notes))

    def _samples(self, root: Path, key: str, dirs: Dirs, label: int, notes: list[str]) -> list[Sample]:
        folders = self._folders(root, key, dirs)
        masks = self._folders(root, "mask_dir", self.mask_dir) if label else []
        if len(masks) > 1 and len(masks) != len(folders):
            raise DataError(
                f"data.mask_dir: {len(masks)} folders found for {len(folders)} in abnormal_dir; "
                "expected one for all, or one for each."
            )
        samples: list[Sample] = []
        problems: list[str] = []
        paired: dict[Path, Path] = {}
        listed = [(folder, self._listed(folder, masks)) for folder in folders]
        found = [(folder, list(one.images)) for folder, one in listed]
        if label:
            problems += [problem for folder, images in found for problem in _normal_among(key, folder, images)]
        beside = {image: mask for _, one in listed for image, mask in one.masks.items()}
        if beside and not masks:
            use = "are taken for their masks" if label else "are left out, since they look like masks"
            notes.append(
                f"data.{key}: {len(beside)} files beside the images {use}, such as {next(iter(beside.values()))}."
            )
            paired |= beside
        try:
            if len(masks) == 1 and len(folders) > 1:
                paired = _match_in_one(found, masks[0])
            else:
                for (folder, images), mask_dir in zip(found, masks, strict=False):
                    paired |= match_masks(images, folder, mask_dir)
        except DataError as error:
            problems += error.problems
        for folder, images in found:
            for path in images:
                defect = _defect(path, folder) if label else GOOD
                mask = paired.get(path) if label else None
                samples.append(Sample(str(path), _name(path, root), label, defect, str(mask) if mask else None))
        if problems:
            raise DataError(problems)
        return samples

    def _listed(self, folder: Path, masks: list[Path]) -> Listed:
        """Images, apart from masks beside them; where masks have a folder of their own, all that is here is images."""
        found = list_images(folder, self._extensions())
        if masks:
            beside = any(folder.resolve() == mask_dir.resolve() for mask_dir in masks)
            return apart(found, SUFFIXES) if beside else Listed(tuple(found), {})
        return apart(found)

    def _folders(self, root: Path, key: str, dirs: Dirs) -> list[Path]:
        names = [dirs] if isinstance(dirs, str) else dirs or []
        folders = []
        for name in names:
            try:
                # A folder of that very name goes before a variable or a home folder.
                written = name if (root / name).exists() else expanded(name)
            except ValueError as error:
                raise DataError(f"data.{key}: {error}.") from error
            folder = existing_dir(root / written, f"data.{key}")
            # An absolute path was asked for; a relative one that climbs out of the root is a slip.
            inside = Path(os.path.normpath(folder)).is_relative_to(os.path.normpath(root))
            if not Path(written).is_absolute() and not inside:
                raise DataError(f"data.{key}: {name!r} leaves data.root ({root}); give an absolute path if meant.")
            folders.append(folder)
        return folders

    def _extensions(self) -> tuple[str, ...]:
        return tuple(extension.lower() for extension in self.extensions) if self.extensions else EXTENSIONS

    def _take_test_images(self, normal: list[Sample]) -> tuple[list[Sample], list[Sample]]:
        count = round(len(normal) * self.test_split_ratio)
        chosen = set(np.random.default_rng(self.split_seed).permutation(len(normal))[:count].tolist())
        train = [sample for index, sample in enumerate(normal) if index not in chosen]
        return train, [sample for index, sample in enumerate(normal) if index in chosen]


def _match_in_one(found: list[tuple[Path, list[Path]]], mask_dir: Path) -> dict[Path, Path]:
    """Several folders of images, one of masks: subfolders named like the image folders, or all side by side."""
    paired: dict[Path, Path] = {}
    for folder, images in found:
        if not (mask_dir / folder.name).is_dir():
            raise DataError(
                f"data.mask_dir: no folder {mask_dir / folder.name} found; with several abnormal_dir, expected one "
                "mask_dir for each, or one with a subfolder for each."
            )
        paired |= match_masks(images, folder, mask_dir / folder.name)
    return paired


def _normal_among(key: str, folder: Path, images: list[Path]) -> list[str]:
    """A sentence where a folder of defects has one of normal parts in it."""
    names = sorted({part for path in images for part in path.parent.relative_to(folder).parts if is_normal(part)})
    return [
        f"data.{key}: {folder} has a folder {name!r}, as folders of normal parts are called; expected defects only. "
        f"Name the folders of defects one by one, and {folder / name} as normal_test_dir."
        for name in names
    ]


def _defect(path: Path, folder: Path) -> str:
    """Subfolders of the abnormal folder name the defect; else the folder itself."""
    parent = path.parent.relative_to(folder).as_posix()
    return folder.name if parent == "." else parent


def _name(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else path.as_posix()
