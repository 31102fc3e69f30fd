"""`kind: labelled`: images on disk with a label each, in any of four layouts.

csv          a table of training images (file name, class and state, or label) and a folder of images
competition  train/, train_df.csv, test/, test_df.csv, sample_submission.csv
mvtec        MVTec AD's tree: <class>/train/good, <class>/test/<state>; the label is class-state
folders      a folder for each label: <label>/*.png
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, model_validator

from harness.datasets.base import GOOD, existing_dir
from harness.datasets.labelled import SEPARATOR, LabelledOptions, LabelledParts, LabelledSample, listed, split_label
from harness.datasets.mvtec import find_categories, load_tree
from harness.errors import DataError, nearest
from harness.images import EXTENSIONS, list_images

TRAIN_TABLE, TEST_TABLE, SAMPLE = "train_df.csv", "test_df.csv", "sample_submission.csv"


class Columns(BaseModel):
    """Names of the table's columns. `label` may be missing where `class` and `state` are there, and the reverse."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    file_name: str = "file_name"
    part: str = "class"
    state: str = "state"
    label: str = "label"
    key: str = "index"

    @model_validator(mode="before")
    @classmethod
    def _class(cls, value: object) -> object:
        # `class` is no name for an attribute.
        return {("part" if k == "class" else k): v for k, v in value.items()} if isinstance(value, dict) else value


class LabelledData(LabelledOptions):
    """Options of `kind: labelled`.

    Attributes:
        root: the data's folder.
        layout: see the module; `auto` finds it out.
        csv, images: for `csv`: the table, and the folder that its file names are relative to, both within root.
        test_csv, test_images: the same of the images to be named; may be left out.
        sample_submission: a table that a submission must look like.
        columns: names of the table's columns.
    """

    root: str
    layout: Literal["auto", "csv", "competition", "mvtec", "folders"] = "auto"
    csv: str | None = None
    images: str | None = None
    test_csv: str | None = None
    test_images: str | None = None
    sample_submission: str | None = None
    columns: Columns = Columns()

    def load(self, work_dir: Path) -> LabelledParts:
        """See `LabelledOptions.load`."""
        del work_dir
        root = existing_dir(Path(self.root), "data.root")
        layout = self._layout(root) if self.layout == "auto" else self.layout
        if layout == "mvtec":
            return _mvtec(root)
        if layout == "folders":
            return _folders(root)
        return self._tables(root, layout)

    def _layout(self, root: Path) -> str:
        if self.csv is not None:
            return "csv"
        if (root / TRAIN_TABLE).is_file():
            return "competition"
        below = [path for path in root.iterdir() if path.is_dir() and not path.name.startswith(".")]
        if (root / "train" / GOOD).is_dir() or any((path / "train" / GOOD).is_dir() for path in below):
            return "mvtec"
        tables = sorted(path.name for path in root.glob("*.csv"))
        if tables:
            raise DataError(
                f"data.root: {root} has tables ({listed(tables)}), but no {TRAIN_TABLE}; expected `csv:` to name the "
                "one with the labels, and `images:` its folder of images."
            )
        if any(list_images(path) for path in below):
            return "folders"
        raise DataError(
            f"data.root: {root} has no labelled images; expected {TRAIN_TABLE} with train/, <class>/train/{GOOD} with "
            "<class>/test/<state>, a folder for each label, or `csv:`."
        )

    def _tables(self, root: Path, layout: str) -> LabelledParts:
        of_competition = layout == "competition"
        table = self.csv or (TRAIN_TABLE if of_competition else None)
        if table is None:
            raise DataError("data.csv: nothing found; expected the table's name for layout csv.")
        images = self.images or ("train" if of_competition else ".")
        found = _table(_within(root, table, "data.csv"), _folder(root, images, "data.images"), root, self.columns, True)
        test: tuple[LabelledSample, ...] = ()
        notes, sample = list(found.notes), None
        test_table = self.test_csv or (TEST_TABLE if of_competition and (root / TEST_TABLE).is_file() else None)
        if test_table is not None:
            folder = _folder(root, self.test_images or ("test" if of_competition else images), "data.test_images")
            tested = _table(_within(root, test_table, "data.test_csv"), folder, root, self.columns, False)
            test, notes = tested.samples, notes + list(tested.notes)
        elif self.test_images is not None:
            folder = _folder(root, self.test_images, "data.test_images")
            test = tuple(_sample(path, root, "") for path in list_images(folder, EXTENSIONS))
        if self.sample_submission is not None:
            sample = _within(root, self.sample_submission, "data.sample_submission")
        elif of_competition and (root / SAMPLE).is_file():
            sample = root / SAMPLE
        return LabelledParts(root, found.samples, test, tuple(notes), sample)


@dataclass(frozen=True)
class _Table:
    samples: tuple[LabelledSample, ...]
    notes: tuple[str, ...]


def _within(root: Path, name: str, key: str) -> Path:
    """A file in the data's root; a name can't lead out of it."""
    path = root / name
    if not path.resolve().is_relative_to(root.resolve()):
        raise DataError(f"{key}: {name!r} found, which leads out of {root}; expected a path within data.root.")
    if not path.is_file():
        near = nearest(path.name, [p.name for p in path.parent.glob("*.csv")] if path.parent.is_dir() else [])
        hint = f" Did you mean {near[0]}?" if near else ""
        raise DataError(f"{key}: no file found at {path}; expected a CSV table.{hint}")
    return path


def _folder(root: Path, name: str, key: str) -> Path:
    path = root / name
    if not path.resolve().is_relative_to(root.resolve()):
        raise DataError(f"{key}: {name!r} found, which leads out of {root}; expected a folder within data.root.")
    return existing_dir(path, key)


def _table(file: Path, folder: Path, root: Path, columns: Columns, labelled: bool) -> _Table:
    """Samples of a table, and what does not match.

    Raises:
        DataError: columns are missing, a row has no label, or an image has two.
    """
    rows = _rows(file, columns, labelled)
    there = {path.relative_to(folder).as_posix(): path for path in list_images(folder, EXTENSIONS)}
    samples: dict[str, LabelledSample] = {}
    lost: list[str] = []
    twice: list[str] = []
    problems: list[str] = []
    for line, row in rows:
        name = row.get(columns.file_name, "").strip().replace("\\", "/").removeprefix("./")
        label, part, state = _label(row, columns)
        if not name or (labelled and not label):
            problems.append(f"{file}: line {line}: no {'file name' if not name else 'label'} found; expected one.")
            continue
        if name not in there:
            lost.append(name)
            continue
        path = there[name]
        key = row.get(columns.key, "").strip() or name
        sample = LabelledSample(str(path), path.relative_to(root).as_posix(), label, part, state, key)
        earlier = samples.setdefault(name, sample)
        if earlier is not sample:
            if earlier.label != label:
                problems.append(
                    f"{file}: line {line}: {name} is labelled {label!r} here and {earlier.label!r} before; expected "
                    "one label an image."
                )
            twice.append(name)
    if problems:
        raise DataError(problems)
    spare = sorted(set(there) - set(samples))
    notes = []
    if lost:
        notes.append(f"{file.name}: {len(lost)} rows name files that are not in {folder} ({listed(lost)}): left out.")
    if spare and labelled:
        notes.append(f"{folder}: {len(spare)} images have no row in {file.name} ({listed(spare)}): left out.")
    elif spare:
        notes.append(f"{folder}: {len(spare)} images have no row in {file.name} ({listed(spare)}): not named.")
    if twice:
        notes.append(f"{file.name}: {len(twice)} rows are there twice ({listed(twice)}): taken once.")
    return _Table(tuple(samples.values()), tuple(notes))


def _rows(file: Path, columns: Columns, labelled: bool) -> list[tuple[int, dict[str, str]]]:
    try:
        with file.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.DictReader(stream)
            header = list(reader.fieldnames or [])
            rows = [(reader.line_num, {k: v or "" for k, v in row.items() if k is not None}) for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{file}: can't be read as a CSV table ({error}).") from error
    of_label = columns.label in header or {columns.part, columns.state} <= set(header)
    if columns.file_name not in header or (labelled and not of_label):
        wanted = [columns.file_name] if columns.file_name not in header else []
        wanted += [f"{columns.label} (or {columns.part} and {columns.state})"] if labelled and not of_label else []
        raise DataError(
            f"{file}: columns {', '.join(header) or 'none'} found; expected {' and '.join(wanted)}. "
            "data.columns gives them other names."
        )
    return rows


def _label(row: Mapping[str, str], columns: Columns) -> tuple[str, str, str]:
    """Label, class and state of a row, whichever columns there are."""
    label, part, state = (row.get(name, "").strip() for name in (columns.label, columns.part, columns.state))
    if not label and part and state:
        label = f"{part}{SEPARATOR}{state}"
    if label and not (part and state):
        part, state = split_label(label)
    return label, part, state


def _mvtec(root: Path) -> LabelledParts:
    """Every image of the tree, normal training images too, as class-state."""
    samples: list[LabelledSample] = []
    problems: list[str] = []
    for category in find_categories(root):
        try:
            found = load_tree(root, category)
        except DataError as error:
            problems += error.problems
            continue
        part = category or root.name
        samples += [
            _sample(Path(s.path), root, f"{part}{SEPARATOR}{s.defect}", part, s.defect)
            for s in (*found.train, *found.test)
        ]
    if problems:
        raise DataError(problems)
    return LabelledParts(root, tuple(samples))


def _folders(root: Path) -> LabelledParts:
    folders = sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
    samples: list[LabelledSample] = []
    empty = []
    for folder in folders:
        images = list_images(folder, EXTENSIONS)
        samples += _of_label(images, root, folder.name)
        if not images:
            empty.append(folder.name)
    loose = [path.name for path in list_images(root, EXTENSIONS) if path.parent == root]
    notes = [f"{len(empty)} folders have no images ({listed(empty)}): no label is made of them."] if empty else []
    notes += (
        [f"{len(loose)} images lie beside the folders ({listed(loose)}): left out, they have no label."]
        if loose
        else []
    )
    return LabelledParts(root, tuple(samples), notes=tuple(notes))


def _of_label(images: Sequence[Path], root: Path, label: str) -> Iterable[LabelledSample]:
    part, state = split_label(label)
    return [_sample(path, root, label, part, state) for path in images]


def _sample(path: Path, root: Path, label: str, part: str = "", state: str = "") -> LabelledSample:
    name = path.relative_to(root).as_posix()
    return LabelledSample(str(path), name, label, part, state, name)
