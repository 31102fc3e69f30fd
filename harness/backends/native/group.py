"""One group of runs: shared stages are computed once, and each run yields its outcome once its stages are complete."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from harness import registry
from harness.backbones.normalization import IMAGENET
from harness.backends.base import HELD_OUT, Detected, EpochDetections, EpochObserver, Failure, Outcome, RunContext
from harness.backends.native.costs import Costs
from harness.config.spec import RunSpec
from harness.data.base import Sample, Split
from harness.detectors.base import Detector, State
from harness.detectors.maps import Scores
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
    group = list(detectors.values())
    roles = {"train": split.train, "val": split.val, "test": split.test}
    paths = {role: [sample.path for sample in samples] for role, samples in roles.items() if samples}
    costs = Costs(split.test, group[0].device, context.latency)
    stage_context = group[0].stage_context(paths, context.stage, split.fingerprint, context.scratch)
    roots = {spec: _roots(detector, group, bool(split.val)) for spec, detector in detectors.items()}
    stages = Stages((stage for by_role in roots.values() for stage in by_role.values()), stage_context)
    for spec, detector in detectors.items():
        stage_context.watch = None if context.watch is None else partial(_look, context.watch, spec, detector, split)
        try:
            yield _outcome(spec, detector, split, roots[spec], stages, costs)
        # Any error of Torch becomes a failure. A failed stage fails only the runs that need this stage.
        except Exception as error:  # noqa: BLE001
            yield Failure(spec, error)
        finally:
            for stage in roots[spec].values():
                stages.release(stage)


def _roots(detector: Detector, group: Sequence[Detector], held_out: bool) -> dict[str, Stage]:
    roles = ["val", "test"] if held_out else ["test"]
    return {"fit": detector.fit_stage(group), **{role: detector.score_stage(role, group) for role in roles}}


def _outcome(
    spec: RunSpec,
    detector: Detector,
    split: Split,
    roots: dict[str, Stage],
    stages: Stages,
    costs: Costs,
) -> Detected:
    before = stages.spent
    state: State = stages.value(roots["fit"])
    scores: dict[str, Scores] = {role: stages.value(stage) for role, stage in roots.items() if role != "fit"}
    fit = stages.standalone_seconds(roots["fit"])
    test = {stage: seconds for stage, seconds in stages.standalone_seconds(roots["test"]).items() if stage not in fit}
    everything = {
        stage: seconds for root in roots.values() for stage, seconds in stages.standalone_seconds(root).items()
    }
    weights = detector.weights
    warnings = [text for root in roots.values() for text in stages.warnings(root)]
    cost, cost_warnings = costs.of(detector, state, sum(test.values()))
    return Detected(
        spec=spec,
        test=_predictions(split.test, scores["test"], detector),
        val=_predictions(split.val, scores["val"], detector) if "val" in scores else None,
        seconds={
            "fit": sum(fit.values()),
            "test": sum(test.values()),
            "alone": sum(everything.values()),
            "spent": stages.spent - before,
        },
        device=detector.device.description,
        save_model=_saver(detector, state, costs),
        cost=cost,
        validation=HELD_OUT if split.val else "",
        weights={"backbone": detector.backbone, **weights.as_dict()},
        warnings=list(dict.fromkeys(warnings + cost_warnings + ([weights.note] if weights.note else []))),
    )


def _look(
    watch: EpochObserver, spec: RunSpec, detector: Detector, split: Split, epoch: int, state: Callable[[], State]
) -> None:
    """Pass the predictions of a detector in training to the observer; the network computes the features again."""
    if not watch.wants(spec, epoch):
        return
    detector.state = state()
    try:
        predictions = [_scored(detector, samples) if samples else None for samples in (split.test, split.val)]
    finally:
        detector.forget()
    assert predictions[0] is not None
    watch.on_epoch(spec, epoch, EpochDetections(predictions[0], predictions[1]))


def _scored(detector: Detector, samples: Sequence[Sample]) -> Predictions:
    batches = [
        detector.score_batch(torch.stack([detector.view(sample.path) for sample in samples[i : i + AT_ONCE]]))
        for i in range(0, len(samples), AT_ONCE)
    ]
    scores = Scores(torch.cat([batch.images for batch in batches]), torch.cat([batch.maps for batch in batches]))
    return _predictions(samples, scores, detector)


def _predictions(samples: Sequence[Sample], scores: Scores, detector: Detector) -> Predictions:
    maps = scores.maps.cpu().numpy()
    raw = {
        sample.path: (float(score), anomaly_map)
        for sample, score, anomaly_map in zip(samples, scores.images.tolist(), maps, strict=True)
    }
    return join(samples, raw, detector.view.size)


def _saver(detector: Detector, state: State, costs: Costs) -> Callable[[Path], None]:
    def save(folder: Path) -> None:
        # The detector has the state only during the writing, because many runs of a group are in memory at once.
        detector.state = state
        costs.lend_network(detector)
        try:
            detector.save(folder / MODEL)
        finally:
            detector.forget()

    return save
