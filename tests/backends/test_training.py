"""Training lowers its loss, keeps the best epoch, and stops at NaN."""

from __future__ import annotations

import math
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from harness.backends.supervised.checks import SPAWNING
from harness.backends.supervised.network import build
from harness.backends.supervised.settings import CHOICES
from harness.backends.supervised.training import predict_all, train
from harness.backends.supervised.tta import PLAIN
from harness.common.errors import TrainingError
from tests.backends.trainings import BACKBONE, CPU, fold_data, learn, settings

VARIANTS: list[dict[str, Any]] = [
    *({"loss": name} for name in CHOICES["loss"]),
    *({"augment": name} for name in CHOICES["augment"]),
    *({"mix": name, "mix_alpha": 0.1} for name in CHOICES["mix"]),
    *({"optimizer": name, "lr": 0.02 if name == "sgd" else 3e-3} for name in ("adamw", "radam", "sgd", "lamb")),
    {"weight_decay_on": "all"},
    {"mix": "mixup+cutmix", "mix_alpha": 0.1, "mix_probability": 0.5},
    {"head": "logits", "head_activation": "silu", "dropout": 0.1, "drop_path_rate": 0.1},
    {"schedule": "cosine", "warmup_epochs": 1, "eta_min": 1e-4},
    *({"schedule": name, "schedule_epochs": 2} for name in CHOICES["schedule"]),
    *({"average": name, "ema_decay": 0.5} for name in CHOICES["average"]),
    *({"balance": name} for name in CHOICES["balance"]),
    {"label_smoothing": 0.1, "head_init": "xavier", "head_activation": "silu", "dropout": 0.1},
    {"keep": "best"},
    {"loss": "arcface", "balance": "class_weights", "label_smoothing": 0.1},
]


@pytest.mark.parametrize("options", VARIANTS, ids=lambda options: "-".join(map(str, options.values())))
def test_each_variant_lowers_its_loss(tmp_path: Path, options: dict[str, Any]) -> None:
    trained = learn(tmp_path / "t", epochs=5, **options)
    losses = [entry["train_loss"] for entry in trained.history]
    assert len(losses) == 5
    # A mixed batch has a high loss, so one epoch says little.
    assert np.median(losses[1:]) < losses[0], losses
    assert all(math.isfinite(value) for entry in trained.history for value in entry.values())
    probabilities = predict_all(trained.network, fold_data().pixels, range(24), PLAIN, 8, CPU)
    assert probabilities.shape == (24, 3)
    assert probabilities.sum(axis=1) == pytest.approx(np.ones(24))


def test_curves_go_to_tensorboard_too(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    network = build(BACKBONE, 3, settings(), None, 0)
    trained = train(network, settings(), fold_data, tmp_path / "t", CPU, {"max_epochs": 3}, tmp_path / "board", str)
    events = EventAccumulator(str(tmp_path / "board")).Reload()
    for name in ("train_loss", "val_loss", "val_macro_F1"):
        assert [e.value for e in events.Scalars(name)] == pytest.approx([e[name] for e in trained.history], rel=1e-6)


def test_mixed_precision_and_clipping_train(tmp_path: Path) -> None:
    trained = learn(tmp_path, 4, trainer={"precision": "bf16-mixed", "gradient_clip_val": 1.0})
    assert trained.history[-1]["train_loss"] < trained.history[0]["train_loss"]
    assert trained.network.head.weight.dtype == torch.float32


def test_early_stopping_and_the_best_epoch(tmp_path: Path) -> None:
    trained = learn(tmp_path, 12, early_stopping=2, keep="best", lr=1e-2)
    figures = [entry["val_macro_F1"] for entry in trained.history]
    best = int(np.argmax(figures))
    assert len(figures) == min(12, best + 3)
    assert trained.epoch == best + 1
    probabilities = predict_all(trained.network, fold_data().pixels, fold_data().val_indices, PLAIN, 8, CPU)
    from harness.metrics.classification import macro_f1

    assert macro_f1(fold_data().targets[18:], probabilities.argmax(axis=1), 3) == pytest.approx(figures[best])


def test_early_stopping_and_the_best_epoch_by_the_loss(tmp_path: Path) -> None:
    # Random labels: the loss of the validation soon rises.
    data = fold_data(targets=np.random.default_rng(1).integers(0, 3, 24))
    trained = learn(tmp_path, 12, data, early_stopping=2, keep="best", monitor="loss", lr=1e-2)
    losses = [entry["val_loss"] for entry in trained.history]
    best = int(np.argmin(losses))
    assert len(losses) == best + 3 < 12
    assert trained.epoch == best + 1
    probabilities = predict_all(trained.network, data.pixels, data.val_indices, PLAIN, 8, CPU)
    own = probabilities[np.arange(6), data.targets[18:]]
    assert -np.log(own).mean() == pytest.approx(losses[best], rel=1e-4)


def test_averaging_does_not_copy_the_images() -> None:
    from copy import deepcopy

    data = fold_data()
    assert deepcopy(data) is data


def test_images_that_judge_are_never_augmented(tmp_path: Path) -> None:
    from harness.backends.supervised.module import Training

    module = Training(build(BACKBONE, 3, settings(), None, 0), settings(augment="heavy", mix="mixup"), fold_data(), 1)
    images = torch.cat([batch[0] for batch in module.val_dataloader()])
    assert torch.equal(images, torch.from_numpy(fold_data().pixels[list(fold_data().val_indices)]))


def test_a_label_without_images_to_learn_from(tmp_path: Path) -> None:
    data = fold_data(outputs=4)  # and no image of the fourth
    for number, options in enumerate(({"loss": "arcface", "balance": "class_weights"}, {"balance": "sampler"})):
        trained = learn(tmp_path / str(number), 2, data, **options)
        assert all(math.isfinite(value) for entry in trained.history for value in entry.values())


def test_a_loss_that_is_no_number_stops_and_says_so(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"the loss is (nan|inf|-inf) in epoch \d, batch \d: training was stopped"):
        learn(tmp_path, 4, optimizer="sgd", lr=1e30)


def train_in_several_processes(folder: Path, strategy: str) -> None:
    several = {"devices": 2, "strategy": strategy}
    trained = learn(folder / "t", 3, trainer=several, average="ema", ema_decay=0.5)
    losses = [entry["train_loss"] for entry in trained.history]
    assert len(losses) == 3
    assert losses[-1] < losses[0]
    first = build(BACKBONE, 3, settings(), None, 0)
    assert not torch.equal(trained.network.head.weight, first.head.weight)
    with pytest.raises(TrainingError, match=r"^the loss is .*training was stopped"):
        learn(folder / "nan", 4, trainer=several, optimizer="sgd", lr=1e30)


@pytest.mark.slow
@pytest.mark.parametrize("strategy", SPAWNING)
def test_several_processes_train_one_network(tmp_path: Path, strategy: str) -> None:
    """From a new process, as with the command: a fork takes along the locks of threads that other tests started."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        pool.submit(train_in_several_processes, tmp_path, strategy).result()


def test_a_batch_with_one_label_only_trains(tmp_path: Path) -> None:
    data = fold_data(targets=np.zeros(24, dtype=np.int64))
    for loss in CHOICES["loss"]:
        trained = learn(tmp_path / loss, 2, data, loss=loss, balance="class_weights")
        assert math.isfinite(trained.history[-1]["train_loss"])
