"""The images that an audit looks at, with their roles and labels, for both tasks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.common.errors import DataError
from harness.common.secrets import concealed
from harness.config.load import at_place
from harness.config.sweep import SweepConfig
from harness.data.base import DataOptions, joint_notes
from harness.data.detect import detect, options_of
from harness.data.images import MAX_PIXELS
from harness.data.labelled.base import LabelledOptions
from harness.data.labelled.split import load_labelled_lists
from harness.data.split import load_lists

TRAIN, TEST, UNLABELLED = "train", "test", "unlabelled"


@dataclass(frozen=True)
class AuditImage:
    """One image.

    Attributes:
        path: absolute path.
        name: path relative to the data's root, as `data.exclude` takes it.
        role: train, test or unlabelled.
        group: images of the same kind: the category of a detection, the label of a classification; may be empty.
        label: the type of defect, or the label; "" for an unknown label.
        anomalous: whether a detection counts the image as anomalous; None for a classification or an unknown label.
        masks: absolute paths of the masks.
        dataset: name of the data set where the audit has several; otherwise empty.
        max_pixels: largest allowed number of pixels.
    """

    path: str
    name: str
    role: str
    group: str
    label: str
    anomalous: bool | None = None
    masks: tuple[str, ...] = ()
    dataset: str = ""
    max_pixels: int = MAX_PIXELS

    @property
    def place(self) -> str:
        """Data set and group: the images that an image is compared with; may be empty."""
        return " ".join(filter(None, (self.dataset, self.group)))


@dataclass(frozen=True)
class AuditData:
    """The images of an audit.

    Attributes:
        images: of all data sets.
        notes: decisions of the readers, such as files that they leave out, one sentence each.
    """

    images: tuple[AuditImage, ...]
    notes: tuple[str, ...] = ()


def images_of(configs: Sequence[SweepConfig]) -> AuditData:
    """The images of a config file, without those of `data.exclude`.

    Args:
        configs: one for each data set of `data:`.

    Raises:
        DataError: folders, tables or entries of `data.exclude` have problems, a data set has no images, or two data
            sets have the same images.
    """
    names = _names(configs)
    data: dict[str, AuditData] = {}
    problems: list[str] = []
    for position, (config, name) in enumerate(zip(configs, names, strict=True)):
        place = f"data[{position}]" if len(configs) > 1 else "data"
        try:
            one = _of_config(config, name)
        except DataError as error:
            problems += [at_place(problem, place) for problem in error.problems]
            continue
        same = next((other for other in data if _paths(data[other]) == _paths(one)), None)
        if same is not None:
            problems.append(f"{place}: the same images as in {same} found; expected each data set once. Remove one.")
        data[place] = one
    if problems:
        raise DataError(problems)
    notes = joint_notes([(name, one.notes) for name, one in zip(names, data.values(), strict=True)])
    return AuditData(tuple(image for one in data.values() for image in one.images), tuple(map(concealed, notes)))


def _paths(data: AuditData) -> set[str]:
    return {image.path for image in data.images}


def _of_config(config: SweepConfig, dataset: str) -> AuditData:
    if isinstance(config.data, LabelledOptions):
        return _labelled(config.data, config.work_dir, dataset)
    return of_detection(config.detection_data, config.work_dir, dataset)


def _names(configs: Sequence[SweepConfig]) -> list[str]:
    """Names of the data sets, all different; an empty name for a single data set."""
    if len(configs) == 1:
        return [""]
    names = [concealed(f"{config.data.kind} {getattr(config.data, 'root', '')}".strip()) for config in configs]
    counts = Counter(names)
    return [name if counts[name] == 1 else f"data[{index}] {name}" for index, name in enumerate(names)]


def of_folder(folder: Path) -> AuditData:
    """The images of a folder of any kind of detection data, see `detect`.

    Raises:
        DataError: no kind recognises the folder, or it has no images.
    """
    return of_detection(options_of(detect(folder, "audit")), folder)


def of_detection(options: DataOptions, work_dir: Path, dataset: str = "") -> AuditData:
    """The images of a detection.

    Args:
        options: the `data:` block.
        work_dir: the folder for data that the harness makes.
        dataset: name of the data set; empty for the only one.

    Raises:
        DataError: files or folders have problems, or there are no images.
    """
    images = []
    by_category = load_lists(options, work_dir)
    for category, lists in by_category:
        roles = {TRAIN: (*lists.train, *lists.val), TEST: lists.test, UNLABELLED: lists.unlabelled}
        for role, samples in roles.items():
            for sample in samples:
                name = f"{lists.folder}/{sample.name}" if lists.folder else sample.name
                anomalous = None if sample.unlabelled else bool(sample.label)
                images.append(
                    AuditImage(
                        sample.path,
                        name,
                        role,
                        category,
                        sample.defect,
                        anomalous,
                        sample.masks,
                        dataset,
                        options.max_pixels,
                    )
                )
        if not any(roles.values()):
            raise DataError(f"{lists.root}: no images found; expected train/good and test/<defect> with images.")
    several = len(by_category) > 1
    notes = joint_notes([(category if several else "", lists.notes) for category, lists in by_category])
    return AuditData(tuple(images), tuple(notes))


def _labelled(options: LabelledOptions, work_dir: Path, dataset: str) -> AuditData:
    lists, _ = load_labelled_lists(options, work_dir)
    samples = [(TRAIN, sample) for sample in lists.train]
    samples += [(TEST if sample.label else UNLABELLED, sample) for sample in lists.test]
    images = tuple(
        AuditImage(
            sample.path,
            sample.name,
            role,
            sample.label,
            sample.label,
            dataset=dataset,
            max_pixels=options.max_pixels,
        )
        for role, sample in samples
    )
    if not images:
        raise DataError(f"{lists.root}: no images found; expected labelled images.")
    return AuditData(images, tuple(lists.notes))
