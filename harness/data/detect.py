"""`kind: auto`: the kind of the data in a folder, by the names of its folders and files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness import registry
from harness.common.errors import DataError, nearest
from harness.data.base import DataOptions, existing_dir
from harness.data.listing import list_images, subfolders

AUTO = "auto"
# Names of folders that kinds are recognised by.
KNOWN = (
    "train", "test", "good", "ground_truth", "validation", "test_public", "split_csv", "realiad_jsons", "MT_Free",
    "Imgs", "normal", "logical_anomalies", "structural_anomalies",
)  # fmt: skip
SHOWN = 5  # wrong names in a message


def detect(root: Path, key: str = "data.root") -> dict[str, Any]:
    """The keys of the `data:` block for a folder.

    Args:
        root: the folder.
        key: the key or the argument with the folder, for messages.

    Returns:
        `kind`, `root`, and the keys that the kind requires.

    Raises:
        DataError: the folder is missing, or no kind recognises it.
    """
    existing_dir(root, key)
    kind = _kind_of(root)
    if kind is None:
        raise DataError(f"{key}: {_unknown(root)}")
    return {"kind": kind, "root": str(root), **_options(kind).keys_of(root)}


def options_of(keys: Mapping[str, Any]) -> DataOptions:
    """The options of a `data:` block that `detect` found.

    Args:
        keys: of the block.
    """
    return _options(keys["kind"]).model_validate(dict(keys))


def _options(kind: str) -> type[DataOptions]:
    options: type[DataOptions] = registry.load(registry.DATASETS[kind])
    return options


def _kind_of(root: Path) -> str | None:
    return next((kind for kind in registry.DATASETS if _options(kind).recognises(root)), None)


def _unknown(root: Path) -> str:
    """The sentences for a folder that no kind recognises: the right folder, or the nearest right names."""
    problem = f"no known kind of data found in {root}"
    for name in subfolders(root):
        if kind := _kind_of(root / name):
            return (
                f"{problem}; expected one of {', '.join(registry.DATASETS)}. {root / name} is of kind {kind}: use it."
            )
    below = [f"{name}/{inner}" for name in subfolders(root) for inner in subfolders(root / name)]
    hints = [
        f"{path} (did you mean {near[0]}?)"
        for path in (*subfolders(root), *below)
        if (name := Path(path).name) not in KNOWN and (near := nearest(name, KNOWN))
    ]
    if hints:
        return f"{problem}; expected the folders of a kind. Wrong names may be {', '.join(hints[:SHOWN])}. Rename them."
    images = len(list_images(root))
    there = f"{images} images found, in an unknown layout" if images else "no images found"
    return (
        f"{root}: {there}; expected train/good, test/good and test/<defect>, a folder called good, "
        f"normal or ok, or one of the kinds {', '.join(registry.DATASETS)}. Move the images into such folders."
    )
