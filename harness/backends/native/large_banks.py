"""A note on banks that are selected from all patches at once, where memory has no room for the patches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from harness.backends.native.group import build
from harness.config.spec import RunSpec
from harness.data.samples import Split
from harness.data.subset import part_of
from harness.detectors.bank import EXACT, MERGE_REDUCE
from harness.detectors.memory import room


def large_banks(
    specs: Sequence[RunSpec], splits: Mapping[str, Split], device: str, memory_limit: int | None
) -> list[str]:
    """Return a note if the patches of runs exceed the memory for arrays. The size is known before the selection.

    Args:
        specs: valid runs.
        splits: their data, by category.
        device: auto, cpu, cuda, cuda:N or mps.
        memory_limit: in bytes, for features; None for half of the free memory.
    """
    limit = room(memory_limit)
    sizes = []
    for spec in specs:
        images = len(part_of(splits[spec.category], spec.n_train, spec.seed, spec.category).train)
        sizes.append(build(spec, device).bytes_of_all_patches(images))
    large = [size for size in sizes if size > limit]
    if not large:
        return []
    runs = "1 run" if len(large) == 1 else f"{len(large)} runs"
    return [
        f"bank: {EXACT} stores all patches of the training images: up to {max(large) / 1e9:.2g} GB in {runs}, and "
        f"memory_limit leaves {limit / 1e9:.2g} GB. The rest lies in files. `bank: {MERGE_REDUCE}` "
        "stores a few patches of each block of images."
    ]
