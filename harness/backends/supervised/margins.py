"""The labels whose images get ArcFace's margin."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase

import numpy as np
import numpy.typing as npt

from harness.data.labelled.base import LabelSpec

Mask = npt.NDArray[np.bool_]
EXCLUDES = "!"


def with_margin(
    classes: Sequence[str], patterns: Sequence[str], labels: Sequence[str], label_specs: Sequence[LabelSpec]
) -> Mask:
    """Return whether the images of each label get the margin, (labels,).

    Args:
        classes: names of classes; empty for all.
        patterns: names of labels with wildcards; a pattern that begins with ! takes labels away. Empty for all.
        labels: all labels.
        label_specs: class and condition of each label.
    """
    excluded = [pattern.removeprefix(EXCLUDES) for pattern in patterns if pattern.startswith(EXCLUDES)]
    included = [pattern for pattern in patterns if not pattern.startswith(EXCLUDES)] or ["*"]
    return np.array([
        (not classes or class_name in classes) and _matches(label, included) and not _matches(label, excluded)
        for label, (class_name, _) in zip(labels, label_specs, strict=True)
    ])  # fmt: skip


def of_outputs(mask: Mask, positions: Sequence[int]) -> Mask:
    """Return the mask of the outputs of a one-class network: its labels, then null, which never gets the margin.

    Args:
        mask: of all labels, (labels,).
        positions: positions of the labels of the class.
    """
    return np.append(mask[list(positions)], False)


def unmatched(patterns: Sequence[str], labels: Sequence[str]) -> list[str]:
    """Return the patterns that no label matches.

    Args:
        patterns: of `arcface_labels`; one with `!` excludes labels.
        labels: all labels.
    """
    return [p for p in patterns if not any(fnmatchcase(label, p.removeprefix(EXCLUDES)) for label in labels)]


def _matches(label: str, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(label, pattern) for pattern in patterns)
