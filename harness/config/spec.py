"""RunSpec: one point of the grid in canonical form. Two equal specs are the same run."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cache
from hashlib import sha256
from typing import Any

from harness.backbones.normalization import Normalization
from harness.common.secrets import concealed
from harness.config.revisions import revisions

Layers = tuple[str | int, ...]
# Fields with another type in JSON than in the spec.
CONVERTED = {
    "layers",
    "image_size",
    "params",
    "trainer",
    "threshold",
    "normalization",
    "holdout",
    "protocol",
    "extra_metrics",
    "axes",
}


@dataclass(frozen=True)
class RunSpec:
    """All inputs of a run, except the contents of the images and of the weights.

    Attributes:
        backend: name of the backend, such as anomalib.
        model: name of the model, lower case, without separators.
        backbone, layers: None where the model has no such parameter.
        image_size: (height, width) in pixels; None for the model's default.
        params: other parameters of the model, with their defaults.
        seed: of all random numbers in the run.
        data_kind, category: kind and category of the data.
        weights: the policy: auto, pretrained, random or a path.
        trainer: arguments of Engine and Trainer.
        train_batch_size, eval_batch_size: images in a batch.
        threshold: options of F1Score's thresholds, see `harness.config.threshold.Threshold`; () in a classification.
        aupro_limit: upper limit of the false positive rate in AUPRO; None in a classification.
        normalization: of the network's input; None where the results are the same as in version 0.1. So these runs
            keep their identity. Version 0.1 used ImageNet's values for detection, and the values of timm's default
            weights for classification.
        holdout: `share` and `seed` of the test images that a search holds out; () without such images.
        rank: `synthetic` for a run that also scores synthetic defects; None for others, as in earlier versions.
        protocol: options of the pixel metrics that differ from the default, see `harness.config.protocol`; () for the
            default, as in earlier versions.
        extra_metrics: names of the metrics beside those of every run.
        n_train: number of normal images that the run may use, see `harness.data.subset`; None for all, as in earlier
            versions.
        unify: whether the model learns from the images of all categories, see `harness.data.unify`.
        axes: names of the axes in the grid, which tables show first. The axes are no part of the identity.
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
    holdout: tuple[tuple[str, Any], ...] = ()
    rank: str | None = None
    protocol: tuple[tuple[str, Any], ...] = ()
    extra_metrics: tuple[str, ...] = ()
    n_train: int | None = None
    unify: bool = False
    axes: tuple[str, ...] = field(default=(), compare=False)

    @property
    def parameters(self) -> dict[str, Any]:
        """`params` as a dictionary."""
        return {key: thaw(value) for key, value in self.params}

    def as_dict(self) -> dict[str, Any]:
        """Convert to plain values for JSON."""
        values = {name: getattr(self, name) for name in _always_recorded()}
        values |= {
            "layers": list(self.layers) if self.layers is not None else None,
            "image_size": list(self.image_size) if self.image_size else None,
            "params": self.parameters,
            "trainer": {key: thaw(value) for key, value in self.trainer},
            "threshold": dict(self.threshold),
        }
        values |= {"normalization": self.normalization.as_dict()} if self.normalization else {}
        values |= {"holdout": dict(self.holdout)} if self.holdout else {}
        values |= {"protocol": dict(self.protocol)} if self.protocol else {}
        values |= {"extra_metrics": list(self.extra_metrics)} if self.extra_metrics else {}
        values |= {"n_train": self.n_train} if self.n_train is not None else {}
        values |= {"unify": True} if self.unify else {}
        return values | ({"rank": self.rank} if self.rank else {})

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> RunSpec:
        """Convert from the plain values of `as_dict`, such as the `spec` of a record.

        Raises:
            KeyError, TypeError, ValueError, ConfigError: the mapping is no spec.
        """
        size, layers, normalization = values["image_size"], values["layers"], values.get("normalization")
        plain = {f.name: values[f.name] for f in fields(cls) if f.name in values and f.name not in CONVERTED}
        return cls(
            **plain,
            layers=None if layers is None else tuple(layers),
            image_size=None if size is None else (int(size[0]), int(size[1])),
            params=freeze_items(values["params"]),
            trainer=freeze_items(values["trainer"]),
            threshold=freeze_items(values["threshold"]),
            normalization=None if normalization is None else Normalization.from_dict(normalization),
            holdout=freeze_items(values.get("holdout") or {}),
            protocol=freeze_items(values.get("protocol") or {}),
            extra_metrics=tuple(values.get("extra_metrics") or ()),
        )

    def label(self, differing: Collection[str] | None = None) -> str:
        """A short name of the run, for messages and folders.

        Args:
            differing: parameters that differ from other runs; these get their full name. With None, all parameters in
                the grid get their initials.
        """
        parts = [self.model, self.backbone or "", "+".join(map(str, self.layers or ()))]
        if differing is None:
            parts += [f"{_initials(k)}{concealed(thaw(v))}" for k, v in self.params if k in self.axes]
        else:
            parts += [f"{k}={thaw(v)}" for k, v in (*self.params, ("seed", self.seed)) if k in differing]
        if self.normalization is not None and "normalization" in self.axes:
            parts.append(self.normalization.text)
        parts += [f"n{self.n_train}"] if self.n_train is not None else []
        parts += ["unified"] if self.unify else []
        parts += [f"{s}px" for s in ("x".join(map(str, dict.fromkeys(self.image_size or ()))),) if s]
        if self.backend != "anomalib":
            parts.insert(0, self.backend)
        if self.category:
            parts.insert(0, self.category)
        return " ".join(part for part in parts if part)


@cache
def _always_recorded() -> tuple[str, ...]:
    """The fields that every record has, in the order of the fields."""
    optional = {"normalization", "holdout", "rank", "protocol", "extra_metrics", "n_train", "unify", "axes"}
    return tuple(field.name for field in fields(RunSpec) if field.name not in optional)


def run_id(spec: RunSpec, fingerprint: str, weights_hash: str | None) -> str:
    """The identity of a run: a readable slug and a short hash.

    Args:
        spec: of the run.
        fingerprint: hash of the data.
        weights_hash: hash of the weights file; None without a file.
    """
    values = spec.as_dict()
    # The name of a normalization has no effect on the results.
    values.get("normalization", {}).pop("name", None)
    identity: dict[str, Any] = {"spec": values, "data": fingerprint, "weights": weights_hash}
    if names := revisions(spec):
        identity["revisions"] = names
    digest = sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:8]
    return f"{slug(spec)}-{digest}"


def slug(spec: RunSpec) -> str:
    """A readable name for a folder, without values from environment variables. Several specs may have the same slug."""
    return re.sub(r"[^A-Za-z0-9._+-]+", "-", f"{spec.label()} s{spec.seed}").strip("-.")[:90]


def freeze_items(mapping: Mapping[str, Any]) -> tuple[tuple[str, Any], ...]:
    """Convert a mapping to sorted pairs, so that Python can hash a spec."""
    return tuple(sorted((str(key), freeze(item)) for key, item in mapping.items()))


def freeze(value: Any) -> Any:
    """Convert lists to tuples, and a mapping to a tuple that begins with `dict`."""
    if isinstance(value, Mapping):
        return (dict, freeze_items(value))
    if isinstance(value, list | tuple):
        return tuple(freeze(item) for item in value)
    return value


def thaw(value: Any) -> Any:
    """Reverse `freeze`, for JSON and for the arguments of a model. All tuples become lists."""
    if isinstance(value, tuple) and len(value) == 2 and value[0] is dict:
        return {key: thaw(item) for key, item in value[1]}
    return [thaw(item) for item in value] if isinstance(value, tuple) else value


def differing(specs: Sequence[RunSpec]) -> set[str]:
    """Names of the parameters, and `seed`, with several values in the specs.

    Within a model, the absence of a parameter is a value too.

    Args:
        specs: of the runs that are compared.
    """
    values: dict[str, set[Any]] = {}
    specs_of: Counter[tuple[str, str]] = Counter()
    specs_with: Counter[tuple[str, str, str]] = Counter()
    for spec in specs:
        model = (spec.backend, spec.model)
        specs_of[model] += 1
        for name, value in (*spec.params, ("seed", spec.seed)):
            values.setdefault(name, set()).add(value)
            specs_with[*model, name] += 1
    partial = {name for (*model, name), count in specs_with.items() if count < specs_of[model[0], model[1]]}
    return partial | {name for name, distinct in values.items() if len(distinct) > 1}


def _initials(name: str) -> str:
    """The initials of a name, such as csr of coreset_sampling_ratio."""
    return "".join(word[0] for word in name.split("_") if word)
