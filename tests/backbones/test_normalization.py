"""Every network gets the input that its weights were trained with, on all backends, and nothing else changes."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import load_file, save_file

from harness.backbones.local import LocalWeights
from harness.backbones.normalization import OF_IMAGENET, Normalization, effective, input_of, trained_with
from harness.backbones.resolve import resolve
from harness.common.errors import ConfigError, StoreError, WeightsError
from harness.config.load import load_config
from harness.config.spec import RunSpec, run_id
from harness.detectors import load
from harness.detectors.spade import SPADE
from harness.inference.model import load_model
from harness.planning.prepare import prepare
from harness.results.store import ResultFolder
from tests.conftest import Cli, write_config

HALVES = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
LITE = "tf_efficientnet_lite0"
KEPT = "weights: auto\nlatency: false\ndevice: cpu\nsave_models: all\n"


def weights_file(name: str, network: str, folder: Path = Path(), **metadata: str) -> LocalWeights:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    state = {key: value.contiguous() for key, value in timm.create_model(network).state_dict().items()}
    if path.suffix == ".safetensors":
        save_file(state, path, metadata or None)
    else:
        torch.save(state, path)
    return LocalWeights(path)


def values(normalization: Normalization) -> tuple[Any, Any]:
    return normalization.mean, normalization.std


def test_what_says_how_weights_were_trained() -> None:
    """The file itself, then a JSON file beside it, then the tag in its name, then the default tag: assumed."""
    plain = weights_file("vit_tiny_patch16_224.pth", "vit_tiny_patch16_224")
    training = trained_with("vit_tiny_patch16_224", plain)
    assert (values(training.normalization), training.assumed, training.note) == (HALVES, True, "")
    own = weights_file("own.safetensors", "test_resnet", mean="[0.1, 0.2, 0.3]", std="[0.4, 0.5, 0.6]")
    training = trained_with("test_resnet", own)
    assert values(training.normalization) == ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    assert (training.source, training.assumed) == ("own.safetensors's metadata", False)
    Path("vit_tiny_patch16_224.json").write_text('{"mean": [0.2, 0.2, 0.2], "std": [0.3, 0.3, 0.3]}')
    assert values(trained_with("vit_tiny_patch16_224", plain).normalization) == ((0.2,) * 3, (0.3,) * 3)
    hub = weights_file("vit_base/model.safetensors", "test_resnet")
    Path("vit_base/config.json").write_text('{"pretrained_cfg": {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]}}')
    assert values(trained_with("test_resnet", hub).normalization) == HALVES
    assert trained_with("resnet18", None).normalization is OF_IMAGENET


def test_a_tag_in_the_name_decides_and_without_one_it_is_said_where_tags_differ() -> None:
    name = "vit_base_patch32_224"
    tagged = LocalWeights(Path(f"{name}.sam_in1k.pth"))
    training = trained_with(name, tagged)
    config = timm.models.get_pretrained_cfg(f"{name}.sam_in1k")
    assert values(training.normalization) == (tuple(config.mean), tuple(config.std))
    assert not training.assumed
    differing = next(
        architecture
        for architecture in (
            "convnext_base",
            "vit_base_patch16_clip_224",
            "beitv2_base_patch16_224",
            "resnetv2_50x1_bit",
        )
        if _tags_differ(architecture)
    )
    bare = trained_with(differing, LocalWeights(Path(f"{differing}.pth")))
    assert bare.assumed
    assert "were trained with other values" in bare.note
    assert bare.note.count("\n") == 0


def _tags_differ(architecture: str) -> bool:
    configs = [timm.models.get_pretrained_cfg(name) for name in timm.list_pretrained(f"{architecture}.*")]
    return len({(tuple(c.mean), tuple(c.std)) for c in configs}) > 1


@pytest.mark.parametrize(
    "content",
    ["{", '{"mean": [0.5, 0.5], "std": [0.5, 0.5]}', '{"mean": [0.5, 0.5, 0.5]}', '{"mean": "x", "std": [1, 1, 1]}',
     '{"mean": [0.5, 0.5, 0.5], "std": [0, 0.5, 0.5]}', '{"mean": [NaN, 0, 0], "std": [1, 1, 1]}'],
)  # fmt: skip
def test_a_file_that_says_nonsense_is_refused(content: str) -> None:
    weights_file("w.safetensors", "test_resnet")
    Path("w.json").write_text(content)
    with pytest.raises(WeightsError, match=r"w\.json"):
        resolve("w.safetensors", "test_resnet")


def test_what_enters_the_identity() -> None:
    """None wherever version 0.1 fed the same: then the run keeps its id."""
    assert input_of("resnet18", "random", "backbone", "imagenet") is None
    assert input_of("resnet18", "random", "imagenet", "imagenet") is None
    assert input_of(LITE, "auto", "imagenet", "imagenet") is None
    assert input_of(LITE, "auto", {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}, "imagenet") is None
    own = input_of(LITE, "auto", "backbone", "imagenet")
    assert own == Normalization("backbone", *HALVES)
    # However it is written, the same values are the same run.
    assert input_of(LITE, "auto", {"mean": HALVES[0], "std": HALVES[1]}, "imagenet") == own
    # Version 0.1 fed classifiers what timm says.
    assert input_of(LITE, "auto", "backbone", "backbone") is None
    assert input_of(LITE, "auto", "imagenet", "backbone") == OF_IMAGENET
    with pytest.raises(ConfigError, match="expected backbone, imagenet, or"):
        effective("imagenett", OF_IMAGENET)


def specs(toy_tree: Path, grid: str, more: str = "weights: random") -> list[RunSpec]:
    text = f"data: {{kind: mvtec, root: {toy_tree}}}\n{more}\nlatency: false\ndevice: cpu\ngrid: {grid}"
    return [run.spec for run in prepare(load_config(write_config(Path("n.yaml"), text))).runs]


def test_the_axis_in_the_plan(toy_tree: Path) -> None:
    grid = (
        f"{{backend: [native, anomalib], model: padim, backbone: [resnet18, {LITE}], layers: [[layer1]], "
        "normalization: [backbone, imagenet]}"
    )
    planned = specs(toy_tree, grid)
    # resnet18 was trained with ImageNet's: both values are one run.
    assert sorted((s.backend, str(s.backbone), s.normalization is None) for s in planned) == sorted(
        (backend, *rest)
        for backend in ("native", "anomalib")
        for rest in (("resnet18", True), (LITE, True), (LITE, False))
    )
    # A model that keeps its own input collapses beside others, and alone it is refused.
    mixed = specs(
        toy_tree,
        f"{{model: [padim, draem], backbone: {LITE}, layers: [[blocks.1]], normalization: [backbone, imagenet]}}",
    )
    assert [s.model for s in mixed].count("draem") == 1
    with pytest.raises(ConfigError, match="draem keeps its own input"):
        specs(toy_tree, "{model: draem, normalization: imagenet}")
    with pytest.raises(ConfigError, match=r"normalization: found 'imgnet', expected backbone"):
        specs(toy_tree, "{model: padim, normalization: imgnet}")


def test_ids_and_specs_of_version_0_1_stay(toy_tree: Path) -> None:
    """Written by version 0.1; read, identified and found again as they were."""
    (spec,) = specs(
        toy_tree,
        "{backend: native, model: patchcore, backbone: resnet18, layers: [layer2], image_size: 64}",
        "weights: random\nthreshold: normal_quantile",
    )
    assert "normalization" not in spec.as_dict()
    assert run_id(spec, "data", None) == "plate-native-patchcore-resnet18-layer2-64px-s0-32d15a69"
    assert RunSpec.from_dict(spec.as_dict()) == spec
    spade = f"backend: native, image_size: 64, model: spade, backbone: {LITE}, layers: [blocks.1]"
    (lite,) = specs(toy_tree, f"{{{spade}}}")
    assert RunSpec.from_dict(json.loads(json.dumps(lite.as_dict()))) == lite
    (before,) = specs(toy_tree, f"{{{spade}, normalization: imagenet}}")
    assert len({run_id(one, "data", None) for one in (lite, before)}) == 2
    assert "normalization" not in before.as_dict()


@pytest.mark.slow
def test_three_backends_feed_the_same_input(cli: Cli, toy_tree: Path) -> None:
    """The same model on both detection backends, with each normalisation: equal to each other, and not between them."""
    grid = (
        f"{{backend: [native, anomalib], model: patchcore, coreset: exact, backbone: {LITE}, layers: [blocks.1], "
        "coreset_sampling_ratio: 0.1, num_neighbors: 1, image_size: 64, normalization: [backbone, imagenet]}"
    )
    text = f"data: {{kind: mvtec, root: {toy_tree}}}\n{KEPT}grid: {grid}"
    write_config(Path("n.yaml"), text)
    result = cli("sweep", "n.yaml")
    assert result.exit_code == 0, result.output
    folder = ResultFolder(Path("results/n"))
    scores: dict[tuple[str, str], np.ndarray] = {}
    image = sorted((toy_tree / "plate" / "test").rglob("*.png"))[0]
    for record in folder.records():
        named = record.spec.get("normalization", {}).get("name", "imagenet")
        file = folder.run_folder(record.run_id)
        scores[record.spec["backend"], named] = np.array([load_model(file, device="cpu").predict(image).score])
        assert record.weights["normalization"]["mean"] == [0.5, 0.5, 0.5]
        assert record.weights["assumed"] is False
    for named in ("backbone", "imagenet"):
        assert scores["native", named] == pytest.approx(scores["anomalib", named], rel=1e-3)
    assert abs(scores["native", "backbone"] - scores["native", "imagenet"]) > 1e-2 * scores["native", "imagenet"]
    html = Path("results/n/report.html").read_text()
    assert "normalization imagenet" in html
    assert "normalization backbone" in html
    anomalibs_own_loader_scores_the_same(folder, image, scores["anomalib", "backbone"][0])


def anomalibs_own_loader_scores_the_same(folder: ResultFolder, image: Path, score: float) -> None:
    """What normalises is in the checkpoint: anomalib alone, without the harness, feeds it too."""
    from anomalib.data import ImageBatch
    from anomalib.models import Patchcore

    from harness.data.images import read_image

    record = next(r for r in folder.records() if r.spec["backend"] == "anomalib" and "normalization" in r.spec)
    file = folder.run_folder(record.run_id) / "model.ckpt"
    # Building asks for pretrained weights again; the checkpoint has them.
    theirs = Patchcore.load_from_checkpoint(file, pre_trained=False, map_location="cpu").eval()
    pixels = torch.from_numpy(read_image(image).copy()).permute(2, 0, 1)[None].float() / 255
    with torch.no_grad():
        raw = theirs.model(theirs.pre_processor.transform(pixels)).pred_score
    assert ImageBatch is not None
    assert float(raw) == pytest.approx(score, rel=1e-4)


def test_a_classifier_is_fed_what_is_asked_for(cli: Cli) -> None:
    text = """
task: classification
data: {kind: toy, train: 60, folds: 2, train_batch_size: 16}
weights: random
device: cpu
latency: false
save_models: all
trainer: {max_epochs: 1}
grid:
  model: baseline
  backbone: test_resnet
  image_size: 32
  normalization: [backbone, {mean: [0, 0, 0], std: [1, 1, 1]}]
"""
    write_config(Path("c.yaml"), text)
    result = cli("sweep", "c.yaml")
    assert result.exit_code == 0, result.output
    from harness.backends.supervised.classifier import SupervisedScorer

    folder = ResultFolder(Path("results/c"))
    means = {}
    for record in folder.records():
        scorer = SupervisedScorer.from_file(folder.run_folder(record.run_id) / "model.safetensors", "cpu")
        means["normalization" in record.spec] = scorer.members[0].network.mean.flatten().tolist()
    assert means[True] == [0, 0, 0]
    assert means[False] == pytest.approx(list(timm.models.get_pretrained_cfg("test_resnet").mean))


def test_a_saved_detector_keeps_it_and_one_of_version_0_1_has_imagenets(toy_tree: Path, tmp_path: Path) -> None:
    good, image = toy_tree / "plate" / "train" / "good", sorted((toy_tree / "plate" / "test").rglob("*.png"))[0]
    options: dict[str, Any] = {
        "backbone": LITE,
        "layers": ["blocks.1"],
        "image_size": 64,
        "device": "cpu",
        "progress": False,
    }
    detectors = {}
    for normalization in ("backbone", "imagenet"):
        file = (
            SPADE(num_neighbors=2, normalization=normalization, **options)
            .fit(good)
            .save(tmp_path / f"{normalization}.safetensors")
        )
        detectors[normalization] = load(file, "cpu", progress=False)
    assert values(detectors["backbone"].preprocessing.normalization) == HALVES
    assert detectors["imagenet"].preprocessing.normalization == OF_IMAGENET
    assert detectors["backbone"].predict(image).score != detectors["imagenet"].predict(image).score
    # As version 0.1 wrote it: without the option.
    old = tmp_path / "old.safetensors"
    from safetensors import safe_open

    with safe_open(tmp_path / "imagenet.safetensors", "pt") as opened:
        about = json.loads(opened.metadata()["harness"])
    del about["options"]["normalization"]
    about["weights"] = {"policy": "auto", "source": "file", "file": "w", "sha256": "a", "fallback": False, "note": ""}
    save_file(load_file(tmp_path / "imagenet.safetensors"), old, {"harness": json.dumps(about)})
    assert load(old, "cpu", progress=False).predict(image).score == detectors["imagenet"].predict(image).score


@pytest.mark.slow
# OpenVINO reads the file of ONNX.
@pytest.mark.parametrize("chosen", ["onnx", "torchscript"])
def test_exports_keep_it(cli: Cli, toy_tree: Path, chosen: str) -> None:
    """The file is checked against the run before it is handed over; a wrong mean would refuse it."""
    grid = f"{{backend: native, model: padim, n_features: 10, backbone: {LITE}, layers: [blocks.1], image_size: 64}}"
    text = f"data: {{kind: mvtec, root: {toy_tree}}}\n{KEPT}grid: {grid}"
    write_config(Path("e.yaml"), text)
    assert cli("sweep", "e.yaml").exit_code == 0
    result = cli("export", "results/e", "--format", chosen)
    assert result.exit_code == 0, result.output


def test_networks_of_different_inputs_are_not_averaged() -> None:
    """Mean and deviation are in no state dict; an average of weights has one input only."""
    from harness.backends.supervised.classifier import SupervisedScorer
    from harness.backends.supervised.network import Member, build
    from harness.backends.supervised.settings import Settings
    from harness.common.devices import pick
    from harness.ensemble.average import _same_networks

    def scorer(normalization: Normalization | None) -> SupervisedScorer:
        settings = Settings(image_size=(32, 32), normalization=normalization)
        member = Member(0, "", (0, 1), build("test_resnet", 2, settings, None, 0))
        labels = (("a", "x"), ("a", "y"))
        return SupervisedScorer("baseline", ("a-x", "a-y"), labels, settings, [member], "test_resnet", pick("cpu"))

    run: Any = SimpleNamespace(folder=Path("run"))
    config = timm.models.get_pretrained_cfg("test_resnet")
    own = Normalization("backbone", tuple(config.mean), tuple(config.std))
    _same_networks(run, scorer(None), scorer(own))
    with pytest.raises(StoreError, match="normalization"):
        _same_networks(run, scorer(None), scorer(Normalization("custom", (0.1,) * 3, (0.9,) * 3)))
