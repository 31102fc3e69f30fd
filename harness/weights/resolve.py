"""Policy -> where a backbone's weights come from, decided in seconds, without a network too."""

from __future__ import annotations

import threading
import urllib.error
import urllib.request
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

from harness.errors import UnknownNameError, WeightsError, unknown_name
from harness.weights.local import AUTO, PRETRAINED, RANDOM, file_hash, local_file

PATIENCE = 3.0  # seconds for the hub to answer at all
HUB_FILES = ("model.safetensors", "pytorch_model.bin")


@dataclass(frozen=True)
class Weights:
    """Where a backbone's weights come from.

    Attributes:
        policy: what was asked for.
        source: "file", "hub cache", "hub" or "random".
        file: path, None for random.
        sha256: of the file.
        fallback: random although weights were asked for.
        note: a sentence where something is to be said.
    """

    policy: str
    source: str
    file: str | None = None
    sha256: str | None = None
    fallback: bool = False
    note: str = ""

    def as_dict(self) -> dict[str, Any]:
        """For the record."""
        return asdict(self)


def resolve(policy: str, backbone: str, synthetic: bool) -> Weights:
    """Find weights for a timm backbone.

    Args:
        policy: auto, pretrained, random, or a path.
        backbone: timm's name of the network.
        synthetic: toy data, on which `auto` may fall back to random weights.

    Raises:
        UnknownNameError: timm has no such network.
        WeightsError: there are none, with how to get them.
    """
    known_backbone(backbone)
    if policy == RANDOM:
        return Weights(policy, "random")
    if policy != PRETRAINED and (path := local_file(policy, backbone)) is not None:
        return Weights(policy, "file", str(path), file_hash(path))
    if (path := cached(backbone)) is not None:
        return Weights(policy, "hub cache", str(path), file_hash(path))
    reason = _why_unreachable()
    if reason is None:
        try:
            fetched = _from_hub(backbone, download=True)
        # Whatever the hub's client raises, the answer is the same: no weights, and why.
        except Exception as error:  # noqa: BLE001
            reason = f"download failed: {type(error).__name__}: {error}"
        else:
            if fetched:
                return Weights(policy, "hub", str(fetched), file_hash(fetched))
            reason = "timm has no published weights for it"
    if policy == AUTO and synthetic:
        note = f"random weights for {backbone}: none in weights/ or the hub's cache, and {reason}"
        return Weights(policy, "random", fallback=True, note=note)
    looked = "in weights/, in the hub's cache and on the hub" if policy == AUTO else "in the hub's cache and on the hub"
    raise WeightsError(
        f"weights: none found for backbone {backbone!r} {looked} ({reason}). Put a state dict of this network "
        f"at weights/{backbone}.safetensors (or .pth) and use `weights: auto`, name a file with `weights: PATH`, "
        "or ask for `weights: random` (random features mean little on real images)."
    )


def known_backbone(backbone: str) -> None:
    """Refuse a name that timm does not have.

    Raises:
        UnknownNameError: with the nearest names.
    """
    import timm

    stem = backbone.partition(".")[0]
    if not timm.is_model(stem):
        names = timm.list_models()
        near = [name for name in names if name.startswith(stem[:4])] or names
        raise UnknownNameError(unknown_name("backbone", backbone, near, limit=12))
    tag = backbone.partition(".")[2]
    if tag and backbone not in timm.list_models(f"{stem}.*", pretrained=True):
        tags = timm.list_models(f"{stem}.*", pretrained=True)
        raise UnknownNameError(unknown_name("backbone", backbone, [stem, *tags]))


def cached(backbone: str) -> Path | None:
    """The hub's file for a backbone in this machine's cache, if it is there."""
    return _from_hub(backbone, download=False)


def _from_hub(backbone: str, download: bool) -> Path | None:
    """The hub's file for a backbone: from the cache, or fetched into it."""
    from huggingface_hub import hf_hub_download, try_to_load_from_cache
    from huggingface_hub.utils import EntryNotFoundError
    from timm.models import get_pretrained_cfg
    from torch.hub import download_url_to_file, get_dir

    config = get_pretrained_cfg(backbone)
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
def _why_unreachable() -> str | None:
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
