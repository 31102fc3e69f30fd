"""The images that an audit looks at, with their roles and labels, for both tasks."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from harness.common.errors import DataError
from harness.config.sweep import SweepConfig
from harness.data.base import DataOptions
from harness.data.detect import detect, options_of
from harness.data.labelled.base import LabelledOptions
from harness.data.labelled.split import load_labelled_lists
from harness.data.split import load_lists

TRAIN, TEST = "train", "test"


@dataclass(frozen=True)
class AuditImage:
    """One image.

    Attributes:
        path: absolute path.
        name: path relative to the data's root, as `data.exclude` takes it.
        role: train or test.
        group: images of the same kind: the category of a detection, the label of a classification; may be empty.
        label: the type of defect, or the label; "" for an unknown label.
        anomalous: whether a detection counts the image as anomalous; None for a classification.
        masks: absolute paths of the masks.
    """

    path: str
    name: str
    role: str
    group: str
    label: str
    anomalous: bool | None = None
    masks: tuple[str, ...] = ()


def images_of(config: SweepConfig) -> list[AuditImage]:
    """The images of a config, without those of `data.exclude`.

    Raises:
        DataError: folders, tables or entries of `data.exclude` have problems, or there are no images.
    """
    if isinstance(config.data, LabelledOptions):
        return _labelled(config.data, config.work_dir)
    return of_detection(config.detection_data, config.work_dir)


def of_folder(folder: Path) -> list[AuditImage]:
    """The images of a folder of any kind of detection data, see `detect`.

    Raises:
        DataError: no kind recognises the folder, or it has no images.
    """
    return of_detection(options_of(detect(folder, "audit")), folder)


def of_detection(options: DataOptions, work_dir: Path) -> list[AuditImage]:
    """The images of a detection.

    Args:
        options: the `data:` block.
        work_dir: the folder for data that the harness makes.

    Raises:
        DataError: files or folders have problems, or there are no images.
    """
    images = []
    for category, lists in load_lists(options, work_dir):
        for role, samples in ((TRAIN, (*lists.train, *lists.val)), (TEST, lists.test)):
            for sample in samples:
                name = f"{lists.folder}/{sample.name}" if lists.folder else sample.name
                anomalous = bool(sample.label)
                images.append(AuditImage(sample.path, name, role, category, sample.defect, anomalous, sample.masks))
        if not lists.train and not lists.test:
            raise DataError(f"{lists.root}: no images found; expected train/good and test/<defect> with images.")
    return images


def _labelled(options: LabelledOptions, work_dir: Path) -> list[AuditImage]:
    lists, _ = load_labelled_lists(options, work_dir)
    images = [
        AuditImage(sample.path, sample.name, role, sample.label, sample.label)
        for role, samples in ((TRAIN, lists.train), (TEST, lists.test))
        for sample in samples
    ]
    if not images:
        raise DataError(f"{lists.root}: no images found; expected labelled images.")
    return images
