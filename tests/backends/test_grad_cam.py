"""Grad-CAM by hand, for networks of other layouts, and for one-class networks; what has no map is said."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from harness.backends.supervised.classifier import SupervisedScorer
from harness.backends.supervised.grad_cam import feature_map, grad_cam, maps_of_labels, obstacle
from harness.backends.supervised.network import Classifier, Member, build
from harness.backends.supervised.settings import Settings
from harness.common.devices import pick

SIZE = (64, 96)


def network(
    backbone: str = "test_resnet", outputs: int = 3, size: tuple[int, int] = SIZE, **options: Any
) -> Classifier:
    return build(backbone, outputs, Settings(image_size=size, **options), None, 0).eval()


def images(count: int = 2, size: tuple[int, int] = SIZE) -> torch.Tensor:
    return torch.rand((count, 3, *size), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("options", [{}, {"head": "logits"}, {"loss": "arcface"}, {"head_activation": "silu"}])
def test_the_map_is_that_of_the_paper(options: dict[str, Any]) -> None:
    trained = network(outputs=6, **options)
    # A label with a negative logit has a map of zeros. Without a bias, the features decide.
    if trained.head.bias is not None:
        torch.nn.init.zeros_(trained.head.bias)
    outputs = trained(images()).argmax(dim=1).tolist()
    maps = grad_cam(trained, images(), outputs)
    features = feature_map(trained, images()).detach().requires_grad_()
    assert maps.shape == (2, *features.shape[2:])
    torch.testing.assert_close(trained.logits_of(features), trained(images()))
    for row, output in enumerate(outputs):
        trained.logits_of(features)[row, output].backward()
        assert features.grad is not None
        weights = features.grad[row].mean(dim=(1, 2))
        expected = torch.einsum("c,chw->hw", weights, features[row].detach()).clamp(min=0)
        assert expected.max() > 0
        torch.testing.assert_close(maps[row], expected / expected.max())
        features.grad = None


def test_a_patch_that_decides_is_bright() -> None:
    """A network whose logit is the mean red, by hand: the red patch of the image is bright, and nothing else."""
    trained = network(size=(32, 32))
    trained.features = Red()
    trained.head = torch.nn.Linear(3, 2, bias=False)
    with torch.no_grad():
        trained.head.weight.copy_(torch.tensor([[1.0, 0, 0], [-1.0, 0, 0]]))
    trained.mean, trained.std = torch.zeros(1, 3, 1, 1), torch.ones(1, 3, 1, 1)
    image = torch.zeros(1, 3, 32, 32)
    image[0, 0, 8:16, 16:24] = 1
    (cam,) = grad_cam(trained, image, [0])
    expected = torch.zeros(4, 4)
    expected[1, 2] = 1
    torch.testing.assert_close(cam, expected)
    # No pixel makes the other label more probable.
    assert not grad_cam(trained, image, [1]).any()


class Red(torch.nn.Module):
    """Means of the channels in cells of 8 x 8 pixels, then over all cells."""

    num_features = 3

    def forward_features(self, images: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.avg_pool2d(images, 8)

    def forward_head(self, features: torch.Tensor) -> torch.Tensor:
        return features.mean(dim=(2, 3))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.forward_head(self.forward_features(images))


def test_networks_without_a_feature_map_are_named() -> None:
    assert obstacle(network(), SIZE) == ""
    assert obstacle(network("test_efficientnet"), SIZE) == ""
    tokens = obstacle(network("test_vit", size=(64, 64)), (64, 64))
    assert (
        tokens
        == "the network has no spatial feature map (its last features have 3 dimensions, and a feature map has 4)"
    )
    assert "has one cell for images of 32 x 32 pixels; use larger images" in obstacle(network(size=(32, 32)), (32, 32))


def test_channels_last_give_the_same_map() -> None:
    trained = network()
    (expected,) = grad_cam(trained, images(1), [1])
    trained.features = Last(trained.features)
    (cam,) = grad_cam(trained, images(1), [1])
    torch.testing.assert_close(cam, expected)


class Last(torch.nn.Module):
    """A network whose last feature map has its channels last, as those of Swin."""

    def __init__(self, inner: Any) -> None:
        super().__init__()
        self.inner, self.num_features = inner, inner.num_features

    def forward_features(self, images: torch.Tensor) -> torch.Tensor:
        features: torch.Tensor = self.inner.forward_features(images).permute(0, 2, 3, 1)
        return features

    def forward_head(self, features: torch.Tensor) -> torch.Tensor:
        pooled: torch.Tensor = self.inner.forward_head(features.permute(0, 3, 1, 2))
        return pooled


def test_the_network_of_the_labels_class_makes_the_map() -> None:
    one, other = network(), network()
    with torch.no_grad():
        other.head.weight.neg_()
    folds = [[Member(0, "a", (0, 2), one), Member(0, "b", (1,), other)]]
    maps = maps_of_labels(folds, images(3), [1, 2, 0])
    torch.testing.assert_close(maps[0], grad_cam(other, images(3)[:1], [0])[0])
    torch.testing.assert_close(maps[1], grad_cam(one, images(3)[1:2], [1])[0])
    torch.testing.assert_close(maps[2], grad_cam(one, images(3)[2:], [0])[0])


def test_repeats_are_averaged_and_other_labels_are_null() -> None:
    one, other = network(), network(head_init="xavier")
    folds = [[Member(0, "a", (0, 2), one), Member(0, "a", (0, 2), other, 1)]]
    maps = maps_of_labels(folds, images(2), [2, 1])
    # The label 1 has no network: both say null, their last output.
    for row, output in ((0, 1), (1, 2)):
        image = images(2)[row : row + 1]
        expected = (grad_cam(one, image, [output]) + grad_cam(other, image, [output])) / 2
        torch.testing.assert_close(maps[row], expected[0])


def test_the_mean_over_folds_or_one_fold() -> None:
    settings = Settings(image_size=SIZE)
    members = [Member(fold, "", (0, 1, 2), build("test_resnet", 3, settings, None, fold).eval()) for fold in (3, 5)]
    specs = [("a", "good"), ("a", "bad"), ("b", "good")]
    scorer = SupervisedScorer("baseline", "xyz", specs, settings, members, "test_resnet", pick("cpu"))
    prepared = [np.full((3, *SIZE), 90, np.uint8), np.tile(np.arange(96, dtype=np.uint8), (3, 64, 1))]
    both, first, second = (scorer.grad_cam(prepared, [0, 1], fold) for fold in (None, 3, 5))
    assert both is not None
    assert first is not None
    assert second is not None
    np.testing.assert_allclose(both, (first + second) / 2, atol=1e-6)
    assert not np.allclose(first, second)
