"""Groups of native runs: each run has the results of a run alone, and shares the work."""

from __future__ import annotations

import json
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import torch
from openpyxl import load_workbook

from harness import registry
from harness.backbones.inject import backbone_weights
from harness.backends.base import Failure, RunContext
from harness.backends.native import NativeBackend
from harness.backends.native import group as native_group
from harness.config.load import load_config
from harness.detectors import load, neighbours
from harness.detectors.features import Extractor
from harness.detectors.group import Group
from harness.detectors.sources import ImageSource
from harness.detectors.stages import Stages
from harness.planning.prepare import prepare
from tests.backends.native_runs import (
    BANKS,
    COMMON,
    GRID,
    IN_TRANSFORMER,
    answers,
    config_file,
    outcomes,
    planned,
    same,
)
from tests.conftest import HAZELNUT, MOBILENET, Cli, real_data, write_config


def test_every_detector_is_in_a_grid() -> None:
    assert all(f"model: {name}," in GRID + IN_TRANSFORMER for name in registry.DETECTORS)


@pytest.mark.slow
@pytest.mark.parametrize(("grid", "blocks"), [(GRID + BANKS, (10, 16)), (IN_TRANSFORMER, None)])
def test_a_grid_says_what_each_run_says_alone(
    tmp_path: Path, toy_tree: Path, monkeypatch: pytest.MonkeyPatch, blocks: tuple[int, int] | None, grid: str
) -> None:
    if blocks is not None:
        # So small that the toy banks have many, and end anywhere in them.
        monkeypatch.setattr(neighbours, "QUERIES", blocks[0])
        monkeypatch.setattr(neighbours, "BANK", blocks[1])
    specs, split = planned(tmp_path, toy_tree, grid)
    assert len({NativeBackend().share_key(spec) for spec in specs}) == 1
    together = outcomes(specs, split, tmp_path)
    assert [one.spec for one in together] == specs
    for one in together:
        same(one, outcomes([one.spec], split, tmp_path)[0])


@pytest.mark.slow
def test_images_are_decoded_and_features_taken_once(
    tmp_path: Path, toy_tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    specs, split = planned(tmp_path, toy_tree, GRID + f"  - {{{COMMON}, model: spade, layers: [layer1]}}\n")
    decoded: list[str] = []
    original = ImageSource.__getitem__
    monkeypatch.setattr(
        ImageSource, "__getitem__", lambda self, i: (decoded.append(str(self.images[i])), original(self, i))[1]
    )
    outcomes(specs, split, tmp_path)
    assert sorted(decoded) == sorted(s.path for s in (*split.train, *split.val, *split.test))


def test_seeds_share_features_unless_weights_are_random(
    tmp_path: Path, toy_tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    grid = f"{{{COMMON}, model: padim, layers: [layer2], n_features: 5}}"
    runs = prepare(load_config(config_file(tmp_path, toy_tree, grid, "seeds: [0, 1]"))).runs
    specs, split = [run.spec for run in runs], runs[0].split
    assert len({NativeBackend().share_key(spec) for spec in specs}) == 1
    built: list[int] = []
    original = Extractor.__init__

    def count(self: Extractor, *args: Any, **options: Any) -> None:
        built.append(1)
        original(self, *args, **options)

    monkeypatch.setattr(Extractor, "__init__", count)
    first, second = outcomes(specs, split, tmp_path)
    # One for each role's features, and one to time and to save with.
    assert len(built) == 2 * (3 + 1)
    assert first.test.scores.tolist() != second.test.scores.tolist()


@pytest.mark.slow
def test_seconds_alone_and_spent(tmp_path: Path, toy_tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Each look at this clock is a second later, so the times depend on the work and not on the machine.
    monkeypatch.setattr("time.perf_counter", map(float, count()).__next__)
    specs, split = planned(tmp_path, toy_tree)
    results = outcomes(specs, split, tmp_path)
    spent, standalone_seconds = (sum(one.seconds[key] for one in results) for key in ("spent", "alone"))
    assert 0 < spent < standalone_seconds / 2
    for one in results:
        assert one.seconds["fit"] > 0
        assert one.seconds["test"] > 0
        assert one.seconds["fit"] + one.seconds["test"] <= one.seconds["alone"] + 1e-9
    by_ratio = {
        one.spec.parameters["coreset_sampling_ratio"]: one.seconds["fit"]
        for one in results
        if one.spec.model == "patchcore" and one.spec.layers == ("layer2", "layer3")
    }
    # A smaller coreset alone would not have been selected to the end.
    assert by_ratio[0.05] < by_ratio[0.2]
    by_number = {
        one.spec.parameters["num_neighbors"]: one.seconds["alone"] for one in results if one.spec.model == "spade"
    }
    assert by_number[2] < by_number[5]
    # Made alone, what it costs alone is what was spent on it.
    single = outcomes([specs[0]], split, tmp_path)[0]
    assert single.seconds["spent"] == pytest.approx(single.seconds["alone"], rel=0.05)


@pytest.mark.slow
def test_a_run_that_fails_leaves_the_others_alone(
    tmp_path: Path, toy_tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from harness.detectors import padim

    specs, split = planned(tmp_path, toy_tree)

    def fail(*_: Any) -> None:
        raise RuntimeError("no covariance today")

    monkeypatch.setattr(padim, "fit_gaussians", fail)
    results = answers(specs, split, tmp_path)
    assert len(results) == len(specs)
    for one in results:
        assert isinstance(one, Failure) == (one.spec.model == "padim")
        if isinstance(one, Failure):
            assert "no covariance today" in str(one.error)


def test_a_shared_stage_that_fails_is_tried_once(
    tmp_path: Path, toy_tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    specs, split = planned(tmp_path, toy_tree)
    tried: list[int] = []

    def fail(self: ImageSource) -> None:
        tried.append(1)
        raise MemoryError("no room")

    monkeypatch.setattr(ImageSource, "batches", fail)
    results = answers(specs, split, tmp_path)
    assert all(isinstance(one, Failure) and isinstance(one.error, MemoryError) for one in results)
    assert len(results) == len(specs)
    assert len(tried) == 1


def test_stages_are_dropped_when_nobody_waits_for_them(tmp_path: Path, toy_tree: Path) -> None:
    specs, split = planned(tmp_path, toy_tree)
    detectors = [native_group.build(spec, "cpu") for spec in specs]
    pictures = {"train": [s.path for s in split.train], "test": [s.path for s in split.test]}
    stage_context = detectors[0].stage_context(pictures, lambda _: None, "data")
    group = Group(detectors)
    roots = [root for one in detectors for root in (one.fit_stage(group), one.score_stage("test", group))]
    stages = Stages(roots, stage_context)
    most = 0
    for root in roots:
        stages.value(root)
        most = max(most, len(stages._values))
        stages.release(root)
    assert most > 3
    assert not stages._values
    assert stage_context.memory.used == 0


@pytest.mark.slow
def test_a_sweep_on_both_backends_has_a_sheet_of_differences(tmp_path: Path, toy_tree: Path, cli: Cli) -> None:
    grid = """
  - {backend: [anomalib, native], model: [patchcore, padim], backbone: resnet18, layers: [layer1, layer2],
     coreset_sampling_ratio: 0.1, num_neighbors: 3, n_features: 20, image_size: 64}
  - {backend: native, model: spade, backbone: resnet18, layers: [layer1, layer2], image_size: 64}"""
    path = config_file(tmp_path, toy_tree, grid)
    result = cli("sweep", path, "--output", tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert "plate native spade" in result.output
    book = load_workbook(tmp_path / "out" / "native" / "models_comparing.xlsx")
    assert "Backends" in book.sheetnames
    header, *rows = book["Backends"].iter_rows(values_only=True)
    pairs = [dict(zip(header, row, strict=True)) for row in rows]
    assert sorted(str(pair["model"]) for pair in pairs) == ["padim", "patchcore"]
    for pair in pairs:
        for metric in ("image_AUROC", "pixel_AUROC"):
            ours, theirs = (float(str(pair[f"{metric} {name}"])) for name in ("native", "anomalib"))
            assert float(str(pair[f"{metric} difference"])) == pytest.approx(ours - theirs)
    runs = [dict(zip(header, row, strict=True)) for header, row in _rows(book["Runs"])]
    assert all(run["alone_seconds"] for run in runs)
    models = list((tmp_path / "out" / "native" / "runs").glob("*/model.*"))
    assert len(models) == 1
    again = cli("sweep", path, "--output", tmp_path / "out")
    assert "5 done, 0 to run now" in again.output


def _rows(sheet: Any) -> list[tuple[Any, Any]]:
    header, *rows = sheet.iter_rows(values_only=True)
    return [(header, row) for row in rows]


@pytest.mark.slow
def test_a_kept_model_scores_as_in_the_sweep(tmp_path: Path, toy_tree: Path, cli: Cli) -> None:
    grid = f"{{{COMMON}, model: [patchcore, padim, spade, cflow], layers: [layer2], n_features: 9, max_epochs: 1}}"
    result = cli("sweep", config_file(tmp_path, toy_tree, grid, "save_models: all"), "--output", tmp_path / "out")
    assert result.exit_code == 0, result.output
    folders = list((tmp_path / "out" / "native" / "runs").iterdir())
    assert len(folders) == 4
    for folder in folders:
        detector = load(folder / "model.safetensors", device="cpu", progress=False)
        lines = (folder / "scores.csv").read_text().splitlines()[1:]
        assert len(lines) > 4
        for line in lines:
            name, _, _, score, _, _ = line.split(",")
            assert detector.predict(toy_tree / "plate" / name).score == pytest.approx(float(score), rel=1e-4)


@pytest.mark.slow
def test_one_run_without_a_file(tmp_path: Path, toy_tree: Path, cli: Cli) -> None:
    common = ("--data", toy_tree / "plate", "--backbone", "resnet18", "--weights", "random", "--output", tmp_path)
    result = cli("run", "spade", *common, "num_neighbors=3", "layers=[layer2]", "image_size=64", "data.val=0.2")
    assert result.exit_code == 0, result.output
    result = cli("run", "PaDiM", *common, "--backend", "anomalib", "n_features=9", "layers=[layer2]", "image_size=64")
    assert result.exit_code == 0, result.output
    records = [json.loads(file.read_text()) for file in (tmp_path / "run" / "runs").glob("*/record.json")]
    assert sorted((r["spec"]["backend"], r["spec"]["model"]) for r in records) == [
        ("anomalib", "padim"),
        ("native", "spade"),
    ]
    again = cli("run", "spade", *common, "num_neighbors=3", "layers=[layer2]", "image_size=64", "data.val=0.2")
    assert "1 done, 0 to run now" in again.output


@pytest.mark.slow
def test_exact_coreset_in_anomalibs_patchcore(tmp_path: Path, toy_tree: Path, cli: Cli) -> None:
    from anomalib.models import Patchcore

    grid = ("{model: patchcore, backbone: resnet18, layers: [layer2], image_size: 64, coreset_sampling_ratio: 0.1, "
            "num_neighbors: 3, coreset: [anomalib, exact]}")  # fmt: skip
    result = cli("sweep", config_file(tmp_path, toy_tree, grid, "save_models: all"), "--output", tmp_path / "out")
    assert result.exit_code == 0, result.output
    runs = tmp_path / "out" / "native" / "runs"
    records = {json.loads(f.read_text())["spec"]["params"]["coreset"]: f.parent for f in runs.glob("*/record.json")}
    assert set(records) == {"anomalib", "exact"}
    native = grid.replace("model:", "backend: native, model:").replace(", coreset: [anomalib, exact]", "")
    specs, split = planned(tmp_path, toy_tree, native)
    ours = outcomes(specs, split, tmp_path)[0]
    lines = (records["exact"] / "scores.csv").read_text().splitlines()[1:]
    theirs = {line.split(",")[0]: float(line.split(",")[3]) for line in lines}
    # Same weights (drawn from the same seed), same images, same coreset: the same scores.
    for sample, score in zip(ours.test.samples, ours.test.scores, strict=True):
        assert theirs[sample.name] == pytest.approx(score, rel=1e-3)
    # Plain anomalib asks for pretrained weights before it loads its own. Early versions of Python 3.11 pickle enums by
    # getattr, which anomalib has not on its list of what may be loaded.
    with backbone_weights("random"), torch.serialization.safe_globals([getattr]):
        loaded = Patchcore.load_from_checkpoint(records["exact"] / "model.ckpt", map_location="cpu")
    assert type(loaded) is Patchcore
    assert len(loaded.model.memory_bank) == int(len(split.train) * 64 * 0.1)


@pytest.mark.slow
@real_data
def test_own_coresets_on_real_images_differ_little_in_auroc(tmp_path: Path, cli: Cli) -> None:
    grid = """{backend: [anomalib, native], model: patchcore, backbone: mobilenetv2_100, layers: [blocks.2, blocks.4],
      coreset_sampling_ratio: 0.01, num_neighbors: 9}"""
    text = f"data: {{kind: mvtec, root: {HAZELNUT}, val: 0}}\nweights: {MOBILENET}\ngrid: {grid}\n"
    result = cli("sweep", write_config(tmp_path / "real.yaml", text), "--output", tmp_path / "out")
    assert result.exit_code == 0, result.output
    book = load_workbook(tmp_path / "out" / "real" / "models_comparing.xlsx")
    pair = dict(zip(*book["Backends"].iter_rows(values_only=True), strict=True))
    for metric in ("image_AUROC", "pixel_AUROC"):
        assert abs(float(str(pair[f"{metric} difference"]))) <= 0.01


@pytest.mark.slow
def test_every_stage_says_what_it_is(tmp_path: Path, toy_tree: Path) -> None:
    stages: list[str] = []
    specs, split = planned(tmp_path, toy_tree)
    list(NativeBackend().run(specs, split, RunContext(tmp_path, "cpu", 0, stages.append)))
    assert {"features", "embedding", "coreset", "neighbours", "gaussians", "training", "scores"} <= {
        text.split()[0] for text in stages
    }
    assert "features 100%" in stages
