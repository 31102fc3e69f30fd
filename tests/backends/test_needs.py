"""What anomalib's models need is known before the first run, and taken from this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from harness.backbones import resolve as resolve_module
from harness.backends.anomalib import catalog
from harness.backends.anomalib.assets import _networks, networks_of
from harness.backends.anomalib.checks import check_specs
from harness.backends.anomalib.needs import NEEDS, Sizes, needs_of
from harness.config.load import load_config
from harness.config.spec import RunSpec
from harness.inference.model import load_model
from harness.planning.prepare import prepare
from harness.results.store import ResultFolder
from tests.conftest import ROOT, Cli, write_config

BEYOND_A_BACKBONE = {
    "anomalyvfm": ["weights/anomalyvfm/model.safetensors"],
    "draem": ["weights/dtd", "axis `dtd_dir`"],
    "dsr": ["weights/dsr/vq_model_pretrained_128_4096.pckl"],
    "efficientad": ["efficientad_pretrained_weights/pretrained_teacher_small.pth", "weights/imagenette"],
    "winclip": ["pip install 'open-clip-torch", "weights/clip/vit_b_16_plus_240-laion400m_e31-8fb26589.pt"],
}
ENCODERS = {
    "anomalydino": ["vit_small_patch14_dinov2"],
    "csflow": ["efficientnet_b5"],
    "dinomaly": ["vit_base_patch14_reg4_dinov2"],
    "inpformer": ["vit_base_patch14_reg4_dinov2"],
    "l2bt": ["vit_base_patch14_reg4_dinov2"],
    "foundad": ["vit_base_patch14_dinov2"],
    "uflow": ["cait_m48_448", "cait_s24_224"],
    "uninet": ["wide_resnet50_2"],
    "superadd": ["vit_huge_plus_patch16_dinov3"],
}


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    resolve_module.why_unreachable.cache_clear()


def planned(toy_tree: Path, grid: str, weights: str = "auto") -> tuple[list[RunSpec], dict[str, Any]]:
    text = f"data: {{kind: mvtec, root: {toy_tree}}}\nweights: {weights}\nlatency: false\ndevice: cpu\ngrid: {grid}"
    prepared = prepare(load_config(write_config(Path("n.yaml"), text)))
    return [run.spec for run in prepared.runs], dict(prepared.splits)


def problems(toy_tree: Path, grid: str, weights: str = "auto") -> list[str]:
    specs, splits = planned(toy_tree, grid, weights)
    return check_specs(specs, splits, "cpu")


def test_every_model_of_anomalib_is_in_the_table() -> None:
    assert set(NEEDS) == set(catalog.models())


@pytest.mark.parametrize(
    "model",
    [
        pytest.param(model, marks=[] if model in BEYOND_A_BACKBONE or model in ENCODERS else [pytest.mark.slow])
        for model in sorted(set(NEEDS) - {"vlmad"})
    ],
)
def test_without_a_network_what_is_missing_is_named_before_any_run(toy_tree: Path, model: str) -> None:
    text = "\n".join(problems(toy_tree, f"{{model: {model}}}"))
    for part in BEYOND_A_BACKBONE.get(model, []):
        assert part in text
    for network in ENCODERS.get(model, []):
        assert f"weights/{network}.safetensors" in text
    if model not in {"ganomaly", "cfm"}:
        assert text, "runs without a file, and nothing says so"
    assert not Path("datasets").exists()


def test_models_that_the_harness_does_not_run_say_why(toy_tree: Path) -> None:
    assert "reads point clouds" in "\n".join(problems(toy_tree, "{model: cfm}", "random"))


def test_what_is_on_this_machine_is_enough(toy_tree: Path) -> None:
    for name in ("dsr/vq_model_pretrained_128_4096.pckl", "anomalyvfm/model.safetensors"):
        file = Path("weights") / name
        file.parent.mkdir(parents=True)
        file.write_bytes(b"x")
    textures("weights/dtd/banded")
    for model in ("dsr", "draem", "anomalyvfm"):
        assert problems(toy_tree, f"{{model: {model}}}") == []
    # With an empty folder anomalib would go on without textures and without a word; another one is not taken instead.
    Path("empty").mkdir()
    assert "images of textures" in "\n".join(problems(toy_tree, "{model: draem, dtd_dir: empty}"))


@pytest.mark.parametrize(
    ("grid", "part"),
    [
        ("{model: draem, image_size: 72}", "image_size: 72x72 found, expected multiples of 32"),
        ("{model: efficientad, image_size: 128}", "expected 256 pixels or more"),
        ("{model: winclip, image_size: 256}", "expected 240x240 only"),
        ("{model: cfa, backbone: resnet18, image_size: [[64, 96]]}", "expected square"),
        ("{model: dinomaly, image_size: 224}", "expected 392 pixels or more"),
        ("{model: dfkde, backbone: resnet18}", "normal training images found; expected 17 or more"),
        ("{model: fre, backbone: resnet18, layer: layer3, image_size: 64}", "input_dim: found 65536, expected 1024"),
    ],
)
def test_sizes_and_numbers_are_checked_before_any_run(toy_tree: Path, grid: str, part: str) -> None:
    assert part in "\n".join(problems(toy_tree, grid, "random"))


@pytest.mark.parametrize(
    ("sizes", "good", "bad"),
    [
        (Sizes(), (3, 70), None),
        (Sizes(multiple=32, least=64), (64, 96), (32, 64)),
        (Sizes(square=True), (70, 70), (70, 71)),
        (Sizes(only=240), (240, 240), (240, 256)),
    ],
)
def test_size_rules(sizes: Sizes, good: tuple[int, int], bad: tuple[int, int] | None) -> None:
    assert sizes.problem(good) is None
    if bad is not None:
        assert str(sizes) in str(sizes.problem(bad))


def test_networks_are_seen_without_memory_for_them(toy_tree: Path) -> None:
    """840 million weights of SuperADD's would take 3.4 GB."""
    (spec,), _ = planned(toy_tree, "{model: superadd}")
    assert networks_of(spec) == ("vit_huge_plus_patch16_dinov3",)
    (spec,), _ = planned(toy_tree, "{model: stfpm, backbone: resnet34}")
    assert networks_of(spec) == ("resnet34",)


def test_one_model_shows_the_networks_of_all_points_with_other_numbers(toy_tree: Path) -> None:
    axes = "model: patchcore, backbone: resnet18"
    specs, _ = planned(toy_tree, f"{{{axes}, num_neighbors: [1, 2, 3], coreset_sampling_ratio: [0.1, 0.2]}}")
    before = _networks.cache_info().misses
    assert {networks_of(spec) for spec in specs} == {("resnet18",)}
    assert len(specs) == 6
    assert _networks.cache_info().misses <= before + 1


def test_a_large_network_without_a_gpu_is_said(cli: Cli, toy_tree: Path) -> None:
    text = f"data: {{kind: mvtec, root: {toy_tree}}}\nweights: random\ndevice: cpu\ngrid: {{model: generalad}}"
    result = cli("plan", str(write_config(Path("g.yaml"), text)))
    assert result.exit_code == 0, result.output
    assert "generalad: one training image takes about 1300 billion" in result.output


@pytest.mark.slow
def test_the_table_of_models_in_the_docs_is_what_the_command_prints(cli: Cli) -> None:
    result = cli("models", "--markdown")
    assert result.exit_code == 0
    assert result.output.strip() in (ROOT / "docs" / "models.md").read_text()
    shown = cli("models")
    assert shown.exit_code == 0
    assert "missing: weights/dtd" in shown.output.replace("\n", "")


def textures(folder: str, number: int = 1) -> None:
    rng = np.random.default_rng(0)
    Path(folder).mkdir(parents=True, exist_ok=True)
    for index in range(number):
        Image.fromarray(rng.integers(0, 255, (300, 300, 3), dtype=np.uint8)).save(Path(folder) / f"{index}.png")


@pytest.mark.slow
@pytest.mark.parametrize("model", ["draem", "dsr", "efficientad"])
def test_files_in_weights_are_used_without_a_network(cli: Cli, toy_tree: Path, model: str) -> None:
    """Trained, predicted with, and loaded again; EfficientAd's batch of 1 is taken by itself and said."""
    import anomalib.models.image

    size = 256 if model == "efficientad" else 64
    if model == "draem":
        textures("weights/dtd/banded", 2)
    else:
        cls = getattr(anomalib.models.image, catalog.models()[model][0])
        part = cls().model.teacher if model == "efficientad" else cls().model.discrete_latent_model
        file = Path("weights") / (
            "efficientad_pretrained_weights/pretrained_teacher_small.pth"
            if model == "efficientad"
            else "dsr/vq_model_pretrained_128_4096.pckl"
        )
        file.parent.mkdir(parents=True)
        torch.save(part.state_dict(), file)
        textures("weights/imagenette/n01", 2)
    text = f"data: {{kind: mvtec, root: {toy_tree}, val: 0.25}}\nweights: auto\nlatency: false\ndevice: cpu\n"
    text += f"save_models: all\ntrainer: {{max_epochs: 1}}\ngrid: {{model: {model}, image_size: {size}}}"
    result = cli("sweep", str(write_config(Path("m.yaml"), text)))
    assert result.exit_code == 0, result.output
    assert not Path("datasets").exists()
    (record,) = ResultFolder(Path("results/m")).records()
    text = "data.train_batch_size: found 32, but anomalib's EfficientAd requires 1"
    assert any(text in warning for warning in record.warnings) == (needs_of(model).batch == 1)
    model_ = load_model("results/m", device="cpu")
    assert np.isfinite(model_.predict(sorted((toy_tree / "plate" / "test").rglob("*.png"))[0]).score)
