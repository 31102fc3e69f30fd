"""Torch's optimisers and learning rate schedules. A step is a batch, so that a resumed training continues exactly."""

from __future__ import annotations

from collections.abc import Iterable

from torch import nn, optim
from torch.optim.lr_scheduler import (
    CosineAnnealingWarmRestarts,
    LRScheduler,
    OneCycleLR,
    ReduceLROnPlateau,
    StepLR,
)

from harness.backends.supervised.settings import Settings

MOMENTUM = 0.9


def optimizer(settings: Settings, parameters: Iterable[nn.Parameter]) -> optim.Optimizer:
    """Build the optimiser of a run.

    Args:
        settings: settings of the run.
        parameters: parameters of the network.
    """
    trained, lr, decay = list(parameters), settings.lr, settings.weight_decay
    if settings.optimizer == "sgd":
        return optim.SGD(trained, lr=lr, weight_decay=decay, momentum=MOMENTUM, nesterov=True)
    if settings.optimizer == "radam":
        return optim.RAdam(trained, lr=lr, weight_decay=decay, decoupled_weight_decay=True)
    kind = optim.AdamW if settings.optimizer == "adamw" else optim.Adam
    return kind(trained, lr=lr, weight_decay=decay)


def schedule(settings: Settings, optimiser: optim.Optimizer, steps_per_epoch: int, steps: int) -> LRScheduler | None:
    """Build the learning rate schedule with a step for each batch; None for `none` and `plateau`.

    Args:
        settings: settings of the run.
        optimiser: optimiser of the run.
        steps_per_epoch: steps of one epoch.
        steps: steps of the whole training.
    """
    every = settings.schedule_epochs * steps_per_epoch
    if settings.schedule == "step":
        return StepLR(optimiser, every, settings.schedule_factor)
    if settings.schedule == "cosine_restarts":
        return CosineAnnealingWarmRestarts(optimiser, every)
    if settings.schedule == "one_cycle":
        # Lightning makes one more step after the last batch.
        return OneCycleLR(optimiser, settings.lr, total_steps=steps + 1)
    return None


def plateau(settings: Settings, optimiser: optim.Optimizer) -> ReduceLROnPlateau | None:
    """Build the schedule that lowers the learning rate when the validation loss stops falling; None for others.

    Args:
        settings: settings of the run.
        optimiser: optimiser of the run.
    """
    if settings.schedule != "plateau":
        return None
    return ReduceLROnPlateau(optimiser, factor=settings.schedule_factor, patience=settings.schedule_epochs)
