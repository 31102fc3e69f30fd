"""A saved anomalib model at work: its own pre-processing and network, without its normalisation and threshold."""

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
    """See `harness.backends.base.Scorer`.

    Args:
        model: trained.
        spec: of its run.
        device: auto, cpu, cuda, cuda:N or mps.
    """

    def __init__(self, model: AnomalibModule, spec: RunSpec, device: str) -> None:
        chosen = pick(device)
        self.model = model.eval().requires_grad_(False).to(chosen.torch)
        if chosen.kind == "cpu":
            _faster_convolutions(model.model)
        self.name = spec.model
        self.device = chosen.description
        self.input_size = model.input_size
        self.resized, moved = before_crop(model)
        precision = thaw(dict(spec.trainer).get("precision"))
        self._torch, self._autocast = chosen.torch, AUTOCAST.get(precision)
        self.notes = tuple(moved)
        if spec.model == "cflow":
            self.notes += (
                "anomalib's CFlow relates likelihoods to the largest one of the batch: the score of an image depends "
                "on those that are scored with it",
            )
        if precision not in FULL and precision not in AUTOCAST:
            self.notes += (f"trainer.precision: trained with {precision}, scored with 32-bit numbers",)

    @classmethod
    def from_file(cls, spec: RunSpec, file: Path, device: str, trust: bool) -> AnomalibScorer:
        """See `harness.backends.base.Backend.load`."""
        refuse_missing(spec)
        try:
            # Textures and the like are for training.
            with local_assets(spec), unfilled(), no_downloads(lambda *_, **__: None):
                model = build_model(spec)
        # A record of another anomalib, or an altered one: whatever its constructors raise.
        except Exception as error:
            raise WeightsError(
                f"{file}: anomalib can't build {spec.model} as the run's record describes it ({type(error).__name__}: "
                f"{_first_line(error)}). {AGAIN}"
            ) from error
        checkpoint = _read(file, type(model), trust)
        try:
            model.on_load_checkpoint(dict(checkpoint))
            model.load_state_dict(checkpoint["state_dict"])
        # A checkpoint of another model, or an altered one, fails in as many ways as there are models.
        except Exception as error:
            raise WeightsError(
                f"{file}: does not fit anomalib's {type(model).__name__} as the run's record describes it "
                f"({type(error).__name__}: {_first_line(error)}). {AGAIN}"
            ) from error
        return cls(model, spec, device)

    def prepare(self, pixels: RGB) -> torch.Tensor:
        """(3, height, width) as the model's own pre-processor makes it."""
        image = Image(torch.from_numpy(pixels.copy()).permute(2, 0, 1)).float() / 255
        transform = getattr(self.model.pre_processor, "transform", None)
        prepared: torch.Tensor = transform(Image(image)) if transform is not None else image
        return prepared.as_subclass(torch.Tensor)

    def score(self, prepared: Sequence[torch.Tensor]) -> tuple[npt.NDArray[np.float64], Floats | None]:
        """See `Scorer.score`: the step that tests take."""
        images = torch.stack(list(prepared)) if len(prepared) > 1 else prepared[0][None]
        batch = ImageBatch(image=images.to(self._torch))
        lower = torch.autocast(self._torch.type, self._autocast) if self._autocast is not None else nullcontext()
        with torch.inference_mode(), lower:
            return raw_scores(self.model.validation_step(batch, 0))

    def export(self, thresholds: Thresholds, chosen: Format, file: Path) -> list[str]:
        """See `Scorer.export`."""
        from harness.backends.anomalib.export import export

        return export(self.model, thresholds, chosen, file)


def _faster_convolutions(network: Any) -> None:
    """Convolutions of the backbone take a third less time with channels last; what comes after them, without."""
    extractor = getattr(network, "feature_extractor", None)
    if not isinstance(extractor, nn.Module):
        return
    extractor.to(memory_format=torch.channels_last)
    extractor.register_forward_hook(_channels_first)


def _channels_first(_: nn.Module, __: Any, features: Any) -> Any:
    return {name: one.contiguous() for name, one in features.items()} if isinstance(features, dict) else features


def _read(file: Path, model: type[AnomalibModule], trust: bool) -> Mapping[str, Any]:
    """A checkpoint; without executing anything, unless that is not possible and it is trusted."""
    try:
        with anomalib_safe_globals(extra=model.checkpoint_safe_globals()):
            checkpoint = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if not zipfile.is_zipfile(file):
            raise WeightsError(f"{file}: damaged, or no checkpoint. {AGAIN}") from error
        if not trust:
            named = re.search(r"GLOBAL (\S+)", str(error))
            raise WeightsError(
                f"{file}: holds Python objects, and not only tensors{f' ({named[1]})' if named else ''}; loading them "
                "executes whatever code the file names. If you made this file yourself, or trust who did, say --trust "
                "(trust=True)."
            ) from error
        checkpoint = _read_trusted(file)
    except Exception as error:
        raise WeightsError(f"{file}: damaged ({type(error).__name__}: {_first_line(error)}). " + AGAIN) from error
    if not isinstance(checkpoint, Mapping) or not isinstance(checkpoint.get("state_dict"), Mapping):
        raise WeightsError(f"{file}: no Lightning checkpoint; expected one with a state_dict. " + AGAIN)
    return checkpoint


def _read_trusted(file: Path) -> Any:
    try:
        return torch.load(file, map_location="cpu", weights_only=False)
    except Exception as error:
        raise WeightsError(f"{file}: damaged ({type(error).__name__}: {_first_line(error)}). " + AGAIN) from error


AGAIN = "Make the run again with --fresh."


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0][:300]
