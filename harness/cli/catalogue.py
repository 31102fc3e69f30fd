"""All detectors and their needs: the table that `python -m harness models` prints."""

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


def detectors(marked: bool = True) -> list[Row]:
    """A row for each detector, the native ones first; columns as in `COLUMNS`.

    Args:
        marked: whether to mark each need as here or missing on this machine.
    """
    return [*_native(), *(_row(name, marked) for name in catalog.models())]


def _native() -> Iterator[Row]:
    for name in registry.DETECTORS:
        cls = registry.load(registry.DETECTORS[name])
        training = EPOCHS if cls.trains_in_epochs else ONE_PASS
        size, backbone = "any", "a backbone of your choice"
        if cls.only_transformers:
            size, backbone = "multiples of the patch", "a plain vision transformer of your choice"
        yield (name, "native", training, "yes", size, str(cls.least_images), "any", backbone)


def _row(name: str, marked: bool) -> Row:
    """The row of a model of anomalib."""
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
        "\n".join(f"{_mark(here) if marked else ''}{need}" for need, here in _needed(name, needs)) or "nothing",
    )


def _mark(here: bool) -> str:
    return "here: " if here else "missing: "


def _needed(name: str, needs: Needs) -> Iterator[tuple[str, bool]]:
    """Each need of a model with default parameters, and whether it is on this machine."""
    parameters = catalog.signature(name)[1]
    if needs.package is not None:
        yield f"package {needs.package[1]}", find_spec(needs.package[0]) is not None
    networks = list(default_networks(name))
    backbone = parameters.get("backbone")
    if isinstance(backbone, str) and timm.is_model(backbone.partition(".")[0]) and not networks:
        networks.append(backbone)
    for network in networks:
        available = local_weights(AUTO, network) is not None or cached(network) is not None
        yield f"weights/{network}.safetensors", available
    for asset in needs.assets:
        yield str(asset.in_weights(parameters)), asset.path(parameters) is not None
