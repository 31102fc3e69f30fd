"""A spec -> anomalib's model; and what its steps give, as arrays."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from anomalib.models import AnomalibModule
from anomalib.pre_processing import PreProcessor
from torchvision.transforms.v2 import Compose, Normalize

from harness.backends.anomalib.assets import asset_parameters
from harness.backends.anomalib.catalog import canonical, models, signature
from harness.backends.anomalib.coreset import exact_coreset
from harness.common.errors import PredictionsError
from harness.config.spec import RunSpec
from harness.predictions.detection import Floats


def build_model(spec: RunSpec) -> AnomalibModule:
    """The model with the spec's parameters and input size, everything else anomalib's own."""
    import anomalib.models.image

    cls = getattr(anomalib.models.image, models()[canonical(spec.model)][0])
    arguments = {**spec.parameters, **asset_parameters(spec)}
    if arguments.pop("coreset", "anomalib") == "exact":
        cls = exact_coreset(cls, spec.seed)
    if spec.backbone is not None:
        arguments["backbone"] = spec.backbone
    if spec.layers is not None:
        arguments["layers"] = list(spec.layers)
    if spec.image_size is not None or spec.normalization is not None:
        arguments["pre_processor"] = _pre_processor(cls, spec)
    if "visualizer" in signature(spec.model)[1]:
        arguments["visualizer"] = False
    model = cls(**arguments)
    evaluator = model.evaluator
    for metric in [*evaluator.val_metrics, *evaluator.test_metrics] if evaluator else []:
        if "gt_mask" in metric.fields:
            # Some models insist on masks for their pixel figures; without masks those are blank instead.
            metric.strict = False
    return model


def _pre_processor(cls: type[AnomalibModule], spec: RunSpec) -> PreProcessor:
    """The model's own, for images of the spec's size, with the spec's normalisation in place of ImageNet's.

    It is part of the model: anomalib's checkpoints carry it.
    """
    own = cls.configure_pre_processor(**({"image_size": spec.image_size} if spec.image_size is not None else {}))
    if spec.normalization is None:
        return own
    steps = list(getattr(own.transform, "transforms", [own.transform]))
    given = Normalize(mean=list(spec.normalization.mean), std=list(spec.normalization.std))
    return PreProcessor(Compose([given if isinstance(step, Normalize) else step for step in steps]))


def raw_scores(batch: Any) -> tuple[npt.NDArray[np.float64], Floats | None]:
    """Scores (n,) and maps (n, height, width) of what a model's step gives.

    Raises:
        PredictionsError: it gives neither.
    """
    maps, scores = batch.anomaly_map, batch.pred_score
    if scores is None and maps is None:
        raise PredictionsError("the model gives neither scores nor anomaly maps; expected at least one.")
    if scores is None:
        scores = maps.flatten(1).amax(dim=1)
    scores = scores.detach().double().reshape(-1).cpu().numpy()
    arrays = None if maps is None else maps.detach().float().reshape(len(scores), *maps.shape[-2:]).cpu().numpy()
    return scores, arrays
