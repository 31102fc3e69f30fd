"""Native detectors beside the networks: one for each fold and class, fitted on good training images of the class."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from harness import registry
from harness.backbones.layers import chosen_layers, default_layers
from harness.backbones.normalization import BACKBONE
from harness.backends.base import RunContext
from harness.backends.checks import check_weights, coreset_problems
from harness.backends.native import NativeBackend
from harness.common.errors import ConfigError, nearest
from harness.config.spec import RunSpec, freeze_items
from harness.data.labelled.base import LabelledSplit, LabelSpec
from harness.data.samples import NORMAL_NAMES, is_normal
from harness.detectors.base import Detector, State
from harness.detectors.folds import on_images
from harness.detectors.group import Group
from harness.detectors.stages import Stage, Stages

KEY = "with_detector"
LEAST_GOOD = 8  # good training images of a class for a detector, in each fold
# Options of all detectors that a user may set here; the run sets the others.
OPTIONS = ("image_size", "weights", "normalization")
# A fold and a class.
Place = tuple[int, str]


@dataclass(frozen=True)
class ClassDetector:
    """A fitted detector of one fold and class.

    Attributes:
        state: tensors of the fitted detector.
        scores: scores of the images, in the order of the request; larger values are more anomalous.
        fit_seconds: time of the training, without features.
        test_seconds: time of the scores; the first detector's has the time of all features.
        warnings: of the training and of the scores, one sentence each.
    """

    state: State
    scores: npt.NDArray[np.float64]
    fit_seconds: float
    test_seconds: float
    warnings: list[str]


def build_detector(option: Any, spec: RunSpec, device: str, context: RunContext | None = None) -> Detector:
    """Build the detector that all folds and classes share.

    Backbone, weights and image size are those of the classification, unless the option names others.

    Args:
        option: value of `with_detector`: a name, or a mapping with `model` and parameters of the detector.
        spec: the run.
        device: auto, cpu, cuda, cuda:N or mps.
        context: resources and options; None for a check that the detector can be built.

    Raises:
        ConfigError: the option is invalid.
        WeightsError: there are no weights for the detector's backbone.
    """
    values = {"model": option} if isinstance(option, str) else option
    if not isinstance(values, Mapping) or not isinstance(values.get("model"), str):
        raise ConfigError(
            f"{KEY}: found {option!r}; expected a native detector such as {next(iter(registry.DETECTORS))}, or a "
            "mapping with `model` and its parameters."
        )
    try:
        return _build({"backbone": spec.backbone, **values}, spec, device, context)
    except ConfigError as error:
        raise ConfigError([f"{KEY}: {problem.removeprefix('model: ')}" for problem in error.problems]) from error


def _build(values: Mapping[str, Any], spec: RunSpec, device: str, context: RunContext | None) -> Detector:
    signature = NativeBackend().parameters(values["model"])
    known = (*signature.parameters, *OPTIONS)
    for name in values.keys() - {"model", *known}:
        near = nearest(name, known)
        raise ConfigError(
            f"{name} is no parameter of {signature.name}; expected some of {', '.join(known)}."
            + (f" Did you mean {near[0]}?" if near else "")
        )
    if signature.folds is None:
        raise ConfigError(
            f"found {signature.name}, whose models may have scores of different scales, so that folds cannot be "
            "compared; choose another detector."
        )
    backbone = str(values["backbone"])
    resources = ("num_workers", "cache", "cache_limit", "memory_limit")
    arguments: dict[str, Any] = {
        "layers": default_layers(backbone, signature.parameters["layers"]),
        "image_size": spec.image_size or (224, 224),
        "weights": spec.weights,
        "normalization": BACKBONE,
        **{name: value for name, value in values.items() if name != "model"},
        "device": device,
        "seed": spec.seed,
        "batch_size": spec.eval_batch_size,
        **({name: getattr(context, name) for name in resources} if context is not None else {}),
    }
    cls: type[Detector] = registry.lookup(registry.DETECTORS, "detector", signature.name)
    return cls(**arguments)


def good_labels(label_specs: Sequence[LabelSpec]) -> dict[str, int]:
    """Return the position of the good label of each class that also has other conditions."""
    conditions: dict[str, list[int]] = {}
    for position, (class_name, _) in enumerate(label_specs):
        conditions.setdefault(class_name, []).append(position)
    by_class = {}
    for class_name, positions in conditions.items():
        good = [position for position in positions if is_normal(label_specs[position][1])]
        if len(good) == 1 and len(positions) > 1:
            by_class[class_name] = good[0]
    return by_class


def good_images(split: LabelledSplit, fold: int, class_name: str) -> list[int]:
    """Return the positions of the good training images of a class in a fold.

    Args:
        split: the labelled images.
        fold: number of the fold, from 0.
        class_name: a class of `good_labels`.

    Returns:
        Positions in `split.train`.
    """
    label = split.labels[good_labels(split.label_specs)[class_name]]
    return [index for index in split.train_indices(fold) if split.train[index].label == label]


def classes_with_detector(split: LabelledSplit, least: int) -> dict[str, int]:
    """Return the classes with enough good training images in each fold, each with the position of its good label.

    Args:
        split: the data.
        least: smallest number of good images that the detector can learn from.
    """
    return {
        class_name: position
        for class_name, position in good_labels(split.label_specs).items()
        if all(len(good_images(split, fold, class_name)) >= max(LEAST_GOOD, least) for fold in split.run_folds)
    }


def detector_problems(option: Any, spec: RunSpec, split: LabelledSplit, device: str) -> Iterator[str]:
    """Yield the reasons why no detector can be fitted, one sentence each, before any training.

    Args:
        option: value of `with_detector`.
        spec: the run.
        split: its data.
        device: auto, cpu, cuda, cuda:N or mps.

    Raises:
        ConfigError: the option is invalid.
        WeightsError: there are no weights for the detector's backbone, or they do not fit.
    """
    detector = build_detector(option, spec, device)
    weights = option.get("weights", spec.weights) if isinstance(option, Mapping) else spec.weights
    check_weights(weights, detector.backbone, set())
    counts = {
        class_name: min(len(good_images(split, fold, class_name)) for fold in split.run_folds)
        for class_name in good_labels(split.label_specs)
    }
    least = max(LEAST_GOOD, detector.least_images)
    if not counts:
        yield (
            f"{KEY}: {detector.name} found, but no class has a condition {', '.join(NORMAL_NAMES[:-1])} or "
            f"{NORMAL_NAMES[-1]} beside others; expected labels such as bottle-good and bottle-broken. Remove the key."
        )
    elif max(counts.values()) < least:
        yield (
            f"{KEY}: at most {max(counts.values())} good training images of a class in a fold found; {detector.name} "
            f"expects {least} or more here. Add good images, or remove the key."
        )
    else:
        images = min(count for count in counts.values() if count >= least)
        parameters = replace(spec, params=freeze_items(detector.parameters()), layers=detector.layers)
        layer = chosen_layers(detector.backbone, detector.layers)[0]
        problems = coreset_problems(parameters, images, layer, detector.preprocessing.input_size)
        yield from (f"{KEY}: {problem}" for problem in (*detector.problems(images), *problems))


def fit_detectors(
    detector: Detector, split: LabelledSplit, context: RunContext, requests: Mapping[Place, Sequence[int]]
) -> Iterator[tuple[Place, ClassDetector]]:
    """Fit a detector for each fold and class, and score images. All of them share one pass of the backbone.

    Args:
        detector: the detector's parameters.
        split: the data.
        context: resources and options.
        requests: positions of the images to score, by fold and class; test images come after the training images.

    Yields:
        The fold with the class, and the fitted detector with the scores.
    """
    paths = [sample.path for sample in (*split.train, *split.test)]
    stage_context = detector.stage_context({"train": paths}, context.stage, split.fingerprint, context.scratch)
    group = Group([detector])
    features = detector.features("train", group)
    fit, score = detector.fit_stage(group), detector.score_stage("val", group)
    pending: dict[Place, list[Stage]] = {}
    for (fold, class_name), positions in requests.items():
        good = good_images(split, fold, class_name)
        pending[fold, class_name] = [
            on_images(stage, good, positions) for stage in ([fit, score] if positions else [fit])
        ]
    stages = Stages([features, *(stage for of_place in pending.values() for stage in of_place)], stage_context)
    stages.value(features)
    feature_seconds = stages.spent
    stages.release(features)
    for place, of_place in pending.items():
        fitted = _computed(of_place, stages)
        yield place, replace(fitted, test_seconds=fitted.test_seconds + feature_seconds)
        feature_seconds = 0.0


def _computed(of_place: Sequence[Stage], stages: Stages) -> ClassDetector:
    """Compute the state of a detector, and its scores where images ask for them."""
    before = stages.spent
    state = {name: tensor.cpu().contiguous() for name, tensor in stages.value(of_place[0]).items()}
    fit_seconds = stages.spent - before
    scores = [stages.value(stage).images.double().cpu().numpy() for stage in of_place[1:]]
    warnings = [text for stage in of_place for text in stages.warnings(stage)]
    for stage in of_place:
        stages.release(stage)
    test_seconds = stages.spent - before - fit_seconds
    return ClassDetector(state, np.concatenate([np.zeros(0), *scores]), fit_seconds, test_seconds, warnings)
