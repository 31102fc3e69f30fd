"""Optimisers and schedules of the learning rate, Torch's own; a step is a batch, so that a resumed training goes on."""

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
    """The optimiser of a run."""
    trained, lr, decay = list(parameters), settings.lr, settings.weight_decay
    if settings.optimizer == "sgd":
        return optim.SGD(trained, lr=lr, weight_decay=decay, momentum=MOMENTUM, nesterov=True)
    if settings.optimizer == "radam":
        return optim.RAdam(trained, lr=lr, weight_decay=decay, decoupled_weight_decay=True)
    kind = optim.AdamW if settings.optimizer == "adamw" else optim.Adam
    return kind(trained, lr=lr, weight_decay=decay)


def schedule(settings: Settings, of: optim.Optimizer, steps_per_epoch: int, steps: int) -> LRScheduler | None:
    """What moves the learning rate at every batch; None where nothing does, or a plateau decides.

    Args:
        settings: of the run.
        of: its optimiser.
        steps_per_epoch: batches.
        steps: batches of the whole training.
    """
    every = settings.schedule_epochs * steps_per_epoch
    if settings.schedule == "step":
        return StepLR(of, every, settings.schedule_factor)
    if settings.schedule == "cosine_restarts":
        return CosineAnnealingWarmRestarts(of, every)
    if settings.schedule == "one_cycle":
        # One more than there are: Lightning steps once after the last batch too.
        return OneCycleLR(of, settings.lr, total_steps=steps + 1)
    return None


def plateau(settings: Settings, of: optim.Optimizer) -> ReduceLROnPlateau | None:
    """What lowers the learning rate where validation loss no longer falls."""
    if settings.schedule != "plateau":
        return None
    return ReduceLROnPlateau(of, factor=settings.schedule_factor, patience=settings.schedule_epochs)
