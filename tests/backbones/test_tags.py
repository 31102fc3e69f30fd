"""The tags in timm's source are those of an imported timm."""

from __future__ import annotations

from pathlib import Path

import pytest
import timm

from harness.backbones import tags


def test_the_source_of_timm_states_the_default_tag_of_every_network() -> None:
    for network in timm.list_models():
        source, default = tags._from_source(network), timm.models.get_pretrained_cfg(network)
        assert next(iter(source.items())) == (default.tag or "", tags._tag(default)), network


def test_source_and_import_give_equal_tags() -> None:
    published = "resnet50", "vit_base_patch16_clip_quickgelu_224", "tf_efficientnet_lite0"
    for network in published:
        imported = tags._from_timm(network)
        assert len(imported) >= 1
        assert {name: tag for name, tag in tags._from_source(network).items() if tag.published} == imported
    # A name of earlier versions of timm, and a name without a network.
    for network in ("tv_resnet34", "no_network"):
        assert tags.tags_of(network) == {}


def test_tags_that_the_source_does_not_state_come_from_an_import(monkeypatch: pytest.MonkeyPatch) -> None:
    stated = tags._from_source("resnet18")
    assert stated
    # Such as a module that needs Torch for its tags.
    monkeypatch.setitem(tags._files(), "resnet18", Path(timm.__file__).parent / "models" / "_builder.py")
    assert tags._from_source("resnet18") == {}
    assert tags.tags_of.__wrapped__("resnet18") == stated
