"""Networks: heads, weights, stochastic depth, and the merge of networks of single classes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import timm
import torch
from timm.layers import DropPath

from harness.backbones.inject import seeded
from harness.backbones.resolve import resolve
from harness.backends.supervised.network import Classifier, build
from harness.backends.supervised.one_class import class_targets, classes, merge
from harness.backends.supervised.settings import Settings
from harness.common.errors import ConfigError
from tests.backends.trainings import BACKBONE, SIZE, settings


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


def test_a_transformer_is_built_for_its_size() -> None:
    network = Classifier("test_vit", 3, Settings(image_size=(64, 64)))
    assert network(torch.rand(1, 3, 64, 64)).shape == (1, 3)
