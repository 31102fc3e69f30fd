"""Checks that backends share: weights of the backbone, and the size of the coreset."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from math import ceil
from pathlib import Path

from harness.backbones.layers import Layer
from harness.backbones.networks import whole_network
from harness.backbones.resolve import resolve
from harness.backbones.state import fit_state, read_state
from harness.config.spec import RunSpec
from harness.data.base import Split


def check_weights(policy: str, backbone: str) -> None:
    """Find the weights of a backbone and check that they fit its network.

    Args:
        policy: the `weights` value of the config.
        backbone: timm's name.

    Raises:
        WeightsError: no weights were found, or they do not fit.
    """
    weights = resolve(policy, backbone)
    if weights.file is not None:
        network = whole_network(backbone)
        adapt = getattr(import_module(type(network).__module__), "checkpoint_filter_fn", None)
        fit_state(read_state(Path(weights.file)), network, network, weights.file, adapt)


def coreset_problems(spec: RunSpec, split: Split, first: Layer, input_size: tuple[int, int]) -> Iterator[str]:
    """Yield a problem if the coreset would be empty or smaller than `num_neighbors`.

    Args:
        spec: a run of PatchCore.
        split: its data.
        first: the layer that defines the grid of patches.
        input_size: (height, width) of the network's input.
    """
    values = spec.parameters
    ratio = values.get("coreset_sampling_ratio")
    if ratio is None:
        return
    if not 0 < ratio <= 1:
        yield f"coreset_sampling_ratio: found {ratio}, expected a share above 0 and up to 1."
        return
    patches = len(split.train) * ceil(input_size[0] / first.stride) * ceil(input_size[1] / first.stride)
    size = int(patches * ratio)
    if size < 1:
        yield (
            f"coreset_sampling_ratio: {ratio} of {patches} patches ({len(split.train)} images, layer "
            f"{(spec.layers or ('',))[0]}) leaves an empty coreset; expected at least {1 / patches:.2g}."
        )
    elif not 1 <= values.get("num_neighbors", 1) <= size:
        yield (
            f"num_neighbors: found {values['num_neighbors']}, expected 1 to {size}, the size of the coreset "
            f"(ratio {ratio} of {patches} patches)."
        )
