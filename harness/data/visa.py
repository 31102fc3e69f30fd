"""`kind: visa`: VisA (Zou et al., ECCV 2022), as it is distributed or after its preparation.

root/split_csv/1cls.csv                        object,split,label,image,mask
root/<category>/Data/Images/{Normal,Anomaly}/*.JPG
root/<category>/Data/Masks/Anomaly/*.png

root/[visa_pytorch/][1cls/]<category>/...      prepared: the layout of MVTec AD
"""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

from harness.common.errors import DataError, StoreError, unknown_name
from harness.common.paths import PathText
from harness.common.reading import read_rows
from harness.data.base import DataOptions, existing_dir
from harness.data.category_tree import confined, with_left_out
from harness.data.listing import list_images, name_in, subfolders
from harness.data.masks import left_out_note
from harness.data.mvtec import find_categories, load_tree
from harness.data.samples import GOOD, Sample, SampleLists

SPLITS, MASKS = "split_csv", "Data/Masks"
PREPARED = ("visa_pytorch/1cls", "visa_pytorch", "1cls")
COLUMNS = ("object", "split", "label", "image", "mask")
LABELS = {"normal": 0, "anomaly": 1}
BAD = "bad"


class VisAData(DataOptions):
    """Options of `kind: visa`.

    Attributes:
        root: the folder with `split_csv`, or of the prepared data.
        split: the name of a file in `split_csv`; by default `1cls`, the split for anomaly detection.
    """

    datamodules: ClassVar[tuple[str, ...]] = ("Visa",)
    folder_names: ClassVar[tuple[str, ...]] = (
        SPLITS,
        "visa_pytorch",
        "1cls",
        "Data",
        "Images",
        "Masks",
    )
    default_split: ClassVar[str] = "1cls"

    root: PathText
    split: str = default_split

    @classmethod
    def recognises(cls, root: Path) -> bool:
        """Whether the folder has tables of splits, or prepared data under its usual name."""
        return (root / SPLITS).is_dir() or any((root / name).is_dir() for name in PREPARED)

    def categories(self, work_dir: Path) -> list[str]:
        """The categories of the config, or all, see `BaseOptions.categories`."""
        if self.category is not None:
            return super().categories(work_dir)
        if prepared := self._prepared():
            return find_categories(prepared)
        return list(dict.fromkeys(row["object"] for _, row in self._table()))

    def load(self, category: str, work_dir: Path) -> SampleLists:
        """List the samples of one category.

        Args:
            category, work_dir: see `DataOptions.load`.

        Raises:
            DataError: the table or the category is missing, or a row of the table is wrong.
        """
        del work_dir
        if prepared := self._prepared():
            above = prepared.relative_to(self._root())
            lists = replace(load_tree(prepared, category), folder=(above / category).as_posix())
            return with_left_out(lists, self, prepared, find_categories(prepared))
        root, rows = self._root(), list(self._table())
        names = {row["object"] for _, row in rows}
        if category not in names:
            raise DataError(f"data.category: {unknown_name('category', category, names)} Table: {self._file()}.")
        problems: list[str] = []
        train: list[Sample] = []
        test: list[Sample] = []
        for line, row in rows:
            if row["object"] != category:
                continue
            try:
                (train if _is_train(row) else test).append(_sample(root, self._file(), row))
            except DataError as error:
                problems += [f"{problem} Line {line}." for problem in error.problems]
        if problems:
            raise DataError(problems)
        normal = tuple(sample for sample in train if not sample.label)
        left_out = len(train) - len(normal)
        notes = [f"{self._file()}: {left_out} anomalous training images of {category} are not used."] * bool(left_out)
        notes += self._masks_alone(root / category / MASKS, [*train, *test])
        return SampleLists(root, normal, tuple(test), tuple(notes))

    def _masks_alone(self, folder: Path, samples: Sequence[Sample]) -> list[str]:
        """A sentence about masks on the disk that no row of the table names."""
        named = {mask for sample in samples for mask in sample.masks}
        paths = list_images(folder) if folder.is_dir() else []
        masks = [path for path in paths if os.path.normpath(path) not in named]
        return left_out_note(folder, masks, f"without a row in {self._file().name}")

    def _root(self) -> Path:
        return existing_dir(Path(self.root), "data.root")

    def _prepared(self) -> Path | None:
        """The folder of prepared data; None for data as it is distributed."""
        root = self._root()
        if (root / SPLITS).is_dir():
            return None
        prepared = next((root / name for name in PREPARED if (root / name).is_dir()), root)
        if not any((prepared / name / "train").is_dir() for name in subfolders(prepared)):
            raise DataError(
                f"data.root: {root} has no folder {SPLITS} and no prepared category; expected "
                f"{SPLITS}/{self.split}.csv or <category>/train/{GOOD}. Choose the folder of VisA."
            )
        if "split" in self.model_fields_set and self.split != self.default_split:
            raise DataError(f"data.split: {self.split} found with prepared data; expected no such key. Remove it.")
        return prepared

    def _file(self) -> Path:
        return self._root() / SPLITS / f"{self.split}.csv"

    def _table(self) -> Iterator[tuple[int, dict[str, str]]]:
        """The rows of the table with the numbers of their lines."""
        file = self._file()
        try:
            lines = read_rows(file)
            header = next(lines, [])
            if missing := [name for name in COLUMNS if name not in header]:
                raise DataError(
                    f"{file}: no column {missing[0]} found; expected {', '.join(COLUMNS)}. Restore the file."
                )
            for number, line in enumerate(lines, 2):
                if line:
                    yield number, {**dict.fromkeys(COLUMNS, ""), **dict(zip(header, line, strict=False))}
        except FileNotFoundError as error:
            names = [path.stem for path in file.parent.glob("*.csv")]
            raise DataError(f"data.split: {unknown_name('split', self.split, names)} Expected {file}.") from error
        except (StoreError, csv.Error) as error:
            raise DataError(f"{error} Restore the file of the data set.") from error


def _is_train(row: dict[str, str]) -> bool:
    return row["split"] == "train"


def _sample(root: Path, file: Path, row: dict[str, str]) -> Sample:
    if row["label"] not in LABELS or row["split"] not in {"train", "test"}:
        raise DataError(
            f"{file}: split {row['split']!r} and label {row['label']!r} found; expected train or test, and "
            f"{' or '.join(LABELS)}. Correct the row."
        )
    label = LABELS[row["label"]]
    if label and not row["mask"]:
        raise DataError(f"{file}: no mask of {row['image']!r} found; expected one for an anomaly. Correct the row.")
    if not label and row["mask"]:
        raise DataError(
            f"{file}: the mask {row['mask']!r} of the normal image {row['image']!r} found; expected an empty cell. "
            "Correct the mask or the label of the row."
        )
    image = confined(root, row["image"], file)
    masks = (str(confined(root, row["mask"], file)),) if label else ()
    return Sample(str(image), name_in(image, root), label, BAD if label else GOOD, masks)
