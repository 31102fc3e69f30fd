"""Export of an anomalib model through anomalib's own Engine.

anomalib's export resizes without antialiasing, and normalises and labels by anomalib's thresholds. Both change the
predictions. Therefore this module replaces the pre- and post-processor by ones with the predictions of the harness.
"""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import torch
from anomalib.engine import Engine
from anomalib.models import AnomalibModule
from anomalib.models.image.patchcore import torch_model as patchcore
from torch import nn
from torchvision.transforms.v2 import CenterCrop, InterpolationMode

from harness.backbones.inject import replaced
from harness.backends.formats import INPUT, ONNX_OPTIONS, Format, write_torchscript
from harness.backends.graph import Answers, Decision, Resize, Whole, centre_crop, output_names
from harness.predictions.decision import Thresholds


class Crop(nn.Module):
    """Cuts out the centre of images.

    Args:
        size: (height, width) of the images.
        crop: (height, width) of the centre.
    """

    def __init__(self, size: tuple[int, int], crop: tuple[int, int]) -> None:
        super().__init__()
        self.size, self.crop = size, crop

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Crop (n, 3, *size) to (n, 3, *crop)."""
        return centre_crop(images, self.size, self.crop)


class PostProcessor(nn.Module):
    """Turns the predictions of anomalib's network into `Answers`.

    Args:
        decision: module that turns scores and maps into `Answers`.
    """

    def __init__(self, decision: Decision) -> None:
        super().__init__()
        self.decision = decision

    def forward(self, predictions: Any) -> Answers:
        """Convert an `InferenceBatch`."""
        scores, maps = _plain(predictions)
        answers: Answers = self.decision(scores, maps)
        return answers


class Scoring(nn.Module):
    """Predicts raw scores and maps of prepared images.

    Args:
        network: anomalib's network.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Predict scores (n,) and maps (n, height, width) of images (n, 3, height, width)."""
        return _plain(self.network(images))


def _plain(predictions: Any) -> tuple[torch.Tensor, torch.Tensor | None]:
    maps, scores = predictions.anomaly_map, predictions.pred_score
    if maps is not None:
        maps = maps.reshape(-1, *maps.shape[-2:])
    return (maps.amax(dim=(1, 2)) if scores is None else scores.reshape(-1)), maps


def export(model: AnomalibModule, thresholds: Thresholds, file_format: Format, file: Path) -> list[str]:
    """Write a model to one file. The Engine cannot write TorchScript, so that Torch traces the model for this format.

    Args:
        model: the trained model.
        thresholds: see `harness.predictions.decision.Thresholds`.
        file_format: the file's format.
        file: path with the format's suffix, in an existing folder.

    Returns:
        The names of the outputs.
    """
    model = copy.deepcopy(model).cpu()
    prepare = _exportable(model)
    names = output_names(thresholds, maps=_has_maps(model))
    if file_format == "torchscript":
        with replaced(patchcore, "DEFAULT_CHUNK_SIZE", math.inf):
            write_torchscript(Whole(prepare, Scoring(model.model), Decision(thresholds)), file)
        return names
    model.pre_processor.export_transform = prepare
    model.post_processor = PostProcessor(Decision(thresholds))
    root = file.parent / "engine"
    engine = Engine(default_root_dir=root, logger=False, barebones=False, enable_progress_bar=False, accelerator="cpu")
    options = {"input_names": [INPUT], **ONNX_OPTIONS}
    # PatchCore processes its patches in a loop; the export would fix the loop's length to that of the example.
    with replaced(patchcore, "DEFAULT_CHUNK_SIZE", math.inf):
        exported = engine.export(model, file_format, export_root=root, model_file_name=file.stem, onnx_kwargs=options)
    assert exported is not None
    for path in [exported, exported.with_suffix(".bin")] if file_format == "openvino" else [exported]:
        path.replace(file.with_suffix(path.suffix))
    return names


def _has_maps(model: AnomalibModule) -> bool:
    size = model.input_size or (256, 256)
    with torch.no_grad():
        return model.eval().model(torch.zeros(1, 3, *size)).anomaly_map is not None


def _exportable(model: AnomalibModule) -> nn.Sequential:
    """The model's pre-processing, with exportable modules in place of resizing and centre crop."""
    transform = getattr(model.pre_processor, "transform", None)
    steps = list(getattr(transform, "transforms", [transform] if transform is not None else []))
    size: tuple[int, int] | None = None
    modules: list[nn.Module] = []
    for step in steps:
        name = type(step).__name__
        if (
            name == "Resize"
            and len(step.size) == 2
            and step.interpolation == InterpolationMode.BILINEAR
            and step.antialias
        ):
            size = (step.size[0], step.size[1])
            modules.append(Resize(size))
        elif isinstance(step, CenterCrop) and size is not None:
            modules.append(Crop(size, (step.size[0], step.size[1])))
        else:
            modules.append(step)
    return nn.Sequential(*modules)
