"""One group of runs: shared stages are computed once, and each run yields its outcome once its stages are complete."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from harness import registry
from harness.backbones.normalization import IMAGENET
from harness.backends.base import HELD_OUT, Detected, EpochDetections, EpochObserver, Failure, Outcome, RunContext
from harness.backends.native.calibration import calibrate, calibration_stages, fold_warnings, folds_of
from harness.backends.native.costs import Costs, network_key
from harness.backends.native.images import GroupImages
from harness.backends.native.scorer import NativeScorer
from harness.config.spec import RunSpec
from harness.data.samples import Sample, Split
from harness.detectors.base import Detector, State
from harness.detectors.context import StageContext
from harness.detectors.group import Group
from harness.detectors.maps import Scores, concatenate
from harness.detectors.stages import Stage, Stages
from harness.predictions.detection import Predictions, join

MODEL = "model.safetensors"
AT_ONCE = 8  # images in a batch of an intermediate evaluation


def build(spec: RunSpec, device: str, context: RunContext | None = None) -> Detector:
    """Build the detector of a spec.

    Args:
        spec: a run of this backend.
        device: auto, cpu, cuda, cuda:N or mps.
        context: resources and options; None for a check that the detector can be built.

    Raises:
        HarnessError: a value or a name is invalid, or the weights do not fit.
    """
    cls: type[Detector] = registry.lookup(registry.DETECTORS, "detector", spec.model)
    arguments: dict[str, Any] = {
        **spec.parameters,
        "backbone": spec.backbone,
        "layers": spec.layers,
        **({"image_size": spec.image_size} if spec.image_size else {}),
        "weights": spec.weights,
        "normalization": spec.normalization.as_dict() if spec.normalization else IMAGENET,
        "device": device,
        "seed": spec.seed,
        "batch_size": spec.eval_batch_size,
    }
    if context is not None:
        arguments |= {name: getattr(context, name) for name in ("num_workers", "cache", "cache_limit", "memory_limit")}
    return cls(**arguments)


def run_group(specs: Sequence[RunSpec], split: Split, context: RunContext) -> Iterator[Outcome | Failure]:
    """Train and test the runs of one group, and yield one result for each spec.

    Args:
        specs: the runs.
        split: their data.
        context: resources and options.
    """
    detectors: dict[RunSpec, Detector] = {}
    for spec in specs:
        try:
            detectors[spec] = build(spec, context.device, context)
        # A detector that cannot be built fails its own run, but not the group.
        except Exception as error:  # noqa: BLE001
            yield Failure(spec, error)
    if not detectors:
        return
    group, first = Group(detectors.values()), next(iter(detectors.values()))
    images = GroupImages(detectors, split, specs[0].eval_batch_size, cached=context.cache is not None)
    paths = {role: [sample.path for sample in samples] for role, samples in images.roles.items()}
    costs = Costs(first.device)
    stage_context = first.stage_context(paths, context.stage, split.fingerprint, context.scratch)
    plans = {spec: _Plan.of(spec, detector, group, images) for spec, detector in detectors.items()}
    stages = Stages((stage for plan in plans.values() for stage in plan.pending), stage_context)
    for spec, detector in detectors.items():
        own = images.split(spec)
        stage_context.watch = None if context.watch is None else partial(_look, context.watch, spec, detector, own)
        try:
            yield _outcome(spec, detector, own, plans[spec], stages, stage_context, costs)
        # Any error of Torch becomes a failure. A failed stage fails only the runs that need this stage.
        except Exception as error:  # noqa: BLE001
            yield Failure(spec, error)
        finally:
            for stage in plans[spec].pending:
                stages.release(stage)


@dataclass(frozen=True)
class _Plan:
    """The stages whose results a run needs.

    Attributes:
        fit: the state of the detector.
        test: the scores of the test images.
        calibration: the scores of the calibration images; one stage for each fold.
        pending: stages whose results the run still needs.
        own: which training images are of the run's category; None where all of them are.
    """

    fit: Stage
    test: Stage
    calibration: tuple[Stage, ...]
    pending: list[Stage]
    own: list[bool] | None

    @classmethod
    def of(cls, spec: RunSpec, detector: Detector, group: Group, images: GroupImages) -> _Plan:
        calibration = calibration_stages(spec, detector, group, images.split(spec))
        stages = [detector.fit_stage(group), detector.score_stage("test", group), *calibration]
        fit, test, *calibration = images.stages(spec, stages)
        return cls(fit, test, tuple(calibration), [*calibration, fit, test], images.own_training_images(spec))


def _outcome(
    spec: RunSpec,
    detector: Detector,
    split: Split,
    plan: _Plan,
    stages: Stages,
    stage_context: StageContext,
    costs: Costs,
) -> Detected:
    before = stages.spent
    state: State = stages.value(plan.fit)
    # Intermediate evaluations are of this training, and not of the trainings of the folds.
    stage_context.watch = None
    test: Scores = stages.value(plan.test)

    def checked(samples: Sequence[Sample], scores: Scores) -> Predictions:
        return _predictions(samples, scores, detector)

    calibration, folds = None, folds_of(spec, len(split.train), detector.least_images)
    if plan.calibration:
        calibration = calibrate(folds, split, plan.pending, stages, stage_context.memory, checked)
        if folds and plan.own is not None:
            # The threshold of a category comes from its own images.
            calibration = calibration.part(np.array(plan.own))
    fit_seconds = stages.standalone_seconds(plan.fit)
    test_seconds = {s: t for s, t in stages.standalone_seconds(plan.test).items() if s not in fit_seconds}
    all_seconds = {**fit_seconds, **test_seconds}
    for stage in plan.calibration:
        all_seconds |= stages.standalone_seconds(stage)
    weights = detector.weights
    return Detected(
        spec=spec,
        test=checked(split.test, test),
        calibration=calibration,
        seconds={
            "fit": sum(fit_seconds.values()),
            "test": sum(test_seconds.values()),
            "alone": sum(all_seconds.values()),
            "spent": stages.spent - before,
        },
        device=detector.device.description,
        save_model=_saver(detector, state, costs),
        cost=costs.of(detector, state, sum(test_seconds.values()), len(split.test)),
        validation=HELD_OUT if split.val and not folds else "",
        weights={"backbone": detector.backbone, **weights.as_dict()},
        warnings=[
            *_warnings(plan, stages),
            *fold_warnings(spec, len(split.train), detector.least_images),
            *([weights.note] if weights.note else []),
            *detector.notes(state),
        ],
        scorer=partial(_scorer, detector, state, costs),
        timing_key=(network_key(detector), detector.preprocessing, detector.timing_key(), spec.n_train, spec.category),
    )


def _warnings(plan: _Plan, stages: Stages) -> list[str]:
    """The warnings of the stages, each once; those of the folds say so."""
    whole = [text for stage in (plan.fit, plan.test) for text in stages.warnings(stage)]
    of_calibration = [text for stage in plan.calibration for text in stages.warnings(stage)]
    folds = len(plan.calibration) > 1
    parts = [f"in a fold: {text}" if folds else text for text in of_calibration if text not in whole]
    return list(dict.fromkeys([*whole, *parts]))


def _look(
    watch: EpochObserver, spec: RunSpec, detector: Detector, split: Split, epoch: int, state: Callable[[], State]
) -> None:
    """Pass the predictions of a detector in training to the observer; the network computes the features again."""
    if not watch.wants(spec, epoch):
        return
    detector.state = state()
    try:
        predictions = [_scored(detector, samples) if samples else None for samples in (split.real_test, split.val)]
    finally:
        detector.forget()
    assert predictions[0] is not None
    watch.on_epoch(spec, epoch, EpochDetections(predictions[0], predictions[1]))


def _scored(detector: Detector, samples: Sequence[Sample]) -> Predictions:
    batches = [
        detector.score_batch(torch.stack([detector.preprocessing(sample.path) for sample in samples[i : i + AT_ONCE]]))
        for i in range(0, len(samples), AT_ONCE)
    ]
    return _predictions(samples, concatenate(batches), detector)


def _predictions(samples: Sequence[Sample], scores: Scores, detector: Detector) -> Predictions:
    maps = scores.maps.cpu().numpy()
    raw = {
        sample.path: (float(score), anomaly_map)
        for sample, score, anomaly_map in zip(samples, scores.images.tolist(), maps, strict=True)
    }
    return join(samples, raw, detector.preprocessing.size)


def _saver(detector: Detector, state: State, costs: Costs) -> Callable[[Path], None]:
    def save(folder: Path) -> None:
        with costs.fitted(detector, state):
            detector.save(folder / MODEL)

    return save


@contextmanager
def _scorer(detector: Detector, state: State, costs: Costs) -> Iterator[NativeScorer]:
    with costs.fitted(detector, state):
        yield NativeScorer(detector)
