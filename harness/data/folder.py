"""`kind: folder`: folders of normal and anomalous images, by the argument names of anomalib's `Folder`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field, field_validator

from harness.common.errors import DataError
from harness.common.paths import PathText, expanded
from harness.data.base import DataOptions, existing_dir
from harness.data.folder_layout import find_folders
from harness.data.listing import EXTENSIONS, list_images, name_in
from harness.data.masks import SUFFIXES, ImagesAndMasks, left_out_note, match_masks, separate_masks
from harness.data.samples import GOOD, Sample, SampleLists, is_normal
from harness.data.test_share import take_test_images

Dirs = str | list[str] | None


class FolderData(DataOptions):
    """Options of `kind: folder`. Folders are absolute or relative to `root`, by default the working folder.

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

    datamodules: ClassVar[tuple[str, ...]] = ("Folder",)
    no_category: ClassVar[str] = "folders have none; use `name`, or `kind: mvtec`"

    name: str | None = None
    root: PathText = "."
    normal_dir: str | list[str]
    abnormal_dir: Dirs = None
    normal_test_dir: Dirs = None
    mask_dir: Dirs = None
    test_split_ratio: float = Field(default=0.2, ge=0, lt=1)
    extensions: list[str] | None = None

    @field_validator("extensions")
    @classmethod
    def _readable(cls, value: list[str] | None) -> list[str] | None:
        for extension in value or []:
            if extension.lower() not in EXTENSIONS:
                raise ValueError(f"found {extension!r}; expected extensions of {', '.join(EXTENSIONS)}")
        return value

    @classmethod
    def recognises(cls, root: Path) -> bool:
        """Whether the folder has a folder of normal images, by its name."""
        return find_folders(root) is not None

    @classmethod
    def keys_of(cls, root: Path) -> dict[str, Any]:
        """The folders of normal and anomalous images, and of masks."""
        layout = find_folders(root)
        return {} if layout is None else layout.keys

    def categories(self, work_dir: Path) -> list[str]:
        """The `name` of the data as its only category; empty without a name."""
        del work_dir
        return [self.name or ""]

    def load(self, category: str, work_dir: Path) -> SampleLists:
        """List the samples of all folders.

        Args:
            category, work_dir: see `DataOptions.load`.

        Raises:
            DataError: a folder is missing or has folders of normal images, or masks do not match their images.
        """
        del category, work_dir
        root = existing_dir(Path(self.root), "data.root")
        problems: list[str] = []
        notes: list[str] = []
        roles = (("normal_dir", self.normal_dir), ("normal_test_dir", self.normal_test_dir))
        samples: dict[str, list[Sample]] = {}
        for key, dirs in (*roles, ("abnormal_dir", self.abnormal_dir)):
            try:
                samples[key] = self._samples(root, key, dirs, int(key == "abnormal_dir"), notes)
            except DataError as error:
                problems += error.problems
        if problems:
            raise DataError(problems)
        if self.mask_dir and not self.abnormal_dir:
            notes.append("data.mask_dir: not used, because no abnormal_dir is in data.")
        normal, good, bad = samples["normal_dir"], samples["normal_test_dir"], samples["abnormal_dir"]
        if not good and self.normal_test_dir is None and normal:
            normal, good = take_test_images(normal, self.test_split_ratio, self.split_seed)
        return SampleLists(root, tuple(normal), tuple(good + bad), tuple(notes))

    def _samples(self, root: Path, key: str, dirs: Dirs, label: int, notes: list[str]) -> list[Sample]:
        folders = self._folders(root, key, dirs)
        mask_dirs = self._folders(root, "mask_dir", self.mask_dir) if label else []
        if len(mask_dirs) > 1 and len(mask_dirs) != len(folders):
            raise DataError(
                f"data.mask_dir: {len(mask_dirs)} folders found for {len(folders)} in abnormal_dir; "
                "expected one for all, or one for each."
            )
        samples: list[Sample] = []
        problems: list[str] = []
        masks: dict[Path, tuple[Path, ...]] = {}
        contents = [(folder, self._contents(folder, mask_dirs)) for folder in folders]
        groups = [(folder, list(content.images)) for folder, content in contents]
        if label:
            problems += [problem for folder, images in groups for problem in _normal_among(key, folder, images)]
        beside = {image: mask for _, content in contents for image, mask in content.masks.items()}
        if beside and not mask_dirs:
            use = "are used as their masks" if label else "are ignored, because they look like masks"
            notes.append(
                f"data.{key}: {len(beside)} files beside the images {use}, such as {next(iter(beside.values()))}."
            )
            masks |= {image: (mask,) for image, mask in beside.items()}
        try:
            if len(mask_dirs) == 1 and len(folders) > 1:
                masks = _match_in_one(groups, mask_dirs[0])
                notes += _masks_alone(mask_dirs[0], [folder.name for folder in folders])
            else:
                for (folder, images), mask_dir in zip(groups, mask_dirs, strict=False):
                    masks |= match_masks(images, folder, mask_dir)
        except DataError as error:
            problems += error.problems
        for folder, images in groups:
            for path in images:
                defect = _defect(path, folder) if label else GOOD
                paths = masks.get(path, ()) if label else ()
                samples.append(Sample(str(path), _name(path, root), label, defect, tuple(map(str, paths))))
        if problems:
            raise DataError(problems)
        return samples

    def _contents(self, folder: Path, mask_dirs: list[Path]) -> ImagesAndMasks:
        """Images and the masks beside them. With another folder of masks, all files are images."""
        paths = list_images(folder, self._extensions())
        if mask_dirs:
            beside = any(folder.resolve() == mask_dir.resolve() for mask_dir in mask_dirs)
            return separate_masks(paths, SUFFIXES) if beside else ImagesAndMasks(tuple(paths), {})
        return separate_masks(paths)

    def _folders(self, root: Path, key: str, dirs: Dirs) -> list[Path]:
        names = [dirs] if isinstance(dirs, str) else dirs or []
        folders = []
        for name in names:
            try:
                # An existing folder may have `$` or `~` in its name.
                path = name if (root / name).exists() else expanded(name)
            except ValueError as error:
                raise DataError(f"data.{key}: {error}.") from error
            folder = existing_dir(root / path, f"data.{key}")
            # Only a relative path that leaves the root is likely a mistake.
            inside = Path(os.path.normpath(folder)).is_relative_to(os.path.normpath(root))
            if not Path(path).is_absolute() and not inside:
                raise DataError(f"data.{key}: {name!r} leaves data.root ({root}); expected an absolute path.")
            folders.append(folder)
        return folders

    def _extensions(self) -> tuple[str, ...]:
        return tuple(extension.lower() for extension in self.extensions) if self.extensions else EXTENSIONS


def _match_in_one(images_by_folder: list[tuple[Path, list[Path]]], mask_dir: Path) -> dict[Path, tuple[Path, ...]]:
    """Match several folders of images with one folder of masks. Its subfolders have the names of the image folders."""
    masks: dict[Path, tuple[Path, ...]] = {}
    for folder, images in images_by_folder:
        if not (mask_dir / folder.name).is_dir():
            raise DataError(
                f"data.mask_dir: no folder {mask_dir / folder.name} found; with several abnormal_dir, expected one "
                "mask_dir for each, or one with a subfolder for each."
            )
        masks |= match_masks(images, folder, mask_dir / folder.name)
    return masks


def _masks_alone(mask_dir: Path, names: list[str]) -> list[str]:
    """A sentence about masks beside the subfolders of the image folders."""
    masks = [path for path in list_images(mask_dir) if path.relative_to(mask_dir).parts[0] not in names]
    return left_out_note(mask_dir, masks, "without a folder of this name in abnormal_dir")


def _normal_among(key: str, folder: Path, images: list[Path]) -> list[str]:
    """A sentence for each folder of normal images in a folder of defects."""
    parents = {path.parent for path in images}
    names = sorted({name_ for parent in parents for name_ in parent.relative_to(folder).parts if is_normal(name_)})
    return [
        f"data.{key}: {folder} has a folder {name!r}, a name for normal images; expected defects only. "
        f"List the folders of defects, and use {folder / name} as normal_test_dir."
        for name in names
    ]


def _defect(path: Path, folder: Path) -> str:
    """The type of defect: the subfolder of the abnormal folder, or the folder itself."""
    parent = path.parent.relative_to(folder).as_posix()
    return folder.name if parent == "." else parent


def _name(path: Path, root: Path) -> str:
    try:
        return name_in(path, root)
    except ValueError:
        return path.as_posix()
