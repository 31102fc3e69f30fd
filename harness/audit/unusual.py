"""Training images that look anomalous, and test images whose score contradicts their label.

PatchCore scores each training image after it learnt from the others, by folds: all folds share the features. The memory
bank is small, because the ranking matters and not the last digit of a score.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from harness.audit.finding import LABEL, UNUSUAL, Finding
from harness.audit.images import TRAIN, AuditImage
from harness.audit.odd import deviations
from harness.common.errors import ConfigError, HarnessError, WeightsError
from harness.detectors import PatchCore
from harness.detectors.folds import Fold, in_fold
from harness.detectors.group import Group
from harness.detectors.maps import Scores
from harness.detectors.stages import Stage, Stages

BACKBONE, LAYERS = "tf_efficientnet_lite0", ("blocks.2", "blocks.4")
FOLDS = 5
LEAST = 10  # training images of a group
MOST = 2000  # training images of a group; more are a random sample
BANK = 10_000  # patches of the memory bank
RATIO = 0.1  # share of the patches in the memory bank, as long as the bank has at most BANK
OUTLIER = 3.5  # robust standard deviations of the score (Iglewicz and Hoaglin, 1993)


@dataclass(frozen=True)
class Model:
    """The detector of an audit.

    Attributes:
        backbone: a name of timm.
        layers: of the patch features.
        weights: as in a config.
        device: as in a config.
        image_size: in pixels.
    """

    backbone: str = BACKBONE
    layers: tuple[str, ...] = LAYERS
    weights: str = "auto"
    device: str = "auto"
    image_size: int = 256


@dataclass
class Scored:
    """The scores of an audit.

    Attributes:
        train: training images with their out-of-fold scores.
        test: test images with the scores of a model of all training images.
        findings: unusual training images and suspicious labels.
        notes: what was left out or sampled, one sentence each.
    """

    train: list[tuple[AuditImage, float]] = field(default_factory=list)
    test: list[tuple[AuditImage, float]] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def score(images: Sequence[AuditImage], model: Model, progress: Callable[[str], None]) -> Scored:
    """Score the training images of each group by folds, and the labelled test images of a detection.

    Args:
        images: readable images.
        model: the detector.
        progress: called with a text about the progress.
    """
    scored = Scored()
    groups = dict.fromkeys(image.place for image in images)
    few = []
    for group in groups:
        members = [image for image in images if image.place == group]
        train = [image for image in members if image.role == TRAIN]
        test = [image for image in members if image.role != TRAIN and image.anomalous is not None]
        if not train:
            continue
        if len(train) < LEAST:
            few.append(f"{group or 'the data'} ({len(train)})")
            continue
        try:
            _group(scored, group, _sample(scored, group, train), test, model, progress)
        except WeightsError as error:
            scored.notes.append(f"Training images are not scored: {error.problems[0]}")
            return scored
        except HarnessError as error:
            scored.notes.append(f"{group or 'Training images'}: not scored. {error.problems[0]}")
    if few:
        scored.notes.append(f"Fewer than {LEAST} training images are not scored: {', '.join(few)}.")
    return scored


def _sample(scored: Scored, group: str, train: list[AuditImage]) -> list[AuditImage]:
    if len(train) <= MOST:
        return train
    chosen = np.sort(np.random.default_rng(0).permutation(len(train))[:MOST])
    scored.notes.append(f"{group or 'The data'}: {MOST} of {len(train)} training images are scored, a random sample.")
    return [train[index] for index in chosen]


def _group(
    scored: Scored,
    group: str,
    train: Sequence[AuditImage],
    test: Sequence[AuditImage],
    model: Model,
    progress: Callable[[str], None],
) -> None:
    prefix = f"{group}: " if group else ""
    of_train, of_test = _scores(train, test, model, lambda text: progress(f"{prefix}{text}"))
    distances = deviations(of_train, of_train)
    for image, value, distance in zip(train, of_train, distances, strict=True):
        scored.train.append((image, float(value)))
        if distance > OUTLIER:
            reason = f"score {value:.3g}, {float(np.median(of_train)):.3g} in the median of the training images"
            scored.findings.append(Finding(UNUSUAL, image, reason, value=float(value)))
    scored.test += [(image, float(value)) for image, value in zip(test, of_test, strict=True)]
    scored.findings += _labels(of_train, test, of_test)


def _labels(
    of_train: npt.NDArray[np.float64], test: Sequence[AuditImage], of_test: npt.NDArray[np.float64]
) -> list[Finding]:
    """Normal test images that score like defects, and anomalous ones that score like most normal images."""
    anomalous = np.array([bool(image.anomalous) for image in test], dtype=bool)
    defect = float(np.median(of_test[anomalous])) if anomalous.any() else -np.inf
    normal = np.concatenate([of_train, of_test[~anomalous]])
    high = max(defect, float(np.median(normal) + OUTLIER * _spread(normal)))
    usual = float(np.median(normal))
    findings = []
    for image, value in zip(test, of_test, strict=True):
        if not image.anomalous and value > high:
            reason = f"labelled normal, score {value:.3g}: above {high:.3g}, as defects are"
            findings.append(Finding(LABEL, image, reason, value=float(value)))
        elif image.anomalous and value <= usual:
            reason = f"labelled {image.label!r}, score {value:.3g}: below {usual:.3g}, the median of normal images"
            findings.append(Finding(LABEL, image, reason, value=float(value)))
    return findings


def _spread(values: npt.NDArray[np.float64]) -> float:
    distances = deviations(values, values)
    largest = int(np.argmax(np.abs(distances)))
    return float(abs((values[largest] - np.median(values)) / distances[largest])) if distances[largest] else 0.0


def _scores(
    train: Sequence[AuditImage], test: Sequence[AuditImage], model: Model, progress: Callable[[str], None]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Out-of-fold scores of the training images, and scores of the test images."""
    detector = PatchCore(
        model.backbone,
        model.layers,
        coreset_sampling_ratio=_ratio(model, len(train)),
        num_neighbors=1,
        image_size=model.image_size,
        weights=model.weights,
        device=model.device,
        progress=False,
    )
    images = {"train": [image.path for image in train], "test": [image.path for image in test]}
    context = detector.stage_context({role: paths for role, paths in images.items() if paths}, progress, None)
    folds = [Fold(number, FOLDS) for number in range(FOLDS)]
    roots: list[Stage] = [in_fold(detector.score_stage("val", Group([detector])), fold) for fold in folds]
    if test:
        roots.append(detector.score_stage("test", Group([detector])))
    stages = Stages(roots, context)
    of_train = np.empty(len(train))
    for fold, stage in zip(folds, roots, strict=False):
        of_train[fold.images(len(train))] = _take(stages, stage)
    return of_train, _take(stages, roots[-1]) if test else np.empty(0)


def _take(stages: Stages, stage: Stage) -> npt.NDArray[np.float64]:
    scores: Scores = stages.value(stage)
    values = scores.images.cpu().numpy().astype(np.float64)
    stages.release(stage)
    return values


def _ratio(model: Model, images: int) -> float:
    """The share of the patches in the bank. A grid of an eighth of the image's height and width is common."""
    return min(RATIO, BANK / (images * (model.image_size // 8) ** 2))


def model_of(options: Mapping[str, str]) -> Model:
    """The detector with other options.

    Args:
        options: backbone, layers (with commas), weights and device; a missing one has its default.

    Raises:
        ConfigError: a backbone without its layers, or layers without their backbone.
    """
    if ("backbone" in options) != ("layers" in options):
        option, missing = ("--backbone", "--layers") if "backbone" in options else ("--layers", "--backbone")
        raise ConfigError(
            f"{option}: found without {missing}; expected both, since layers belong to a backbone. Add it."
        )
    layers = tuple(layer.strip() for layer in options.get("layers", ",".join(LAYERS)).split(","))
    return Model(
        options.get("backbone", BACKBONE), layers, options.get("weights", "auto"), options.get("device", "auto")
    )
