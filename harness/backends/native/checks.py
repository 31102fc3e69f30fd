"""Problems that would make a spec fail, found before any training, one sentence each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from harness.backbones.layers import chosen_layers, is_transformer
from harness.backbones.networks import known_backbone
from harness.backends.checks import check_weights, coreset_problems
from harness.backends.native.group import build
from harness.common.errors import HarnessError
from harness.config.spec import RunSpec
from harness.data.base import Split
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
        split = splits[spec.category]
        try:
            known_backbone(str(spec.backbone))
            key = (spec.weights, str(spec.backbone))
            if key not in checked:
                checked.add(key)
                check_weights(*key)
            # The constructor of a detector checks its arguments, and is fast.
            detector = build(spec, device)
            problems.update(dict.fromkeys(_data_problems(spec, split, detector)))
        except HarnessError as error:
            problems.update(dict.fromkeys(error.problems))
    return list(problems)


def _data_problems(spec: RunSpec, split: Split, detector: Detector) -> Iterator[str]:
    layer = chosen_layers(detector.backbone, detector.layers)[0]
    height, width = detector.view.input_size
    stride = layer.stride
    if is_transformer(detector.backbone) and (height % stride or width % stride):
        axis = "center_crop" if detector.view.crop else "image_size"
        example = f"{max(height // stride, 1) * stride}x{max(width // stride, 1) * stride}"
        yield (
            f"{axis}: {height}x{width} found; {detector.backbone} cuts "
            f"images into patches of {stride} pixels and needs multiples of that, such as {example}."
        )
    if len(split.train) < detector.least_images:
        yield (
            f"{spec.model}: {len(split.train)} normal training images found; expected {detector.least_images} or more."
        )
    yield from coreset_problems(spec, split, layer, detector.view.input_size)
