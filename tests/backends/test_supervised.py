"""Supervised networks: losses, mixing and merging by hand; training that lowers its loss, resumes, and stops at NaN."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import load_file
from timm.layers import DropPath

from harness.backbones.inject import seeded
from harness.backbones.resolve import resolve
from harness.backends.supervised.augment import _Rotate90, augmentation, mixing
from harness.backends.supervised.batch_norm import initial_share, layers, recompute
from harness.backends.supervised.callbacks import LAST, training_callbacks
from harness.backends.supervised.checks import SPAWNING
from harness.backends.supervised.fold_data import FoldData, Pictures, as_images
from harness.backends.supervised.losses import Loss, arcface, focal, label_weights
from harness.backends.supervised.margins import of_outputs, with_margin
from harness.backends.supervised.network import Classifier, build
from harness.backends.supervised.one_class import class_targets, classes, merge
from harness.backends.supervised.pictures import decode, to_size
from harness.backends.supervised.schedules import optimizer, schedule
from harness.backends.supervised.settings import CHOICES, Settings
from harness.backends.supervised.training import DONE, WEIGHTS, Trained, predict_all, train
from harness.backends.supervised.tta import PLAIN, Views, views_of
from harness.common.devices import pick
from harness.common.errors import ConfigError, TrainingError
from harness.config.revisions import revisions
from harness.config.spec import RunSpec
from tests.conftest import ROOT

SIZE = (32, 32)
BACKBONE = "test_resnet"
CPU = pick("cpu")
FLIPPED = Views(views_of("flips"))


def settings(**options: Any) -> Settings:
    return Settings(image_size=SIZE, **{"lr": 3e-3, **options})


def pictures(n: int = 24, labels: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """Squares whose colour is their label, and noise."""
    rng = np.random.default_rng(0)
    targets = np.arange(n) % labels
    images = rng.integers(0, 90, (n, 3, *SIZE), dtype=np.uint8)
    images[np.arange(n), targets, 8:24, 8:24] += 150
    return images, targets.astype(np.int64)


def fold_data(seed: int = 0, n: int = 24, **changes: Any) -> FoldData:
    pixels, targets = pictures(n)
    values: dict[str, Any] = {
        "pixels": pixels, "targets": targets, "train_indices": range(n - 6), "val_indices": range(n - 6, n),
        "outputs": 3, "with_margin": None, "batch_size": 8, "eval_batch_size": 8, "num_workers": 0, "seed": seed,
    }  # fmt: skip
    return FoldData(**values | changes)


def learn(
    folder: Path,
    epochs: int = 3,
    data: FoldData | None = None,
    stage: Callable[[str], None] = str,
    trainer: dict[str, Any] | None = None,
    **options: Any,
) -> Trained:
    train_settings, chosen = settings(**options), data or fold_data()
    network = build(BACKBONE, chosen.outputs, train_settings, None, chosen.seed)
    return train(
        network, train_settings, lambda: chosen, folder, CPU, {"max_epochs": epochs, **(trainer or {})}, None, stage
    )


# ---- by hand


def test_focal_loss_by_hand() -> None:
    logits = torch.log(torch.tensor([[0.7, 0.2, 0.1]]))
    shares = torch.tensor([[1.0, 0, 0]])
    assert focal(logits, shares, 0).item() == pytest.approx(-math.log(0.7), rel=1e-5)
    assert focal(logits, shares, 2).item() == pytest.approx(-(0.3**2) * math.log(0.7), rel=1e-5)
    both = torch.tensor([[0.5, 0.5, 0]])
    expected = -0.5 * 0.3 * math.log(0.7) - 0.5 * 0.8 * math.log(0.2) * 3
    assert focal(logits, both, 1, torch.tensor([1.0, 3, 1])).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0])
def test_focal_loss_of_a_sure_answer_has_a_gradient(gamma: float) -> None:
    logits = torch.tensor([[30.0, 0, 0], [0.0, 1, 0]], requires_grad=True)
    focal(logits, torch.tensor([[1.0, 0, 0], [1.0, 0, 0]]), gamma).sum().backward()
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()
    assert logits.grad[1].abs().max() > 0


def test_label_smoothing_and_cross_entropy_are_torchs() -> None:
    network = build(BACKBONE, 3, settings(), None, 0).eval()
    images, targets = torch.rand(5, 3, *SIZE), torch.tensor([0, 1, 2, 1, 0])
    for smooth in (0.0, 0.1):
        ours = Loss(settings(label_smoothing=smooth), 3)(network, images, targets)
        theirs = torch.nn.functional.cross_entropy(network(images), targets, label_smoothing=smooth)
        assert ours.item() == pytest.approx(theirs.item(), rel=1e-5)


def test_label_weights_by_hand() -> None:
    # 6, 3 and 0 images: each label that is there weighs as much in all.
    weights = label_weights(torch.tensor([6.0, 3, 0]))
    assert weights.tolist() == pytest.approx([9 / 12, 9 / 6, 0])
    assert (weights * torch.tensor([6.0, 3, 0])).sum().item() == pytest.approx(9)
    # 9 and 4 images at half the strength: 1/3 and 1/2, so a total of 3 + 2 before and 13 after.
    assert label_weights(torch.tensor([9.0, 4]), 0.5).tolist() == pytest.approx([13 / 15, 13 / 10])


def test_arcface_adds_the_margin_to_the_angle() -> None:
    train_settings = settings(loss="arcface", arcface_margin=30.0, arcface_scale=10.0)
    network = build(BACKBONE, 2, train_settings, None, 0)
    network.width = 2
    network.head = torch.nn.Linear(2, 2, bias=False)
    network.head.weight.data = torch.tensor([[1.0, 0], [0, 2.0]])
    embedded = torch.tensor([[math.cos(math.radians(20)), math.sin(math.radians(20))]]) * 3
    assert network.logits(embedded)[0].tolist() == pytest.approx(
        [10 * math.cos(math.radians(20)), 10 * math.cos(math.radians(70))], rel=1e-5
    )
    own, other = 10 * math.cos(math.radians(20 + 30)), 10 * math.cos(math.radians(70))
    expected = -own + math.log(math.exp(own) + math.exp(other))
    assert arcface(network, embedded, torch.tensor([0]), train_settings).item() == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(("margin", "unit"), [(30.0, "degrees"), (math.pi / 6, "radians")])
def test_smoothed_arcface_by_hand(margin: float, unit: str) -> None:
    train_settings = settings(
        loss="arcface", arcface_margin=margin, arcface_unit=unit, arcface_scale=10.0, label_smoothing=0.2
    )
    network = build(BACKBONE, 2, train_settings, None, 0)
    network.width = 2
    network.head = torch.nn.Linear(2, 2, bias=False)
    network.head.weight.data = torch.tensor([[1.0, 0], [0, 2.0]])
    embedded = torch.tensor([[math.cos(math.radians(20)), math.sin(math.radians(20))]]) * 3
    own, other = 10 * math.cos(math.radians(20 + 30)), 10 * math.cos(math.radians(70))
    total = math.log(math.exp(own) + math.exp(other))
    # 0.2 is spread over two labels: 0.9 for its own, and 0.1 for the other.
    expected = 0.9 * (total - own) + 0.1 * (total - other)
    assert arcface(network, embedded, torch.tensor([0]), train_settings).item() == pytest.approx(expected, rel=1e-4)
    # Without the margin, the angle to the own label is 20 degrees.
    plain = 10 * math.cos(math.radians(20))
    total = math.log(math.exp(plain) + math.exp(other))
    expected = 0.9 * (total - plain) + 0.1 * (total - other)
    loss = Loss(train_settings, 2, with_margin=torch.tensor([False, True]))
    assert loss._arcface(network, embedded, torch.tensor([0])).item() == pytest.approx(expected, rel=1e-4)


def test_labels_with_margin_by_hand() -> None:
    labels = ["cable-cut", "cable-good", "tile-crack", "tile-good"]
    specs = [tuple(label.split("-")) for label in labels]

    def margin(*patterns: str, classes: tuple[str, ...] = ()) -> list[bool]:
        return [bool(value) for value in with_margin(classes, patterns, labels, specs)]

    assert margin() == [True, True, True, True]
    assert margin("tile-crack", "cable-*") == [True, True, True, False]
    assert margin("cable-*", "!*-good") == [True, False, False, False]
    assert margin("!*-good", classes=("tile",)) == [False, False, True, False]
    # The network of the class tile: its labels, and null.
    assert of_outputs(with_margin((), (), labels, specs), [2, 3]).tolist() == [True, True, False]


def test_arcface_of_named_classes_leaves_the_others_without_margin() -> None:
    train_settings = settings(loss="arcface", arcface_margin=40.0, arcface_classes=("x",))
    network = build(BACKBONE, 2, train_settings, None, 0).eval()
    images = torch.rand(2, 3, *SIZE)
    loss = Loss(train_settings, 2, with_margin=torch.tensor([True, False]))
    plain = torch.nn.functional.cross_entropy(network(images), torch.tensor([1, 1])).item()
    assert loss(network, images, torch.tensor([1, 1])).item() == pytest.approx(plain, rel=1e-5)
    without = torch.nn.functional.cross_entropy(network(images), torch.tensor([0, 0])).item()
    assert loss(network, images, torch.tensor([0, 0])).item() > without + 0.1
    # The head learns through the margin too.
    loss(network, images, torch.tensor([0, 1])).backward()
    assert network.head.weight.grad is not None
    assert float(network.head.weight.grad.abs().sum()) > 0


def test_mixup_and_cutmix_targets_say_what_was_mixed() -> None:
    torch.manual_seed(0)
    images = torch.zeros(4, 3, 8, 8)
    images[:, 0] = torch.arange(4).view(4, 1, 1) / 4
    targets = torch.tensor([0, 1, 2, 3])
    for name in ("mixup", "cutmix"):
        mixer = mixing(name, 1.0, 1.0, 4)
        assert mixer is not None
        mixed, shares = mixer(images, targets)
        assert shares.sum(dim=1).tolist() == pytest.approx([1] * 4)
        # Each image is mixed with the one before it: its mean brightness is that of its shares.
        expected = (shares * torch.arange(4) / 4).sum(dim=1)
        assert mixed[:, 0].mean(dim=(1, 2)).tolist() == pytest.approx(expected.tolist(), abs=1e-5)
        assert 0 < float(shares.max()) < 1


def test_the_merge_of_class_networks_by_hand() -> None:
    parts = classes([("a", "good"), ("a", "cut"), ("b", "good")])
    assert parts == {"a": [0, 1], "b": [2]}
    assert class_targets(np.array([0, 1, 2, 2]), parts["a"]).tolist() == [0, 1, 2, 2]
    answers = {
        # One claim; two claims, the surer wins; no claim, all share.
        "a": np.array([[0.7, 0.2, 0.1], [0.5, 0.3, 0.2], [0.1, 0.3, 0.6]]),
        "b": np.array([[0.45, 0.55], [0.9, 0.1], [0.4, 0.6]]),
    }
    merged, claims = merge(answers.items(), parts, 3, "mean")
    assert claims.tolist() == [1, 2, 0]
    assert merged[0].tolist() == pytest.approx([0.7 / 0.9, 0.2 / 0.9, 0])
    assert merged[1].tolist() == pytest.approx([0.5 / 1.7, 0.3 / 1.7, 0.9 / 1.7])
    assert merged[2].tolist() == pytest.approx([0.1 / 0.8, 0.3 / 0.8, 0.4 / 0.8])


# ---- what goes in


def test_images_that_do_not_fit_go_to_a_file(tmp_path: Path) -> None:
    from PIL import Image

    paths = []
    for i in range(3):
        Image.new("RGB", (20 + i, 10), (i, 50, 100)).save(tmp_path / f"{i}.png")
        paths.append(str(tmp_path / f"{i}.png"))
    inside = decode(paths, (8, 16), tmp_path, None)
    outside = decode(paths, (8, 16), tmp_path, 100)
    assert isinstance(outside, np.memmap)
    assert np.array_equal(inside, outside)
    assert inside.shape == (3, 3, 8, 16)
    assert inside[2, :, 0, 0].tolist() == [2, 50, 100]
    same = np.arange(8 * 16 * 3, dtype=np.uint8).reshape(8, 16, 3)
    assert np.array_equal(to_size(same, (8, 16)), same.transpose(2, 0, 1))


@pytest.mark.parametrize("name", CHOICES["augment"])
def test_augmentation_changes_training_images_only(name: str) -> None:
    pixels, targets = pictures()
    augment = augmentation(name)
    if name == "none":
        assert augment is None
        return
    augmented = Pictures(pixels, targets, range(24), augment, seed=1)
    again, other = (Pictures(pixels, targets, range(24), augment, seed=seed) for seed in (1, 2))
    images = [augmented[i][0] for i in range(24)]
    assert all(image.shape == (3, *SIZE) and image.dtype == torch.uint8 for image in images)
    # A function of seed and image, whatever was drawn before.
    assert torch.equal(again[20][0], images[20])
    assert any(not torch.equal(other[i][0], images[i]) for i in range(24))
    assert any(not torch.equal(images[i], torch.from_numpy(pixels[i])) for i in range(24))
    plain = Pictures(pixels, targets, range(24))
    assert torch.equal(plain[3][0], torch.from_numpy(pixels[3]))


@pytest.mark.parametrize(
    ("strength", "shares"), [(1.0, [1 / 3, 1 / 3, 1 / 3]), (0.5, [9 / 13, 3 / 13, 1 / 13]), (0.0, [0.9, 0.09, 0.01])]
)
def test_the_sampler_draws_rare_labels_more_often(strength: float, shares: list[float]) -> None:
    targets = (
        np.array([0] * 81 + [1] * 9 + [2], dtype=np.int64) if strength == 0.5 else np.repeat([0, 1, 2], (90, 9, 1))
    )
    count = len(targets)
    data = fold_data(pixels=np.zeros((count, 3, *SIZE), np.uint8), targets=targets, train_indices=range(count))
    sampler, none = settings(balance="sampler", balance_strength=strength), settings()
    drawn = np.concatenate([targets[data.order(sampler, epoch)] for epoch in range(60)])
    assert np.bincount(drawn) / len(drawn) == pytest.approx(shares, abs=0.03)
    assert sorted(data.order(none, 0)) == list(range(count))
    assert data.order(none, 0) != data.order(none, 1)


def test_a_last_batch_of_one_image_is_dropped() -> None:
    assert [len(batch) for batch in fold_data(train_indices=range(17)).batches(settings(), 0)] == [8, 8]
    assert [len(batch) for batch in fold_data(train_indices=range(18)).batches(settings(), 0)] == [8, 8, 2]


def test_processes_share_the_images_of_an_epoch() -> None:
    data, train_settings = fold_data(train_indices=range(19)), settings()
    shares = [[i for batch in data.batches(train_settings, 0, (rank, 2)) for i, _ in batch] for rank in range(2)]
    assert [len(share) for share in shares] == [10, 10]
    # 19 images for 20 places: the first one has two.
    assert sorted([*shares[0], *shares[1]]) == sorted([*range(19), data.order(train_settings, 0)[0]])


def test_each_draw_of_an_image_has_an_augmentation_of_its_own() -> None:
    pixels, targets = pictures()
    drawn = Pictures(pixels, targets, range(24), augmentation("heavy"), seed=1)
    views = [drawn[5, draw][0] for draw in range(6)]
    assert len({view.numpy().tobytes() for view in views}) == 6
    assert torch.equal(drawn[5, 4][0], views[4])
    # Without a second draw, nothing depends on the number of the draw.
    assert torch.equal(drawn[5][0], views[0])


@pytest.mark.parametrize("processes", [1, 2])
def test_the_sampler_numbers_the_draws_of_an_image(processes: int) -> None:
    targets = np.repeat([0, 1], (20, 2))
    data = fold_data(pixels=np.zeros((22, 3, *SIZE), np.uint8), targets=targets, train_indices=range(22), outputs=2)
    train_settings = settings(balance="sampler")
    shares = [data.batches(train_settings, 3, (rank, processes)) for rank in range(processes)]
    draws = [draw for share in shares for batch in share for draw in batch]
    assert len(set(draws)) == len(draws) == 22
    rare = [number for index, number in draws if index == 20]
    assert len(rare) > 2
    assert sorted(rare) == list(range(len(rare)))


# ---- batch normalisation and averages


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


def test_a_part_of_the_batches_is_mixed_by_mixup_or_cutmix() -> None:
    mixer = mixing("mixup+cutmix", 1.0, 0.6, 2)
    assert mixer is not None
    images, targets = torch.stack([torch.zeros(3, 8, 8), torch.ones(3, 8, 8)]), torch.tensor([0, 1])
    torch.manual_seed(0)
    kinds = {"none": 0, "cutmix": 0, "mixup": 0}
    for _ in range(400):
        mixed, shares = mixer(images, targets)
        # CutMix leaves each pixel as it was in one of the images; MixUp makes all pixels of an image equal.
        if shares.ndim == 1:
            assert torch.equal(mixed, images)
            kinds["none"] += 1
        else:
            kinds["mixup" if mixed[0].min() > 0 else "cutmix"] += 1
    # Expected: 160 of 400 without, and 120 of each kind; the standard deviation is at most 10.
    assert kinds["none"] == pytest.approx(160, abs=40)
    assert kinds["mixup"] == pytest.approx(120, abs=40)


def test_heavy_rotates_by_multiples_of_90_degrees() -> None:
    rotate = _Rotate90()
    image = torch.arange(12, dtype=torch.uint8).reshape(3, 2, 2)
    torch.manual_seed(0)
    results = {tuple(rotate(image).flatten().tolist()) for _ in range(50)}
    assert results == {tuple(torch.rot90(image, k, (1, 2)).flatten().tolist()) for k in range(4)}
    oblong = torch.arange(6, dtype=torch.uint8).reshape(1, 2, 3)
    results = {tuple(rotate(oblong).flatten().tolist()) for _ in range(50)}
    assert results == {(0, 1, 2, 3, 4, 5), (5, 4, 3, 2, 1, 0)}
    transforms = getattr(augmentation("heavy"), "transforms", [])
    assert any(isinstance(transform, _Rotate90) for transform in transforms)


# ---- heads


def test_the_head_on_logits_is_logits_dropout_silu_linear() -> None:
    train_settings = settings(head="logits", head_activation="silu", dropout=0.5)
    network = build(BACKBONE, 3, train_settings, None, 0).eval()
    assert network.width == network.head.in_features == 1000
    images = torch.rand(2, 3, *SIZE)
    own = network.features((images - network.mean) / network.std)
    expected = network.head(torch.nn.functional.silu(own))
    assert torch.allclose(network(images), expected)
    # Dropout of rate 0.5 doubles the other inputs before SiLU with logits, and its results with pooled features.
    for head, pooled in (("logits", False), ("pooled", True)):
        network = build(BACKBONE, 3, settings(head=head, head_activation="silu", dropout=0.5), None, 0)
        network.features.eval()
        with torch.no_grad():
            own = network.features((images - network.mean) / network.std)
            embedded = network.embed(images)
        silu = torch.nn.functional.silu
        expected = 2 * silu(own) if pooled else silu(2 * own)
        kept = embedded != 0
        assert 0 < kept.float().mean() < 0.7
        assert torch.allclose(embedded[kept], expected[kept], atol=1e-6)


def test_weights_of_the_own_classifier_are_loaded_too() -> None:
    train_settings = settings(head="logits")
    network = build(BACKBONE, 3, train_settings, resolve("random", BACKBONE), 5)
    with seeded(5):
        own = timm.create_model(BACKBONE)
    assert torch.equal(network.features.get_classifier().weight, own.get_classifier().weight)


def test_drop_path_rate_is_the_rate_of_the_last_block() -> None:
    network = build(BACKBONE, 3, settings(drop_path_rate=0.3), None, 0)
    rates = [layer.drop_prob for layer in network.features.modules() if isinstance(layer, DropPath)]
    assert max(rates) == pytest.approx(0.3)
    assert not any(isinstance(layer, DropPath) for layer in build(BACKBONE, 3, settings(), None, 0).modules())


@pytest.mark.parametrize(
    ("backbone", "options", "words"),
    [
        ("vgg11", {"drop_path_rate": 0.1}, "drop_path_rate: found 0.1, but vgg11 has no stochastic depth; expected 0."),
        ("eva02_tiny_patch14_224", {"head": "logits"}, "has no classifier of its own; expected pooled."),
    ],
)
def test_a_backbone_without_what_the_head_needs(backbone: str, options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        Classifier(backbone, 2, Settings(image_size=(56, 56), **options))


# ---- optimisers


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


# ---- schedules


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


# ---- training

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


class Killed(BaseException):
    """A kill in the middle of training."""


@pytest.mark.parametrize(
    "options",
    [
        {"schedule": "one_cycle", "augment": "heavy", "mix": "mixup", "dropout": 0.2},
        {"average": "ema", "schedule": "plateau", "schedule_epochs": 1, "balance": "sampler"},
        {"average": "swa", "schedule": "cosine_restarts", "augment": "randaugment", "keep": "best"},
        {"loss": "arcface", "optimizer": "sgd", "schedule": "step"},
        {"bn_statistics": "recomputed", "bn_momentum": 0.01, "balance": "sampler", "augment": "heavy"},
        {"optimizer": "lamb", "schedule": "cosine", "warmup_epochs": 1},
    ],
    ids=["one_cycle", "ema", "swa", "arcface", "recomputed", "cosine"],
)
def test_a_training_that_was_stopped_goes_on_as_if_it_had_not_been(tmp_path: Path, options: dict[str, Any]) -> None:
    whole = learn(tmp_path / "whole", 5, **options)

    def stop(text: str) -> None:
        if text.startswith("epoch 4"):
            raise Killed

    with pytest.raises(Killed):
        learn(tmp_path / "cut", 5, stage=stop, **options)
    assert (tmp_path / "cut" / LAST).is_file()
    assert not (tmp_path / "cut" / DONE).exists()
    resumed = learn(tmp_path / "cut", 5, **options)
    assert (whole.resumed, resumed.resumed) == (0, 3)
    assert len(resumed.history) == 5
    for one, other in zip(whole.history, resumed.history, strict=True):
        assert {k: v for k, v in one.items() if k != "seconds"} == {k: v for k, v in other.items() if k != "seconds"}
    for key, value in whole.network.state_dict().items():
        assert torch.equal(value, resumed.network.state_dict()[key]), key
    # A third call trains nothing: the network is there.
    again = learn(tmp_path / "cut", 5, stage=pytest.fail, **options)
    for one in (whole, again):
        probabilities = predict_all(one.network, fold_data().pixels, range(24), FLIPPED, 8, CPU)
        assert np.array_equal(
            probabilities, predict_all(resumed.network, fold_data().pixels, range(24), FLIPPED, 8, CPU)
        )
    assert set(load_file(tmp_path / "cut" / WEIGHTS)) == set(again.network.state_dict())


@pytest.mark.parametrize(
    "options",
    [{"average": "ema"}, {"early_stopping": 2, "lr": 1e-2}, {"average": "swa", "keep": "best"}],
    ids=["ema", "early_stopping", "swa"],
)
def test_a_kill_after_the_last_epoch_changes_nothing(
    tmp_path: Path, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = learn(tmp_path / "whole", 6, **options)

    def kill(*_: object) -> None:
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr("harness.backends.supervised.training.save_file", kill)
        with pytest.raises(Killed):
            learn(tmp_path / "cut", 6, **options)
    resumed = learn(tmp_path / "cut", 6, stage=pytest.fail, **options)
    assert [e["train_loss"] for e in resumed.history] == [e["train_loss"] for e in whole.history]
    for key, value in whole.network.state_dict().items():
        assert torch.equal(value, resumed.network.state_dict()[key]), key


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


def test_schedules_count_steps_and_not_batches(tmp_path: Path) -> None:
    options = {"schedule": "one_cycle", "lr": 1e-3, "data": fold_data(n=46)}
    trained = learn(tmp_path, 6, trainer={"accumulate_grad_batches": 3}, **options)
    assert trained.history[-1]["lr"] < 1e-5
    assert max(entry["lr"] for entry in trained.history) > 5e-4


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


def test_a_torn_checkpoint_begins_anew(tmp_path: Path) -> None:
    tmp_path.joinpath(LAST).write_bytes(b"half a file")
    assert learn(tmp_path, 2).resumed == 0


@pytest.mark.parametrize("damaged", [DONE, WEIGHTS])
def test_a_finished_training_whose_files_are_damaged_begins_anew(tmp_path: Path, damaged: str) -> None:
    whole = learn(tmp_path, 2)
    (tmp_path / damaged).write_bytes(b"{half")
    again = learn(tmp_path, 2)
    assert again.resumed == 0
    assert [entry["train_loss"] for entry in again.history] == [entry["train_loss"] for entry in whole.history]
    for key, value in whole.network.state_dict().items():
        assert torch.equal(value, again.network.state_dict()[key]), key
    assert (tmp_path / DONE).stat().st_size > 10


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


# ---- settings


def test_what_does_not_go_together_is_refused() -> None:
    def problems(**options: Any) -> str:
        return " ".join(settings(**options).problems())

    assert not problems()
    assert "Did you mean arcface?" in problems(loss="arcfase")
    assert "eta_min: found 0.1, above lr 0.003; expected a smaller" in problems(schedule="cosine", eta_min=0.1)
    assert "margin needs one label" in problems(loss="arcface", mix="mixup")
    assert not problems(loss="arcface", label_smoothing=0.1)
    assert "found 1.6 radians; expected at most 1.57" in problems(arcface_margin=1.6, arcface_unit="radians")
    assert "some of flips, rotations, brightness" in problems(tta="flips+flops")
    assert "dropout: found 1.5, expected a number from 0 to 0.95" in problems(dropout=1.5)
    oblong = Settings(image_size=(32, 64), tta="rotations")
    assert "bn_statistics: found 'run', expected one of running, recomputed. Did you mean running?" in problems(
        bn_statistics="run"
    )
    for momentum in (0, 2.0, "much", True):
        assert f"bn_momentum: found {momentum!r}, expected a number from 0.0001 to 1." in problems(bn_momentum=momentum)
    assert "square images" in oblong.problems()[0]


def test_a_transformer_is_built_for_its_size() -> None:
    network = Classifier("test_vit", 3, Settings(image_size=(64, 64)))
    assert network(torch.rand(1, 3, 64, 64)).shape == (1, 3)


def test_spec_values_are_checked_together() -> None:
    from harness.backends.supervised import SupervisedBackend

    with pytest.raises(ConfigError, match="unknown method 'resnet18'"):
        SupervisedBackend().parameters("resnet18")
    assert SupervisedBackend().parameters("One-Class").name == "one_class"


@pytest.mark.parametrize(
    ("params", "names"),
    [
        ({"average": "none", "balance": "none", "augment": "flips", "keep": "last", "early_stopping": 0}, []),
        ({"average": "ema"}, ["average-of-short-trainings"]),
        ({"average": "swa", "keep": "best"}, ["average-of-short-trainings", "predicted-labels-count"]),
        ({"balance": "sampler", "augment": "none"}, []),
        ({"balance": "sampler", "augment": "flips"}, ["augmentation-of-each-draw"]),
        ({"early_stopping": 2}, ["predicted-labels-count"]),
        ({"augment": "heavy"}, ["heavy-rotate90"]),
        ({"loss": "arcface"}, []),
        ({"model": "one_class", "loss": "arcface"}, ["null-without-margin"]),
    ],
)
def test_runs_with_other_numbers_have_another_identity(params: dict[str, Any], names: list[str]) -> None:
    record = json.loads(next((ROOT / "tests/stored/results/named/runs").glob("*/record.json")).read_text())
    model = {"model": params.pop("model")} if "model" in params else {}
    spec = RunSpec.from_dict({**record["spec"], **model, "params": {**record["spec"]["params"], **params}})
    assert revisions(spec) == names
