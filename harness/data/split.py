"""From samples on disk to a `Split`: check every file, hold out normal images, fingerprint."""

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
    """One `Split` a category.

    Args:
        options: the `data:` block.
        work_dir: where data made by the harness is put.
        index: what is known of the files; what was read is added to it.
        progress: called with (files done, files in all).

    Raises:
        DataError: everything that is wrong with the data, at once.
    """
    problems: list[str] = []
    loaded: list[tuple[str, SampleLists]] = []
    for category in options.categories(work_dir):
        try:
            loaded.append((category, options.load(category, work_dir)))
        except DataError as error:
            problems += error.problems
    for category, parts in loaded:
        problems += _missing(category, parts, options)
    if problems:
        raise DataError(problems)
    samples = [sample for _, parts in loaded for sample in (*parts.train, *parts.test)]
    problems = [_odd_name(sample) for sample in samples if not _can_be_written(sample.name)]
    if problems:
        raise DataError(problems)
    masks = {s.mask for s in samples if s.mask}
    problems = index.look_at({s.path for s in samples}, masks, progress, options.max_pixels)
    for _, parts in loaded:
        problems += index.mask_sizes(parts.test)
    if problems:
        raise DataError(problems)
    return [_split(options, category, parts, index) for category, parts in loaded]


def _missing(category: str, parts: SampleLists, options: DataOptions) -> list[str]:
    where = f"{parts.root}" + (f" (category {category!r})" if category else "")
    problems = []
    if not parts.train:
        problems.append(f"{where}: no normal training images found; at least 1 expected.")
    elif options.val and len(parts.train) < 2:
        problems.append(
            f"{where}: 1 normal training image found; with data.val={options.val} at least 2 are expected "
            "(one is held out). Add images, or set data.val to 0."
        )
    elif held_out_count(len(parts.train), options.val) >= len(parts.train):
        problems.append(
            f"{where}: data.val={options.val} holds out all {len(parts.train)} normal training images; "
            "expected a smaller share."
        )
    if not parts.test:
        problems.append(f"{where}: no test images found; at least 1 expected, good or bad.")
    with_mask = sum(s.mask is not None for s in parts.test if s.label)
    bad = sum(s.label for s in parts.test)
    if 0 < with_mask < bad:
        problems.append(f"{where}: masks found for {with_mask} of {bad} anomalous images; expected for all or none.")
    seen = Counter(s.path for s in (*parts.train, *parts.test))
    clash = sorted(path for path, times in seen.items() if times > 1)
    if clash:
        problems.append(
            f"{where}: {len(clash)} images have more than one role, such as {clash[0]}; each is expected once. "
            "Do two of the folders lie in one another?"
        )
    return problems


def _can_be_written(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _odd_name(sample: Sample) -> str:
    shown = sample.path.encode(errors="backslashreplace").decode()
    return f"{shown}: a name that is no UTF-8 found, which no table can hold; rename the file."


def held_out_count(images: int, share: float) -> int:
    """How many normal training images are held out: at least one, unless the share is 0."""
    return max(1, round(images * share)) if share else 0


def _split(options: DataOptions, category: str, parts: SampleLists, index: FileIndex) -> Split:
    ordered = sorted(parts.train, key=lambda sample: sample.name)
    count = held_out_count(len(ordered), options.val)
    held_out = set(np.random.default_rng(options.split_seed).permutation(len(ordered))[:count].tolist())
    train = tuple(s for i, s in enumerate(ordered) if i not in held_out)
    val = tuple(s for i, s in enumerate(ordered) if i in held_out)
    test = tuple(sorted(parts.test, key=lambda sample: sample.name))
    held = {"train": train, "val": val, "test": test}
    return Split(
        kind=options.kind,
        category=category,
        root=parts.root,
        train=train,
        val=val,
        test=test,
        fingerprint=_fingerprint(held, index),
        synthetic=options.synthetic,
        test_fingerprint=_fingerprint({"test": test}, index),
        held_out=(options.val, options.split_seed),
        notes=(*parts.notes, *_copies(held, index), *index.doubts(test)),
    )


def _copies(roles: dict[str, tuple[Sample, ...]], index: FileIndex) -> list[str]:
    """A sentence for each pair of roles that have images with the same bytes."""
    words = {"train": "training", "val": "held-out", "test": "test"}
    found = []
    for one, other in (("test", "train"), ("test", "val"), ("val", "train")):
        known = {index.hash_of(sample.path): sample.name for sample in roles[other]}
        same = [sample for sample in roles[one] if index.hash_of(sample.path) in known]
        if same:
            twin = known[index.hash_of(same[0].path)]
            found.append(
                f"{len(same)} of {len(roles[one])} {words[one]} images are copies of {words[other]} images, byte by "
                f"byte, such as {same[0].name} of {twin}: a model knows them, and the figures are too good."
            )
    return found


def _fingerprint(roles: dict[str, tuple[Sample, ...]], index: FileIndex) -> str:
    """Hash of what a result depends on; where the data lies is no part of it."""
    digest = sha256()
    for role, samples in roles.items():
        for s in samples:
            mask = index.hash_of(s.mask) if s.mask else ""
            if s.mask and index.is_read_otherwise(s.mask):
                # Version 0.1 saw another mask in the same file: its runs have other pixel metrics.
                mask = f"{mask} {MASK_READER}"
            facts = [role, s.name, s.label, s.defect, index.hash_of(s.path), mask]
            digest.update(json.dumps(facts).encode())
    return digest.hexdigest()[:16]
