"""Checks before any training for problems that would make a spec fail, one sentence each."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from importlib.util import find_spec

import lightning.pytorch as pl
import torch
from timm.optim import create_optimizer_v2, list_optimizers

from harness.backbones.networks import known_backbone
from harness.backends.checks import check_weights, collected
from harness.backends.supervised.class_detectors import detector_problems
from harness.backends.supervised.margins import unmatched, with_margin
from harness.backends.supervised.network import Classifier, refusal
from harness.backends.supervised.one_class import classes
from harness.backends.supervised.recipes import EPOCHS, settings_of
from harness.backends.supervised.settings import WITHOUT, Settings
from harness.backends.supervised.tta import View
from harness.common.devices import pick
from harness.common.errors import ConfigError, nearest
from harness.config.spec import RunSpec, thaw
from harness.data.labelled.base import LabelledSplit

# Arguments of Lightning's Trainer that the harness sets: each epoch uses all images, and a full validation follows.
RESERVED = {"callbacks", "logger", "default_root_dir", "enable_progress_bar", "enable_model_summary", "max_steps",
            "num_sanity_val_steps", "reload_dataloaders_every_n_epochs", "enable_checkpointing", "max_time",
            "use_distributed_sampler", "num_nodes", "accelerator", "check_val_every_n_epoch", "val_check_interval",
            "limit_train_batches", "limit_val_batches", "limit_test_batches", "limit_predict_batches", "fast_dev_run",
            "overfit_batches", "barebones", "inference_mode"}  # fmt: skip
PRECISIONS = (32, "32", "32-true", "16-mixed", "bf16-mixed")
# Strategies whose processes start inside the sweep. Other strategies run the whole command again in each process.
SPAWNING = ("ddp_spawn", "ddp_fork")
# Optimisers that need second derivatives, for which a training has no second backward pass.
SECOND_ORDER = ("adahessian",)


def check_specs(specs: Sequence[RunSpec], splits: Mapping[str, LabelledSplit], device: str) -> list[str]:
    """Return the problems of all specs, each once.

    Args:
        specs: the planned runs.
        splits: their data, by category.
        device: auto, cpu, cuda, cuda:N or mps.
    """
    problems: dict[str, None] = {}
    checked: set[object] = set()
    architectures: dict[tuple[str, tuple[int, int], str, float], list[Settings]] = {}
    with collected(problems):
        pick(device)
    for spec in specs:
        split = splits[spec.category]
        problems.update(dict.fromkeys(_trainer_problems(spec)))
        with collected(problems):
            settings, _ = settings_of(spec, split)
            problems.update(dict.fromkeys(_data_problems(spec, settings, split)))
            problems.update(dict.fromkeys(_optimizer_problems(settings.optimizer)))
            problems.update(dict.fromkeys(_warmup_problems(spec, settings)))
            if settings.with_detector != WITHOUT:
                problems.update(dict.fromkeys(detector_problems(settings.with_detector, spec, split, device)))
            known_backbone(str(spec.backbone))
            check_weights(spec.weights, str(spec.backbone), checked)
            architecture = (str(spec.backbone), settings.image_size, settings.head, settings.drop_path_rate)
            architectures.setdefault(architecture, []).append(settings)
    for (backbone, *_), of_network in architectures.items():
        problems.update(dict.fromkeys(network_problems(backbone, of_network)))
    return list(problems)


def network_problems(backbone: str, of_network: Sequence[Settings]) -> Iterator[str]:
    """Build a network, and yield why it cannot be built, or cannot predict images of the wanted sizes.

    Args:
        backbone: timm's name.
        of_network: settings of all runs with this network. They may differ in the images that it predicts.
    """
    settings = of_network[0]
    try:
        network = Classifier(backbone, 2, settings)
    except ConfigError as error:
        yield from error.problems
    # The type of the error depends on the network.
    except Exception as error:  # noqa: BLE001
        height, width = settings.image_size
        yield (
            f"image_size: {height}x{width} found, which backbone {backbone} does not take; choose another size "
            f"({type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no reason given'})."
        )
    else:
        yield from _size_problems(backbone, network.eval(), of_network)


def _size_problems(backbone: str, network: Classifier, of_network: Sequence[Settings]) -> Iterator[str]:
    """One sentence for all evaluation sizes that a network refuses, and one for all scales of its views."""
    size, plain = of_network[0].image_size, View()
    sizes = {settings.eval_size: _shown(settings.eval_size) for settings in of_network if settings.eval_size != size}
    scales = {
        view.sides(settings.eval_size): f"{view.scale:g}"
        for settings in of_network
        for view in settings.views.views
        if view.scale != plain.scale
    }
    for key, texts in (("eval_image_size", sizes), ("tta.scales", scales)):
        refused = {text: reason for sides, text in texts.items() if (reason := refusal(network, sides))}
        if refused:
            yield (
                f"{key}: {', '.join(refused)} found, but backbone {backbone} takes only images of {_shown(size)} after "
                f"a training with them ({next(iter(refused.values()))}). Remove the key, or choose a network that "
                "takes any size, such as an EfficientNet."
            )


def _shown(size: tuple[int, int]) -> str:
    return f"{size[0]} x {size[1]}"


def _trainer_problems(spec: RunSpec) -> Iterator[str]:
    names = set(inspect.signature(pl.Trainer.__init__).parameters) - RESERVED
    for key, _ in spec.trainer:
        if key in RESERVED:
            yield f"trainer.{key}: found, but the harness sets it; remove the key."
        elif key not in names:
            yield f"trainer.{key}: found; Lightning's Trainer takes no such argument. Remove the key."
    arguments = dict(spec.trainer)
    if arguments.get("precision", 32) not in PRECISIONS:
        yield (
            f"trainer.precision: {arguments['precision']} found; expected 32-true, or mixed: 16-mixed or bf16-mixed, "
            "with weights in 32 bits."
        )
    devices, strategy = arguments.get("devices", 1), arguments.get("strategy", "auto")
    if devices not in (1, "1") and not (isinstance(devices, tuple) and len(devices) == 1) and strategy not in SPAWNING:
        yield (
            f"trainer.strategy: {strategy} found with devices {thaw(devices)}, which would start the whole command "
            f"again in each process; expected {' or '.join(SPAWNING)}."
        )
    elif strategy not in ("auto", *SPAWNING):
        yield f"trainer.strategy: {strategy} found; expected auto, or with several devices {' or '.join(SPAWNING)}."
    epochs = arguments.get("max_epochs", 1)
    if isinstance(epochs, bool) or not isinstance(epochs, int) or epochs < 1:
        yield f"trainer.max_epochs: found {epochs!r}, expected a whole number from 1."


def _warmup_problems(spec: RunSpec, settings: Settings) -> Iterator[str]:
    epochs = dict(spec.trainer).get("max_epochs", EPOCHS)
    if isinstance(epochs, int) and 0 < epochs <= settings.warmup_epochs:
        yield (
            f"warmup_epochs: found {settings.warmup_epochs} with {epochs} epochs of training; "
            "expected fewer than trainer.max_epochs."
        )


def _optimizer_problems(name: str) -> Iterator[str]:
    names = list_optimizers()
    near = nearest(name, names)
    if name not in names:
        hint = f" Did you mean {near[0]}?" if near else ""
        yield f"optimizer: found {name!r}, expected a name of timm.optim.list_optimizers(), such as lamb.{hint}"
        return
    if name in SECOND_ORDER:
        yield f"optimizer: found {name}, which needs second derivatives; choose another one, such as lamb."
        return
    try:
        create_optimizer_v2([torch.nn.Parameter(torch.zeros(1))], opt=name, lr=1e-3)
    # Optimisers of other packages raise errors of many types, such as AssertionError without a GPU.
    except Exception as error:  # noqa: BLE001
        yield f"optimizer: found {name}, which cannot run here ({error}); choose another one, such as lamb."


def _data_problems(spec: RunSpec, settings: Settings, split: LabelledSplit) -> Iterator[str]:
    positions = classes(split.label_specs)
    if settings.tensorboard and find_spec("tensorboard") is None:
        yield "tensorboard: true found, but not installed; run: pip install 'harness[tensorboard]', or remove the key."
    unknown = sorted(set(settings.arcface_classes) - set(positions))
    if unknown:
        yield f"arcface_classes: found {', '.join(unknown)}, expected some of {', '.join(positions)}."
    if without := unmatched(settings.arcface_labels, split.labels):
        yield (
            f"arcface_labels: found {', '.join(without)}, which no label matches; "
            f"expected labels such as {', '.join(split.labels[:3])}, or patterns such as {next(iter(positions))}-*."
        )
    elif not with_margin(settings.arcface_classes, settings.arcface_labels, split.labels, split.label_specs).any():
        yield (
            f"arcface_labels: found {', '.join(settings.arcface_labels)}, which leaves no label; "
            "exclude fewer labels, or remove arcface_classes."
        )
    if unknown := sorted(set(settings.only_classes) - set(positions)):
        yield f"only_classes: found {', '.join(unknown)}, expected some of {', '.join(positions)}."
    if spec.model == "one_class":
        # A label without a separator is a class with one condition; its network separates the label from null.
        if len(positions) < 2:
            yield f"model: one_class found, but the data has only class {next(iter(positions))}; expected two or more."
        if settings.arcface_classes:
            yield "arcface_classes: found with model one_class, where each network has one class; expected none."
    if spec.train_batch_size < 2:
        yield f"data.train_batch_size: found {spec.train_batch_size}, expected at least 2 (batch normalisation)."
