"""What a supervised run can be told, with defaults; what does not go together is said before any work."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from harness.backbones.normalization import Normalization
from harness.common.errors import ConfigError, nearest
from harness.config.spec import RunSpec

# `baseline`: one network for all labels. `one_class`: for each class one that tells its states apart.
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
# What a setting needs to have an effect: another one, and its values. ArcFace's head is always drawn by xavier.
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
    """Parameters of one supervised run.

    Attributes:
        image_size: (height, width) of the network's input.
        dropout: before the head.
        head_init: `xavier` draws the head's weights by Glorot and Bengio (2010). ArcFace always does so.
        head_activation: `silu` puts an activation between the pooled features and the head.
        loss: `arcface` is Deng et al. (2019), on the pooled features.
        label_smoothing: the share of the target that all labels get.
        focal_gamma: of the focal loss (Lin et al., 2017): `(1 - p) ** gamma` is the weight of an image.
        arcface_margin: degrees.
        arcface_scale: of the cosines.
        arcface_classes: classes whose images get the margin; an empty list means all.
        balance: against rare labels: `class_weights` in the loss, or a `sampler` of images.
        balance_strength: both go by `1 / (images of the label) ** strength`. With 1 all labels count alike; 0.5 is the
            square-root sampling of Kang et al. (2020), section 3.
        augment: of training images.
        mix: of training images.
        mix_alpha: of the beta distribution of `mix`.
        optimizer: of the training.
        lr: learning rate.
        weight_decay: of the optimizer.
        schedule: of the learning rate.
        schedule_epochs: the step, the first restart, or the plateau's patience.
        schedule_factor: a step or a plateau multiplies the learning rate by it.
        early_stopping: epochs without a better validation macro F1 after which the training ends; 0 for never.
        average: of weights in the training: `ema`, or `swa` over the last quarter.
        ema_decay: of `ema`, for each step.
        keep: the `last` epoch, or the `best` epoch by validation macro F1.
        tta: views whose probabilities are averaged: `none`, or several of flips, rotations, brightness joined by +.
        tensorboard: whether the training also writes curves for TensorBoard.
        normalization: of the input; None for the values of timm's default weights.
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
        """Of a spec.

        Raises:
            ConfigError: values that there are not, or that do not go together, all at once.
        """
        values = {"image_size": spec.image_size or (224, 224), **spec.parameters}
        settings = replace(cls.from_dict(values), normalization=spec.normalization)
        problems = [*settings._names(), *settings._numbers(), *settings._together()]
        if problems:
            raise ConfigError(problems)
        return settings

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Settings:
        """Of plain values, as a file holds them."""
        plain: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
        if plain.get("normalization") is not None:
            plain["normalization"] = Normalization.from_dict(plain["normalization"])
        return cls(**plain)

    def as_dict(self) -> dict[str, Any]:
        """Plain values for a file, as `from_dict` takes them."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        plain = {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}
        return {**plain, "normalization": self.normalization.as_dict() if self.normalization else None}

    @property
    def views(self) -> tuple[str, ...]:
        """The kinds of views that are averaged."""
        return () if self.tta == "none" else tuple(self.tta.split("+"))

    def _names(self) -> list[str]:
        problems = []
        for name, known in CHOICES.items():
            found = getattr(self, name)
            if found not in known:
                near = nearest(str(found), known)
                hint = f" Did you mean {near[0]}?" if near else ""
                problems.append(f"{name}: found {found!r}, expected one of {', '.join(known)}.{hint}")
        unknown = [view for view in self.views if view not in VIEWS]
        if unknown or len(set(self.views)) < len(self.views):
            problems.append(f"tta: found {self.tta!r}, expected none, or some of {', '.join(VIEWS)} joined by +.")
        return problems

    def _numbers(self) -> list[str]:
        return [
            f"{name}: found {getattr(self, name)}, expected a number from {low:g} to {high:g}."
            for name, (low, high) in LIMITS.items()
            if not low <= getattr(self, name) <= high
        ]

    def _together(self) -> list[str]:
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
    """Settings without effect beside the others, each with what would give it one."""
    return {
        name: f"{other} {' or '.join(wanted)}"
        for name, (other, wanted) in NEEDS.items()
        if values.get(other, DEFAULTS[other]) not in wanted
    }
