"""Samples on disk -> a `Split`: check every file, hold out normal images, compute fingerprints."""

from __future__ import annotations

import json
from collections import Counter
from hashlib import sha256
from pathlib import Path

import numpy as np

from harness.common.errors import DataError
from harness.data.base import DataOptions, Sample, SampleLists, Split
from harness.data.index import FileIndex, Progress

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
    problems: list[str] = []
    by_category: list[tuple[str, SampleLists]] = []
    for category in options.categories(work_dir):
        try:
            by_category.append((category, options.load(category, work_dir)))
        except DataError as error:
            problems += error.problems
    for category, lists in by_category:
        problems += _missing(category, lists, options)
    if problems:
        raise DataError(problems)
    samples = [sample for _, lists in by_category for sample in (*lists.train, *lists.test)]
    problems = [_name_problem(sample) for sample in samples if not _is_utf8(sample.name)]
    if problems:
        raise DataError(problems)
    masks = {s.mask for s in samples if s.mask}
    problems = index.update({s.path for s in samples}, masks, progress, options.max_pixels)
    for _, lists in by_category:
        problems += index.mask_sizes(lists.test)
    if problems:
        raise DataError(problems)
    return [_split(options, category, lists, index) for category, lists in by_category]


def _missing(category: str, lists: SampleLists, options: DataOptions) -> list[str]:
    place = f"{lists.root}" + (f" (category {category!r})" if category else "")
    problems = []
    if not lists.train:
        problems.append(f"{place}: no normal training images found; at least 1 expected.")
    elif options.val and len(lists.train) < 2:
        problems.append(
            f"{place}: 1 normal training image found; with data.val={options.val} at least 2 are expected "
            "(one is held out). Add images, or set data.val to 0."
        )
    elif held_out_count(len(lists.train), options.val) >= len(lists.train):
        problems.append(
            f"{place}: data.val={options.val} holds out all {len(lists.train)} normal training images; "
            "expected a smaller share."
        )
    if not lists.test:
        problems.append(f"{place}: no test images found; at least 1 expected, normal or anomalous.")
    masked = sum(s.mask is not None for s in lists.test if s.label)
    anomalous = sum(s.label for s in lists.test)
    if 0 < masked < anomalous:
        problems.append(f"{place}: masks found for {masked} of {anomalous} anomalous images; expected for all or none.")
    roles = Counter(s.path for s in (*lists.train, *lists.test))
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
    ordered = sorted(lists.train, key=lambda sample: sample.name)
    count = held_out_count(len(ordered), options.val)
    held_out = set(np.random.default_rng(options.split_seed).permutation(len(ordered))[:count].tolist())
    train = tuple(s for i, s in enumerate(ordered) if i not in held_out)
    val = tuple(s for i, s in enumerate(ordered) if i in held_out)
    test = tuple(sorted(lists.test, key=lambda sample: sample.name))
    roles = {"train": train, "val": val, "test": test}
    return Split(
        kind=options.kind,
        category=category,
        root=lists.root,
        train=train,
        val=val,
        test=test,
        fingerprint=_fingerprint(roles, index),
        synthetic=options.synthetic,
        test_fingerprint=_fingerprint({"test": test}, index),
        held_out=(options.val, options.split_seed),
        notes=(*lists.notes, *_copies(roles, index), *index.mask_warnings(test)),
    )


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
                f"byte by byte, such as {copies[0].name} of {original}: a model knows them, and metrics are too good."
            )
    return warnings


def _fingerprint(roles: dict[str, tuple[Sample, ...]], index: FileIndex) -> str:
    """Hash of everything that results depend on; the location of the data does not change the hash."""
    digest = sha256()
    for role, samples in roles.items():
        for s in samples:
            mask = index.hash_of(s.mask) if s.mask else ""
            if s.mask and index.differs_from_v01(s.mask):
                # Runs of version 0.1 have other pixel metrics, because they read another mask from this file.
                mask = f"{mask} {MASK_READER}"
            facts = [role, s.name, s.label, s.defect, index.hash_of(s.path), mask]
            digest.update(json.dumps(facts).encode())
    return digest.hexdigest()[:16]
