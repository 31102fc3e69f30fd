"""Checks that backends share: weights of the backbone, and the size of the coreset."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

from harness.backbones.layers import Layer, patches_of
from harness.backbones.networks import whole_network
from harness.backbones.resolve import resolve
from harness.backbones.state import fit_state, read_state
from harness.common.errors import HarnessError
from harness.config.spec import RunSpec


@contextmanager
def collected(problems: dict[str, None]) -> Iterator[None]:
    """Add the problems of an error of the harness to `problems` instead of raising the error."""
    try:
        yield
    except HarnessError as error:
        problems.update(dict.fromkeys(error.problems))


def check_weights(policy: str, backbone: str, checked: set[Any]) -> None:
    """Find the weights of a backbone and check that they fit its network.

    Args:
        policy: the `weights` value of the config.
        backbone: timm's name.
        checked: earlier pairs of policy and backbone, which are not checked again; the new pair is added.

    Raises:
        WeightsError: no weights were found, or they do not fit.
    """
    if (policy, backbone) in checked:
        return
    checked.add((policy, backbone))
    weights = resolve(policy, backbone)
    if weights.file is not None:
        network = whole_network(backbone)
        adapt = getattr(import_module(type(network).__module__), "checkpoint_filter_fn", None)
        fit_state(read_state(Path(weights.file)), network, network, weights.file, adapt)


def of_subset(spec: RunSpec, problem: str) -> str:
    """The sentence of a problem, with the `n_train` of a run on a subset, whose number of images is the cause.

    Args:
        spec: the run.
        problem: the sentence.
    """
    return problem if spec.n_train is None else f"n_train {spec.n_train}: {problem}"


def coreset_problems(spec: RunSpec, images: int, first: Layer, input_size: tuple[int, int]) -> Iterator[str]:
    """Yield a problem if the coreset would be empty or smaller than `num_neighbors`.

    Args:
        spec: a run of PatchCore.
        images: number of training images.
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
    patches = patches_of(images, first, input_size)
    size = int(patches * ratio)
    if size < 1:
        yield (
            f"coreset_sampling_ratio: {ratio} of {patches} patches ({images} images, layer "
            f"{(spec.layers or ('',))[0]}) leaves an empty coreset; expected at least {1 / patches:.2g}."
        )
    elif not 1 <= values.get("num_neighbors", 1) <= size:
        yield (
            f"num_neighbors: found {values['num_neighbors']}, expected 1 to {size}, the size of the coreset "
            f"(ratio {ratio} of {patches} patches)."
        )
