"""Problems that would make a spec fail on anomalib, found before any training, one sentence each."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from importlib.util import find_spec
from typing import Any

import torch
from anomalib.models.components import TimmFeatureExtractor
from lightning.pytorch import Trainer

from harness.backbones.layers import Layer, chosen_layers, own_size
from harness.backbones.networks import known_backbone, whole_network
from harness.backbones.resolve import why_unreachable
from harness.backends.anomalib.assets import networks_of
from harness.backends.anomalib.catalog import RESERVED, signature
from harness.backends.anomalib.needs import least_images, needs_of
from harness.backends.checks import check_weights, collected, coreset_problems, of_subset
from harness.common.devices import pick
from harness.common.errors import HarnessError, nearest
from harness.config.spec import RunSpec, thaw
from harness.data.samples import Split
from harness.data.subset import part_of

# Arguments of Lightning's Trainer that the harness sets.
DEFAULT_SIZE = (256, 256)


def check_specs(specs: Sequence[RunSpec], splits: Mapping[str, Split], device: str) -> list[str]:
    """Return the problems of all specs, each once.

    Args:
        specs: the planned runs.
        splits: their data, by category.
        device: auto, cpu, cuda, cuda:N or mps.
    """
    problems: dict[str, None] = {}
    with collected(problems):
        pick(device)
    checked: set[tuple[str, str]] = set()
    for spec in specs:
        split = part_of(splits[spec.category], spec.n_train, spec.seed, spec.category)
        problems.update(dict.fromkeys(_trainer_problems(spec.trainer)))
        problems.update(dict.fromkeys(_needs_problems(spec, split)))
        with collected(problems):
            if spec.backbone is not None and not _is_own_default(spec):
                known_backbone(spec.backbone)
            problems.update(dict.fromkeys(_network_problems(spec, checked)))
            if spec.backbone is None or _is_own_default(spec):
                continue
            if "vit" in spec.backbone.lower() and not hasattr(whole_network(spec.backbone), "patch_embed"):
                problems[
                    f"backbone: anomalib takes {spec.backbone} for a plain vision transformer because of its name, and "
                    "cannot use it; expected a ViT or a convolutional network."
                ] = None
                continue
            check_weights(spec.weights, spec.backbone, checked)
            layers = named_layers(spec)
            if layers:
                outputs = chosen_layers(spec.backbone, layers)
                problems.update(dict.fromkeys(_parameter_problems(spec, split, outputs)))
                problems.update(dict.fromkeys(_size_problems(spec.backbone, layers, spec.image_size or DEFAULT_SIZE)))
    return list(problems)


def _network_problems(spec: RunSpec, checked: set[tuple[str, str]]) -> Iterator[str]:
    """Problems with the weights of all networks of a model; each pair of policy and network is checked once."""
    for network in networks_of(spec):
        try:
            check_weights(spec.weights, network, checked)
        except HarnessError as error:
            yield from error.problems


def slow_models(specs: Sequence[RunSpec], device: str) -> list[str]:
    """Return a note for each model whose network is too large for a CPU.

    Args:
        specs: the planned runs.
        device: auto, cpu, cuda, cuda:N or mps.
    """
    if pick(device).kind != "cpu":
        return []
    slow = {spec.model: gflop for spec in specs if (gflop := needs_of(spec.model).gflop) is not None}
    return [
        f"{model}: one training image takes about {gflop} billion floating-point operations at the default image size. "
        "Without a GPU an epoch takes minutes to hours."
        for model, gflop in slow.items()
    ]


def _needs_problems(spec: RunSpec, split: Split) -> Iterator[str]:
    """Unmet needs of a model beside its backbone."""
    needs = needs_of(spec.model)
    if needs.refused:
        yield f"model: anomalib's {spec.model} {needs.refused}; expected another model."
        return
    if spec.image_size is not None and (problem := needs.sizes.problem(spec.image_size)):
        yield f"{spec.model}: {problem}"
    minimum = least_images(spec.model, spec.parameters)
    if len(split.train) < minimum:
        problem = f"{spec.model}: {len(split.train)} normal training images found; expected {minimum} or more."
        yield of_subset(spec, problem)
    if needs.package is not None and find_spec(needs.package[0]) is None:
        module, install = needs.package
        yield f"{spec.model}: needs the package {module}, which is not installed; run: pip install '{install}'"
    for asset in needs.assets:
        if asset.path(spec.parameters) is None and (reason := why_unreachable()) is not None:
            parameter = f", or name a folder with the axis `{asset.parameter}`" if asset.parameter else ""
            yield (
                f"{spec.model}: {asset.description} not found, and a download is not possible ({reason}). Put the file "
                f"or folder at {asset.in_weights(spec.parameters)}{parameter}."
            )


def _is_own_default(spec: RunSpec) -> bool:
    """Whether the backbone is the model's default and no timm name, such as "mcait" for a group of networks."""
    import timm

    default = signature(spec.model)[1].get("backbone")
    return spec.backbone == default and not timm.is_model(str(spec.backbone).partition(".")[0])


def named_layers(spec: RunSpec) -> tuple[str, ...]:
    """Layers with a name; models with numbered layers check the numbers themselves."""
    single = spec.parameters.get("layer")
    names = spec.layers if spec.layers is not None else (single,) if single else ()
    return tuple(name for name in names if isinstance(name, str))


@cache
def _size_problems(backbone: str, layers: tuple[str, ...], size: tuple[int, int]) -> list[str]:
    """Problems of anomalib's feature extractor with an image size, tested on the meta device without memory."""
    widths = [layer.channels for layer in chosen_layers(backbone, layers)]
    try:
        with torch.device("meta"):
            features = TimmFeatureExtractor(backbone, list(layers), pre_trained=False)(torch.zeros(1, 3, *size))
    # The type of the error depends on the network.
    except Exception as error:  # noqa: BLE001
        reason = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
        return [
            f"image_size: {size[0]}x{size[1]} found, but with anomalib backbone {backbone} fails on this size "
            f"({reason}); expected {own_size(backbone)}, or `backend: native` if it has the model."
        ]
    if [feature.shape[1] for feature in features.values()] != widths:
        return [
            f"backbone: {backbone} gives features with channels last, but anomalib expects channels first; use another "
            "backbone, or `backend: native` if it has the model."
        ]
    return []


@cache
def _trainer_problems(arguments: tuple[tuple[str, Any], ...]) -> list[str]:
    """Problems of the `trainer:` block, cached because all specs of a sweep have the same block."""
    names = set(inspect.signature(Trainer.__init__).parameters) - RESERVED
    problems = []
    for key, _ in arguments:
        if key in RESERVED:
            problems.append(f"trainer.{key}: set by the harness; remove the key, and for devices use `device:`.")
        elif key not in names:
            near = nearest(key, names)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            listed = ", ".join(sorted(names))
            problems.append(f"trainer.{key}: Lightning's Trainer has no such argument.{hint} Expected: {listed}.")
    if arguments and not problems:
        try:
            Trainer(accelerator="cpu", logger=False, **{key: thaw(value) for key, value in arguments})
        # Lightning and Torch raise many types of errors; the message contains the value.
        except Exception as error:  # noqa: BLE001
            problems.append(f"trainer: Lightning refuses {dict(arguments)}: {error}")
    return problems


def _parameter_problems(spec: RunSpec, split: Split, layers: Sequence[Layer]) -> Iterator[str]:
    """Parameter values that do not fit the backbone or the number of images."""
    values = spec.parameters
    width = sum(layer.channels for layer in layers)
    if "n_features" in values or spec.model == "padim":
        yield from _padim_problems(spec, values.get("n_features"), width)
    if spec.model == "fre":
        yield from _fre_problems(spec, layers[0])
    if values.get("coreset", "anomalib") not in {"anomalib", "exact"}:
        yield f"coreset: found {values['coreset']!r}, expected anomalib or exact."
    for problem in coreset_problems(spec, len(split.train), layers[0], spec.image_size or DEFAULT_SIZE):
        yield of_subset(spec, problem)


def _fre_problems(spec: RunSpec, layer: Layer) -> Iterator[str]:
    """A wrong `input_dim`: the width of FRE's encoder must be the length of the pooled features."""
    height, width = spec.image_size or DEFAULT_SIZE
    pooled = layer.stride * spec.parameters.get("pooling_kernel_size", 2)
    expected = layer.channels * (height // pooled) * (width // pooled)
    if spec.parameters.get("input_dim") != expected:
        yield (
            f"input_dim: found {spec.parameters.get('input_dim')}, expected {expected}, the number of features of "
            f"{spec.backbone} for images of {height}x{width}."
        )


def _padim_problems(spec: RunSpec, n_features: int | None, width: int) -> Iterator[str]:
    if n_features is None:
        if spec.backbone not in {"resnet18", "wide_resnet50_2"}:
            yield (
                f"n_features: none given, and anomalib's PaDiM has no default for {spec.backbone}; "
                f"expected a number from 1 to {width}, the width of the embedding."
            )
    elif not isinstance(n_features, int) or isinstance(n_features, bool) or not 0 < n_features <= width:
        layers = "+".join(map(str, spec.layers or ()))
        yield f"n_features: found {n_features!r}, expected 1 to {width}, the width of {spec.backbone} {layers}."
