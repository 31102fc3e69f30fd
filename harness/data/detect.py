"""`kind: auto`: the kind of the data in a folder, by the names of its folders and files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from harness import registry
from harness.common.errors import DataError, nearest
from harness.data.base import DataOptions, existing_dir
from harness.data.listing import EXTENSIONS, list_images, subfolders

AUTO = "auto"
TABLES = (".csv", ".json")
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
    if hints := _nearest_kind_hints(root):
        wrong = f"Wrong names may be {_listed(hints)}. Rename them if they are wrong."
        return f"{problem}; expected the folders of a kind. {wrong}"
    images = len(list_images(root))
    there = f"{images} images found, in an unknown layout" if images else "no images found"
    return (
        f"{root}: {there}; expected train/good, test/good and test/<defect>, a folder called good, "
        f"normal or ok, or one of the kinds {', '.join(registry.DATASETS)}. Move the images into such folders."
    )


def wrong_names(root: Path, kind: str, categories: Sequence[str]) -> str:
    """A sentence about names of folders that are similar to a name of the kind which is missing beside them.

    Args:
        root: a folder that `kind` recognises.
        kind: of the data.
        categories: of the data; their names are right.

    Returns:
        The sentence; empty if all names look right.
    """
    names = _options(kind).folder_names
    # Below a right name, such as test, lie folders of defects with any name.
    hints = _hints(root, [name for name in subfolders(root) if name not in names], names, categories)
    if not hints:
        return ""
    return (
        f"Wrong names may be {_listed(hints)}. The harness does not use these folders: rename them if they are wrong."
    )


def _nearest_kind_hints(root: Path) -> list[str]:
    """The hints of the kind with the most right names, among the kinds with hints."""
    below = subfolders(root)
    there = [*below, *(inner for name in below for inner in subfolders(root / name))]
    kinds = [_options(kind).folder_names for kind in registry.DATASETS]
    kinds.sort(key=lambda names: -sum(name in names for name in there))
    return next((hints for names in kinds if (hints := _hints(root, below, names))), [])


def _hints(root: Path, below: Sequence[str], names: Sequence[str], categories: Sequence[str] = ()) -> list[str]:
    """Paths with the nearest right name, for folders in `root` and in the folders `below`.

    A name that occurs at the other level belongs there: `test` of a category is not missing beside the categories.
    """
    by_base = {base: subfolders(root / base) for base in ("", *subfolders(root))}
    in_root, in_categories = by_base[""], {name for base in by_base if base for name in by_base[base]}
    hints = []
    for base in ("", *below):
        there, other_level = by_base[base], in_root if base else in_categories
        missing = [name for name in names if name not in there and name not in other_level]
        hints += [
            f"{Path(base, name)} (did you mean {near[0]}?)"
            for name in there
            if name not in names and name not in categories and (near := nearest(name, missing))
            if _may_hold_data(root / base / name)
        ]
    return hints


def _may_hold_data(folder: Path) -> bool:
    """Whether a folder is empty, or has an image or a table. A folder of texts has no place in a data set."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return not files or any(path.suffix.lower() in (*EXTENSIONS, *TABLES) for path in files)


def _listed(hints: Sequence[str]) -> str:
    more = f" and {len(hints) - SHOWN} more" if len(hints) > SHOWN else ""
    return ", ".join(hints[:SHOWN]) + more
