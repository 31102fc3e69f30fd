"""Weights: where they come from, and that they fit whole or not at all."""

from __future__ import annotations

import os
import pickle
import re
import subprocess
import sys
from pathlib import Path

import pytest
import timm
import torch
import torchvision
from anomalib.models.components import TimmFeatureExtractor
from safetensors.torch import save_file

from harness.backbones import resolve as resolve_module
from harness.backbones.inject import backbone_weights, load_into
from harness.backbones.layers import construction, feature_layers
from harness.backbones.local import find_in, local_weights
from harness.backbones.networks import NoDraws, known_backbone
from harness.backbones.resolve import Weights, resolve
from harness.backbones.state import read_state
from harness.common.errors import ConfigError, UnknownNameError, WeightsError, WeightsNotFoundError
from harness.config.revisions import channels_last
from harness.detectors.features import build_extractor


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
    random_weights = resolve("random", "resnet18")
    assert (random_weights.source, random_weights.file) == ("random", None)
    Path("weights").mkdir()
    save_file(seeded().state_dict(), "weights/resnet18.safetensors")
    file_weights = resolve("auto", "resnet18")
    assert (file_weights.source, file_weights.file) == ("file", "weights/resnet18.safetensors")
    assert file_weights.sha256 is not None


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


FRESH = """
import sys, timm, torch
from harness.backbones.inject import backbone_weights
from harness.backbones.networks import whole_network
from harness.detectors.features import build_extractor
from harness.backbones.resolve import resolve

name = "tf_efficientnet_lite0"
if sys.argv[1] == "planned":
    whole_network(name)
torch.manual_seed(0)
with backbone_weights("auto", 0) as loaded:
    timm.create_model(name, pretrained=True, features_only=True)
build_extractor(name, ("blocks.1",), (64, 64), resolve("auto", name), 0)
assert loaded[name].file, loaded
assert all(tensor.is_meta for tensor in whole_network(name).parameters())
print(torch.rand(1).item())
"""


@pytest.mark.slow
def test_loaded_weights_leave_the_generator_alone_whatever_was_planned_before() -> None:
    draws = {
        subprocess.run([sys.executable, "-c", FRESH, mode], capture_output=True, text=True, check=True).stdout
        for mode in ("planned", "fresh")
    }
    assert len(draws) == 1


@pytest.mark.parametrize("name", ["resnet18", "vit_tiny_patch16_224", "tf_efficientnet_lite0"])
def test_a_network_for_loaded_weights_draws_no_values(name: str) -> None:
    before = torch.get_rng_state()
    with NoDraws() as constants:
        network = timm.create_model(name, pretrained=False)
        with constants.suspended():
            drawn = torch.empty(100).normal_()
    assert not [
        key for key, value in network.state_dict().items() if value.is_floating_point() and value.unique().numel() > 1
    ]
    assert drawn.std() > 0.5
    torch.set_rng_state(before)
    assert torch.equal(torch.empty(100).normal_(), drawn)


def test_a_draw_within_limits_ends_without_draws() -> None:
    with NoDraws():
        values = torch.nn.init.trunc_normal_(torch.empty(50), mean=1.0, std=0.1, a=0.5, b=1.5)
        others = torch.nn.init.trunc_normal_(torch.empty(50), mean=0.0, std=1.0, a=2.0, b=3.0)
    assert ((values >= 0.5) & (values <= 1.5)).all()
    assert ((others >= 2) & (others <= 3)).all()


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


# ---- names of other libraries, wrappers, and what is no weights file


def efficientnet_pytorchs(name: str) -> dict[str, torch.Tensor]:
    """A timm EfficientNet's tensors as efficientnet_pytorch calls them, in its order."""
    network = timm.create_model(name)
    parts = {"conv_dw": "_depthwise_conv", "conv_pwl": "_project_conv", "se.conv_reduce": "_se_reduce",
             "se.conv_expand": "_se_expand", "conv_pw": "_expand_conv"}  # fmt: skip
    renamed = {}
    number = -1
    last = ""
    for name_, value in network.state_dict().items():
        key = name_
        if key.endswith("num_batches_tracked"):
            continue
        if not key.startswith("blocks."):
            for ours, theirs in (("conv_stem", "_conv_stem"), ("conv_head", "_conv_head"), ("classifier", "_fc")):
                key = key.replace(ours, theirs)
            renamed[key] = value
            continue
        block, rest = ".".join(key.split(".")[:3]), key.split(".", 3)[3]
        number, last = number + (block != last), block
        for ours, theirs in parts.items():
            rest = rest.replace(f"{ours}.", f"{theirs}.")
        renamed[f"_blocks.{number}.{rest}"] = value
    return renamed


def test_a_file_in_efficientnet_pytorchs_naming(tmp_path: Path) -> None:
    """With `_fc`, which is a head; by order and shape the rest is known."""
    torch.manual_seed(4)
    state = efficientnet_pytorchs("tf_efficientnet_b0")
    assert "_fc.weight" in state
    assert "_blocks.0._depthwise_conv.weight" in state
    torch.save(state, tmp_path / "b0.pth")
    network = built(str(tmp_path / "b0.pth"), "tf_efficientnet_b0")
    assert torch.equal(network.conv_stem.weight, state["_conv_stem.weight"])
    assert torch.equal(network.blocks[6][0].conv_pwl.weight, state["_blocks.15._project_conv.weight"])
    assert "fitted by order" not in resolve(str(tmp_path / "b0.pth"), "tf_efficientnet_b0").note
    # The same tensors fit the network with another padding: the requested network is used, with a warning.
    note = resolve(str(tmp_path / "b0.pth"), "efficientnet_b0").note
    assert "by order and shape as efficientnet_b0 (padding symmetric, batch-norm epsilon 1e-05)" in note
    assert "They also fit tf_efficientnet_b0 (padding as TensorFlow, batch-norm epsilon 0.001)" in note


def test_torchvisions_efficientnet_v2_is_not_tensorflows(tmp_path: Path) -> None:
    torch.save(torchvision.models.efficientnet_v2_s().state_dict(), tmp_path / "v2.pth")
    note = resolve(str(tmp_path / "v2.pth"), "tf_efficientnetv2_s").note
    assert "fitted by order and shape as tf_efficientnetv2_s (padding as TensorFlow" in note
    assert "They also fit efficientnetv2_s (padding symmetric" in note


def test_torchvisions_naming_has_variants_too(tmp_path: Path) -> None:
    torch.save(torchvision.models.efficientnet_b0().state_dict(), tmp_path / "b0.pth")
    assert "use the network of the training" in resolve(str(tmp_path / "b0.pth"), "efficientnet_b0").note
    # Where no tensor has another name, nothing was guessed.
    torch.save(seeded("efficientnet_b0").state_dict(), tmp_path / "own.pth")
    assert "fitted by order" not in resolve(str(tmp_path / "own.pth"), "efficientnet_b0").note


@pytest.mark.parametrize(
    ("prefix", "suffix"),
    [
        ("model.", ".ckpt"),
        ("backbone.", ".safetensors"),
        ("model.backbone.", ".pth"),
        ("module.model.encoder.", ".pth"),
    ],
)
def test_prefixes_and_lightning_checkpoints(tmp_path: Path, prefix: str, suffix: str) -> None:
    """A training's own tensors beside the network's are left out."""
    network = seeded()
    state = {prefix + key: value for key, value in network.state_dict().items()} | {"loss.weight": torch.ones(3)}
    file = tmp_path / f"resnet18{suffix}"
    if suffix == ".safetensors":
        save_file(state, file)
    else:
        torch.save({"state_dict": state, "epoch": 3, "callbacks": {}, "hyper_parameters": {"lr": 0.1}}, file)
    assert same(built(str(file)), network)
    assert find_in(tmp_path, "resnet18") == file


def test_a_file_with_two_networks_is_refused(tmp_path: Path) -> None:
    state = {f"{who}.{key}": value for who in ("student", "teacher") for key, value in seeded().state_dict().items()}
    torch.save(state, tmp_path / "two.pth")
    with pytest.raises(WeightsError, match=r"several networks that fit found, named student\., teacher\."):
        built(str(tmp_path / "two.pth"))


@pytest.mark.parametrize("dtype", [torch.int8, torch.int64, torch.bool])
def test_tensors_of_whole_numbers_are_refused(tmp_path: Path, dtype: torch.dtype) -> None:
    own = seeded().state_dict()
    state = {key: (value * 9).to(dtype) if value.is_floating_point() else value for key, value in own.items()}
    torch.save(state, tmp_path / "int.pth")
    with pytest.raises(WeightsError, match="tensors of whole numbers found"):
        built(str(tmp_path / "int.pth"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:abc\nsize 46827520\n", "Git LFS pointer"),
        (b"\n\n <!DOCTYPE html>\n<html><body>Not found</body></html>", "a web page"),
        (b"<HTML><head></head></HTML>", "a web page"),
        (b"", "an empty file"),
    ],
)
@pytest.mark.parametrize("suffix", [".safetensors", ".pth", ".ckpt"])
def test_what_was_saved_in_place_of_the_weights_is_named(
    tmp_path: Path, content: bytes, message: str, suffix: str
) -> None:
    file = tmp_path / f"resnet18{suffix}"
    file.write_bytes(content)
    with pytest.raises(WeightsError, match=message):
        read_state(file)


# ---- sizes


SIZED = ["vit_tiny_patch16_224", "deit3_small_patch16_224", "maxvit_rmlp_pico_rw_256", "swin_tiny_patch4_window7_224"]


@pytest.mark.parametrize(
    ("name", "source"),
    [
        (SIZED[0], "file"),
        (SIZED[-1], "random"),
        *(pytest.param(name, source, marks=pytest.mark.slow) for name in SIZED for source in ("file", "random")),
    ],
)
def test_networks_at_another_size_than_their_own(tmp_path: Path, name: str, source: str) -> None:
    """96 pixels: position embeddings and windows are resized, as timm does it; layers come with channels first."""
    torch.manual_seed(5)
    network = timm.create_model(name).eval()
    file = tmp_path / f"{name}.pth"
    torch.save(network.state_dict(), file)
    layers = feature_layers(name)
    deepest = list(layers)[-1]
    weights = resolve(str(file) if source == "file" else "random", name)
    extractor = build_extractor(name, (deepest,), (96, 96), weights, seed=5)
    features = extractor(torch.zeros(1, 3, 96, 96))[deepest]
    side = 96 // layers[deepest].stride
    assert features.shape == (1, layers[deepest].channels, side, side)
    assert features.isfinite().all()
    own = network.state_dict()
    # A list of features calls layers.0 layers_0.
    filled = {re.sub(r"^(layers|stages)_", r"\1.", key): v for key, v in extractor.network.state_dict().items()}
    shared = [k for k in filled if k in own and own[k].shape == filled[k].shape and own[k].is_floating_point()]
    assert len(shared) > 0.5 * len(filled)
    if source == "file":
        assert all(torch.equal(filled[key], own[key]) for key in shared)


def test_dinov2_at_another_size(tmp_path: Path) -> None:
    """Its own is 518."""
    name = "vit_small_patch14_dinov2"
    extractor = build_extractor(name, ("blocks.0",), (98, 70), resolve("random", name), seed=0)
    assert extractor(torch.zeros(1, 3, 98, 70))["blocks.0"].shape == (1, 384, 7, 5)


def test_a_size_that_a_network_does_not_take_is_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"image_size: 96x96 found, which backbone efficientformer_l1 does not take"):
        construction("efficientformer_l1", (96, 96))
    assert construction("resnet18", (50, 70)) == ()


def test_channels_last_features_are_turned(tmp_path: Path) -> None:
    """Swin gives (rows, columns, channels); what a layer is said to have is what comes out."""
    name = "swin_tiny_patch4_window7_224"
    extractor = build_extractor(name, ("layers.0", "layers.2"), (224, 224), resolve("random", name), seed=1)
    images = torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(1))
    bare = timm.create_model(name, features_only=True, out_indices=(0, 2))
    bare.load_state_dict(extractor.network.state_dict())
    with torch.no_grad():
        rows_last = bare.eval()(images)
    features = extractor(images)
    assert features["layers.0"].shape == (1, 96, 56, 56)
    assert torch.allclose(features["layers.2"], rows_last[1].permute(0, 3, 1, 2), atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", SIZED)
def test_classifiers_are_built_for_the_size_and_filled_from_a_file(tmp_path: Path, name: str) -> None:
    from harness.backends.supervised.network import build
    from harness.backends.supervised.settings import Settings

    network = timm.create_model(name)
    file = tmp_path / f"{name}.pth"
    torch.save(network.state_dict(), file)
    classifier = build(name, 3, Settings(image_size=(96, 96)), resolve(str(file), name), seed=0).eval()
    with torch.no_grad():
        assert classifier(torch.rand(2, 3, 96, 96)).shape == (2, 3)
    first = next(iter(key for key in network.state_dict() if key.startswith(("patch_embed", "stem"))))
    assert torch.equal(classifier.features.state_dict()[first], network.state_dict()[first])


@pytest.mark.parametrize(
    "name",
    ["swin_tiny_patch4_window7_224", "swin_s3_tiny_224", "swinv2_tiny_window8_256", "swinv2_cr_tiny_ns_224", "resnet18",
     "sequencer2d_s", "mambaout_femto", "test_mambaout", "mvitv2_tiny", "convnext_atto", "davit_tiny", "nest_tiny"],
)  # fmt: skip
def test_the_revision_names_the_networks_whose_features_have_channels_last(name: str) -> None:
    with torch.device("meta"):
        network = timm.create_model(name, features_only=True, exportable=True)
    assert channels_last(name) == (network.output_fmt == "NHWC")
