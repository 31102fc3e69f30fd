"""What anomalib's models download, given to them from this machine; and what networks a model asks for."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from harness.backbones.inject import recorded_requests, replaced
from harness.backends.anomalib.needs import WEIGHTS_DIR, needs_of
from harness.common.errors import WeightsError
from harness.config.spec import RunSpec

MODELS = "anomalib.models.image."
# Modules that fetch archives by this name.
ARCHIVES = ("efficient_ad", "dsr", "draem", "glass")
# Modules that ask where weights are kept.
KEEPERS = ("efficient_ad", "dsr")


class _BlockedError(Exception):
    """A model wanted to download something."""


def _block(*args: Any, **options: Any) -> None:
    del args, options
    raise _BlockedError


@contextmanager
def no_downloads(instead: Callable[..., Any] = _block) -> Iterator[None]:
    """While it is open, anomalib's models download nothing: `instead` is called."""
    with ExitStack() as stack:
        for name in ARCHIVES:
            stack.enter_context(replaced(_module(name, "lightning_model"), "download_and_extract", instead))
        stack.enter_context(replaced(_module("cfm", "components"), "urlretrieve", instead))
        stack.enter_context(replaced(_module("anomalyvfm", "torch_model"), "hf_hub_download", instead))
        yield


@contextmanager
def local_assets(spec: RunSpec) -> Iterator[None]:
    """While it is open, a model finds its files in `weights/`, where they lie there.

    Args:
        spec: of the run; its model may be built and trained meanwhile.
    """
    if not needs_of(spec.model).assets:
        # Nothing is replaced, and no other thread waits.
        yield
        return
    with ExitStack() as stack:
        for asset in needs_of(spec.model).assets:
            found = asset.path(spec.parameters)
            if found is None or found != asset.in_weights(spec.parameters):
                continue
            if spec.model == "anomalyvfm":
                stack.enter_context(replaced(_module("anomalyvfm", "torch_model"), "hf_hub_download", _always(found)))
            elif spec.model == "winclip":
                stack.enter_context(replaced(_module("winclip", "torch_model"), "PRETRAINED", str(found)))
        for name in KEEPERS:
            module = _module(name, "lightning_model")
            stack.enter_context(replaced(module, "get_pretrained_weights_dir", _keeper(spec)))
        yield


def asset_parameters(spec: RunSpec) -> dict[str, str]:
    """Parameters that name folders of images, where they lie elsewhere than anomalib would look."""
    found = {}
    for asset in needs_of(spec.model).assets:
        path = asset.path(spec.parameters) if asset.parameter else None
        if asset.parameter and path is not None:
            found[asset.parameter] = str(path)
    return found


def networks_of(spec: RunSpec) -> tuple[str, ...]:
    """timm's and torchvision's networks that the model of a spec wants weights of, in the order of its asking."""
    arguments = {
        **spec.parameters,
        **({"backbone": spec.backbone} if spec.backbone is not None else {}),
        **({"layers": list(spec.layers)} if spec.layers is not None else {}),
    }
    return _networks(spec.model, json.dumps(arguments, sort_keys=True, default=str))


def default_networks(model: str) -> tuple[str, ...]:
    """Those of a model with its default parameters."""
    return _networks(model, "{}")


@cache
def _networks(model: str, arguments: str) -> tuple[str, ...]:
    """EpochPredictions by building the model without memory for its tensors, as far as that goes."""
    import anomalib.models.image

    from harness.backends.anomalib.catalog import models, signature

    cls = getattr(anomalib.models.image, models()[model][0])
    given: Mapping[str, Any] = {
        key: value for key, value in json.loads(arguments).items() if key in signature(model)[1]
    }
    with recorded_requests() as names, no_downloads(), torch.device("meta"):
        try:
            cls(**given)
        # What has to be known was asked for before something needed values, which the meta device does not have. Values
        # that a model refuses are said where it is checked, or by the run.
        except Exception:  # noqa: BLE001
            return tuple(dict.fromkeys(names))
    return tuple(dict.fromkeys(names))


def _module(model: str, part: str) -> Any:
    return import_module(f"{MODELS}{model}.{part}")


def _always(path: Path) -> Callable[..., str]:
    def answer(*args: Any, **options: Any) -> str:
        del args, options
        return str(path)

    return answer


def _keeper(spec: RunSpec) -> Callable[[], Path]:
    """Where weights are kept: `weights/`, if what this model needs lies there; else anomalib's own place."""
    own = import_module("anomalib.utils.path").get_pretrained_weights_dir

    def answer() -> Path:
        kept = [asset for asset in needs_of(spec.model).assets if asset.parameter is None]
        if kept and all(asset.in_weights(spec.parameters).is_file() for asset in kept):
            return WEIGHTS_DIR.absolute()
        return Path(own())

    return answer


def refuse_missing(spec: RunSpec) -> None:
    """Raise where a saved model can't be built without what it once downloaded.

    Raises:
        WeightsError: it is not here.
    """
    for asset in needs_of(spec.model).assets:
        if spec.model in {"anomalyvfm", "winclip"} and asset.path(spec.parameters) is None:
            raise WeightsError(
                f"{spec.model}: {asset.what} not found; expected at {asset.in_weights(spec.parameters)}."
            )
