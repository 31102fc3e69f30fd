"""The real Engine on tiny images."""

from __future__ import annotations

import inspect
import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import anomalib.models.image
import numpy as np
import pytest
import torch
from anomalib.engine import Engine
from lightning.pytorch import seed_everything
from PIL import Image
from torchvision.transforms.v2 import Compose, RandomHorizontalFlip, Resize

from harness.backbones.inject import backbone_weights
from harness.backends.anomalib import AnomalibBackend, catalog
from harness.backends.anomalib.build import build_model
from harness.backends.anomalib.checks import check_specs
from harness.backends.anomalib.data import SplitDataModule
from harness.backends.base import Outcome, RunContext
from harness.common.errors import ConfigError
from harness.config.load import load_config
from harness.config.spec import RunSpec, freeze_items
from harness.data.images import MAX_PIXELS
from harness.data.index import FileIndex
from harness.data.samples import Split
from harness.data.split import load_splits
from harness.data.synthetic import with_synthetic
from harness.metrics.validation import samples_of_trials
from harness.planning.plan import make_plan
from tests.conftest import Cli, write_config

PATCHCORE = "{model: patchcore, backbone: resnet18, layers: [layer2, layer3], image_size: 64, num_neighbors: 2}"


def prepared(toy_tree: Path, grid: str, more: str = "", **data: Any) -> tuple[RunSpec, Split]:
    values = {"kind": "mvtec", "root": str(toy_tree), "category": "plate", "val": 0.25, **data}
    text = f"data: {json.dumps(values)}\nweights: random\nlatency: false\n{more}\ngrid: {grid}"
    config = load_config(write_config(Path("c.yaml"), text))
    (split,) = load_splits(config.data, Path(), FileIndex(Path("index.json")))
    plan = make_plan(config, [split.category], lambda _, model: AnomalibBackend().parameters(model))
    return plan.specs[0], split


def run(spec: RunSpec, split: Split) -> Outcome:
    scratch = Path("scratch")
    scratch.mkdir(exist_ok=True)
    (outcome,) = AnomalibBackend().run([spec], split, RunContext(scratch, "cpu", 0, lambda stage: None))
    assert isinstance(outcome, Outcome)
    return outcome


@pytest.mark.parametrize("name", sorted(catalog.models()))
def test_parameters_read_from_source_are_the_real_ones(name: str) -> None:
    if name == "vlmad":
        with pytest.raises(ConfigError, match="language model"):
            catalog.signature(name)
        return
    cls = getattr(anomalib.models.image, catalog.models()[name][0])
    real = {k: p.default for k, p in inspect.signature(cls.__init__).parameters.items() if k != "self"}
    read = catalog.signature(name)[1]
    assert list(read) == list(real)
    for key, value in read.items():
        if value is not None:
            assert value == real[key] or list(value) == list(real[key])


def test_raw_scores_and_maps_are_what_a_bare_engine_gives_without_normalisation(toy_tree: Path) -> None:
    spec, split = prepared(toy_tree, PATCHCORE)
    outcome = run(spec, split)
    seed_everything(spec.seed, workers=True, verbose=False)
    with backbone_weights("random"):
        model = build_model(spec)
    model.post_processor, model.evaluator = None, None
    datamodule = SplitDataModule(split, 32, 32, 0)
    engine = Engine(default_root_dir="bare", enable_progress_bar=False, enable_model_summary=False, accelerator="cpu")
    engine.fit(model=model, datamodule=datamodule)
    batches = engine.predict(model=model, dataloaders=datamodule.test_dataloader(), return_predictions=True)
    assert batches is not None
    bare = {
        p: (float(s), m) for b in batches for p, s, m in zip(b.image_path, b.pred_score, b.anomaly_map, strict=True)
    }
    assert outcome.test.maps is not None
    for sample, score, one_map in zip(outcome.test.samples, outcome.test.scores, outcome.test.maps, strict=True):
        assert score == pytest.approx(bare[sample.path][0], rel=1e-5)
        assert np.allclose(one_map, bare[sample.path][1].numpy().reshape(one_map.shape), rtol=1e-4, atol=1e-5)


def test_one_run_has_everything(toy_tree: Path) -> None:
    spec, split = prepared(toy_tree, PATCHCORE)
    outcome = run(spec, split)
    assert outcome.calibration is not None
    assert [s.path for s in outcome.calibration.samples] == [s.path for s in split.val]
    assert outcome.test.maps is not None
    assert outcome.test.maps.shape == (len(split.test), 64, 64)
    assert set(outcome.own_metrics) == {
        f"anomalib_{level}_{name}" for level in ("image", "pixel") for name in ("AUROC", "F1Score")
    }
    assert outcome.weights["source"] == "random"
    assert outcome.weights["backbone"] == "resnet18"


@pytest.mark.slow
def test_the_same_seed_gives_the_same_scores(toy_tree: Path) -> None:
    first, second = (run(*prepared(toy_tree, PATCHCORE)) for _ in range(2))
    assert first.test.scores.tolist() == second.test.scores.tolist()
    other = run(*prepared(toy_tree, PATCHCORE, "seed: 1"))
    assert first.test.scores.tolist() != other.test.scores.tolist()


@pytest.mark.parametrize("defects", [True, False])
def test_anomalibs_own_metrics_do_not_count_synthetic_defects(toy_tree: Path, tmp_path: Path, defects: bool) -> None:
    root = Path(shutil.copytree(toy_tree, tmp_path / "tree"))
    for folder in () if defects else (*root.glob("*/test/*"), *root.glob("*/ground_truth")):
        if folder.name != "good":
            shutil.rmtree(folder)
    spec, split = prepared(root, PATCHCORE)
    ranked = with_synthetic(split, tmp_path, FileIndex(tmp_path / "index.json"), MAX_PIXELS)
    plain, outcome = run(spec, split), run(spec, ranked)
    assert outcome.own_metrics == plain.own_metrics
    assert outcome.test.samples == ranked.test
    number = len(split.test)
    assert outcome.test.scores[:number].tolist() == plain.test.scores.tolist()
    assert np.isfinite(outcome.test.scores[number:]).all()
    assert len(outcome.test.scores) - number >= 30
    assert (outcome.cost["images_per_second"] or 0) > 0


def test_saved_checkpoint_is_loaded_again_by_anomalib(toy_tree: Path, tmp_path: Path) -> None:
    spec, split = prepared(toy_tree, PATCHCORE)
    outcome = run(spec, split)
    outcome.save_model(tmp_path)
    # Early versions of Python 3.11 pickle enums by getattr, which anomalib has not on its list of what may be loaded.
    with backbone_weights("random"), torch.serialization.safe_globals([getattr]):
        model = anomalib.models.image.Patchcore.load_from_checkpoint(tmp_path / "model.ckpt", map_location="cpu")
    engine = Engine(default_root_dir="again", enable_progress_bar=False, accelerator="cpu")
    model.post_processor, model.evaluator = None, None
    loader = SplitDataModule(split, 32, 32, 0)
    loader.setup()
    batches = engine.predict(model=model, dataloaders=loader.test_dataloader(), return_predictions=True)
    assert batches is not None
    again = {path: float(score) for b in batches for path, score in zip(b.image_path, b.pred_score, strict=True)}
    for sample, score in zip(outcome.test.samples, outcome.test.scores, strict=True):
        assert again[sample.path] == pytest.approx(score, rel=1e-5)


def test_val_of_zero_uses_anomalibs_own_default(toy_tree: Path) -> None:
    outcome = run(*prepared(toy_tree, PATCHCORE, val=0))
    assert outcome.calibration is None
    assert outcome.own_metrics["anomalib_image_F1Score"] is not None


def test_anomalib_does_not_see_the_images_that_a_search_holds_out(toy_tree: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(toy_tree, tmp_path / "tree"))
    spec, split = prepared(root, PATCHCORE, val=0)
    held_out = {"share": 0.5, "seed": 0}
    spec = replace(spec, holdout=freeze_items(held_out))
    before = run(spec, split)
    assert before.validation == "test images that the search did not hold out"
    allowed = samples_of_trials(split.test, held_out)
    for sample in split.test:
        if sample not in allowed:
            noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
            Image.fromarray(noise).save(sample.path)
    after = run(spec, split)
    # Its metrics depend on the validation too, which fixes the threshold and the scale of the scores.
    assert after.own_metrics == before.own_metrics
    assert after.test.scores.tolist() != before.test.scores.tolist()


def test_without_masks_maps_stay_and_truth_is_missing(toy_tree: Path, tmp_path: Path) -> None:
    root = tmp_path / "parts"
    root.mkdir()
    (root / "good").symlink_to(toy_tree / "plate/train/good")
    (root / "bad").symlink_to(next((toy_tree / "plate/test").glob("[!g]*")))
    data = {"kind": "folder", "normal_dir": "good", "abnormal_dir": "bad", "root": str(root)}
    config = load_config(write_config(Path("f.yaml"), f"data: {json.dumps(data)}\nweights: random\ngrid: {PATCHCORE}"))
    (split,) = load_splits(config.data, Path(), FileIndex(Path("index.json")))
    plan = make_plan(config, [""], lambda _, model: AnomalibBackend().parameters(model))
    outcome = run(plan.specs[0], split)
    assert outcome.test.masks is None
    assert outcome.test.maps is not None
    assert outcome.own_metrics["anomalib_image_AUROC"] is not None


def test_a_model_that_insists_on_masks_runs_without_them(toy_tree: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(toy_tree, tmp_path / "bare"))
    shutil.rmtree(root / "plate/ground_truth")
    grid = "{model: fastflow, backbone: resnet18, image_size: 256, flow_steps: 1}"
    outcome = run(*prepared(root, grid, "trainer: {max_epochs: 1}"))
    assert outcome.own_metrics["anomalib_image_AUROC"] is not None
    assert outcome.test.masks is None


def test_a_model_that_trains_in_epochs_takes_trainer_arguments(toy_tree: Path) -> None:
    grid = "{model: cflow, backbone: resnet18, layers: [layer2], image_size: 64, coupling_blocks: 2}"
    spec, split = prepared(toy_tree, grid, "trainer: {max_epochs: 2}")
    outcome = run(spec, split)
    assert outcome.warnings == []
    assert outcome.calibration is not None
    assert np.isfinite(outcome.test.scores).all()


def test_what_a_model_overrules_is_said(toy_tree: Path) -> None:
    outcome = run(*prepared(toy_tree, PATCHCORE, "trainer: {max_epochs: 3}"))
    assert outcome.warnings == [
        "trainer.max_epochs: found 3, but anomalib's Patchcore requires 1; 1 was used",
    ]


def test_images_that_are_not_square(toy_tree: Path) -> None:
    grid = PATCHCORE.replace("image_size: 64", "image_size: [[64, 96]]")
    outcome = run(*prepared(toy_tree, grid))
    assert outcome.test.maps is not None
    assert outcome.test.maps.shape[1:] == (64, 96)


@pytest.mark.parametrize(
    ("grid", "more", "part"),
    [
        (PATCHCORE.replace("layer3", "layer9"), "", "backbone resnet18 has no layer 'layer9'. Did you mean"),
        (PATCHCORE.replace("resnet18", "resnet19"), "", "unknown backbone 'resnet19'. Did you mean"),
        (PATCHCORE[:-1] + ", coreset_sampling_ratio: 0.0001}", "", "leaves an empty coreset"),
        (PATCHCORE[:-1] + ", coreset_sampling_ratio: 1.5}", "", "expected a share above 0 and up to 1"),
        (PATCHCORE.replace("num_neighbors: 2", "num_neighbors: 900"), "", "num_neighbors: found 900, expected 1 to 38"),
        ("{model: padim, backbone: resnet18, layers: [layer1], n_features: 65}", "", "expected 1 to 64, the width"),
        ("{model: padim, backbone: resnet34, layers: [layer1]}", "", "n_features: none given"),
        ("{model: padim, backbone: resnet18, layers: [layer1], n_features: '50'}", "", "found '50', expected 1 to 64"),
        (PATCHCORE.replace("resnet18", "crossvit_9_240"), "", "backbone crossvit_9_240 has no layer 'layer2'"),
        (PATCHCORE.replace("resnet18", "mobilevit_s"), "", "takes mobilevit_s for a plain vision transformer"),
        (PATCHCORE, "trainer: {max_epoch: 3}", "trainer.max_epoch: Lightning's Trainer has no such argument. Did you"),
        (PATCHCORE, "trainer: {max_epochs: -3}", "trainer: Lightning refuses {'max_epochs': -3}"),
        (PATCHCORE, "trainer: {devices: 2}", "trainer.devices: set by the harness"),
        ("{model: dfm, backbone: resnet18, layer: layer7}", "", "has no layer 'layer7'"),
    ],
)
def test_what_can_not_work_is_found_before_any_work(toy_tree: Path, grid: str, more: str, part: str) -> None:
    spec, split = prepared(toy_tree, grid, more)
    assert any(part in problem for problem in check_specs([spec], {split.category: split}, "auto"))


def test_weights_that_do_not_fit_and_devices_that_are_not_there(toy_tree: Path) -> None:
    torch.save({"a.weight": torch.zeros(1)}, "w.pth")
    spec, split = prepared(toy_tree, PATCHCORE)
    other = RunSpec(**{**spec.__dict__, "weights": "w.pth"})
    problems = check_specs([other], {split.category: split}, "cuda:7")
    assert any("0 of 100 tensors match" in problem for problem in problems)
    assert any("device: cuda:7 found, but Torch sees" in problem for problem in problems)


def test_real_images_without_weights_stop_with_how_to_get_them(cli: Cli, toy_tree: Path) -> None:
    text = f"data: {{kind: mvtec, root: {toy_tree}}}\noutput: out\ngrid: {PATCHCORE}"
    result = cli("sweep", write_config(Path("r.yaml"), text))
    assert result.exit_code == 2
    assert "none found for backbone 'resnet18'" in result.output
    assert not Path("out").exists()


@pytest.mark.slow
def test_a_model_that_fails_in_the_engine_is_recorded(cli: Cli, toy_tree: Path) -> None:
    """CFlow wants as many positions as a batch of fibers has, and says so only when it is fitted."""
    text = (
        f"data: {{kind: mvtec, root: {toy_tree}}}\nweights: random\n"
        f"grid: [{{model: dfkde, backbone: resnet18, layers: [layer9]}}, {PATCHCORE}]"
    )
    assert cli("plan", write_config(Path("e.yaml"), text)).exit_code == 2
    text = text.replace("[layer9]", "[layer4], fiber_batch_size: 9999").replace("dfkde", "cflow, image_size: 64")
    result = cli("sweep", write_config(Path("e.yaml"), text))
    assert result.exit_code == 1
    assert "FAILED" in result.output
    assert "2/2" in result.output
    assert "Traceback" not in result.output


@pytest.mark.slow
def test_anomalibs_own_datamodules_by_name(cli: Cli, toy_tree: Path) -> None:
    data = f"{{kind: MVTecAD, root: {toy_tree}, category: plate}}"
    config = write_config(Path("d.yaml"), f"data: {data}\nweights: random\ngrid: {PATCHCORE}")
    result = cli("plan", config)
    assert result.exit_code == 0, result.output
    assert cli("sweep", config).exit_code == 0
    assert "unknown kind of data 'MVTecAB'. Did you mean 'MVTecAD'" in cli("plan", config, "data.kind=MVTecAB").output
    assert "data.rot: MVTecAD has no such argument. Did you mean 'root'" in cli("plan", config, "data.rot=x").output
    missing = cli("plan", config, "data.kind=BTech", "data.root=/dev/null/no")
    assert missing.exit_code == 2
    assert "anomalib's BTech failed" in missing.output


@pytest.mark.slow
def test_memory_does_not_grow_with_the_coreset(tmp_path: Path) -> None:
    """In a process of its own: anomalib's selection, whose every step would otherwise leave 20 MB behind."""
    code = (
        "import warnings; warnings.simplefilter('ignore')\n"
        "import torch; from anomalib.models.components import KCenterGreedy\n"
        "from harness.backends.anomalib.memory import steady_selection\n"
        "rss = lambda: int(open('/proc/self/statm').read().split()[1]) * 4096 / 2**20\n"
        "x = torch.randn(22528, 448); before = rss()\n"
        "with steady_selection(): KCenterGreedy(x, 0.005).sample_coreset()\n"
        "print(rss() - before)"
    )
    if not Path("/proc/self/statm").exists():
        pytest.skip("needs /proc to measure memory")
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert float(process.stdout) < 500


def test_maps_of_a_cut_out_centre_meet_that_part_of_the_masks() -> None:
    """By default some models resize to 256, say, and see only the 224 in the middle."""
    from anomalib.models.image import MHPatchcore, Patchcore

    from harness.backends.anomalib.places import before_crop

    def before(pre_processor: Any) -> tuple[tuple[int, int] | None, list[str]]:
        return before_crop(SimpleNamespace(pre_processor=pre_processor))

    assert before(MHPatchcore.configure_pre_processor()) == ((256, 256), [])
    assert before(Patchcore.configure_pre_processor()) == (None, [])
    flipped = SimpleNamespace(transform=Compose([Resize((64, 64)), RandomHorizontalFlip(1.0)]))
    resized, warnings = before(flipped)
    assert resized is None
    assert warnings[0].startswith("pre-processor: RandomHorizontalFlip may move pixels")
