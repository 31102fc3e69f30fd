"""Builds anomalib's model from a spec, and converts its predictions to arrays."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from anomalib.models import AnomalibModule, Patchcore
from anomalib.pre_processing import PreProcessor
from torchvision.transforms.v2 import Compose, Normalize

from harness.backends.anomalib.assets import asset_parameters, model_arguments
from harness.backends.anomalib.catalog import canonical, models, signature
from harness.common.errors import PredictionsError
from harness.config.spec import RunSpec
from harness.detectors.bank import coreset_size
from harness.detectors.coreset import k_center, start_row
from harness.predictions.detection import Floats


def build_model(spec: RunSpec) -> AnomalibModule:
    """Build the model with the spec's parameters, input size and normalisation; all other values are anomalib's."""
    import anomalib.models.image

    cls = getattr(anomalib.models.image, models()[canonical(spec.model)][0])
    arguments = {**model_arguments(spec), **asset_parameters(spec)}
    if arguments.pop("coreset", "anomalib") == "exact":
        cls = exact_coreset(cls, spec.seed)
    if spec.image_size is not None or spec.normalization is not None:
        arguments["pre_processor"] = _pre_processor(cls, spec)
    if "visualizer" in signature(spec.model)[1]:
        arguments["visualizer"] = False
    model = cls(**arguments)
    evaluator = model.evaluator
    for metric in [*evaluator.val_metrics, *evaluator.test_metrics] if evaluator else []:
        if "gt_mask" in metric.fields:
            # Some models require masks for their pixel metrics; without masks these metrics shall be empty instead.
            metric.strict = False
    return model


def _pre_processor(cls: type[AnomalibModule], spec: RunSpec) -> PreProcessor:
    """The model's own pre-processor for the spec's image size, with the spec's normalisation instead of ImageNet's.

    anomalib's checkpoints contain the pre-processor, since it is a part of the model.
    """
    default = cls.configure_pre_processor(**({"image_size": spec.image_size} if spec.image_size is not None else {}))
    if spec.normalization is None:
        return default
    steps = list(getattr(default.transform, "transforms", [default.transform]))
    normalize = Normalize(mean=list(spec.normalization.mean), std=list(spec.normalization.std))
    return PreProcessor(Compose([normalize if isinstance(step, Normalize) else step for step in steps]))


def raw_scores(batch: Any) -> tuple[npt.NDArray[np.float64], Floats | None]:
    """Return the scores (n,) and the maps (n, height, width) of a predicted batch.

    Raises:
        PredictionsError: the batch has neither scores nor maps.
    """
    maps, scores = batch.anomaly_map, batch.pred_score
    if scores is None and maps is None:
        raise PredictionsError("the model gives neither scores nor anomaly maps; expected at least one.")
    if scores is None:
        scores = maps.flatten(1).amax(dim=1)
    scores = scores.detach().double().reshape(-1).cpu().numpy()
    arrays = None if maps is None else maps.detach().float().reshape(len(scores), *maps.shape[-2:]).cpu().numpy()
    return scores, arrays


def raw_by_path(batch: Any) -> dict[str, tuple[float, Floats | None]]:
    """Return the score and the map (height, width) of each image of a predicted batch, by path; see `raw_scores`."""
    scores, maps = raw_scores(batch)
    return {
        path: (float(scores[index]), None if maps is None else maps[index])
        for index, path in enumerate(batch.image_path)
    }


def exact_coreset(cls: type[Patchcore], seed: int) -> type[Patchcore]:
    """Return a PatchCore class with an exact greedy k-center coreset, selected in the space of the embedding.

    Its state has the same names and shapes as anomalib's, so plain anomalib loads its checkpoints.

    Args:
        cls: anomalib's PatchCore class.
        seed: seed for the first patch of the coreset.
    """

    class ExactCoresetPatchcore(cls):
        """anomalib's PatchCore, with another coreset selection."""

        def fit(self) -> None:
            """Reduce the collected embedding to the coreset."""
            embedding = torch.vstack(self.model.embedding_store)
            self.model.embedding_store.clear()
            size = coreset_size(len(embedding), self.coreset_sampling_ratio)
            order = k_center(embedding, size, start_row(embedding, seed))
            self.model.memory_bank = embedding[torch.from_numpy(order.rows).to(embedding.device)]

    # Checkpoints and logs then contain anomalib's name of the class.
    ExactCoresetPatchcore.__name__ = cls.__name__
    ExactCoresetPatchcore.__qualname__ = cls.__qualname__
    ExactCoresetPatchcore.__module__ = cls.__module__
    return ExactCoresetPatchcore
