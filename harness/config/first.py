"""`init`: a first config for the images in a folder, or copies of the sample configs.

There are three known layouts: one category of MVTec AD, several of its categories, and folders of normal and of
anomalous images.
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

# Names of folders with normal images, the most common name first.
NORMAL = (GOOD, "normal", "ok", "free", "train")
# Folders beside the normal images without a known class.
NOT_DEFECTS = ("test", "val", "valid", "validation")
MASKS = ("ground_truth", "masks", "mask")
MASK_SUFFIXES = ("_masks", "_mask", "_gt", "_ground_truth")
LARGEST_SIZE = 256

TEMPLATE = """\
# {title}
#
#   python -m harness sweep {file}
#
# PatchCore with two networks, two sets of layers and two coreset sizes, and PaDiM with the same networks. Installed
# packages contain the weights. The report recommends a configuration. `python -m harness plan {file}` lists the runs.
name: "{name}"
data:
{data}
  val: 0.2               # share of the normal training images for the threshold of F1Score
  # num_workers: 4       # number of worker processes that read images; with 0 the main process reads them
weights: auto            # weights/, then installed packages, then the hub
device: auto             # or cpu, cuda, cuda:1, mps
# seeds: [0, 1, 2]       # several seeds show the random variation of training
# cache: .harness-cache  # stores features for the next sweep
grid:
  - backend: native      # or anomalib, or [anomalib, native] for both
    model: patchcore
    backbone: [tf_efficientnet_lite0, tf_efficientnet_lite2]   # any timm network: resnet18, wide_resnet50_2 ...
    layers: [[blocks.1, blocks.2], [blocks.2, blocks.4]]
    coreset_sampling_ratio: [0.01, 0.1]
    num_neighbors: 1
    image_size: {size}    # pixels; [[256, 512]] is [height, width]
  - backend: native
    model: padim
    backbone: [tf_efficientnet_lite0, tf_efficientnet_lite2]
    layers: [blocks.1, blocks.2, blocks.4]
    n_features: 100
    image_size: {size}
"""


@dataclass(frozen=True)
class ImageLayout:
    """The images of a folder, in a known layout.

    Attributes:
        title: description of the layout, the first line of the config.
        data: lines of the `data:` block.
        examples: some of the images.
    """

    title: str
    data: Sequence[str]
    examples: Sequence[Path]


def write_config(folder: Path) -> Path:
    """Write a config for the images in a folder, into the working directory.

    Returns:
        The path of the config.

    Raises:
        DataError: the folder has no images, or its layout is unknown.
        ConfigError: the file exists already.
    """
    if not folder.is_dir():
        content = "a file" if folder.exists() else "nothing"
        raise DataError(f"{folder}: {content} found; expected a folder of images.")
    layout = _layout_of(folder)
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", folder.resolve().name).strip("-._") or "images"
    file = Path(f"{name}.yaml")
    text = TEMPLATE.format(
        # The name of a folder may contain a line break.
        title=" ".join(layout.title.split()),
        file=file,
        name=name,
        data="\n".join(f"  {line}" for line in layout.data),
        size=_size(layout.examples),
    )
    _write_new(file, text)
    return file


def write_samples(target: Path) -> list[Path]:
    """Copy the sample configs.

    Returns:
        The paths of the copies.

    Raises:
        ConfigError: one of the files exists already.
    """
    source = samples()
    paths = sorted(path.relative_to(source) for path in source.rglob("*.yaml"))
    existing = [target / path for path in paths if os.path.lexists(target / path)]
    if existing:
        raise ConfigError(
            f"{existing[0]}: exists already; expected a folder without this file. Move the file, or go to another "
            "folder."
        )
    for path in paths:
        _write_new(target / path, (source / path).read_text(encoding="utf-8"))
    return [target / path for path in paths]


def samples() -> Path:
    """The folder of the sample configs: in the installed package, or beside the package in a checkout."""
    package = Path(str(files("harness")))
    installed = package / "samples"
    return installed if installed.is_dir() else package.parent / "configs"


def _write_new(file: Path, text: str) -> None:
    if os.path.lexists(file):
        raise ConfigError(f"{file}: exists already; expected no such file. Move the file, or go to another folder.")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"{file}: can't be written ({error.strerror}).") from error
    write_atomic(file, text)


def _layout_of(folder: Path) -> ImageLayout:
    for read in (_mvtec, _folders):
        layout = read(folder)
        if layout is not None:
            return layout
    images = list_images(folder)
    count = f"{len(images)} images" if images else "no images"
    raise DataError(
        f"{folder}: {count} found, in an unknown layout; expected train/{GOOD}, test/{GOOD} and test/<defect>, or "
        f"categories with these folders, or a folder called {', '.join(NORMAL[:3])}. Move the images into such folders."
    )


def _mvtec(folder: Path) -> ImageLayout | None:
    """The layout of MVTec AD, with one category or several categories."""
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
    return ImageLayout(f"{title} in MVTec AD's layout: {folder}", lines, list_images(first)[:1])


def _folders(folder: Path) -> ImageLayout | None:
    """The layout with a folder of normal images beside folders of anomalous images."""
    names = {path.name.lower(): path for path in (folder / name for name in subfolders(folder))}
    normal = next((names[name] for name in NORMAL if name in names), None)
    if normal is None or not (examples := list_images(normal)):
        return None
    masks = {path.name: path for name, path in names.items() if name in MASKS or name.endswith(MASK_SUFFIXES)}
    test = names.get(f"{normal.name.lower()}_test")
    others = {normal, test, *(names.get(name) for name in NOT_DEFECTS)}
    anomalous = [path for path in names.values() if path not in others and path.name not in masks and list_images(path)]
    lines = ["kind: folder", f"root: {_quoted(folder)}", f"normal_dir: {_quoted(normal.name)}"]
    lines.append(
        f"abnormal_dir: {_listed([path.name for path in anomalous])}"
        if anomalous
        else "# abnormal_dir: [scratch]   # folders of anomalous images; there is no image AUROC without such images"
    )
    mask_folders = [_mask_of(path, masks) for path in anomalous]
    if anomalous and all(mask_folders):
        lines.append(f"mask_dir: {_listed([str(mask) for mask in mask_folders])}")
    elif any(mask_folders):
        without = ", ".join(path.name for path, mask in zip(anomalous, mask_folders, strict=True) if not mask)
        lines.append(f"# mask_dir: left out, since there are no masks for {' '.join(without.split())}")
    else:
        lines.append("# mask_dir: [scratch_masks]   # one for each of abnormal_dir; without masks no pixel metrics")
    if test is not None and list_images(test):
        lines.append(f"normal_test_dir: {_quoted(test.name)}")
    else:
        lines.append("# normal_test_dir: good_test   # without this key a fifth of the normal images is for the test")
    return ImageLayout(f"Folders of normal and anomalous images: {folder}", lines, examples[:1])


def _mask_of(images: Path, masks: dict[str, Path]) -> str | None:
    """The folder of the masks for a folder of images, relative to their parent."""
    for suffix in MASK_SUFFIXES:
        if images.name + suffix in masks:
            return images.name + suffix
    for name, path in masks.items():
        if (path / images.name).is_dir():
            return f"{name}/{images.name}"
    return None


def _size(examples: Sequence[Path]) -> int:
    """An image size that does not enlarge small images. All networks can halve a multiple of 32 several times."""
    from harness.data.images import probe

    smallest = min((min(probe(path)) for path in examples), default=LARGEST_SIZE)
    return max(32, min(LARGEST_SIZE, smallest // 32 * 32))


def _listed(names: Sequence[str]) -> str:
    return "[" + ", ".join(_quoted(name) for name in names) + "]"


def _quoted(text: str | Path) -> str:
    """A text for YAML: without quotes where YAML reads the same text. A `$` never starts an interpolation."""
    plain = str(text)
    simple = re.fullmatch(r"[A-Za-z_/][A-Za-z0-9_./-]*", plain)
    reserved = plain.lower() in {"true", "false", "yes", "no", "on", "off", "null", "y", "n"}
    if simple and not reserved and yaml.safe_load(plain) == plain:
        return plain
    return json.dumps(plain, ensure_ascii=False).replace("${", "\\\\${")
