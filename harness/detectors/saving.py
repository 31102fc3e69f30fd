"""A fitted detector as one safetensors file: what was learnt, the backbone, and how both were made."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from harness import registry
from harness.backbones.normalization import IMAGENET
from harness.backbones.resolve import Weights
from harness.common.errors import HarnessError, StoreError, WeightsError
from harness.detectors.features import Extractor

if TYPE_CHECKING:
    from harness.detectors.base import Detector

FORMAT = 1
BACKBONE = "backbone."


def save(detector: Detector, target: Path) -> Path:
    """See `Detector.save`. A model that is there is replaced in one step.

    Raises:
        NotFittedError: nothing was learnt.
        StoreError: it can't be written.
    """
    tensors = {name: tensor.contiguous().cpu() for name, tensor in detector.fitted().items()}
    network = detector.extractor().network.state_dict()
    tensors |= {BACKBONE + name: tensor.detach().cpu().contiguous().clone() for name, tensor in network.items()}
    about = {
        "format": FORMAT,
        "detector": detector.name,
        "backbone": detector.backbone,
        "layers": detector.layers,
        "parameters": detector.parameters(),
        "options": {
            "image_size": detector.view.size,
            "center_crop": detector.view.crop,
            "precision": detector.precision,
            "seed": detector.seed,
            "normalization": detector.view.normalization.as_dict(),
        },
        "weights": detector.weights.as_dict(),
    }
    scratch = target.with_name(f".{target.name}.{uuid4().hex}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        save_file(tensors, scratch, {"harness": json.dumps(about)})
        scratch.replace(target)
    except (OSError, SafetensorError) as error:
        scratch.unlink(missing_ok=True)
        raise StoreError(f"{target}: can't be written ({error}).") from error
    return target


def load(path: str | Path, device: str = "auto", progress: bool = True) -> Detector:
    """Load a detector from a file of `Detector.save`. Loading executes nothing.

    Args:
        path: the file.
        device: auto, cpu, cuda, cuda:N or mps.
        progress: whether to draw a bar.

    Raises:
        WeightsError: the file is of another kind, or does not fit its network.
    """
    try:
        with safe_open(path, framework="pt") as file:
            about: dict[str, Any] = json.loads((file.metadata() or {})["harness"])
            # Copied, since tensors of a file begin anywhere: not aligned, triangular solves round otherwise.
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118 (not a dict)
        if about["format"] > FORMAT:
            raise WeightsError(f"{path}: written by a newer harness (format {about['format']}, {FORMAT} known).")
        return _build(about, tensors, device, progress)
    except HarnessError:
        raise
    # Whatever a damaged or foreign file makes the libraries raise.
    except Exception as error:
        raise WeightsError(f"{path}: no saved detector ({type(error).__name__}: {error}).") from error


def _build(about: dict[str, Any], tensors: dict[str, torch.Tensor], device: str, progress: bool) -> Detector:
    cls: type[Detector] = registry.lookup(registry.DETECTORS, "detector", about["detector"])
    # The network's weights are in the file: none are looked for. Files of version 0.1 have ImageNet's normalisation.
    options = {
        "normalization": IMAGENET,
        **about["options"],
        "weights": "random",
        "device": device,
        "progress": progress,
    }
    detector = cls(backbone=about["backbone"], layers=about["layers"], **about["parameters"], **options)
    detector.weights = Weights.from_dict(about["weights"])
    extractor = Extractor(detector.backbone, detector.needed_layers(), detector.view.input_size, detector.precision)
    network = {name.removeprefix(BACKBONE): t for name, t in tensors.items() if name.startswith(BACKBONE)}
    extractor.network.load_state_dict(network)
    state = {name: t for name, t in tensors.items() if not name.startswith(BACKBONE)}
    detector.remember(state, extractor)
    return detector
