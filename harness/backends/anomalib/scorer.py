"""Predictions of a saved anomalib model, with its pre-processing, but without its normalisation and threshold."""

from __future__ import annotations

import pickle
import re
import zipfile
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from anomalib.data import ImageBatch
from anomalib.models import AnomalibModule
from anomalib.utils.serialization import anomalib_safe_globals
from torch import nn
from torchvision.tv_tensors import Image

from harness.backbones.inject import unfilled
from harness.backends.anomalib.assets import local_assets, no_downloads, refuse_missing
from harness.backends.anomalib.build import build_model, raw_scores
from harness.backends.anomalib.places import before_crop
from harness.common.devices import pick
from harness.common.errors import WeightsError
from harness.config.spec import RunSpec, thaw
from harness.data.images import RGB
from harness.predictions.detection import Floats

if TYPE_CHECKING:
    from harness.backends.formats import Format
    from harness.predictions.decision import Thresholds

AUTOCAST = {"16-mixed": torch.float16, "bf16-mixed": torch.bfloat16}
FULL = {None, 32, "32", "32-true"}


class AnomalibScorer:
    """Scores images with a trained anomalib model; see `harness.backends.scorers.Scorer`.

    Args:
        model: the trained model.
        spec: its run.
        device: auto, cpu, cuda, cuda:N or mps.
    """

    def __init__(self, model: AnomalibModule, spec: RunSpec, device: str) -> None:
        hardware = pick(device)
        self.model = model.eval().requires_grad_(False).to(hardware.torch)
        if hardware.kind == "cpu":
            _faster_convolutions(model.model)
        self.name = spec.model
        self.device = hardware.description
        self.input_size = model.input_size
        self.resized, warnings = before_crop(model)
        precision = thaw(dict(spec.trainer).get("precision"))
        self._torch, self._autocast = hardware.torch, AUTOCAST.get(precision)
        self.notes = tuple(warnings)
        if spec.model == "cflow":
            self.notes += (
                "anomalib's CFlow divides likelihoods by the largest one of the batch: the score of an image depends "
                "on the other images of its batch",
            )
        if precision not in FULL and precision not in AUTOCAST:
            self.notes += (f"trainer.precision: trained with {precision}, scored with 32-bit numbers",)

    @classmethod
    def from_file(cls, spec: RunSpec, file: Path, device: str, trust: bool) -> AnomalibScorer:
        """Load a checkpoint of anomalib.

        Args:
            spec: the run that wrote the checkpoint.
            file: the checkpoint.
            device: auto, cpu, cuda, cuda:N or mps.
            trust: whether loading may execute code in the file, if the file cannot be loaded otherwise.

        Raises:
            WeightsError: the file is damaged, does not fit the spec, or would execute code and is not trusted.
        """
        refuse_missing(spec)
        try:
            # Only the training needs downloads, such as textures.
            with local_assets(spec), unfilled(), no_downloads(lambda *_, **__: None):
                model = build_model(spec)
        # The record is of another version of anomalib, or altered; a constructor may raise any error.
        except Exception as error:
            raise WeightsError(
                f"{file}: anomalib cannot build {spec.model} from the run's record ({type(error).__name__}: "
                f"{_first_line(error)}). {AGAIN}"
            ) from error
        checkpoint = _read(file, type(model), trust)
        try:
            model.on_load_checkpoint(dict(checkpoint))
            model.load_state_dict(checkpoint["state_dict"])
        # The checkpoint is of another model, or altered; the type of the error depends on the model.
        except Exception as error:
            raise WeightsError(
                f"{file}: does not fit anomalib's {type(model).__name__} as the run's record describes it "
                f"({type(error).__name__}: {_first_line(error)}). {AGAIN}"
            ) from error
        return cls(model, spec, device)

    def prepare(self, pixels: RGB) -> torch.Tensor:
        """Apply the model's own pre-processor; return (3, height, width)."""
        image = Image(torch.from_numpy(pixels.copy()).permute(2, 0, 1)).float() / 255
        transform = getattr(self.model.pre_processor, "transform", None)
        prepared: torch.Tensor = transform(Image(image)) if transform is not None else image
        return prepared.as_subclass(torch.Tensor)

    def score(self, prepared: Sequence[torch.Tensor]) -> tuple[npt.NDArray[np.float64], Floats | None]:
        """Score a batch with the model's validation step.

        Returns:
            Scores (n,), and maps (n, height, width) or None for a model without maps.
        """
        images = torch.stack(list(prepared)) if len(prepared) > 1 else prepared[0][None]
        batch = ImageBatch(image=images.to(self._torch))
        precision = torch.autocast(self._torch.type, self._autocast) if self._autocast is not None else nullcontext()
        with torch.inference_mode(), precision:
            return raw_scores(self.model.validation_step(batch, 0))

    def as_exported(self) -> AnomalibScorer:
        """The scorer that an exported file agrees with: this one."""
        return self

    def export(self, thresholds: Thresholds, file_format: Format, file: Path) -> list[str]:
        """Write the model with pre-processing, normalisation and thresholds to one file.

        Args:
            thresholds: see `harness.predictions.decision.Thresholds`.
            file_format: the file's format.
            file: path with the format's suffix, in an existing folder.

        Returns:
            The names of the outputs.
        """
        from harness.backends.anomalib.export import export

        return export(self.model, thresholds, file_format, file)


def _faster_convolutions(network: Any) -> None:
    """Use channels last in the backbone, whose convolutions then take a third less time; later steps are slower so."""
    extractor = getattr(network, "feature_extractor", None)
    if not isinstance(extractor, nn.Module):
        return
    extractor.to(memory_format=torch.channels_last)
    extractor.register_forward_hook(_channels_first)


def _channels_first(_: nn.Module, __: Any, features: Any) -> Any:
    return {name: value.contiguous() for name, value in features.items()} if isinstance(features, dict) else features


def _read(file: Path, model: type[AnomalibModule], trust: bool) -> Mapping[str, Any]:
    """Load a checkpoint without executing code, or with code if the file is trusted and cannot be loaded otherwise."""
    try:
        with anomalib_safe_globals(extra=model.checkpoint_safe_globals()):
            checkpoint = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if not zipfile.is_zipfile(file):
            raise WeightsError(f"{file}: damaged, or not a checkpoint. {AGAIN}") from error
        if not trust:
            name = re.search(r"GLOBAL (\S+)", str(error))
            raise WeightsError(
                f"{file}: holds Python objects, and not only tensors{f' ({name[1]})' if name else ''}; loading them "
                "executes code that the file names. If you trust the author of this file, use --trust (trust=True)."
            ) from error
        checkpoint = _read_trusted(file)
    except Exception as error:
        raise WeightsError(f"{file}: damaged ({type(error).__name__}: {_first_line(error)}). " + AGAIN) from error
    if not isinstance(checkpoint, Mapping) or not isinstance(checkpoint.get("state_dict"), Mapping):
        raise WeightsError(f"{file}: not a Lightning checkpoint; expected one with a state_dict. " + AGAIN)
    return checkpoint


def _read_trusted(file: Path) -> Any:
    try:
        return torch.load(file, map_location="cpu", weights_only=False)
    except Exception as error:
        raise WeightsError(f"{file}: damaged ({type(error).__name__}: {_first_line(error)}). " + AGAIN) from error


AGAIN = "Make the run again with --fresh."


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0][:300]
