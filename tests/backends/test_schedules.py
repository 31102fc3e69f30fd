"""Optimisers, weight decay and learning rates."""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from harness.backends.supervised.network import Classifier, build
from harness.backends.supervised.schedules import optimizer, schedule
from harness.backends.supervised.settings import Settings
from tests.backends.trainings import BACKBONE, fold_data, learn, settings


def test_norms_and_biases_have_no_weight_decay() -> None:
    network = build(BACKBONE, 3, settings(), None, 0)
    groups = optimizer(settings(weight_decay=0.1), network).param_groups
    without, with_decay = sorted(groups, key=lambda group: group["weight_decay"])
    assert (without["weight_decay"], with_decay["weight_decay"]) == (0, 0.1)
    assert all(p.ndim == 1 for p in without["params"])
    assert all(p.ndim > 1 for p in with_decay["params"])
    assert any(p is network.head.weight for p in with_decay["params"])
    everything = optimizer(settings(weight_decay=0.1, weight_decay_on="all"), network).param_groups
    assert [group["weight_decay"] for group in everything] == [0.1]


def test_position_embeddings_have_no_weight_decay() -> None:
    network = Classifier("test_vit", 3, Settings(image_size=(64, 64)))
    groups = optimizer(settings(weight_decay=0.1), network).param_groups
    without = [p for group in groups if group["weight_decay"] == 0 for p in group["params"]]
    assert any(p is network.features.pos_embed for p in without)


@pytest.mark.parametrize(
    ("name", "theirs"),
    [
        ("adamw", partial(torch.optim.AdamW)),
        ("adam", partial(torch.optim.Adam)),
        ("radam", partial(torch.optim.RAdam, decoupled_weight_decay=True)),
        ("sgd", partial(torch.optim.SGD, momentum=0.9, nesterov=True)),
    ],
)
def test_the_optimisers_of_earlier_versions_take_the_same_steps(name: str, theirs: Any) -> None:
    results = []
    for build_optimizer in (
        lambda layer: optimizer(settings(optimizer=name, lr=0.01, weight_decay=0.1, weight_decay_on="all"), layer),
        lambda layer: theirs(layer.parameters(), lr=0.01, weight_decay=0.1),
    ):
        torch.manual_seed(0)
        layer = torch.nn.Linear(4, 2)
        optimiser = build_optimizer(layer)
        for _ in range(8):
            optimiser.zero_grad()
            layer(torch.rand(3, 4)).pow(2).sum().backward()
            optimiser.step()
        results.append(layer.weight.detach())
    assert torch.equal(*results)


def rates(steps: int, per_epoch: int = 2, **options: Any) -> list[float]:
    """Learning rate of each step, for a rate of 1."""
    train_settings = settings(lr=1.0, **options)
    optimiser = optimizer(train_settings, torch.nn.Linear(1, 1))
    scheduler = schedule(train_settings, optimiser, per_epoch, steps)
    values = []
    for _ in range(steps):
        values.append(optimiser.param_groups[0]["lr"])
        optimiser.step()
        if scheduler is not None:
            scheduler.step()
    return values


def test_a_warmup_by_hand() -> None:
    # Three epochs of one step: quarters. Then the schedule begins with its first rate.
    assert rates(5, 1, warmup_epochs=3) == pytest.approx([0.25, 0.5, 0.75, 1, 1])
    stepped = rates(6, 1, warmup_epochs=1, schedule="step", schedule_epochs=2, schedule_factor=0.1)
    assert stepped == pytest.approx([0.5, 1, 1, 0.1, 0.1, 0.01])


def test_a_cosine_by_hand() -> None:
    # The angles of four steps are 0, 45, 90 and 135 degrees, between 1 and 0.2.
    half = math.sqrt(0.5)
    expected = [0.2 + 0.4 * (1 + cosine) for cosine in (1, half, 0, -half)]
    assert rates(4, schedule="cosine", eta_min=0.2) == pytest.approx(expected)
    assert rates(6, schedule="cosine", eta_min=0.2, warmup_epochs=1) == pytest.approx([1 / 3, 2 / 3, *expected])


def test_periods_of_a_cosine_by_hand() -> None:
    # Periods of 1, 2 and 4 epochs with one step each.
    half = math.sqrt(0.5)
    cosines = [1, 1, 0, 1, half, 0, -half]
    expected = [0.1 + 0.45 * (1 + cosine) for cosine in cosines]
    options = {"schedule": "cosine_restarts", "schedule_epochs": 1, "t_mult": 2, "eta_min": 0.1}
    assert rates(7, 1, **options) == pytest.approx(expected)


@pytest.mark.slow
def test_schedules_move_the_learning_rate(tmp_path: Path) -> None:
    rates = {
        name: [e["lr"] for e in learn(tmp_path / name, 6, schedule=name, schedule_epochs=2, lr=1e-3).history]
        for name in ("none", "step", "cosine_restarts", "one_cycle")
    }
    assert rates["none"] == [1e-3] * 6
    assert rates["step"] == pytest.approx([1e-3, 5e-4, 5e-4, 2.5e-4, 2.5e-4, 1.25e-4])
    assert rates["cosine_restarts"][1] == pytest.approx(1e-3)  # back at the start
    assert rates["cosine_restarts"][0] == pytest.approx(5e-4)
    assert max(rates["one_cycle"]) > rates["one_cycle"][0]
    assert rates["one_cycle"][-1] < 1e-4


def test_a_plateau_lowers_the_learning_rate(tmp_path: Path) -> None:
    # With so small a step the validation loss does not fall.
    small = {"optimizer": "sgd", "lr": 1e-7, "weight_decay_on": "all"}
    trained = learn(tmp_path, 6, schedule="plateau", schedule_epochs=1, schedule_factor=0.1, **small)
    rates = [entry["lr"] for entry in trained.history]
    assert rates[-1] < rates[0]


def test_schedules_count_steps_and_not_batches(tmp_path: Path) -> None:
    options = {"schedule": "one_cycle", "lr": 1e-3, "data": fold_data(n=46)}
    trained = learn(tmp_path, 6, trainer={"accumulate_grad_batches": 3}, **options)
    assert trained.history[-1]["lr"] < 1e-5
    assert max(entry["lr"] for entry in trained.history) > 5e-4
