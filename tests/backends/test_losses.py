"""Losses and margins by hand."""

from __future__ import annotations

import math

import pytest
import torch

from harness.backends.supervised.losses import Loss, arcface, focal, label_weights
from harness.backends.supervised.margins import of_outputs, with_margin
from harness.backends.supervised.network import build
from tests.backends.trainings import BACKBONE, SIZE, settings


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
