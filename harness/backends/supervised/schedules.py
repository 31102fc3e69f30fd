"""timm's optimisers and Torch's learning rate schedules.

A step is a batch, so that a resumed training continues exactly.
"""

from __future__ import annotations

from timm.optim import create_optimizer_v2
from torch import nn, optim
from torch.optim.lr_scheduler import (
    CosineAnnealingLR,
    CosineAnnealingWarmRestarts,
    LinearLR,
    LRScheduler,
    OneCycleLR,
    ReduceLROnPlateau,
    SequentialLR,
    StepLR,
)

from harness.backends.supervised.settings import Settings

MOMENTUM = 0.9
# Names whose weight decay is decoupled here, with timm's name for it.
DECOUPLED = {"radam": "radamw"}


def optimizer(settings: Settings, network: nn.Module) -> optim.Optimizer:
    """Build the optimiser of a run.

    With `weight_decay_on: weights`, timm makes two groups: vectors and biases have no weight decay, nor have the
    parameters of the network's `no_weight_decay`.

    Args:
        settings: settings of the run.
        network: the network.
    """
    built: optim.Optimizer = create_optimizer_v2(
        network,
        opt=DECOUPLED.get(settings.optimizer, settings.optimizer),
        lr=settings.lr,
        weight_decay=settings.weight_decay,
        momentum=MOMENTUM,
        filter_bias_and_bn=settings.weight_decay_on == "weights",
    )
    return built


def schedule(settings: Settings, optimiser: optim.Optimizer, steps_per_epoch: int, steps: int) -> LRScheduler | None:
    """Build the learning rate schedule with a step for each batch; None for `plateau`, and for `none` without warm-up.

    In a warm-up of w steps, the learning rate of step i (from 0) is lr * (i + 1) / (w + 1). The cosine is equation 5 of
    Loshchilov and Hutter (2017).

    Args:
        settings: settings of the run.
        optimiser: optimiser of the run.
        steps_per_epoch: steps of one epoch.
        steps: steps of the whole training.
    """
    if settings.schedule == "one_cycle":
        # Lightning makes one more step after the last batch.
        return OneCycleLR(optimiser, settings.lr, total_steps=steps + 1)
    if settings.schedule == "plateau":
        return None
    warmup_steps = settings.warmup_epochs * steps_per_epoch
    main = _after_warmup(settings, optimiser, steps_per_epoch, steps - warmup_steps)
    if not warmup_steps:
        return main
    warmup = LinearLR(optimiser, 1 / (warmup_steps + 1), total_iters=warmup_steps)
    return warmup if main is None else SequentialLR(optimiser, [warmup, main], [warmup_steps])


def _after_warmup(
    settings: Settings, optimiser: optim.Optimizer, steps_per_epoch: int, steps: int
) -> LRScheduler | None:
    every = settings.schedule_epochs * steps_per_epoch
    if settings.schedule == "step":
        return StepLR(optimiser, every, settings.schedule_factor)
    if settings.schedule == "cosine":
        return CosineAnnealingLR(optimiser, steps, settings.eta_min)
    if settings.schedule == "cosine_restarts":
        return CosineAnnealingWarmRestarts(optimiser, every, settings.t_mult, settings.eta_min)
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
