"""`kind: labelled`: labelled images on disk, in one of four layouts.

csv          a table of training images (file name, and label or class and condition) and a folder of images
competition  train/, train_df.csv, test/, test_df.csv, sample_submission.csv
mvtec        MVTec AD's tree: <class>/train/good, <class>/test/<condition>; the label is class-condition
folders      a folder for each label: <label>/*.png, or train/<label>/*.png and test/
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Literal

from harness.common.errors import DataError, nearest
from harness.common.paths import PathText
from harness.data.base import existing_dir, listed
from harness.data.labelled.base import LabelledOptions, LabelledSample, LabelledSampleLists
from harness.data.labelled.tables import Columns, read_table
from harness.data.labelled.trees import by_folders, folders_below, is_mvtec, mvtec, unlabelled
from harness.data.listing import list_images
from harness.data.samples import GOOD

TRAIN_TABLE, TEST_TABLE, SAMPLE = "train_df.csv", "test_df.csv", "sample_submission.csv"
# Keys of `data:` for layouts with a table only.
OF_TABLES = ("csv", "images", "test_csv", "columns")


class LabelledData(LabelledOptions):
    """Options of `kind: labelled`.

    Attributes:
        root: the data's folder.
        layout: of the folder; `auto` finds it out.
        csv: the table of labelled images, within `root`.
        images: the folder that file names in the table are relative to, within `root`.
        test_csv: the table of test images, which need no label; may be left out.
        test_images: the folder of test images; may be left out.
        sample_submission: a table whose form a submission must have.
        columns: names of the tables' columns, where they differ from the default ones.
    """

    root: PathText
    layout: Literal["auto", "csv", "competition", "mvtec", "folders"] = "auto"
    csv: str | None = None
    images: str | None = None
    test_csv: str | None = None
    test_images: str | None = None
    sample_submission: str | None = None
    columns: Columns = Columns()

    def load(self, work_dir: Path) -> LabelledSampleLists:
        """List the samples in the layout of the data, see `LabelledOptions.load`."""
        del work_dir
        root = existing_dir(Path(self.root), "data.root")
        layout = self._layout(root) if self.layout == "auto" else self.layout
        lists = self._of_tree(root, layout) if layout in {"mvtec", "folders"} else self._of_tables(root, layout)
        sample_submission = None
        if self.sample_submission is not None:
            sample_submission = _table(root, self.sample_submission, "data.sample_submission")
        elif layout == "competition" and (root / SAMPLE).is_file():
            sample_submission = root / SAMPLE
        return replace(lists, sample_submission=sample_submission)

    def _layout(self, root: Path) -> str:
        if self.csv is not None:
            return "csv"
        if (root / TRAIN_TABLE).is_file():
            return "competition"
        if is_mvtec(root):
            return "mvtec"
        tables = sorted(path.name for path in root.glob("*.csv") if path.name != self.sample_submission)
        if tables:
            raise DataError(
                f"data.root: {root} has tables ({listed(tables)}), but no {TRAIN_TABLE}; expected `csv:` to name the "
                "table with the labels, and `images:` its folder of images."
            )
        if any(list_images(path) for path in folders_below(root)):
            return "folders"
        raise DataError(
            f"data.root: {root} has no labelled images; expected {TRAIN_TABLE} with train/, <class>/train/{GOOD} with "
            "<class>/test/<condition>, a folder for each label, or `csv:`."
        )

    def _of_tree(self, root: Path, layout: str) -> LabelledSampleLists:
        unused = [key for key in OF_TABLES if getattr(self, key) != type(self).model_fields[key].default]
        if unused:
            raise DataError(f"data.{unused[0]}: found, but layout {layout} has no table; remove the key.")
        test_dir = None if self.test_images is None else _folder(root, self.test_images, "data.test_images")
        lists = mvtec(root) if layout == "mvtec" else by_folders(root, test_dir)
        # Without a table, folds from a file follow the order of the images on disk.
        train = tuple(replace(sample, row=row) for row, sample in enumerate(lists.train))
        lists = replace(lists, train=train, rows=len(train))
        if test_dir is None:
            return lists
        inside = [sample.name for sample in lists.train if Path(sample.path).is_relative_to(test_dir)]
        if inside:
            raise DataError(
                f"data.test_images: {test_dir} has labelled images ({listed(inside)}); expected unlabelled images."
            )
        return replace(lists, test=unlabelled(test_dir, root))

    def _of_tables(self, root: Path, layout: str) -> LabelledSampleLists:
        is_competition = layout == "competition"
        csv = self.csv or (TRAIN_TABLE if is_competition else None)
        if csv is None:
            raise DataError("data.csv: key missing; expected the name of the table for layout csv.")
        images = self.images or ("train" if is_competition else ".")
        folder = _folder(root, images, "data.images")
        group = None if self.group is None else self.group.column
        train_table = read_table(_table(root, csv, "data.csv"), folder, root, self.columns, True, group)
        test: tuple[LabelledSample, ...] = ()
        notes = list(train_table.notes)
        test_table = self.test_csv or (TEST_TABLE if is_competition and (root / TEST_TABLE).is_file() else None)
        if test_table is not None:
            folder = _folder(root, self.test_images or ("test" if is_competition else images), "data.test_images")
            table = _table(root, test_table, "data.test_csv")
            test_rows = read_table(table, folder, root, self.columns, False, group)
            test, notes = test_rows.samples, notes + list(test_rows.notes)
        elif self.test_images is not None:
            test = unlabelled(_folder(root, self.test_images, "data.test_images"), root)
        return LabelledSampleLists(root, train_table.samples, test, tuple(notes), rows=train_table.rows)


def _table(root: Path, name: str, key: str) -> Path:
    """The path of a table within the data's root."""
    path = _inside(root, name, key, "path")
    if not path.is_file():
        near = nearest(path.name, [p.name for p in path.parent.glob("*.csv")] if path.parent.is_dir() else [])
        hint = f" Did you mean {near[0]}?" if near else ""
        raise DataError(f"{key}: no file found at {path}; expected a CSV table.{hint}")
    return path


def _folder(root: Path, name: str, key: str) -> Path:
    return existing_dir(_inside(root, name, key, "folder"), key)


def _inside(root: Path, name: str, key: str, kind: str) -> Path:
    path = root / name
    if not path.resolve().is_relative_to(root.resolve()):
        raise DataError(f"{key}: {name!r} found, which leads out of {root}; expected a {kind} within data.root.")
    return path
