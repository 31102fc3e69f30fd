"""Labelled samples -> a `LabelledSplit`: check every file, remove copies, assign folds, compute fingerprints."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path

import numpy as np

from harness.common.errors import DataError
from harness.data.base import listed
from harness.data.exclude import Exclusions, note_of
from harness.data.index import FileIndex, Progress
from harness.data.labelled.base import (
    ALWAYS_TRAINED,
    LabelledOptions,
    LabelledSample,
    LabelledSampleLists,
    LabelledSplit,
    LabelSpec,
)
from harness.data.labelled.fold_files import Folds
from harness.data.labelled.folds import assign_folds
from harness.data.labelled.groups import group_notes, groups_of


def load_labelled(
    options: LabelledOptions, work_dir: Path, index: FileIndex, progress: Progress | None = None
) -> LabelledSplit:
    """The split of labelled data.

    Args:
        options: the `data:` block.
        work_dir: the folder for data that the harness makes.
        index: facts about the files; facts about new files are added.
        progress: called with (number of read files, number of files to read).

    Raises:
        DataError: all problems of the data.
    """
    lists, excluded = load_labelled_lists(options, work_dir)
    if not lists.train:
        raise DataError([*lists.notes, f"{lists.root}: no labelled images found; at least 2 labels are expected."])
    problems = index.update({s.path for s in (*lists.train, *lists.test)}, set(), progress, options.max_pixels)
    if problems:
        raise DataError(problems)
    unique = _without_copies(lists, index)
    train = tuple(lists.train[i] for i in unique.positions)
    label_specs = _label_specs(train)
    labels = tuple(sorted({sample.label for sample in train}))
    if len(labels) < 2:
        raise DataError(f"{lists.root}: one label found ({labels[0]}); at least 2 are expected.")
    groups = None if options.group is None else groups_of(options.group, train)
    folds, notes = assign_folds(train, options.folds, options.split_seed, lists.rows, groups)
    if options.group is not None and groups is not None:
        notes = [*group_notes(options.group, groups, lists.test), *notes]
    unknown = sorted({s.label for s in lists.test if s.label} - set(labels))
    if unknown:
        notes.append(f"{len(unknown)} labels of test images have no training image ({listed(unknown)}): always missed.")
    run_folds = _run_folds(options, folds)
    return LabelledSplit(
        kind=options.kind,
        root=lists.root,
        labels=labels,
        label_specs=tuple(label_specs[label] for label in labels),
        train=train,
        folds=tuple(folds.tolist()),
        run_folds=run_folds,
        test=lists.test,
        fingerprint=_fingerprint(train, folds, run_folds, lists.test, index, label_specs),
        synthetic=options.synthetic,
        test_fingerprint=_validation_fingerprint(train, folds, run_folds, index),
        notes=(*lists.notes, *unique.notes, *notes),
        sample_submission=lists.sample_submission,
        group="" if options.group is None else options.group.text,
        groups=groups or (),
        excluded=excluded,
    )


def load_labelled_lists(options: LabelledOptions, work_dir: Path) -> tuple[LabelledSampleLists, int]:
    """The samples without those of `data.exclude`, and the number of these.

    Args:
        options: the `data:` block.
        work_dir: the folder for data that the harness makes.

    Raises:
        DataError: files or labels have problems, or an entry of `data.exclude` matches no image.
    """
    lists, exclusions = options.load(work_dir), Exclusions.of(options.exclude)
    train, test = exclusions.without(lists.train), exclusions.without(lists.test)
    if problems := exclusions.unused(lists.root):
        raise DataError(problems)
    notes = (*lists.notes, *note_of(exclusions.excluded))
    return replace(lists, train=train, test=test, notes=notes), len(exclusions.excluded)


def _label_specs(train: Sequence[LabelledSample]) -> dict[str, LabelSpec]:
    """Class and condition of each label.

    Raises:
        DataError: images with the same label have different classes or conditions.
    """
    label_specs: dict[str, LabelSpec] = {}
    problems: dict[str, None] = {}
    for sample in train:
        spec = (sample.part, sample.state)
        first = label_specs.setdefault(sample.label, spec)
        if first != spec:
            problems[
                f"{sample.path}: label {sample.label!r} with class {spec[0]!r} and state {spec[1]!r} found, before "
                f"with {first[0]!r} and {first[1]!r}; expected one class and state for each label."
            ] = None
    if problems:
        raise DataError(list(problems)[:10])
    return label_specs


def _run_folds(options: LabelledOptions, folds: Folds) -> tuple[int, ...]:
    numbers = sorted(set(folds.tolist()) - {ALWAYS_TRAINED})
    run_folds = options.run_folds if options.run_folds is not None else numbers
    missing = sorted(set(run_folds) - set(numbers))
    if missing or len(set(run_folds)) < len(run_folds):
        raise DataError(f"data.run_folds: found {run_folds}, expected different ones of {numbers}.")
    return tuple(sorted(run_folds))


@dataclass(frozen=True)
class _Unique:
    positions: Sequence[int]
    notes: Sequence[str]


def _without_copies(lists: LabelledSampleLists, index: FileIndex) -> _Unique:
    """Positions of training images without copies: a network would know a copy from another fold.

    Raises:
        DataError: copies of an image have different labels.
    """
    first: dict[str, LabelledSample] = {}
    copies: list[str] = []
    problems: list[str] = []
    positions = []
    for position, sample in enumerate(lists.train):
        original = first.setdefault(index.hash_of(sample.path), sample)
        if original is sample:
            positions.append(position)
        elif original.label == sample.label:
            copies.append(f"{sample.name} = {original.name}")
        else:
            problems.append(
                f"{sample.path}: the same image as {original.name}, labelled {sample.label!r} and "
                f"{original.label!r}; expected one label. Correct or remove one of them."
            )
    if problems:
        raise DataError(problems)
    notes = []
    if copies:
        notes.append(f"{len(copies)} training images are copies of others ({listed(copies)}): left out.")
    leaked = [s.name for s in lists.test if index.hash_of(s.path) in first]
    if leaked:
        notes.append(f"{len(leaked)} test images are training images too ({listed(leaked)}): the networks know them.")
    return _Unique(positions, notes)


def _fingerprint(
    train: Sequence[LabelledSample],
    folds: Folds,
    run_folds: Sequence[int],
    test: Sequence[LabelledSample],
    index: FileIndex,
    label_specs: Mapping[str, LabelSpec],
) -> str:
    """Hash of everything that results depend on; the location of the data does not change the hash."""
    facts: list[list[object]] = [["label", label, *label_specs[label]] for label in sorted(label_specs)]
    facts += [["run_folds", *run_folds]]
    facts += [["train", s.name, s.label, int(f), index.hash_of(s.path)] for s, f in zip(train, folds, strict=True)]
    facts += [["test", s.name, s.label, index.hash_of(s.path)] for s in test]
    return _digest(facts)


def _validation_fingerprint(
    train: Sequence[LabelledSample], folds: Folds, run_folds: Sequence[int], index: FileIndex
) -> str:
    """Hash of the images with out-of-fold metrics; another assignment of the same images gives an equal hash."""
    validated = np.isin(folds, run_folds)
    return _digest(sorted([s.name, s.label, index.hash_of(s.path)] for s, v in zip(train, validated, strict=True) if v))


def _digest(facts: object) -> str:
    return sha256(json.dumps(facts).encode()).hexdigest()[:16]
