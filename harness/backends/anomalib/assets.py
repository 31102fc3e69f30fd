"""Local copies of the files that anomalib's models download, and the networks that a model requests."""

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
# Models whose module calls `download_and_extract`.
ARCHIVES = ("efficient_ad", "dsr", "draem", "glass")
# Models whose module calls `get_pretrained_weights_dir`.
WITH_WEIGHTS_DIR = ("efficient_ad", "dsr")


class _BlockedError(Exception):
    """A model attempted a download."""


def _block(*args: Any, **options: Any) -> None:
    del args, options
    raise _BlockedError


@contextmanager
def no_downloads(replacement: Callable[..., Any] = _block) -> Iterator[None]:
    """Replace the download functions of anomalib's models inside this context.

    Args:
        replacement: function that is called instead of a download; the default raises an error.
    """
    with ExitStack() as stack:
        for name in ARCHIVES:
            stack.enter_context(replaced(_module(name, "lightning_model"), "download_and_extract", replacement))
        stack.enter_context(replaced(_module("cfm", "components"), "urlretrieve", replacement))
        stack.enter_context(replaced(_module("anomalyvfm", "torch_model"), "hf_hub_download", replacement))
        yield


@contextmanager
def local_assets(spec: RunSpec) -> Iterator[None]:
    """Let a model read its files from `weights/`, if they are there, inside this context.

    Args:
        spec: the run whose model is built or trained inside the context.
    """
    if not needs_of(spec.model).assets:
        # Without a replacement, no other thread has to wait.
        yield
        return
    with ExitStack() as stack:
        for asset in needs_of(spec.model).assets:
            path = asset.path(spec.parameters)
            if path is None or path != asset.in_weights(spec.parameters):
                continue
            if spec.model == "anomalyvfm":
                stack.enter_context(replaced(_module("anomalyvfm", "torch_model"), "hf_hub_download", _always(path)))
            elif spec.model == "winclip":
                stack.enter_context(replaced(_module("winclip", "torch_model"), "PRETRAINED", str(path)))
        for name in WITH_WEIGHTS_DIR:
            module = _module(name, "lightning_model")
            stack.enter_context(replaced(module, "get_pretrained_weights_dir", _weights_dir_function(spec)))
        yield


def asset_parameters(spec: RunSpec) -> dict[str, str]:
    """Return the model's parameters that name folders of images, with their folders on this machine."""
    folders = {}
    for asset in needs_of(spec.model).assets:
        path = asset.path(spec.parameters) if asset.parameter else None
        if asset.parameter and path is not None:
            folders[asset.parameter] = str(path)
    return folders


def model_arguments(spec: RunSpec) -> dict[str, Any]:
    """Return the constructor arguments of a spec's model, without files, pre-processing and normalisation."""
    return {
        **spec.parameters,
        **({"backbone": spec.backbone} if spec.backbone is not None else {}),
        **({"layers": list(spec.layers)} if spec.layers is not None else {}),
    }


def networks_of(spec: RunSpec) -> tuple[str, ...]:
    """Return the timm and torchvision networks whose weights the model of a spec requests, in order of the requests."""
    # Numbers choose no network. Without them, all points of a grid build few models; one takes a tenth of a second.
    names = {key: value for key, value in model_arguments(spec).items() if not _is_number(value)}
    return _networks(spec.model, json.dumps(names, sort_keys=True, default=str))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def default_networks(model: str) -> tuple[str, ...]:
    """Return the networks whose weights a model requests with its default parameters."""
    return _networks(model, "{}")


@cache
def _networks(model: str, arguments: str) -> tuple[str, ...]:
    """Record the requests while the model is built on the meta device, without memory for its tensors."""
    import anomalib.models.image

    from harness.backends.anomalib.catalog import models, signature

    cls = getattr(anomalib.models.image, models()[model][0])
    options: Mapping[str, Any] = {
        key: value for key, value in json.loads(arguments).items() if key in signature(model)[1]
    }
    with recorded_requests() as names, no_downloads(), torch.device("meta"):
        try:
            cls(**options)
        # A model requests its networks before any step that needs tensor values, which the meta device does not have.
        # The checks or the run report parameter values that the model refuses.
        except Exception:  # noqa: BLE001
            return tuple(dict.fromkeys(names))
    return tuple(dict.fromkeys(names))


def _module(model: str, name: str) -> Any:
    return import_module(f"{MODELS}{model}.{name}")


def _always(path: Path) -> Callable[..., str]:
    def replacement(*args: Any, **options: Any) -> str:
        del args, options
        return str(path)

    return replacement


def _weights_dir_function(spec: RunSpec) -> Callable[[], Path]:
    """Replacement of anomalib's function: gives `weights/` if the model's files are there, else anomalib's folder."""
    original = import_module("anomalib.utils.path").get_pretrained_weights_dir

    def replacement() -> Path:
        files = [asset for asset in needs_of(spec.model).assets if asset.parameter is None]
        if files and all(asset.in_weights(spec.parameters).is_file() for asset in files):
            return WEIGHTS_DIR.absolute()
        return Path(original())

    return replacement


def refuse_missing(spec: RunSpec) -> None:
    """Raise if the files that a saved model needs for its construction are not on this machine.

    Raises:
        WeightsError: a file is missing.
    """
    for asset in needs_of(spec.model).assets:
        if spec.model in {"anomalyvfm", "winclip"} and asset.path(spec.parameters) is None:
            raise WeightsError(
                f"{spec.model}: {asset.description} not found; put the file at {asset.in_weights(spec.parameters)}."
            )
