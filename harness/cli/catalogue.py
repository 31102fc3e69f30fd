"""All detectors, with what each needs: the table that `python -m harness models` prints."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec

import timm

from harness import registry
from harness.backbones.local import AUTO, local_weights
from harness.backbones.resolve import cached
from harness.backends.anomalib import catalog
from harness.backends.anomalib.assets import default_networks
from harness.backends.anomalib.needs import EPOCHS, ONE_PASS, Needs, least_images, needs_of

COLUMNS = ("model", "backend", "training", "maps", "image size", "least images", "batch", "needs")
Row = tuple[str, ...]


def detectors(state: bool = True) -> list[Row]:
    """A row each, the native ones first; columns as in `COLUMNS`.

    Args:
        state: whether to say of all that is needed if it is on this machine.
    """
    return [*_native(), *(_row(name, state) for name in catalog.models())]


def _native() -> Iterator[Row]:
    for name in registry.DETECTORS:
        cls = registry.load(registry.DETECTORS[name])
        training = EPOCHS if cls.trains_in_epochs else ONE_PASS
        yield (name, "native", training, "yes", "any", str(cls.least_images), "any", "a backbone of your choice")


def _row(name: str, state: bool) -> Row:
    """Of one of anomalib's models."""
    needs = needs_of(name)
    if needs.refused:
        return (name, "anomalib", needs.training, "", "", "", "", f"not run: {needs.refused}")
    slow = ", minutes each without a GPU" if needs.gflop and needs.training == EPOCHS else ""
    return (
        name,
        "anomalib",
        needs.training + slow,
        "yes" if needs.maps else "no",
        str(needs.sizes),
        str(least_images(name, catalog.signature(name)[1])),
        str(needs.batch or "any"),
        "\n".join(f"{_state(here) if state else ''}{what}" for what, here in _needed(name, needs)) or "nothing",
    )


def _state(here: bool) -> str:
    return "here: " if here else "missing: "


def _needed(name: str, needs: Needs) -> Iterator[tuple[str, bool]]:
    """What a model with its default parameters needs, and whether it is on this machine."""
    parameters = catalog.signature(name)[1]
    if needs.package is not None:
        yield f"package {needs.package[1]}", find_spec(needs.package[0]) is not None
    networks = list(default_networks(name))
    backbone = parameters.get("backbone")
    if isinstance(backbone, str) and timm.is_model(backbone.partition(".")[0]) and not networks:
        networks.append(backbone)
    for network in networks:
        found = local_weights(AUTO, network) is not None or cached(network) is not None
        yield f"weights/{network}.safetensors", found
    for asset in needs.assets:
        yield str(asset.in_weights(parameters)), asset.path(parameters) is not None
