"""What a record says of the data: which images, in which roles, and what of them was lost."""

from __future__ import annotations

from typing import Any

from harness.datasets.base import Split
from harness.metrics.evaluate import Evaluation


def describe(split: Split) -> dict[str, Any]:
    """A split, for the record."""
    return {
        "kind": split.kind,
        "category": split.category,
        "root": str(split.root),
        "fingerprint": split.fingerprint,
        "test_fingerprint": split.test_fingerprint,
        "held_out": list(split.held_out),
        "train": len(split.train),
        "val": len(split.val),
        "test": len(split.test),
        "test_anomalous": sum(sample.label for sample in split.test),
        "masks": split.has_masks,
        "notes": list(split.notes),
    }


def describe_roles(evaluation: Evaluation) -> dict[str, int]:
    """How many images the figures are about, and how many were taken out of the test set for the threshold."""
    taken = 0 if evaluation.validation is None else len(evaluation.validation.samples)
    labels = evaluation.test.labels
    return {"test": len(labels), "test_anomalous": int(labels.sum()), "taken": taken}


def vanished_masks(evaluation: Evaluation) -> list[str]:
    """A sentence on masks that have no pixel left at the size of the maps."""
    names = evaluation.test.vanished
    if not names or evaluation.test.maps is None:
        return []
    height, width = evaluation.test.maps.shape[1:]
    more = f" and {len(names) - 1} more" if len(names) > 1 else ""
    return [f"no pixel of the mask of {names[0]}{more} is left at {height} x {width}: pixel metrics do not see it"]
