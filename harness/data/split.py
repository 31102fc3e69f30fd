"""Samples on disk -> a `Split`: check every file, hold out normal images, compute fingerprints."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from hashlib import sha256
from pathlib import Path, PurePosixPath

import numpy as np

from harness.common.errors import DataError
from harness.data.base import DataOptions, listed
from harness.data.exclude import Exclusions, note_of
from harness.data.index import FileIndex, Progress
from harness.data.samples import Sample, SampleLists, Split

MASK_READER = "any channel"


def load_splits(
    options: DataOptions, work_dir: Path, index: FileIndex, progress: Progress | None = None
) -> list[Split]:
    """One `Split` for each category.

    Args:
        options: the `data:` block.
        work_dir: the folder for data that the harness makes.
        index: facts about the files; facts about new files are added.
        progress: called with (number of read files, number of files to read).

    Raises:
        DataError: all problems of the data.
    """
    by_category = load_lists(options, work_dir)
    problems = [problem for category, lists in by_category for problem in _missing(category, lists, options)]
    if problems:
        raise DataError(problems)
    samples = [sample for _, lists in by_category for sample in lists.all_samples]
    problems = [_name_problem(sample) for sample in samples if not _is_utf8(sample.name)]
    if problems:
        raise DataError(problems)
    masks = {mask for s in samples for mask in s.masks}
    problems = index.update({s.path for s in samples}, masks, progress, options.max_pixels)
    for _, lists in by_category:
        problems += [*index.mask_sizes(lists.test), *index.unknown_defects(lists.test)]
    if problems:
        raise DataError(problems)
    return [_split(options, category, lists, index) for category, lists in by_category]


def load_lists(options: DataOptions, work_dir: Path) -> list[tuple[str, SampleLists]]:
    """Each category with its samples, without those of `data.exclude`.

    Args:
        options: the `data:` block.
        work_dir: the folder for data that the harness makes.

    Raises:
        DataError: all problems of files and folders, and entries of `data.exclude` without an image.
    """
    exclusions = Exclusions.of(options.exclude)
    problems: list[str] = []
    by_category: list[tuple[str, SampleLists]] = []
    for category in options.categories(work_dir):
        try:
            by_category.append((category, _without(exclusions, options.load(category, work_dir))))
        except DataError as error:
            problems += error.problems
    if by_category and not problems:
        lists = by_category[0][1]
        folders = [others.folder for _, others in by_category if others.folder]
        depth = len(PurePosixPath(lists.folder).parts)
        problems = exclusions.unused(lists.root.parents[depth - 1] if depth else lists.root, folders)
    if problems:
        raise DataError(problems)
    return by_category


def _without(exclusions: Exclusions, lists: SampleLists) -> SampleLists:
    first = len(exclusions.excluded)
    train, val, test, unlabelled = (
        exclusions.without(samples, lists.folder) for samples in (lists.train, lists.val, lists.test, lists.unlabelled)
    )
    excluded = tuple(exclusions.excluded[first:])
    problems = [
        f"{exclusions.source}: all {len(before)} normal {role} images of {lists.root} are left out; expected some to "
        "stay. Remove entries."
        for role, before, after in (("training", lists.train, train), ("validation", lists.val, val))
        if before and not after
    ]
    if problems:
        raise DataError(problems)
    notes = (*lists.notes, *note_of(excluded))
    return replace(lists, train=train, val=val, test=test, unlabelled=unlabelled, notes=notes, excluded=excluded)


def _missing(category: str, lists: SampleLists, options: DataOptions) -> list[str]:
    place = f"{lists.root}" + (f" (category {category!r})" if category else "")
    problems = []
    if not lists.train:
        problems.append(f"{place}: no normal training images found; at least 1 expected.")
    elif options.held_out_share and len(lists.train) < 2:
        problems.append(
            f"{place}: 1 normal training image found; with data.val={options.held_out_share} at least 2 are expected "
            "(one is held out). Add images, or set data.val to 0."
        )
    elif held_out_count(len(lists.train), options.held_out_share) >= len(lists.train):
        problems.append(
            f"{place}: data.val={options.held_out_share} holds out all {len(lists.train)} normal training images; "
            "expected a smaller share."
        )
    if not lists.test:
        problems.append(f"{place}: no test images found; at least 1 expected, normal or anomalous.")
    anomalous = [s for s in lists.test if s.label]
    unmasked = [str(PurePosixPath(lists.folder, s.name)) for s in anomalous if not s.masks]
    if 0 < len(unmasked) < len(anomalous):
        problems.append(
            f"{place}: masks found for {len(anomalous) - len(unmasked)} of {len(anomalous)} anomalous images; expected "
            f"for all or none. No mask: {listed(unmasked)}. Add masks, or leave these images out with data.exclude."
        )
    roles = Counter(s.path for s in lists.all_samples)
    repeated = sorted(path for path, times in roles.items() if times > 1)
    if repeated:
        problems.append(
            f"{place}: {len(repeated)} images have more than one role, such as {repeated[0]}; each is expected once. "
            "Is one folder inside another?"
        )
    return problems


def _is_utf8(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _name_problem(sample: Sample) -> str:
    shown = sample.path.encode(errors="backslashreplace").decode()
    return f"{shown}: a name that is no UTF-8 found, UTF-8 expected for tables; rename the file."


def held_out_count(images: int, share: float) -> int:
    """Number of held-out normal training images: at least one, or none for a share of 0.

    Args:
        images: number of normal training images.
        share: of held-out images, 0 to 1.
    """
    return max(1, round(images * share)) if share else 0


def _split(options: DataOptions, category: str, lists: SampleLists, index: FileIndex) -> Split:
    ordered = _sorted(lists.train)
    share = 0.0 if lists.val else options.held_out_share
    count = held_out_count(len(ordered), share)
    held_out = set(np.random.default_rng(options.split_seed).permutation(len(ordered))[:count].tolist())
    train = tuple(s for i, s in enumerate(ordered) if i not in held_out)
    val = _sorted(lists.val) or tuple(s for i, s in enumerate(ordered) if i in held_out)
    test, unlabelled = _sorted(lists.test), _sorted(lists.unlabelled)
    roles = {"train": train, "val": val, "test": test}
    return Split(
        kind=options.kind,
        category=category,
        root=lists.root,
        train=train,
        val=val,
        test=(*test, *unlabelled),
        fingerprint=_fingerprint(roles | ({"unlabelled": unlabelled} if unlabelled else {}), index),
        synthetic=options.synthetic,
        test_fingerprint=_fingerprint({"test": test}, index),
        held_out=(share, options.split_seed),
        notes=(
            *([f"data.kind auto: kind {options.kind} found."] if options.detected else []),
            *lists.notes,
            *_copies(roles, index),
            *index.mask_warnings(test),
        ),
        excluded=len(lists.excluded),
    )


def _sorted(samples: Sequence[Sample]) -> tuple[Sample, ...]:
    return tuple(sorted(samples, key=lambda sample: sample.name))


def _copies(roles: dict[str, tuple[Sample, ...]], index: FileIndex) -> list[str]:
    """A sentence for each pair of roles with copies of the same image."""
    words = {"train": "training", "val": "held-out", "test": "test"}
    warnings = []
    for role, source in (("test", "train"), ("test", "val"), ("val", "train")):
        names = {index.hash_of(sample.path): sample.name for sample in roles[source]}
        copies = [sample for sample in roles[role] if index.hash_of(sample.path) in names]
        if copies:
            original = names[index.hash_of(copies[0].path)]
            warnings.append(
                f"{len(copies)} of {len(roles[role])} {words[role]} images are copies of {words[source]} images, "
                f"byte by byte, such as {copies[0].name} of {original}: a model knows them, and metrics are too good. "
                "`python -m harness audit` lists them."
            )
    return warnings


def _fingerprint(roles: dict[str, tuple[Sample, ...]], index: FileIndex) -> str:
    """Hash of everything that results depend on; the location of the data does not change the hash."""
    digest = sha256()
    for role, samples in roles.items():
        for s in samples:
            masks = " ".join(index.hash_of(mask) for mask in s.masks)
            if any(index.differs_from_v01(mask) for mask in s.masks):
                # Runs of version 0.1 have other pixel metrics, because they read another mask from this file.
                masks = f"{masks} {MASK_READER}"
            facts: list[object] = [role, s.name, s.label, s.defect, index.hash_of(s.path), masks]
            if s.saturation:
                facts.append(s.saturation)
            digest.update(json.dumps(facts).encode())
    return digest.hexdigest()[:16]
