"""An anomalib model as a file that other programs run, through anomalib's own Engine.

Its own export resizes without antialiasing, and normalises and labels by thresholds of its own; both would give other
answers than `predict`. So its pre- and post-processor are exchanged for ones that give the same.
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
    """The centre of images.

    Args:
        size: (height, width) of the images.
        crop: (height, width) that is kept.
    """

    def __init__(self, size: tuple[int, int], crop: tuple[int, int]) -> None:
        super().__init__()
        self.size, self.crop = size, crop

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """(n, 3, *size) -> (n, 3, *crop)."""
        return centre_crop(images, self.size, self.crop)


class PostProcessor(nn.Module):
    """What comes of anomalib's network -> `Answers`.

    Args:
        decision: scores and maps -> answers.
    """

    def __init__(self, decision: Decision) -> None:
        super().__init__()
        self.decision = decision

    def forward(self, predictions: Any) -> Answers:
        """Of an `InferenceBatch`."""
        scores, maps = _plain(predictions)
        answers: Answers = self.decision(scores, maps)
        return answers


class Scoring(nn.Module):
    """Prepared images -> raw scores and maps.

    Args:
        network: anomalib's.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        """(n, 3, height, width) -> (n,), (n, height, width)."""
        return _plain(self.network(images))


def _plain(predictions: Any) -> tuple[torch.Tensor, torch.Tensor | None]:
    maps, scores = predictions.anomaly_map, predictions.pred_score
    if maps is not None:
        maps = maps.reshape(-1, *maps.shape[-2:])
    return (maps.amax(dim=(1, 2)) if scores is None else scores.reshape(-1)), maps


def export(model: AnomalibModule, thresholds: Thresholds, chosen: Format, file: Path) -> list[str]:
    """See `harness.backends.base.Scorer.export`. The Engine knows no TorchScript: there the model is traced."""
    model = copy.deepcopy(model).cpu()
    prepare = _exportable(model)
    names = output_names(thresholds, maps=_has_maps(model))
    if chosen == "torchscript":
        with replaced(patchcore, "DEFAULT_CHUNK_SIZE", math.inf):
            write_torchscript(Whole(prepare, Scoring(model.model), Decision(thresholds)), file)
        return names
    model.pre_processor.export_transform = prepare
    model.post_processor = PostProcessor(Decision(thresholds))
    root = file.parent / "engine"
    engine = Engine(default_root_dir=root, logger=False, barebones=False, enable_progress_bar=False, accelerator="cpu")
    options = {"input_names": [INPUT], **ONNX_OPTIONS}
    # PatchCore works off its patches in a loop whose length would be fixed to that of the example.
    with replaced(patchcore, "DEFAULT_CHUNK_SIZE", math.inf):
        made = engine.export(model, chosen, export_root=root, model_file_name=file.stem, onnx_kwargs=options)
    assert made is not None
    for part in [made, made.with_suffix(".bin")] if chosen == "openvino" else [made]:
        part.replace(file.with_suffix(part.suffix))
    return names


def _has_maps(model: AnomalibModule) -> bool:
    size = model.input_size or (256, 256)
    with torch.no_grad():
        return model.eval().model(torch.zeros(1, 3, *size)).anomaly_map is not None


def _exportable(model: AnomalibModule) -> nn.Sequential:
    """The model's pre-processing, step by step; a step that needs no change as it is."""
    transform = getattr(model.pre_processor, "transform", None)
    steps = list(getattr(transform, "transforms", [transform] if transform is not None else []))
    size: tuple[int, int] | None = None
    made: list[nn.Module] = []
    for step in steps:
        name = type(step).__name__
        if (
            name == "Resize"
            and len(step.size) == 2
            and step.interpolation == InterpolationMode.BILINEAR
            and step.antialias
        ):
            size = (step.size[0], step.size[1])
            made.append(Resize(size))
        elif isinstance(step, CenterCrop) and size is not None:
            made.append(Crop(size, (step.size[0], step.size[1])))
        else:
            made.append(step)
    return nn.Sequential(*made)
