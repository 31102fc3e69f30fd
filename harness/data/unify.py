"""One split of all categories, for one model of all categories. It knows the part of each category."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from hashlib import sha256

from harness.data.samples import Split


def unified(splits: Sequence[Split]) -> Split:
    """The split of all categories, with the samples of the categories one after another.

    Args:
        splits: of the categories, of one data set.
    """
    first = splits[0]
    return replace(
        first,
        category="",
        train=tuple(sample for split in splits for sample in split.train),
        val=tuple(sample for split in splits for sample in split.val),
        test=tuple(sample for split in splits for sample in split.test),
        fingerprint=_hash([split.fingerprint for split in splits]),
        test_fingerprint=_hash([split.test_fingerprint for split in splits]),
        synthetic=all(split.synthetic for split in splits),
        notes=(),
        excluded=sum(split.excluded for split in splits),
        parts=tuple(splits),
    )


def _hash(fingerprints: Sequence[str]) -> str:
    return sha256("\n".join(fingerprints).encode()).hexdigest()[: len(fingerprints[0])]
