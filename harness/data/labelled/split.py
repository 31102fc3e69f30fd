"""From labelled samples to a `LabelledSplit`: check every file, drop copies, make folds, fingerprint."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import numpy as np

from harness.common.errors import DataError
from harness.data.index import FileIndex, Progress
from harness.data.labelled.base import (
    ALWAYS_TRAINED,
    LabelledOptions,
    LabelledSample,
    LabelledSampleLists,
    LabelledSplit,
    LabelSpec,
    listed,
)
from harness.data.labelled.folds import Folds, assign_folds


def load_labelled(
    options: LabelledOptions, work_dir: Path, index: FileIndex, progress: Progress | None = None
) -> LabelledSplit:
    """The split of labelled data.

    Args:
        options: the `data:` block.
        work_dir: where data made by the harness is put.
        index: what is known of the files; what was read is added to it.
        progress: called with (files done, files in all).

    Raises:
        DataError: everything that is wrong with the data, at once.
    """
    parts = options.load(work_dir)
    if not parts.train:
        raise DataError([*parts.notes, f"{parts.root}: no labelled images found; at least 2 labels are expected."])
    problems = index.look_at({s.path for s in (*parts.train, *parts.test)}, set(), progress, options.max_pixels)
    if problems:
        raise DataError(problems)
    kept = _without_copies(parts, index)
    train = tuple(parts.train[i] for i in kept.positions)
    label_specs = _meanings(train)
    labels = tuple(sorted({sample.label for sample in train}))
    if len(labels) < 2:
        raise DataError(f"{parts.root}: one label found ({labels[0]}); at least 2 are expected.")
    folds, notes = assign_folds(train, options.folds, options.split_seed, parts.rows)
    unknown = sorted({s.label for s in parts.test if s.label} - set(labels))
    if unknown:
        notes.append(f"{len(unknown)} labels of test images are never trained on ({listed(unknown)}): always missed.")
    run_folds = _chosen(options, folds)
    return LabelledSplit(
        kind=options.kind,
        root=parts.root,
        labels=labels,
        label_specs=tuple(label_specs[label] for label in labels),
        train=train,
        folds=tuple(folds.tolist()),
        run_folds=run_folds,
        test=parts.test,
        fingerprint=_fingerprint(train, folds, run_folds, parts.test, index, label_specs),
        synthetic=options.synthetic,
        test_fingerprint=_judged_fingerprint(train, folds, run_folds, index),
        notes=(*parts.notes, *kept.notes, *notes),
        sample_submission=parts.sample_submission,
    )


def _meanings(train: Sequence[LabelledSample]) -> dict[str, LabelSpec]:
    """Class and state of each label.

    Raises:
        DataError: images of one label are of two classes or states.
    """
    found: dict[str, LabelSpec] = {}
    problems: dict[str, None] = {}
    for sample in train:
        own = (sample.part, sample.state)
        first = found.setdefault(sample.label, own)
        if first != own:
            problems[
                f"{sample.path}: label {sample.label!r} with class {own[0]!r} and state {own[1]!r} found, before with "
                f"{first[0]!r} and {first[1]!r}; expected one class and state for each label."
            ] = None
    if problems:
        raise DataError(list(problems)[:10])
    return found


def _chosen(options: LabelledOptions, folds: Folds) -> tuple[int, ...]:
    there = sorted(set(folds.tolist()) - {ALWAYS_TRAINED})
    wanted = options.run_folds if options.run_folds is not None else there
    missing = sorted(set(wanted) - set(there))
    if missing or len(set(wanted)) < len(wanted):
        raise DataError(f"data.run_folds: found {wanted}, expected different ones of {there}.")
    return tuple(sorted(wanted))


@dataclass(frozen=True)
class _Kept:
    positions: Sequence[int]
    notes: Sequence[str]


def _without_copies(parts: LabelledSampleLists, index: FileIndex) -> _Kept:
    """Positions of training images, each picture once: a copy in another fold would be known there by heart.

    Raises:
        DataError: the same picture has two labels.
    """
    first: dict[str, LabelledSample] = {}
    copies: list[str] = []
    problems: list[str] = []
    positions = []
    for position, sample in enumerate(parts.train):
        original = first.setdefault(index.hash_of(sample.path), sample)
        if original is sample:
            positions.append(position)
        elif original.label == sample.label:
            copies.append(f"{sample.name} = {original.name}")
        else:
            problems.append(
                f"{sample.path}: the same picture as {original.name}, labelled {sample.label!r} and "
                f"{original.label!r}; expected one label. Correct or remove one of them."
            )
    if problems:
        raise DataError(problems)
    notes = []
    if copies:
        notes.append(f"{len(copies)} training images are copies of others ({listed(copies)}): left out.")
    known = [s.name for s in parts.test if index.hash_of(s.path) in first]
    if known:
        notes.append(f"{len(known)} test images are training images too ({listed(known)}): kept, but known by heart.")
    return _Kept(positions, notes)


def _fingerprint(
    train: Sequence[LabelledSample],
    folds: Folds,
    run_folds: Sequence[int],
    test: Sequence[LabelledSample],
    index: FileIndex,
    label_specs: Mapping[str, LabelSpec],
) -> str:
    """Hash of what a result depends on; where the data lies is no part of it."""
    facts: list[list[object]] = [["label", label, *label_specs[label]] for label in sorted(label_specs)]
    facts += [["run_folds", *run_folds]]
    facts += [["train", s.name, s.label, int(f), index.hash_of(s.path)] for s, f in zip(train, folds, strict=True)]
    facts += [["test", s.name, s.label, index.hash_of(s.path)] for s in test]
    return _digest(facts)


def _judged_fingerprint(
    train: Sequence[LabelledSample], folds: Folds, run_folds: Sequence[int], index: FileIndex
) -> str:
    """Hash of the images that out-of-fold figures are about; other folds of the same images are as good."""
    judged = np.isin(folds, run_folds)
    return _digest(sorted([s.name, s.label, index.hash_of(s.path)] for s, j in zip(train, judged, strict=True) if j))


def _digest(facts: object) -> str:
    return sha256(json.dumps(facts).encode()).hexdigest()[:16]
