"""A note on coresets that anomalib selects slowly on a CPU. The time is known before the selection starts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from harness.backbones.layers import chosen_layers, patches_of
from harness.backends.anomalib.catalog import signature
from harness.backends.anomalib.checks import DEFAULT_SIZE, named_layers
from harness.common.devices import pick
from harness.config.spec import RunSpec
from harness.data.samples import Split
from harness.data.subset import part_of

# For each patch and each selection, on two cores of a CPU; from `python -m benchmarks coreset`.
SECONDS = 0.35e-6
LONG = 60.0  # seconds


@dataclass(frozen=True)
class _Selection:
    """The selection of a run: `size` of `patches`."""

    spec: RunSpec
    patches: int
    size: int

    @property
    def seconds(self) -> float:
        """Each of the selections computes the distances of all patches to one of them."""
        return SECONDS * self.patches * self.size


def slow_coresets(specs: Sequence[RunSpec], splits: Mapping[str, Split], device: str) -> list[str]:
    """Return a note if anomalib's own selection of a coreset takes more than a minute on a CPU.

    Args:
        specs: valid runs.
        splits: their data, by category.
        device: auto, cpu, cuda, cuda:N or mps.
    """
    if pick(device).kind != "cpu":
        return []
    selections = [one for spec in specs if (one := _selection(spec, splits[spec.category])) and one.seconds > LONG]
    if not selections:
        return []
    longest = max(selections, key=lambda one: one.seconds)
    runs = "1 run" if len(selections) == 1 else f"{len(selections)} runs"
    return [
        f"coreset: anomalib's own selection takes more than a minute in {runs} on a CPU. The longest takes about "
        f"{longest.seconds / 60:.0f} minutes: {longest.size:,} of {longest.patches:,} patches of "
        f"{longest.spec.backbone}. With `coreset: exact` the harness selects as many patches in seconds."
    ]


def _selection(spec: RunSpec, split: Split) -> _Selection | None:
    """The selection of anomalib's own coreset; None for a run without one."""
    defaults = signature(spec.model)[1]
    ratio = spec.parameters.get("coreset_sampling_ratio", defaults.get("coreset_sampling_ratio"))
    layers = named_layers(spec) or tuple(defaults.get("layers") or ())
    if ratio is None or spec.backbone is None or not layers or spec.parameters.get("coreset") == "exact":
        return None
    first = chosen_layers(spec.backbone, layers)[0]
    images = len(part_of(split, spec.n_train, spec.seed, spec.category).train)
    patches = patches_of(images, first, spec.image_size or DEFAULT_SIZE)
    return _Selection(spec, patches, int(patches * ratio))
