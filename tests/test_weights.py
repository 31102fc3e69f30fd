"""Weights: where they come from, and that they fit whole or not at all."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import pytest
import timm
import torch
import torchvision
from anomalib.models.components import TimmFeatureExtractor
from safetensors.torch import save_file

from harness.backbones import feature_layers
from harness.detectors.features import build_extractor
from harness.errors import UnknownNameError, WeightsError, WeightsNotFoundError
from harness.weights import resolve as resolve_module
from harness.weights.inject import backbone_weights, load_into
from harness.weights.local import find_in, local_weights
from harness.weights.networks import known_backbone
from harness.weights.resolve import Weights, resolve
from harness.weights.state import read_state


@pytest.fixture(autouse=True)
def _no_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Neither this machine's hub cache nor an earlier answer about the network."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    resolve_module.why_unreachable.cache_clear()


def seeded(name: str = "resnet18", seed: int = 1) -> torch.nn.Module:
    torch.manual_seed(seed)
    return timm.create_model(name, pretrained=False).eval()


def built(policy: str, name: str = "resnet18", seed: int = 99, **options: object) -> torch.nn.Module:
    """What one of anomalib's models would get."""
    with backbone_weights(policy, seed):
        return timm.create_model(name, pretrained=True, **options).eval()


def same(a: torch.nn.Module, b: torch.nn.Module) -> bool:
    x = torch.linspace(-1, 1, 3 * 64 * 64).reshape(1, 3, 64, 64)
    with torch.no_grad():
        return torch.equal(a(x), b(x))


def save_as(form: str, state: dict[str, torch.Tensor], folder: Path) -> Path:
    file = folder / ("w.safetensors" if form == "safetensors" else "w.pth")
    prefixed = {f"module.{key}": value for key, value in state.items()}
    match form:
        case "safetensors":
            save_file(state, file)
        case "bare":
            torch.save(state, file)
        case "state_dict":
            torch.save({"state_dict": prefixed, "epoch": 3}, file)
        case "model":
            torch.save({"model": state}, file)
        case "module":
            torch.save(prefixed, file)
    return file


@pytest.mark.parametrize("form", ["safetensors", "bare", "state_dict", "model", "module"])
def test_every_form_of_file(tmp_path: Path, form: str) -> None:
    network = seeded()
    file = save_as(form, network.state_dict(), tmp_path)
    assert same(built(str(file)), network)


def test_features_only_networks_take_them_too(tmp_path: Path) -> None:
    network = seeded("efficientnet_b0")
    file = save_as("safetensors", network.state_dict(), tmp_path)
    x = torch.linspace(-1, 1, 3 * 64 * 64).reshape(1, 3, 64, 64)
    features = built(str(file), "efficientnet_b0", features_only=True, out_indices=(4,))
    with torch.no_grad():
        expected = network.forward_intermediates(x, indices=[4], intermediates_only=True)[0]
        assert torch.allclose(features(x)[0], expected)


@pytest.mark.parametrize("name", ["resnet18", "efficientnet_b0", "wide_resnet50_2"])
def test_torchvision_naming(tmp_path: Path, name: str) -> None:
    """The same network under torchvision's names gives the same outputs."""
    torch.manual_seed(3)
    theirs = torchvision.models.get_model(name, weights=None).eval()
    file = save_as("bare", theirs.state_dict(), tmp_path)
    ours = built(str(file), name, num_classes=1000)
    x = torch.linspace(-1, 1, 3 * 64 * 64).reshape(1, 3, 64, 64)
    backbone = torch.nn.Sequential(*list(theirs.children())[: -1 if "eff" in name else -2]).eval()
    with torch.no_grad():
        expected = backbone(x) if "eff" not in name else theirs.features(x)
        assert torch.allclose(ours.forward_features(x), expected, atol=1e-5)


def test_torchvision_models_are_answered_too(tmp_path: Path) -> None:
    torch.manual_seed(3)
    network = torchvision.models.resnet18(weights=None).eval()
    file = save_as("bare", network.state_dict(), tmp_path)
    with backbone_weights(str(file)) as used:
        taken = torchvision.models.resnet18(weights=torchvision.models.ResNet18_Weights.DEFAULT).eval()
    assert used["resnet18"].file == str(file)
    assert torch.equal(taken.layer4[1].conv2.weight, network.layer4[1].conv2.weight)


@pytest.mark.parametrize(
    ("spoil", "parts"),
    [
        (
            lambda s: {k: v for k, v in s.items() if "layer3" not in k},
            ["missing: layer3.0.conv1.weight", "of 100 tensors"],
        ),
        (lambda s: {**s, "layer1.0.conv1.weight": torch.zeros(3, 3)}, ["other shape: layer1.0.conv1.weight (3, 3)"]),
        (lambda s: {**s, "layer9.conv.weight": torch.zeros(1)}, ["of another network: layer9.conv.weight"]),
        (lambda s: {"a.weight": torch.zeros(1)}, ["0 of 100 tensors match"]),
        (lambda s: seeded("resnet34").state_dict(), ["of another network: layer1.2.conv1.weight"]),
    ],
)
def test_what_does_not_fit_is_refused_whole(tmp_path: Path, spoil, parts: list[str]) -> None:
    file = save_as("bare", spoil(seeded().state_dict()), tmp_path)
    with pytest.raises(WeightsError) as caught:
        built(str(file))
    for part in parts:
        assert part in str(caught.value)


def test_a_file_that_would_run_code_is_refused(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, ...]:
            return (os.mkdir, (str(tmp_path / "ran"),))

    (tmp_path / "w.pth").write_bytes(pickle.dumps({"state_dict": Evil()}, protocol=2))
    with pytest.raises(WeightsError, match=r"w\.pth"):
        read_state(tmp_path / "w.pth")
    torch.save({"state_dict": Evil()}, tmp_path / "v.pt")
    with pytest.raises(WeightsError, match="could run code"):
        read_state(tmp_path / "v.pt")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("content", [b"", b"nonsense" * 50])
@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_damaged_files_are_named(tmp_path: Path, content: bytes, suffix: str) -> None:
    file = tmp_path / f"w{suffix}"
    file.write_bytes(content)
    with pytest.raises(WeightsError, match=f"w{suffix}"):
        read_state(file)


def test_a_folder_is_searched_by_name(tmp_path: Path) -> None:
    for name in ("resnet18.pth", "resnet18.safetensors", "resnet50-abc12345.pth", "resnet34.a1_in1k.pt", "notes.txt"):
        (tmp_path / name).write_bytes(b"x")
    assert find_in(tmp_path, "resnet18") == tmp_path / "resnet18.safetensors"
    assert find_in(tmp_path, "resnet50") == tmp_path / "resnet50-abc12345.pth"
    assert find_in(tmp_path, "resnet34") == tmp_path / "resnet34.a1_in1k.pt"
    assert find_in(tmp_path, "resnet34.other") is None
    assert find_in(tmp_path, "resnet5") is None
    with pytest.raises(WeightsError, match=r"no file for backbone 'vgg16' found in .*resnet18\.pth"):
        local_weights(str(tmp_path), "vgg16")
    with pytest.raises(WeightsError, match="expected auto, pretrained, random, or an existing file or folder"):
        local_weights("nowhere.pth", "resnet18")


def test_policies_without_a_network(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"none found for backbone 'resnet18'.*HF_HUB_OFFLINE.*Put a state dict"):
        resolve("auto", "resnet18")
    with pytest.raises(WeightsNotFoundError, match="none found"):
        resolve("pretrained", "resnet18")
    asked = resolve("random", "resnet18")
    assert (asked.source, asked.file) == ("random", None)
    Path("weights").mkdir()
    save_file(seeded().state_dict(), "weights/resnet18.safetensors")
    found = resolve("auto", "resnet18")
    assert (found.source, found.file) == ("file", "weights/resnet18.safetensors")
    assert found.sha256 is not None


def test_random_means_random_and_follows_the_seed() -> None:
    assert same(built("random"), seeded(seed=99))
    assert not same(built("random"), seeded(seed=98))


@pytest.mark.parametrize("name", ["resnet18", "cspdarknet53", "vit_tiny_patch16_224"])
def test_random_weights_are_the_same_for_all_who_ask(name: str) -> None:
    """Whatever a model drew before it built its backbone, and on both backends."""
    layers = list(feature_layers(name))[1:3]
    with backbone_weights("random", seed=4):
        torch.rand(17)
        theirs = TimmFeatureExtractor(name, layers).feature_extractor.state_dict()
    ours = build_extractor(name, tuple(layers), (64, 64), resolve("random", name), seed=4).network.state_dict()
    assert set(ours) == set(theirs)
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)


def test_the_hub_cache_is_used(tmp_path: Path) -> None:
    repository = tmp_path / "hub" / "models--timm--resnet18.a1_in1k"
    snapshot = repository / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("0" * 40)
    network = seeded()
    save_file(network.state_dict(), snapshot / "model.safetensors")
    assert resolve("pretrained", "resnet18").source == "hub cache"
    assert same(built("auto"), network)


def test_a_hub_that_does_not_answer_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """A real listener that accepts and says nothing."""
    import socket

    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", f"http://127.0.0.1:{server.getsockname()[1]}")
        monkeypatch.setattr(resolve_module, "PATIENCE", 0.3)
        with pytest.raises(WeightsError, match="the hub"):
            resolve("pretrained", "resnet18")


def test_unknown_backbones_are_suggested() -> None:
    with pytest.raises(UnknownNameError, match=r"unknown backbone 'resnet19'\. Did you mean"):
        known_backbone("resnet19")
    with pytest.raises(UnknownNameError, match=r"resnet18\.nope"):
        known_backbone("resnet18.nope")
    known_backbone("resnet18.a1_in1k")


def test_load_into_leaves_the_head_alone(tmp_path: Path) -> None:
    state = {k: v for k, v in seeded().state_dict().items() if not k.startswith("fc.")}
    file = save_as("bare", state, tmp_path)
    network = seeded(seed=5)
    head = network.fc.weight.clone()
    load_into(network, "resnet18", Weights("x", "file", str(file)), 0)
    assert torch.equal(network.fc.weight, head)
    assert torch.equal(network.conv1.weight, state["conv1.weight"])
