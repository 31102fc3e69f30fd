"""Tables with a row for each image: their columns, mismatches with the folder, and labels."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, model_validator

from harness.common.errors import DataError, nearest
from harness.data.base import listed
from harness.data.labelled.base import SEPARATOR, LabelledSample, split_label
from harness.data.listing import list_images, name_in


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
        # `class` is a keyword of Python, and no name for an attribute.
        return {("part" if k == "class" else k): v for k, v in value.items()} if isinstance(value, dict) else value


@dataclass(frozen=True)
class Table:
    """The content of a table.

    Attributes:
        samples: of the rows with an image.
        notes: mismatches and their handling, one sentence each.
        rows: number of rows of the table.
    """

    samples: tuple[LabelledSample, ...]
    notes: tuple[str, ...]
    rows: int


def read_table(
    file: Path, folder: Path, root: Path, columns: Columns, labelled: bool, group: str | None = None
) -> Table:
    """Read the samples of a table.

    Args:
        file: the table, CSV with a header.
        folder: the folder of its file names.
        root: the folder of sample names.
        columns: names of the columns.
        labelled: whether each row must have a label, and a group if there is a column of groups.
        group: column of the groups; None without groups.

    Raises:
        DataError: a column, a label or a group is missing, or an image has two labels or groups.
    """
    rows = _rows(file, columns, labelled, group)
    images = {name_in(path, folder): path for path in list_images(folder)}
    samples: dict[str, LabelledSample] = {}
    gaps: list[str] = []
    repeated: list[str] = []
    problems: list[str] = []
    for number, (line, row) in enumerate(rows):
        name = row.get(columns.file_name, "").strip().replace("\\", "/").removeprefix("./")
        label, part, state = _label(row, columns)
        if not name or (labelled and not label):
            problems.append(f"{file}: line {line}: no {'file name' if not name else 'label'} found; expected one.")
            continue
        if name not in images:
            gaps.append(name)
            continue
        path = images[name]
        key = row.get(columns.key, "").strip() or name
        its_group = row.get(group, "").strip() if group else ""
        if labelled and group and not its_group:
            problems.append(f"{file}: line {line}: no group found in column {group}; expected one. Add it.")
        sample = LabelledSample(str(path), name_in(path, root), label, part, state, key, number, its_group)
        earlier = samples.setdefault(name, sample)
        if earlier is not sample:
            problems += [f"{file}: line {line}: {problem}" for problem in _contradictions(name, sample, earlier)]
            repeated.append(name)
    if not labelled:
        # The keys of a submission come from this table.
        problems += _repeated_keys(file, columns, samples.values())
    if problems:
        raise DataError(problems)
    extra = sorted(set(images) - set(samples))
    notes = []
    if gaps:
        notes.append(f"{file.name}: {len(gaps)} rows name files that are not in {folder} ({listed(gaps)}): left out.")
    if extra and labelled:
        notes.append(f"{folder}: {len(extra)} images have no row in {file.name} ({listed(extra)}): left out.")
    elif extra:
        notes.append(f"{folder}: {len(extra)} images have no row in {file.name} ({listed(extra)}): not classified.")
    if repeated:
        notes.append(f"{file.name}: {len(repeated)} rows are there twice ({listed(repeated)}): taken once.")
    return Table(tuple(samples.values()), tuple(notes), len(rows))


def _contradictions(name: str, sample: LabelledSample, earlier: LabelledSample) -> list[str]:
    """Problems of an image with two rows."""
    problems = []
    if earlier.label != sample.label:
        problems.append(
            f"{name} is labelled {sample.label!r} here and {earlier.label!r} before; expected one label for each image."
        )
    if earlier.group != sample.group:
        problems.append(
            f"{name} is in group {sample.group!r} here and {earlier.group!r} before; expected one group for each "
            "image. Correct one of the rows."
        )
    return problems


def _repeated_keys(file: Path, columns: Columns, samples: Iterable[LabelledSample]) -> list[str]:
    counts = Counter(sample.key for sample in samples)
    repeated = [key for key, count in counts.items() if count > 1]
    if not repeated:
        return []
    return [
        f"{file}: column {columns.key}: {len(repeated)} values stand for several images ({listed(repeated)}); expected "
        "a different one for each image."
    ]


def _rows(file: Path, columns: Columns, labelled: bool, group: str | None) -> list[tuple[int, dict[str, str]]]:
    try:
        with file.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.DictReader(stream)
            header = list(reader.fieldnames or [])
            rows = [(reader.line_num, {k: v or "" for k, v in row.items() if k is not None}) for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{file}: can't be read as a CSV table ({error}).") from error
    has_label = columns.label in header or {columns.part, columns.state} <= set(header)
    if columns.file_name not in header or (labelled and not has_label):
        missing = [columns.file_name] if columns.file_name not in header else []
        missing += [f"{columns.label} (or {columns.part} and {columns.state})"] if labelled and not has_label else []
        raise DataError(
            f"{file}: columns {', '.join(header) or 'none'} found; expected {' and '.join(missing)}. "
            "data.columns gives them other names."
        )
    if labelled and group is not None and group not in header:
        near = nearest(group, header)
        raise DataError(
            f"data.group: column {group!r} not found in {file}; expected one of {', '.join(header)}."
            + (f" Did you mean {near[0]!r}?" if near else " Name one of them, or write {pattern: ...}.")
        )
    return rows


def _label(row: Mapping[str, str], columns: Columns) -> tuple[str, str, str]:
    """Label, class and condition of a row. A missing label or class is derived from the other columns."""
    label, class_, condition = (row.get(name, "").strip() for name in (columns.label, columns.part, columns.state))
    if not label and class_ and condition:
        label = f"{class_}{SEPARATOR}{condition}"
    if label and not (class_ and condition):
        class_, condition = split_label(label)
    return label, class_, condition
