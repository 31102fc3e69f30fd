"""Checks before any run for problems that would make a probe fail, one sentence each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from harness.backbones.networks import known_backbone
from harness.backends.checks import check_weights, collected
from harness.backends.supervised.checks import network_problems
from harness.backends.supervised.probe.settings import ProbeSettings
from harness.common.devices import pick
from harness.config.spec import RunSpec
from harness.data.labelled.base import LabelledSplit


def check_specs(specs: Sequence[RunSpec], splits: Mapping[str, LabelledSplit], device: str) -> list[str]:
    """Return the problems of all specs, each once.

    Args:
        specs: the planned runs, all of probes.
        splits: their data, by category.
        device: auto, cpu, cuda, cuda:N or mps.
    """
    problems: dict[str, None] = {}
    checked: set[object] = set()
    with collected(problems):
        pick(device)
    for spec in specs:
        with collected(problems):
            settings = ProbeSettings.of(spec)
            problems.update(dict.fromkeys(_neighbour_problems(settings, splits[spec.category])))
            backbone = str(spec.backbone)
            known_backbone(backbone)
            check_weights(spec.weights, backbone, checked)
            architecture = (backbone, settings.image_size)
            if architecture not in checked:
                checked.add(architecture)
                problems.update(dict.fromkeys(network_problems(backbone, [settings.of_network])))
    return list(problems)


def _neighbour_problems(settings: ProbeSettings, split: LabelledSplit) -> Iterator[str]:
    fewest = min(len(split.train_indices(fold)) for fold in split.run_folds)
    if settings.probe_head == "knn" and settings.num_neighbors > fewest:
        yield (
            f"num_neighbors: found {settings.num_neighbors}, but a fold has only {fewest} training images; "
            f"expected at most {fewest}."
        )
