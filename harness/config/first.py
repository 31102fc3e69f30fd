"""`init`: a first config for the images in a folder, or copies of the sample configs.

The layouts are those of the kinds of data, see `harness.data.detect`.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

from harness.common.errors import ConfigError, DataError
from harness.common.files import write_atomic
from harness.data.detect import detect, options_of
from harness.data.folder_layout import FolderLayout, find_folders

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
  # num_workers: 4       # number of worker processes that read images; with 0, threads of the main process
weights: auto            # weights/, then installed packages, then the hub
device: auto             # or cpu, cuda, cuda:1, mps
threshold: {{false_alarms: 0.01}}   # asked share of normal parts above the threshold of F1Score
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
    keys = detect(folder, "init")
    if keys["kind"] == "folder" and (layout := find_folders(folder)):
        return _folders(folder, layout)
    options = options_of(keys)
    categories = options.categories(Path())
    title = "One category" if categories == [""] else f"{len(categories)} categories"
    examples = [Path(sample.path) for sample in options.load(categories[0], Path()).train[:1]]
    return ImageLayout(f"{title} of kind {keys['kind']}: {folder}", data_lines(keys, categories), examples)


def data_lines(keys: Mapping[str, Any], categories: Sequence[str]) -> list[str]:
    """The lines of a `data:` block.

    Args:
        keys: of the block.
        categories: of the data, for a comment; `[""]` without categories.
    """
    lines = [f"{key}: {_listed(value) if isinstance(value, list) else _quoted(value)}" for key, value in keys.items()]
    if any(categories):
        lines.append(f"# category: {_listed(categories)}   # left out: all of them")
    return lines


def _folders(folder: Path, layout: FolderLayout) -> ImageLayout:
    """The lines for folders of normal and anomalous images, with comments on the keys that are left out."""
    keys = {"kind": "folder", "root": str(folder), **layout.keys}
    comments = {
        "abnormal_dir": "[scratch]   # folders of anomalous images; there is no image AUROC without such images",
        "mask_dir": "[scratch_masks]   # one for each of abnormal_dir; without masks no pixel metrics",
        "normal_test_dir": "good_test   # without this key a fifth of the normal images is for the test",
    }
    if any(layout.masks):
        without = ", ".join(name for name, mask in zip(layout.abnormal, layout.masks, strict=True) if not mask)
        comments["mask_dir"] = f"left out, since there are no masks for {' '.join(without.split())}"
    lines = data_lines({name: value for name, value in keys.items() if name not in comments}, [""])
    for name, comment in comments.items():
        lines += data_lines({name: keys[name]}, [""]) if name in keys else [f"# {name}: {comment}"]
    return ImageLayout(f"Folders of normal and anomalous images: {folder}", lines, [layout.example])


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
