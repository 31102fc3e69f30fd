"""A fitted detector as one safetensors file: state, backbone and parameters."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from harness import registry
from harness.backbones.layers import accept
from harness.backbones.networks import NoDraws
from harness.backbones.normalization import IMAGENET
from harness.backbones.resolve import Weights
from harness.common.errors import HarnessError, StoreError, WeightsError
from harness.detectors.features import Extractor

if TYPE_CHECKING:
    from harness.detectors.base import Detector

FORMAT = 1
BACKBONE = "backbone."


def save(detector: Detector, target: Path) -> Path:
    """Write a fitted detector to one file. An existing file is replaced in one step.

    Args:
        detector: a fitted detector.
        target: path of the file; missing folders are created.

    Returns:
        `target`.

    Raises:
        NotFittedError: the detector is not fitted.
        StoreError: the file can't be written.
    """
    tensors = {name: tensor.contiguous().cpu() for name, tensor in detector.fitted().items()}
    tensors |= network_tensors(detector)
    scratch = target.with_name(f".{target.name}.{uuid4().hex}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        save_file(tensors, scratch, {"harness": json.dumps(description(detector))})
        scratch.replace(target)
    except (OSError, SafetensorError) as error:
        scratch.unlink(missing_ok=True)
        raise StoreError(f"{target}: can't be written ({error}).") from error
    return target


def network_tensors(detector: Detector) -> dict[str, torch.Tensor]:
    """Return the tensors of a detector's network, by the names of the file. They may be those of the network itself."""
    tensors: dict[str, torch.Tensor] = {}
    addresses: set[int] = set()
    for name, parameter in detector.extractor().network.state_dict().items():
        tensor = parameter.detach().cpu().contiguous()
        address = tensor.untyped_storage().data_ptr()
        # The file takes no tensors with common memory. Copies of all tensors would take longer than the writing.
        tensors[BACKBONE + name] = tensor.clone() if address in addresses else tensor
        addresses.add(address)
    return tensors


def description(detector: Detector) -> dict[str, Any]:
    """Return plain values that `build_saved` makes the detector from."""
    return {
        "format": FORMAT,
        "detector": detector.name,
        "backbone": detector.backbone,
        "layers": detector.layers,
        "parameters": detector.parameters(),
        "options": {
            "image_size": detector.preprocessing.size,
            "center_crop": detector.preprocessing.crop,
            "precision": detector.precision,
            "seed": detector.seed,
            "normalization": detector.preprocessing.normalization.as_dict(),
        },
        "weights": detector.weights.as_dict(),
    }


def load(path: str | Path, device: str = "auto", progress: bool = True) -> Detector:
    """Load a detector from a file of `Detector.save`. Loading executes nothing.

    Args:
        path: the file.
        device: auto, cpu, cuda, cuda:N or mps.
        progress: whether to show progress.

    Raises:
        WeightsError: the file is of another kind, or does not fit its network.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata: dict[str, Any] = json.loads((file.metadata() or {})["harness"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
        # Tensors of a file are not aligned, and triangular solves round differently on unaligned memory. A network
        # copies its own.
        tensors = {name: tensor if name.startswith(BACKBONE) else tensor.clone() for name, tensor in tensors.items()}
        if metadata["format"] > FORMAT:
            raise WeightsError(f"{path}: format {metadata['format']} found; expected at most {FORMAT}. Update harness.")
        return build_saved(metadata, tensors, device, progress)
    except HarnessError:
        raise
    # The libraries raise many types of exceptions for damaged or foreign files.
    except Exception as error:
        raise WeightsError(f"{path}: no saved detector ({type(error).__name__}: {error}).") from error


def build_saved(metadata: dict[str, Any], tensors: dict[str, torch.Tensor], device: str, progress: bool) -> Detector:
    """Build a detector from the contents of a file.

    Args:
        metadata: result of `description`.
        tensors: result of `network_tensors`, with the tensors of the state.
        device: auto, cpu, cuda, cuda:N or mps.
        progress: whether to show progress.
    """
    cls: type[Detector] = registry.lookup(registry.DETECTORS, "detector", metadata["detector"])
    # The file has the network's weights. Files of version 0.1 have no normalisation; they used ImageNet's values.
    options = {
        "normalization": IMAGENET,
        **metadata["options"],
        "weights": "random",
        "device": device,
        "progress": progress,
    }
    size = options.get("center_crop") or options.get("image_size")
    if size is not None:
        accept(metadata["backbone"], (size[0], size[1]))
    detector = cls(backbone=metadata["backbone"], layers=metadata["layers"], **metadata["parameters"], **options)
    detector.weights = Weights.from_dict(metadata["weights"])
    size = detector.preprocessing.input_size
    with NoDraws():
        extractor = Extractor(detector.backbone, detector.needed_layers(), size, detector.precision)
    network = {name.removeprefix(BACKBONE): t for name, t in tensors.items() if name.startswith(BACKBONE)}
    extractor.network.load_state_dict(network)
    state = {name: t for name, t in tensors.items() if not name.startswith(BACKBONE)}
    detector.restore(state, extractor)
    return detector
