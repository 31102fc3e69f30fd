"""RunSpec: one point of the grid, canonical, so that two equal specs are the same run."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, fields
from hashlib import sha256
from typing import Any

from harness.backbones.normalization import Normalization
from harness.common.secrets import concealed
from harness.config.revisions import revisions

Layers = tuple[str | int, ...]
REFROZEN = {"layers", "image_size", "params", "trainer", "threshold", "normalization", "axes"}


@dataclass(frozen=True)
class RunSpec:
    """Everything that a result depends on, apart from the data's and the weights' contents.

    Attributes:
        backend: "anomalib" ...
        model: the model's name, lower case, without separators.
        backbone, layers: None where the model has no such parameter.
        image_size: (height, width) in pixels, None for the model's own.
        params: the model's other parameters, defaults filled in.
        seed: of everything random in the run.
        data_kind, category: which data.
        weights: the policy: auto, pretrained, random or a path.
        trainer: Engine and Trainer arguments.
        train_batch_size, eval_batch_size: images.
        threshold: how F1Score's thresholds are fixed; see `harness.config.threshold.Threshold`.
        aupro_limit: largest false positive rate that counts for AUPRO.
            Both are of detection only: () and None in a classification.
        normalization: of the network's input, where it gives other results than version 0.1 did; None where it gives
            the same, so that the runs of 0.1 keep their identity. 0.1 took ImageNet's for detection, and those of
            timm's default weights for classification.
        axes: the names that the grid sets; what a reader wants to see first. No part of the identity.
    """

    backend: str
    model: str
    backbone: str | None
    layers: Layers | None
    image_size: tuple[int, int] | None
    params: tuple[tuple[str, Any], ...]
    seed: int
    data_kind: str
    category: str
    weights: str
    trainer: tuple[tuple[str, Any], ...]
    train_batch_size: int
    eval_batch_size: int
    threshold: tuple[tuple[str, Any], ...]
    aupro_limit: float | None
    normalization: Normalization | None = None
    axes: tuple[str, ...] = field(default=(), compare=False)

    @property
    def parameters(self) -> dict[str, Any]:
        """`params` as a dictionary."""
        return {key: thaw(value) for key, value in self.params}

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "backend": self.backend,
            "model": self.model,
            "backbone": self.backbone,
            "layers": list(self.layers) if self.layers is not None else None,
            "image_size": list(self.image_size) if self.image_size else None,
            "params": self.parameters,
            "seed": self.seed,
            "data_kind": self.data_kind,
            "category": self.category,
            "weights": self.weights,
            "trainer": {key: thaw(value) for key, value in self.trainer},
            "train_batch_size": self.train_batch_size,
            "eval_batch_size": self.eval_batch_size,
            "threshold": dict(self.threshold),
            "aupro_limit": self.aupro_limit,
            **({"normalization": self.normalization.as_dict()} if self.normalization else {}),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> RunSpec:
        """From `as_dict`, as a record holds it.

        Raises:
            KeyError, TypeError, ValueError, ConfigError: it is no such mapping.
        """
        size, layers, input_ = values["image_size"], values["layers"], values.get("normalization")
        plain = {f.name: values[f.name] for f in fields(cls) if f.name in values and f.name not in REFROZEN}
        return cls(
            **plain,
            layers=None if layers is None else tuple(layers),
            image_size=None if size is None else (int(size[0]), int(size[1])),
            params=freeze_items(values["params"]),
            trainer=freeze_items(values["trainer"]),
            threshold=freeze_items(values["threshold"]),
            normalization=None if input_ is None else Normalization.from_dict(input_),
        )

    def label(self, differing: Collection[str] | None = None) -> str:
        """A short name: with the initials of all that the grid sets, or in full with what differs from other runs.

        Args:
            differing: parameters that do; None for the initials.
        """
        parts = [self.model, self.backbone or "", "+".join(map(str, self.layers or ()))]
        if differing is None:
            parts += [f"{_initials(k)}{concealed(thaw(v))}" for k, v in self.params if k in self.axes]
        else:
            parts += [f"{k}={thaw(v)}" for k, v in (*self.params, ("seed", self.seed)) if k in differing]
        if self.normalization is not None and "normalization" in self.axes:
            parts.append(self.normalization.text)
        parts += [f"{s}px" for s in ("x".join(map(str, dict.fromkeys(self.image_size or ()))),) if s]
        if self.backend != "anomalib":
            parts.insert(0, self.backend)
        if self.category:
            parts.insert(0, self.category)
        return " ".join(part for part in parts if part)


def run_id(spec: RunSpec, fingerprint: str, weights_hash: str | None) -> str:
    """A readable slug and a short hash of the spec, the data and, where they lie in a file, the weights."""
    values = spec.as_dict()
    # What it is called changes nothing.
    values.get("normalization", {}).pop("name", None)
    identity: dict[str, Any] = {"spec": values, "data": fingerprint, "weights": weights_hash}
    if found := revisions(spec):
        identity["revisions"] = found
    digest = sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:8]
    return f"{slug(spec)}-{digest}"


def slug(spec: RunSpec) -> str:
    """A readable name for a folder; specs may share it. What came from the environment is no part of it."""
    return re.sub(r"[^A-Za-z0-9._+-]+", "-", f"{spec.label()} s{spec.seed}").strip("-.")[:90]


def freeze_items(mapping: Mapping[str, Any]) -> tuple[tuple[str, Any], ...]:
    """A mapping as sorted pairs, so that a spec can be hashed."""
    return tuple(sorted((str(key), freeze(item)) for key, item in mapping.items()))


def freeze(value: Any) -> Any:
    """Lists as tuples, a mapping as a tuple that begins with `dict`."""
    if isinstance(value, Mapping):
        return (dict, freeze_items(value))
    if isinstance(value, list | tuple):
        return tuple(freeze(item) for item in value)
    return value


def thaw(value: Any) -> Any:
    """The reverse of `freeze`, with lists for tuples: for JSON and for a model's arguments."""
    if isinstance(value, tuple) and len(value) == 2 and value[0] is dict:
        return {key: thaw(item) for key, item in value[1]}
    return [thaw(item) for item in value] if isinstance(value, tuple) else value


def differing(specs: Sequence[RunSpec]) -> set[str]:
    """Parameters, and `seed`, that are not the same in all specs that have them."""
    values: dict[str, set[Any]] = {}
    for spec in specs:
        for name, value in (*spec.params, ("seed", spec.seed)):
            values.setdefault(name, set()).add(value)
    return {name for name, found in values.items() if len(found) > 1}


def _initials(name: str) -> str:
    """coreset_sampling_ratio -> csr."""
    return "".join(word[0] for word in name.split("_") if word)
