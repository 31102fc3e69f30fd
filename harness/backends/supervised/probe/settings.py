"""Settings of a probe with their defaults, and the checks of their values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from harness.backbones.normalization import Normalization
from harness.backends.supervised.settings import DEFAULT_SIZE, Settings
from harness.backends.supervised.settings import DEFAULTS as OF_TRAINING
from harness.backends.supervised.values import Values, without_effect
from harness.common.errors import ConfigError
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
class ProbeSettings(Values):
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

    choices = CHOICES
    limits = LIMITS

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
        size = spec.image_size or DEFAULT_SIZE
        settings = cls(image_size=size, normalization=spec.normalization, **spec.parameters)
        if problems := settings.problems():
            raise ConfigError(problems)
        return settings

    @property
    def of_network(self) -> Settings:
        """Settings of the frozen network."""
        return Settings(image_size=self.image_size, normalization=self.normalization)


DEFAULTS: Mapping[str, Any] = {
    "backbone": OF_TRAINING["backbone"],
    **ProbeSettings.defaults(),
}


def unused(values: Mapping[str, Any]) -> dict[str, str]:
    """Return the settings without effect, each with the values of another setting that would give it an effect."""
    complete = {**DEFAULTS, **values}
    useless = without_effect(NEEDS, values, DEFAULTS)
    if complete["probe_head"] == "knn" and complete["neighbor_weights"] == "equal":
        useless["temperature"] = "neighbor_weights balanced or similarity"
    return useless
