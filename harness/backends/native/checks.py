"""Problems that would make a spec fail, found before any training, one sentence each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from harness.backbones.layers import chosen_layers
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
    yield from detector.problems(len(split.train))
    layer = chosen_layers(detector.backbone, detector.layers)[0]
    yield from coreset_problems(spec, split, layer, detector.view.input_size)
