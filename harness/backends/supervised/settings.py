"""Settings of a supervised run with their defaults; a check reports values that exclude each other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from harness.backbones.normalization import Normalization
from harness.common.errors import ConfigError, nearest
from harness.config.spec import RunSpec

# `baseline`: one network for all labels. `one_class`: one network for the conditions of each class.
MODELS = ("baseline", "one_class")

CHOICES: Mapping[str, tuple[str, ...]] = {
    "head_init": ("default", "xavier"),
    "head_activation": ("none", "silu"),
    "loss": ("cross_entropy", "focal", "arcface"),
    "balance": ("none", "class_weights", "sampler"),
    "augment": ("none", "flips", "rotate45", "heavy", "autoaugment", "randaugment"),
    "mix": ("none", "mixup", "cutmix"),
    "optimizer": ("adamw", "adam", "radam", "sgd"),
    "schedule": ("none", "plateau", "step", "cosine_restarts", "one_cycle"),
    "average": ("none", "ema", "swa"),
    "keep": ("last", "best"),
}
# A setting has an effect only with these values of another setting. ArcFace's head always has Xavier's initialisation.
NEEDS: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "head_init": ("loss", ("cross_entropy", "focal")),
    "focal_gamma": ("loss", ("focal",)),
    "arcface_margin": ("loss", ("arcface",)),
    "arcface_scale": ("loss", ("arcface",)),
    "arcface_classes": ("loss", ("arcface",)),
    "balance_strength": ("balance", ("class_weights", "sampler")),
    "mix_alpha": ("mix", ("mixup", "cutmix")),
    "schedule_epochs": ("schedule", ("plateau", "step", "cosine_restarts")),
    "schedule_factor": ("schedule", ("plateau", "step")),
    "ema_decay": ("average", ("ema",)),
}
VIEWS = ("flips", "rotations", "brightness")
LIMITS: Mapping[str, tuple[float, float]] = {
    "dropout": (0, 0.95),
    "label_smoothing": (0, 0.95),
    "focal_gamma": (0, 10),
    "arcface_margin": (0, 90),
    "arcface_scale": (1, 200),
    "balance_strength": (0, 1),
    "mix_alpha": (1e-3, 100),
    "lr": (1e-9, 10),
    "weight_decay": (0, 10),
    "schedule_epochs": (1, 10_000),
    "schedule_factor": (1e-6, 1),
    "early_stopping": (0, 10_000),
    "ema_decay": (0, 0.999999),
}


@dataclass(frozen=True)
class Settings:
    """Settings of one run.

    Attributes:
        image_size: (height, width) of the network's input.
        dropout: dropout rate before the head.
        head_init: `xavier` initialises the head's weights by Glorot and Bengio (2010).
        head_activation: `silu` adds a SiLU between the pooled features and the head.
        loss: `cross_entropy`, `focal`, or `arcface` of Deng et al. (2019) on the pooled features.
        label_smoothing: share of the target that is spread over all labels.
        focal_gamma: exponent of the focal loss (Lin et al., 2017), whose weight is (1 - p) ** gamma.
        arcface_margin: margin in degrees.
        arcface_scale: factor of the cosines.
        arcface_classes: classes whose images get the margin; empty for all classes.
        balance: correction of unequal label counts: `class_weights` in the loss, or a `sampler` of images.
        balance_strength: both use 1 / (images of the label) ** strength. 1 gives all labels the same total weight; 0.5
            is the square-root sampling of Kang et al. (2020), section 3.
        augment: augmentation of training images.
        mix: mixing of training images.
        mix_alpha: parameter of the Beta distribution of the mixing ratio.
        optimizer: name of the optimiser.
        lr: learning rate.
        weight_decay: weight decay of the optimiser.
        schedule: learning rate schedule.
        schedule_epochs: epochs of a step, epochs to the first restart, or the patience of the plateau.
        schedule_factor: factor of the learning rate at a step or plateau.
        early_stopping: epochs without a better validation macro F1 after which the training ends; 0 for no limit.
        average: average of the weights during training: `ema` at each step, or `swa` over the last quarter of epochs.
        ema_decay: decay of `ema` for each step.
        keep: the epoch of the final weights: the `last`, or the `best` by validation macro F1.
        tta: views for test-time augmentation: none, or several of flips, rotations, brightness joined by +.
        tensorboard: whether the curves are also written for TensorBoard.
        normalization: input normalisation; None for that of timm's default weights.
    """

    image_size: tuple[int, int]
    dropout: float = 0.0
    head_init: str = "default"
    head_activation: str = "none"
    loss: str = "cross_entropy"
    label_smoothing: float = 0.0
    focal_gamma: float = 2.0
    arcface_margin: float = 28.6
    arcface_scale: float = 30.0
    arcface_classes: tuple[str, ...] = ()
    balance: str = "none"
    balance_strength: float = 1.0
    augment: str = "flips"
    mix: str = "none"
    mix_alpha: float = 0.2
    optimizer: str = "adamw"
    lr: float = 2e-4
    weight_decay: float = 2e-2
    schedule: str = "none"
    schedule_epochs: int = 5
    schedule_factor: float = 0.5
    early_stopping: int = 0
    average: str = "none"
    ema_decay: float = 0.99
    keep: str = "last"
    tta: str = "none"
    tensorboard: bool = False
    normalization: Normalization | None = None

    @classmethod
    def of(cls, spec: RunSpec) -> Settings:
        """Return the checked settings of a spec.

        Raises:
            ConfigError: lists all values that are invalid or exclude each other.
        """
        values = {"image_size": spec.image_size or (224, 224), **spec.parameters}
        settings = replace(cls.from_dict(values), normalization=spec.normalization)
        problems = [*settings._choice_problems(), *settings._range_problems(), *settings._combination_problems()]
        if problems:
            raise ConfigError(problems)
        return settings

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Settings:
        """Return the settings of the plain values in a file, without a check."""
        plain: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
        if plain.get("normalization") is not None:
            plain["normalization"] = Normalization.from_dict(plain["normalization"])
        return cls(**plain)

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for a file; the inverse of `from_dict`."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        plain = {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}
        return {**plain, "normalization": self.normalization.as_dict() if self.normalization else None}

    @property
    def views(self) -> tuple[str, ...]:
        """Kinds of the averaged views."""
        return () if self.tta == "none" else tuple(self.tta.split("+"))

    def _choice_problems(self) -> list[str]:
        problems = []
        for name, choices in CHOICES.items():
            value = getattr(self, name)
            if value not in choices:
                near = nearest(str(value), choices)
                hint = f" Did you mean {near[0]}?" if near else ""
                problems.append(f"{name}: found {value!r}, expected one of {', '.join(choices)}.{hint}")
        unknown = [view for view in self.views if view not in VIEWS]
        if unknown or len(set(self.views)) < len(self.views):
            problems.append(f"tta: found {self.tta!r}, expected none, or some of {', '.join(VIEWS)} joined by +.")
        return problems

    def _range_problems(self) -> list[str]:
        return [
            f"{name}: found {getattr(self, name)}, expected a number from {low:g} to {high:g}."
            for name, (low, high) in LIMITS.items()
            if not low <= getattr(self, name) <= high
        ]

    def _combination_problems(self) -> list[str]:
        problems = []
        if self.loss == "arcface" and self.mix != "none":
            problems.append(f"mix: found {self.mix} with loss arcface, whose margin needs one label; expected none.")
        if self.loss == "arcface" and self.label_smoothing:
            problems.append(f"label_smoothing: found {self.label_smoothing} with loss arcface; expected 0.")
        if "rotations" in self.views and self.image_size[0] != self.image_size[1]:
            height, width = self.image_size
            problems.append(f"tta: found rotations with images of {height} x {width}; expected square images.")
        return problems


DEFAULTS: Mapping[str, Any] = {
    "backbone": "tf_efficientnet_b0",
    **{
        f.name: list(f.default) if isinstance(f.default, tuple) else f.default
        for f in fields(Settings)
        if f.name not in {"image_size", "normalization"}
    },
}


def unused(values: Mapping[str, Any]) -> dict[str, str]:
    """Return the settings without effect, each with the values of another setting that would give it an effect."""
    return {
        name: f"{other} {' or '.join(required)}"
        for name, (other, required) in NEEDS.items()
        if values.get(other, DEFAULTS[other]) not in required
    }
