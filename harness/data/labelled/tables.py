"""A table with an image a row: its columns, what does not match the folder, and labels from classes and states."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, model_validator

from harness.common.errors import DataError
from harness.data.images import EXTENSIONS, list_images
from harness.data.labelled.base import SEPARATOR, LabelledSample, listed, split_label


class Columns(BaseModel):
    """Names of the table's columns. `label` may be missing where `class` and `state` are there, and the reverse.

    Attributes:
        file_name: column of the file's name.
        part: column of the class.
        state: column of the condition.
        label: column of the label, class and condition in one.
        key: column of what a submission calls the image.
    """

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


@dataclass(frozen=True)
class Table:
    """What a table says.

    Attributes:
        samples: of the images that are there.
        notes: what does not match, and what was done about it.
        rows: of the table.
    """

    samples: tuple[LabelledSample, ...]
    notes: tuple[str, ...]
    rows: int


def read_table(file: Path, folder: Path, root: Path, columns: Columns, labelled: bool) -> Table:
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
    for number, (line, row) in enumerate(rows):
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
        sample = LabelledSample(str(path), path.relative_to(root).as_posix(), label, part, state, key, number)
        earlier = samples.setdefault(name, sample)
        if earlier is not sample:
            if earlier.label != label:
                problems.append(
                    f"{file}: line {line}: {name} is labelled {label!r} here and {earlier.label!r} before; expected "
                    "one label an image."
                )
            twice.append(name)
    if not labelled:
        # What a submission calls an image is taken from here.
        problems += _called_alike(file, columns, samples.values())
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
    return Table(tuple(samples.values()), tuple(notes), len(rows))


def _called_alike(file: Path, columns: Columns, samples: Iterable[LabelledSample]) -> list[str]:
    counts = Counter(sample.key for sample in samples)
    twice = [key for key, count in counts.items() if count > 1]
    if not twice:
        return []
    return [
        f"{file}: column {columns.key}: {len(twice)} values stand for several images ({listed(twice)}); expected "
        "another one for each image."
    ]


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
