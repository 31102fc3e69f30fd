"""Averages of weights, and the statistics of batch normalisation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from harness.backends.supervised.batch_norm import initial_share, layers, recompute
from harness.backends.supervised.callbacks import training_callbacks
from harness.backends.supervised.fold_data import as_images
from harness.backends.supervised.network import build
from harness.backends.supervised.training import predict_all
from harness.backends.supervised.tta import PLAIN
from tests.backends.trainings import BACKBONE, CPU, SIZE, fold_data, learn, settings


def test_the_decay_of_ema_warms_up() -> None:
    average = training_callbacks(settings(average="ema", ema_decay=0.99), 1)[0]._kwargs["avg_fn"]
    old, new = torch.zeros(1), torch.ones(1)
    # 1 minus the decay: min(0.99, (1 + t) / (10 + t)).
    assert [average(old, new, torch.tensor(t)).item() for t in (1, 8, 1_000)] == pytest.approx([9 / 11, 0.5, 0.01])


def test_statistics_are_those_of_the_images() -> None:
    network = build(BACKBONE, 3, settings(), None, 0)
    first = next(layers(network.features))
    before = {key: value.clone() for key, value in network.named_parameters()}
    images = torch.rand(3, 8, 3, *SIZE)
    batches: list[torch.Tensor] = []
    hook = first.register_forward_pre_hook(lambda _, inputs: batches.append(inputs[0]))
    recompute(network.features, map(network.normalised, images))
    hook.remove()
    means = torch.stack([batch.mean(dim=(0, 2, 3)) for batch in batches])
    assert first.running_mean is not None
    assert torch.allclose(first.running_mean, means.mean(dim=0), atol=1e-5)
    assert all(torch.equal(value, before[key]) for key, value in network.named_parameters())
    assert first.momentum == 0.1


def test_the_momentum_is_that_of_the_settings() -> None:
    assert {layer.momentum for layer in layers(build(BACKBONE, 3, settings(), None, 0))} == {0.1}
    network = build(BACKBONE, 3, settings(bn_momentum=0.25), None, 0)
    assert {layer.momentum for layer in layers(network)} == {0.25}
    assert initial_share(network, 3) == pytest.approx(0.75**3)
    assert initial_share(torch.nn.Linear(2, 2), 3) == 0


@pytest.mark.parametrize(
    "options",
    [{"average": "ema"}, {"average": "swa"}, {"bn_statistics": "recomputed"}, {"average": "ema", "keep": "best"}],
    ids=lambda options: "-".join(options.values()),
)
def test_a_network_has_the_statistics_of_its_weights(tmp_path: Path, options: dict[str, Any]) -> None:
    trained = learn(tmp_path / "t", 6, lr=1e-2, **options)
    statistics = {key: value.clone() for key, value in trained.network.state_dict().items() if "running" in key}
    data = fold_data()
    batches = [torch.from_numpy(data.pixels[[data.train_indices[i] for i, _ in b]]) for b in data.statistics_batches()]
    recompute(trained.network.features, (trained.network.normalised(as_images(batch)) for batch in batches))
    for key, value in trained.network.state_dict().items():
        if key in statistics:
            assert torch.allclose(value, statistics[key], rtol=1e-4, atol=1e-6), key


def test_statistics_that_stay_as_they_run(tmp_path: Path) -> None:
    own, running = (
        learn(tmp_path / str(i), 3, average="ema", bn_statistics=v) for i, v in enumerate((None, "running"))
    )
    different = [
        key
        for key, value in own.network.state_dict().items()
        if not torch.equal(value, running.network.state_dict()[key])
    ]
    assert different
    assert all("running" in key or "num_batches" in key for key in different)


@pytest.mark.parametrize("extra", [{}, {"early_stopping": 2}, {"keep": "best"}], ids=["plain", "stopping", "best"])
def test_weights_are_averaged_at_the_end_and_judged_as_they_are_kept(tmp_path: Path, extra: dict[str, Any]) -> None:
    from harness.metrics.classification import macro_f1

    first = build(BACKBONE, 3, settings(), None, 0)
    trained = learn(tmp_path / "swa", 8, average="swa", lr=1e-2, **extra)
    plain = learn(tmp_path / "plain", 8, lr=1e-2, **extra)
    assert not torch.equal(trained.network.head.weight, first.head.weight)
    # Until the averaging begins, with epoch 7, all is as without it.
    for one, other in list(zip(trained.history, plain.history, strict=False))[:6]:
        assert {k: v for k, v in one.items() if k != "seconds"} == {k: v for k, v in other.items() if k != "seconds"}
    probabilities = predict_all(trained.network, fold_data().pixels, fold_data().val_indices, PLAIN, 8, CPU)
    judged = macro_f1(fold_data().targets[18:], probabilities.argmax(axis=1), 3)
    assert judged == pytest.approx(trained.history[trained.epoch - 1]["val_macro_F1"])
    if not extra:
        assert not torch.equal(trained.network.head.weight, plain.network.head.weight)
