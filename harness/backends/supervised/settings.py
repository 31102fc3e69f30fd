"""Settings of a supervised run with their defaults; a check reports values that exclude each other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from math import degrees
from typing import Any

from harness.backbones.normalization import Normalization
from harness.backends.supervised.tta import AVERAGES, NONE, Views, tta_problems, views_of
from harness.backends.supervised.tta import canonical as canonical_tta
from harness.backends.supervised.values import Values, without_effect
from harness.common.errors import ConfigError
from harness.config.spec import RunSpec

# `baseline`: one network for all labels. `one_class`: one network for the conditions of each class.
MODELS = ("baseline", "one_class")

CHOICES: Mapping[str, tuple[str, ...]] = {
    "head": ("pooled", "logits"),
    "head_init": ("default", "xavier"),
    "head_activation": ("none", "silu"),
    "loss": ("cross_entropy", "focal", "arcface"),
    "arcface_unit": ("degrees", "radians"),
    "balance": ("none", "class_weights", "sampler"),
    "augment": ("none", "flips", "rotate45", "heavy", "autoaugment", "randaugment"),
    "mix": ("none", "mixup", "cutmix", "mixup+cutmix"),
    "weight_decay_on": ("weights", "all"),
    "schedule": ("none", "plateau", "step", "cosine", "cosine_restarts", "one_cycle"),
    "average": ("none", "ema", "swa"),
    "keep": ("last", "best"),
    "bn_statistics": ("running", "recomputed"),
    "monitor": ("macro_F1", "loss"),
    "combine_repeats": ("mean", "vote"),
    "tta_average": AVERAGES,
}
OPTIONAL = ("bn_momentum", "bn_statistics")  # their default is None
# A setting has an effect only with these values of another setting. ArcFace's head always has Xavier's initialisation.
NEEDS: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "head_init": ("loss", ("cross_entropy", "focal")),
    "focal_gamma": ("loss", ("focal",)),
    "arcface_margin": ("loss", ("arcface",)),
    "arcface_scale": ("loss", ("arcface",)),
    "arcface_classes": ("loss", ("arcface",)),
    "arcface_labels": ("loss", ("arcface",)),
    "arcface_unit": ("loss", ("arcface",)),
    "balance_strength": ("balance", ("class_weights", "sampler")),
    "mix_alpha": ("mix", ("mixup", "cutmix", "mixup+cutmix")),
    "mix_probability": ("mix", ("mixup", "cutmix", "mixup+cutmix")),
    "schedule_epochs": ("schedule", ("plateau", "step", "cosine_restarts")),
    "schedule_factor": ("schedule", ("plateau", "step")),
    "warmup_epochs": ("schedule", ("none", "step", "cosine", "cosine_restarts")),
    "eta_min": ("schedule", ("cosine", "cosine_restarts")),
    "t_mult": ("schedule", ("cosine_restarts",)),
    "ema_decay": ("average", ("ema",)),
}
WITHOUT = "none"  # with_detector: no detector
DEFAULT_SIZE = (224, 224)  # pixels
LIMITS: Mapping[str, tuple[float, float]] = {
    "dropout": (0, 0.95),
    "drop_path_rate": (0, 0.95),
    "label_smoothing": (0, 0.95),
    "focal_gamma": (0, 10),
    "arcface_margin": (0, 90),
    "arcface_scale": (1, 200),
    "balance_strength": (0, 1),
    "mix_alpha": (1e-3, 100),
    "mix_probability": (0.01, 1),
    "lr": (1e-9, 10),
    "weight_decay": (0, 10),
    "schedule_epochs": (1, 10_000),
    "schedule_factor": (1e-6, 1),
    "warmup_epochs": (0, 10_000),
    "eta_min": (0, 10),
    "t_mult": (1, 100),
    "early_stopping": (0, 10_000),
    "ema_decay": (0, 0.999999),
    "bn_momentum": (1e-4, 1),
    "repeats": (1, 1000),
}


@dataclass(frozen=True)
class Settings(Values):
    """Settings of one run.

    Attributes:
        image_size: (height, width) of the network's input.
        dropout: dropout rate before the head.
        drop_path_rate: rate of stochastic depth in the backbone (Huang et al., 2016), at its last block.
        head: input of the head: `pooled` features, or the `logits` of the backbone's own classifier, such as those of
            ImageNet's 1000 classes. With logits, dropout comes before the activation, and after it otherwise.
        head_init: `xavier` initialises the head's weights by Glorot and Bengio (2010).
        head_activation: `silu` adds a SiLU between the backbone and the head.
        loss: `cross_entropy`, `focal`, or `arcface` of Deng et al. (2019) on the pooled features.
        label_smoothing: share of the target that is spread over all labels.
        focal_gamma: exponent of the focal loss (Lin et al., 2017), whose weight is (1 - p) ** gamma.
        arcface_margin: margin on the angle, in the unit of `arcface_unit`.
        arcface_unit: unit of the margin.
        arcface_scale: factor of the cosines.
        arcface_classes: classes whose images get the margin; empty for all classes.
        arcface_labels: labels whose images get the margin; empty for all labels. A name may have wildcards, and !
            before it excludes labels. The null label of a one-class network never gets the margin.
        balance: correction of unequal label counts: `class_weights` in the loss, or a `sampler` of images.
        balance_strength: both use 1 / (images of the label) ** strength. 1 gives all labels the same total weight; 0.5
            is the square-root sampling of Kang et al. (2020), section 3.
        augment: augmentation of training images. All but `none` flip them. `heavy` also rotates them, by multiples of
            90 degrees (180 if they are not square) and by up to 45 degrees.
        mix: mixing of training images. With `mixup+cutmix`, each batch gets one of both at random.
        mix_alpha: parameter of the Beta distribution of the mixing ratio.
        mix_probability: probability that a batch is mixed.
        optimizer: timm's name of the optimiser, such as adamw, sgd, lamb or lion. The weight decay of radam is
            decoupled.
        lr: learning rate.
        weight_decay: weight decay of the optimiser.
        weight_decay_on: parameters with weight decay: `weights` for all but norms and biases (timm's two groups), or
            `all`, as in earlier versions.
        schedule: learning rate schedule. `cosine` falls from `lr` to `eta_min` once, until the end of the training.
        schedule_epochs: epochs of a step, epochs to the first restart, or the patience of the plateau.
        schedule_factor: factor of the learning rate at a step or plateau.
        warmup_epochs: epochs of a linear rise to `lr`, before the schedule.
        eta_min: smallest learning rate of a cosine.
        t_mult: factor of the epochs between two restarts, after each restart.
        early_stopping: epochs without a better epoch after which the training ends; 0 for no limit.
        monitor: validation metric that says which epoch is better, for `early_stopping` and `keep: best`. The loss is
            cross entropy without smoothing and weights.
        average: average of the weights during training: `ema` at each step, or `swa` over the last quarter of epochs.
        ema_decay: decay of `ema` for each step. Early steps have a smaller decay, (1 + step) / (10 + step).
        bn_momentum: share of a new batch in the running statistics of batch normalisation; null for that of the
            network, mostly 0.1.
        bn_statistics: statistics of batch normalisation for predictions: `running`, or `recomputed` from at most 1,024
            training images after each epoch. null is `recomputed` with an `average`, and `running` otherwise.
        keep: the epoch of the final weights: the `last`, or the `best` by `monitor`.
        eval_image_size: size of the images that a trained network predicts, in pixels or [height, width]; the default
            is that of the training. Runs that differ only in this size share their networks.
        tta: views for test-time augmentation. `none`; or the image with several of flips, rotations, brightness joined
            by +; or a mapping with `flips`, `rotations`, `scales`, `multiply`, whose values are combined with each
            other.
        tta_average: what is averaged over the views.
        tensorboard: whether the curves are also written for TensorBoard.
        with_detector: a native detector whose score changes good against not good inside each class: its name, or a
            mapping with `model` and parameters of the detector. Backbone, weights and image size are those of the
            network, unless the mapping has others.
        normalization: input normalisation; None for that of timm's default weights.
        only_classes: classes with networks; empty for all. All images train these networks. The labels of the other
            classes share the probability of null.
        repeats: networks of each class and fold, with different seeds.
        combine_repeats: the repeats decide by the `mean` of their probabilities, null included; or by a `vote`, in
            which each network has one vote, and null wins a tie.
    """

    choices = CHOICES
    limits = LIMITS
    optional = OPTIONAL

    image_size: tuple[int, int]
    dropout: float = 0.0
    drop_path_rate: float = 0.0
    head: str = "pooled"
    head_init: str = "default"
    head_activation: str = "none"
    loss: str = "cross_entropy"
    label_smoothing: float = 0.0
    focal_gamma: float = 2.0
    arcface_margin: float = 28.6
    arcface_unit: str = "degrees"
    arcface_scale: float = 30.0
    arcface_classes: tuple[str, ...] = ()
    arcface_labels: tuple[str, ...] = ()
    balance: str = "none"
    balance_strength: float = 1.0
    augment: str = "flips"
    mix: str = "none"
    mix_alpha: float = 0.2
    mix_probability: float = 1.0
    optimizer: str = "adamw"
    lr: float = 2e-4
    weight_decay: float = 2e-2
    weight_decay_on: str = "weights"
    schedule: str = "none"
    schedule_epochs: int = 5
    schedule_factor: float = 0.5
    warmup_epochs: int = 0
    eta_min: float = 0.0
    t_mult: int = 1
    early_stopping: int = 0
    monitor: str = "macro_F1"
    average: str = "none"
    ema_decay: float = 0.99
    keep: str = "last"
    eval_image_size: int | tuple[int, int] | None = None
    tta: str | Mapping[str, Any] = NONE
    tta_average: str = AVERAGES[0]
    tensorboard: bool = False
    bn_momentum: float | None = None
    bn_statistics: str | None = None
    with_detector: str | Mapping[str, Any] = WITHOUT
    normalization: Normalization | None = None
    only_classes: tuple[str, ...] = ()
    repeats: int = 1
    combine_repeats: str = "mean"

    @classmethod
    def of(cls, spec: RunSpec) -> Settings:
        """Return the checked settings of a spec.

        Raises:
            ConfigError: lists all values that are invalid or exclude each other.
        """
        values = {"image_size": spec.image_size or DEFAULT_SIZE, **spec.parameters}
        settings = replace(cls.from_dict(values), normalization=spec.normalization)
        if problems := settings.problems():
            raise ConfigError(problems)
        return settings

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Settings:
        """Return the settings of the plain values in a file, without a check."""
        complete = {**IMPLIED, **values}
        # A single name is a list of one name.
        names = [f.name for f in fields(cls) if isinstance(f.default, tuple)]
        complete |= {name: (complete[name],) for name in names if isinstance(complete.get(name), str)}
        return super().from_dict(complete)

    @property
    def eval_size(self) -> tuple[int, int]:
        """(height, width) of the images that a trained network predicts."""
        size = self.eval_image_size
        if size is None:
            return self.image_size
        return (size, size) if isinstance(size, int) else size

    @property
    def views(self) -> Views:
        """The views of a prediction."""
        return Views(views_of(self.tta), self.tta_average)

    @property
    def margin_degrees(self) -> float:
        """ArcFace's margin in degrees."""
        return degrees(self.arcface_margin) if self.arcface_unit == "radians" else self.arcface_margin

    @property
    def recomputes_statistics(self) -> bool:
        """Whether the statistics of batch normalisation are computed anew after each epoch."""
        return (self.bn_statistics or ("running" if self.average == "none" else "recomputed")) == "recomputed"

    def problems(self) -> list[str]:
        """Return one sentence for each value that is invalid, or that another value excludes."""
        return [*super().problems(), *self._combination_problems()]

    def _combination_problems(self) -> list[str]:
        problems = []
        if self.loss == "arcface" and self.mix != "none":
            problems.append(f"mix: found {self.mix} with loss arcface, whose margin needs one label; expected none.")
        if self.margin_degrees > LIMITS["arcface_margin"][1]:
            problems.append(f"arcface_margin: found {self.arcface_margin} radians; expected at most 1.57.")
        if self.eta_min > self.lr:
            problems.append(f"eta_min: found {self.eta_min}, above lr {self.lr}; expected a smaller learning rate.")
        return [*problems, *tta_problems(self.tta, self.eval_size)]


DEFAULTS: Mapping[str, Any] = {
    "backbone": "tf_efficientnet_b0",
    **Settings.defaults(),
}

# What a record without the setting means: the behaviour before the setting existed. A new setting has a line here.
IMPLIED: Mapping[str, Any] = {
    "weight_decay_on": "all",
    "warmup_epochs": 0,
    "eta_min": 0.0,
    "t_mult": 1,
    "head": "pooled",
    "drop_path_rate": 0.0,
    "arcface_unit": "degrees",
    "arcface_labels": [],
    "monitor": "macro_F1",
    "mix_probability": 1.0,
    "only_classes": [],
    "repeats": 1,
    "combine_repeats": "mean",
    "with_detector": WITHOUT,
    "eval_image_size": None,
    "tta_average": AVERAGES[0],
}


def canonical(values: Mapping[str, Any], image_size: tuple[int, int] | None) -> Mapping[str, Any]:
    """Return the values of a point in one form, so that points with equal results are one run.

    Args:
        values: the settings.
        image_size: (height, width) in the training; None for the default.
    """
    changed = dict(values)
    if "tta" in values:
        changed["tta"] = canonical_tta(values["tta"])
    size = values.get("eval_image_size")
    if size is not None:
        height, width = (size, size) if isinstance(size, int) else size
        same = (height, width) == (image_size or DEFAULT_SIZE)
        changed["eval_image_size"] = None if same else height if height == width else [height, width]
    return changed


def unused(values: Mapping[str, Any], model: str) -> dict[str, str]:
    """Return the settings without effect, each with the values of another setting that would give it an effect.

    Args:
        values: the settings.
        model: baseline or one_class.
    """
    useless = without_effect(NEEDS, values, DEFAULTS)
    complete = {**DEFAULTS, **values}
    if not complete["weight_decay"]:
        useless["weight_decay_on"] = "weight_decay above 0"
    if complete["keep"] != "best" and not complete["early_stopping"]:
        useless["monitor"] = "keep best, or early_stopping above 0"
    if complete["tta"] == NONE:
        useless["tta_average"] = "tta with several views"
    if complete["repeats"] == 1:
        useless["combine_repeats"] = "repeats above 1"
    if model != "one_class":
        useless |= dict.fromkeys(("only_classes", "repeats", "combine_repeats"), "model one_class")
    return useless
