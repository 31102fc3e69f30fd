"""Problems that would make a spec fail, found before any training, one sentence each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from harness.backbones.layers import chosen_layers
from harness.backbones.networks import known_backbone
from harness.backends.checks import check_weights, collected, coreset_problems, of_subset
from harness.backends.native.calibration import fold_problems, images_of_smallest_training
from harness.backends.native.group import build
from harness.config.spec import RunSpec
from harness.data.samples import Split
from harness.data.subset import part_of
from harness.detectors.base import Detector


def check_specs(specs: Sequence[RunSpec], splits: Mapping[str, Split], device: str) -> list[str]:
    """Return the problems of all specs, each once.

    Args:
        specs: the planned runs.
        splits: their data, by category.
        device: auto, cpu, cuda, cuda:N or mps.
    """
    problems: dict[str, None] = {}
    checked: set[tuple[str, str]] = set()
    for spec in specs:
        split = part_of(splits[spec.category], spec.n_train, spec.seed, spec.category)
        with collected(problems):
            known_backbone(str(spec.backbone))
            check_weights(spec.weights, str(spec.backbone), checked)
            # The constructor of a detector checks its arguments, and is fast.
            detector = build(spec, device)
            problems.update(
                dict.fromkeys(of_subset(spec, problem) for problem in _data_problems(spec, split, detector))
            )
    return list(problems)


def _data_problems(spec: RunSpec, split: Split, detector: Detector) -> Iterator[str]:
    images = len(split.train)
    problems = [*detector.problems(images), *_coreset_problems(spec, images, detector)]
    if problems:
        yield from problems
        return
    yield from fold_problems(spec, images, detector.least_images)
    rest = images_of_smallest_training(spec, images, detector.least_images)
    if detector.least_images <= rest < images:
        for problem in [*detector.problems(rest), *_coreset_problems(spec, rest, detector)]:
            yield f"threshold.folds: without the images of a fold, {problem}"


def _coreset_problems(spec: RunSpec, images: int, detector: Detector) -> Iterator[str]:
    layer = chosen_layers(detector.backbone, detector.layers)[0]
    return coreset_problems(spec, images, layer, detector.preprocessing.input_size)
