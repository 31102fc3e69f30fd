"""`init`: a first config, written for the images that lie in a folder; or the sample configs, where there are none.

Three layouts are known: MVTec AD's, categories of it side by side, and folders of normal and of anomalous images.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import yaml

from harness.common.errors import ConfigError, DataError
from harness.common.files import write_atomic
from harness.data.base import GOOD, is_normal
from harness.data.images import list_images, subfolders
from harness.data.mvtec import find_categories

# Names of folders that hold normal images, the most usual one first.
NORMAL = (GOOD, "normal", "ok", "free", "train")
# Folders beside the normal images that need not hold defects.
NOT_DEFECTS = ("test", "val", "valid", "validation")
MASKS = ("ground_truth", "masks", "mask")
MASK_SUFFIXES = ("_masks", "_mask", "_gt", "_ground_truth")
LARGEST_SIZE = 256

TEMPLATE = """\
# {title}
#
#   python -m harness sweep {file}
#
# Two networks whose weights come with the package, two sets of layers, two sizes of coreset, and PaDiM beside them.
# The report says which configuration to take. `python -m harness plan {file}` shows the runs without making them.
name: "{name}"
data:
{data}
  val: 0.2               # share of the normal training images held out, which fix the threshold of F1Score
  # num_workers: 4       # processes that read images; 0 is this one
weights: auto            # weights/, then installed packages, then the hub
device: auto             # or cpu, cuda, cuda:1, mps
# seeds: [0, 1, 2]       # several show how much chance there is in training
# cache: .harness-cache  # keeps features for the next sweep
grid:
  - backend: native      # or anomalib, or [anomalib, native]: both, side by side
    model: patchcore
    backbone: [tf_efficientnet_lite0, tf_efficientnet_lite2]   # any timm network: resnet18, wide_resnet50_2 ...
    layers: [[blocks.1, blocks.2], [blocks.2, blocks.4]]
    coreset_sampling_ratio: [0.01, 0.1]
    num_neighbors: 1
    image_size: {size}    # pixels; [[256, 512]] is height by width
  - backend: native
    model: padim
    backbone: [tf_efficientnet_lite0, tf_efficientnet_lite2]
    layers: [blocks.1, blocks.2, blocks.4]
    n_features: 100
    image_size: {size}
"""


@dataclass(frozen=True)
class Found:
    """Images of a known layout.

    Attributes:
        title: what they are, for a person.
        data: lines of the `data:` block.
        examples: some of the images.
    """

    title: str
    data: Sequence[str]
    examples: Sequence[Path]


def write_config(folder: Path) -> Path:
    """Write a config for the images in a folder, into the working directory.

    Returns:
        The file.

    Raises:
        DataError: there are no images, or in no layout that is known.
        ConfigError: the file is there already.
    """
    if not folder.is_dir():
        found = "a file" if folder.exists() else "nothing"
        raise DataError(f"{folder}: {found} found; expected a folder of images.")
    found_ = _look(folder)
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", folder.resolve().name).strip("-._") or "images"
    file = Path(f"{name}.yaml")
    text = TEMPLATE.format(
        # On one line, whatever the folder is called.
        title=" ".join(found_.title.split()),
        file=file,
        name=name,
        data="\n".join(f"  {line}" for line in found_.data),
        size=_size(found_.examples),
    )
    _put(file, text)
    return file


def write_samples(target: Path) -> list[Path]:
    """Copy the sample configs; gives the files.

    Raises:
        ConfigError: one of them is there already.
    """
    source = samples()
    paths = sorted(path.relative_to(source) for path in source.rglob("*.yaml"))
    there = [target / path for path in paths if os.path.lexists(target / path)]
    if there:
        raise ConfigError(
            f"{there[0]}: exists already; expected a folder without it. Move it, or go to another folder."
        )
    for path in paths:
        _put(target / path, (source / path).read_text(encoding="utf-8"))
    return [target / path for path in paths]


def samples() -> Path:
    """The sample configs: inside the installed package, or beside it in a checkout."""
    package = Path(str(files("harness")))
    installed = package / "samples"
    return installed if installed.is_dir() else package.parent / "configs"


def _put(file: Path, text: str) -> None:
    if os.path.lexists(file):
        raise ConfigError(f"{file}: exists already; expected no such file. Move it, or go to another folder.")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"{file}: can't be written ({error.strerror}).") from error
    write_atomic(file, text)


def _look(folder: Path) -> Found:
    for read in (_mvtec, _folders):
        found = read(folder)
        if found is not None:
            return found
    images = list_images(folder)
    what = f"{len(images)} images" if images else "no images"
    raise DataError(
        f"{folder}: {what} found, in no layout that is known; expected train/{GOOD}, test/{GOOD} and test/<defect> (in "
        f"it, or in folders below it), or a folder called {', '.join(NORMAL[:3])} with others beside it."
    )


def _mvtec(folder: Path) -> Found | None:
    """MVTec AD's layout, of one category or of several."""
    try:
        categories = find_categories(folder)
    except DataError:
        return None
    train = folder / categories[0] / "train"
    first = next((train / name for name in subfolders(train) if is_normal(name)), None)
    if first is None:
        return None
    lines = ["kind: mvtec", f"root: {_quoted(folder)}"]
    if categories != [""]:
        lines.append(f"# category: {_listed(categories)}   # left out: all of them")
    title = "One category" if categories == [""] else f"{len(categories)} categories"
    return Found(f"{title} in MVTec AD's layout: {folder}", lines, list_images(first)[:1])


def _folders(folder: Path) -> Found | None:
    """A folder of normal images, and others beside it."""
    names = {path.name.lower(): path for path in (folder / name for name in subfolders(folder))}
    normal = next((names[name] for name in NORMAL if name in names), None)
    if normal is None or not (examples := list_images(normal)):
        return None
    masks = {path.name: path for name, path in names.items() if name in MASKS or name.endswith(MASK_SUFFIXES)}
    test = names.get(f"{normal.name.lower()}_test")
    known = {normal, test, *(names.get(name) for name in NOT_DEFECTS)}
    bad = [path for path in names.values() if path not in known and path.name not in masks and list_images(path)]
    lines = ["kind: folder", f"root: {_quoted(folder)}", f"normal_dir: {_quoted(normal.name)}"]
    lines.append(
        f"abnormal_dir: {_listed([path.name for path in bad])}"
        if bad
        else "# abnormal_dir: [scratch]   # folders of anomalous images; without any there is no image AUROC"
    )
    paired = [_mask_of(path, masks) for path in bad]
    if bad and all(paired):
        lines.append(f"mask_dir: {_listed([str(mask) for mask in paired])}")
    elif any(paired):
        without = ", ".join(path.name for path, mask in zip(bad, paired, strict=True) if not mask)
        lines.append(f"# mask_dir: left out, since there are no masks for {' '.join(without.split())}")
    else:
        lines.append("# mask_dir: [scratch_masks]   # one for each of abnormal_dir; without masks no pixel metrics")
    if test is not None and list_images(test):
        lines.append(f"normal_test_dir: {_quoted(test.name)}")
    else:
        lines.append("# normal_test_dir: good_test   # else a fifth of the normal images is kept for the test")
    return Found(f"Folders of normal and anomalous images: {folder}", lines, examples[:1])


def _mask_of(images: Path, masks: dict[str, Path]) -> str | None:
    """The folder of masks of a folder of images, relative to their parent."""
    for suffix in MASK_SUFFIXES:
        if images.name + suffix in masks:
            return images.name + suffix
    for name, path in masks.items():
        if (path / images.name).is_dir():
            return f"{name}/{images.name}"
    return None


def _size(examples: Sequence[Path]) -> int:
    """A size that does not enlarge small images, in multiples of 32, which all networks halve well."""
    from harness.data.images import probe

    smallest = min((min(probe(path)) for path in examples), default=LARGEST_SIZE)
    return max(32, min(LARGEST_SIZE, smallest // 32 * 32))


def _listed(names: Sequence[str]) -> str:
    return "[" + ", ".join(_quoted(name) for name in names) + "]"


def _quoted(text: str | Path) -> str:
    """For YAML: as it is where that is safe, else in quotes, with `$` kept from being an interpolation."""
    plain = str(text)
    named = re.fullmatch(r"[A-Za-z_/][A-Za-z0-9_./-]*", plain)
    reserved = plain.lower() in {"true", "false", "yes", "no", "on", "off", "null", "y", "n"}
    if named and not reserved and yaml.safe_load(plain) == plain:
        return plain
    return json.dumps(plain, ensure_ascii=False).replace("${", "\\\\${")
