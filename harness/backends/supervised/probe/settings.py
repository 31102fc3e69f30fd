"""Settings of a probe with their defaults, and the checks of their values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from harness.backbones.normalization import Normalization
from harness.backends.supervised.settings import DEFAULTS as OF_TRAINING
from harness.backends.supervised.settings import Settings
from harness.common.errors import ConfigError, nearest
from harness.config.spec import RunSpec

MODEL = "probe"
CHOICES: Mapping[str, tuple[str, ...]] = {
    "probe_head": ("logistic", "knn", "prototype"),
    "neighbor_weights": ("balanced", "similarity", "equal"),
}
LIMITS: Mapping[str, tuple[float, float]] = {
    "C": (1e-6, 1e6),
    "num_neighbors": (1, 10_000),
    "temperature": (1e-3, 10),
}
# A setting has an effect only with these values of another setting.
NEEDS: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "C": ("probe_head", ("logistic",)),
    "num_neighbors": ("probe_head", ("knn",)),
    "neighbor_weights": ("probe_head", ("knn",)),
    "temperature": ("probe_head", ("knn", "prototype")),
}


@dataclass(frozen=True)
class ProbeSettings:
    """Settings of one probe.

    Attributes:
        image_size: (height, width) of the network's input.
        probe_head: the classifier on the frozen features. `logistic` is the logistic regression of scikit-learn with
            balanced labels, on standardised features. `knn` asks the most similar training images. `prototype` compares
            an image with the mean of each label (Snell et al., 2017).
        C: inverse strength of the L2 regularisation in the logistic regression, as in scikit-learn.
        num_neighbors: number of the most similar training images.
        neighbor_weights: votes of the neighbours: `similarity` for exp(cosine similarity / temperature) as Wu et al.
            (2018), or `equal`. `balanced` divides the votes of `similarity` by the number of training images of their
            label, so that frequent labels do not outvote rare ones.
        temperature: divisor of cosine similarities. The default is that of Wu et al. (2018).
        normalization: input normalisation; None for that of timm's default weights.
    """

    image_size: tuple[int, int]
    probe_head: str = "logistic"
    C: float = 0.1
    num_neighbors: int = 10
    neighbor_weights: str = "balanced"
    temperature: float = 0.07
    normalization: Normalization | None = None

    @classmethod
    def of(cls, spec: RunSpec) -> ProbeSettings:
        """Return the checked settings of a spec.

        Raises:
            ConfigError: lists all invalid values.
        """
        size = spec.image_size or (224, 224)
        settings = cls(image_size=size, normalization=spec.normalization, **spec.parameters)
        if problems := [*settings._choice_problems(), *settings._range_problems()]:
            raise ConfigError(problems)
        return settings

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ProbeSettings:
        """Return the settings of the plain values in a file; the inverse of `as_dict`."""
        height, width = values["image_size"]
        nested = values.get("normalization")
        normalization = None if nested is None else Normalization.from_dict(nested)
        return cls(**{**values, "image_size": (height, width), "normalization": normalization})

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for a file."""
        normalization = self.normalization.as_dict() if self.normalization else None
        return {**asdict(self), "image_size": list(self.image_size), "normalization": normalization}

    @property
    def of_network(self) -> Settings:
        """Settings of the frozen network."""
        return Settings(image_size=self.image_size, normalization=self.normalization)

    def _choice_problems(self) -> list[str]:
        problems = []
        for name, choices in CHOICES.items():
            value = getattr(self, name)
            if value not in choices:
                near = nearest(str(value), choices)
                hint = f" Did you mean {near[0]}?" if near else ""
                problems.append(f"{name}: found {value!r}, expected one of {', '.join(choices)}.{hint}")
        return problems

    def _range_problems(self) -> list[str]:
        return [
            f"{name}: found {getattr(self, name)!r}, expected a number from {low:g} to {high:g}."
            for name, (low, high) in LIMITS.items()
            if not low <= getattr(self, name) <= high
        ]


DEFAULTS: Mapping[str, Any] = {
    "backbone": OF_TRAINING["backbone"],
    **{f.name: f.default for f in fields(ProbeSettings) if f.name not in {"image_size", "normalization"}},
}


def unused(values: Mapping[str, Any]) -> dict[str, str]:
    """Return the settings without effect, each with the values of another setting that would give it an effect."""
    complete = {**DEFAULTS, **values}
    without_effect = {
        name: f"{other} {' or '.join(required)}"
        for name, (other, required) in NEEDS.items()
        if complete[other] not in required
    }
    if complete["probe_head"] == "knn" and complete["neighbor_weights"] == "equal":
        without_effect["temperature"] = "neighbor_weights balanced or similarity"
    return without_effect
