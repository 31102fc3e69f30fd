"""The construction of networks for a size of images."""

from __future__ import annotations

import pytest

from harness.backbones.layers import accept, construction

SIZE = (96, 96)


@pytest.mark.parametrize(
    "backbone",
    ["resnet18", "mobilenetv2_100", "densenet121", "vit_tiny_patch16_224", "swin_tiny_patch4_window7_224"],
)
def test_a_saved_model_is_constructed_as_in_its_training(backbone: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only networks without a choice are constructed untested."""
    monkeypatch.setattr("harness.backbones.layers._ACCEPTED", set())
    tested = construction(backbone, SIZE)
    construction.cache_clear()
    accept(backbone, SIZE)
    assert construction(backbone, SIZE) == tested
