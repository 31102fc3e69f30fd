"""The native backend: a grid costs little more than its largest point, and says the same as each run made alone."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from openpyxl import load_workbook

from harness import registry
from harness.backbones.inject import backbone_weights
from harness.backends.base import Failure, Outcome, RunContext
from harness.backends.native import NativeBackend
from harness.backends.native import group as native_group
from harness.common.errors import ConfigError, MemoryLimitError, StoreError
from harness.config.load import load_config, one_run
from harness.config.spec import RunSpec
from harness.data.samples import Split
from harness.detectors import load, neighbours
from harness.detectors.cache import StageCache
from harness.detectors.features import Extractor
from harness.detectors.memory import Memory
from harness.detectors.sources import ImageSource
from harness.detectors.stages import Stages
from harness.planning.prepare import prepare
from harness.report.comparisons import backends_table
from harness.report.results import Results
from harness.results.record import RunRecord
from harness.results.store import ResultFolder
from tests.conftest import HAZELNUT, MOBILENET, ROOT, Cli, real_data, write_config
from tests.networks import only_transformers
from tests.trained import UNNAMED

COMMON = "backend: native, backbone: resnet18, image_size: 64"
GRID = f"""
  - {{{COMMON}, model: patchcore, layers: [[layer2], [layer2, layer3]], coreset_sampling_ratio: [0.05, 0.2], num_neighbors: [1, 5]}}
  - {{{COMMON}, model: padim, layers: [layer1, layer2], n_features: [10, 30]}}
  - {{{COMMON}, model: spade, layers: [layer2, layer3], num_neighbors: [2, 5, 50]}}
  - {{{COMMON}, model: cflow, layers: [layer3], coupling_blocks: [1, 2], max_epochs: 1, condition_vector: 8}}
"""  # noqa: E501
GRID += "".join(
    f"  - {{{COMMON}, model: {name}, layers: [layer2, layer3]}}\n" for name in UNNAMED if not only_transformers(name)
)
# Parameters that share work, of detectors on the features of one vision transformer.
SHARED = {
    "anomalydino": "layers: [blocks.5], num_neighbors: [1, 3], masking: [none, test, both], foreground_threshold: 0.5",
    "rad": "layers: [[blocks.1, blocks.5]], k_image: [2, 150], pos_radius: [0, 1]",
    "subspacead": "layers: [[blocks.3, blocks.4]], explained_variance: [0.9, 0.99], rotations: [1, 2]",
    "mhpatchcore": "layers: [blocks.3], memory_bank_size: [10, 30, 40], local_coreset_size: 30, num_neighbors: [1, 3], "
                   "bank: [merge_reduce, exact], pca_variance_ratio: [0.9, 0.99]",
}  # fmt: skip
IN_TRANSFORMER = "\n" + "".join(
    f"  - {{backend: native, backbone: test_vit, image_size: 64, model: {name}, {axes}}}\n"
    for name, axes in SHARED.items()
)


def config_file(tmp_path: Path, tree: Path, grid: str = GRID, more: str = "") -> Path:
    data = f"{{kind: mvtec, root: {tree}, val: 0.2}}"
    text = f"data: {data}\nweights: random\ndevice: cpu\nlatency: false\n{more}\ngrid: {grid}\n"
    return write_config(tmp_path / "native.yaml", text)


def planned(tmp_path: Path, tree: Path, grid: str = GRID) -> tuple[list[RunSpec], Split]:
    runs = prepare(load_config(config_file(tmp_path, tree, grid), [f"output={tmp_path}/out"])).runs
    return [run.spec for run in runs], runs[0].split


def answers(specs: Sequence[RunSpec], split: Split, scratch: Path, **more: Any) -> list[Outcome | Failure]:
    context = RunContext(scratch, "cpu", 0, lambda _: None, **more)
    return list(NativeBackend().run(specs, split, context))


def outcomes(specs: Sequence[RunSpec], split: Split, scratch: Path, **more: Any) -> list[Outcome]:
    results = answers(specs, split, scratch, **more)
    for one in results:
        assert isinstance(one, Outcome), one
    return [one for one in results if isinstance(one, Outcome)]


def same(left: Outcome, right: Outcome) -> None:
    assert left.spec == right.spec
    for ours, theirs in ((left.test, right.test), (left.calibration, right.calibration)):
        assert ours is not None
        assert theirs is not None
        assert ours.maps is not None
        assert theirs.maps is not None
        assert ours.scores.tolist() == theirs.scores.tolist(), left.spec
        assert np.array_equal(ours.maps, theirs.maps), left.spec


def test_every_detector_is_in_a_grid() -> None:
    assert all(f"model: {name}," in GRID + IN_TRANSFORMER for name in registry.DETECTORS)


@pytest.mark.slow
@pytest.mark.parametrize("grid", [GRID, IN_TRANSFORMER])
@pytest.mark.parametrize("blocks", [None, (10, 16)])
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
        ImageSource, "__getitem__", lambda self, i: (decoded.append(str(self.pictures[i])), original(self, i))[1]
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
    roots = [root for one in detectors for root in (one.fit_stage(detectors), one.score_stage("test", detectors))]
    stages = Stages(roots, stage_context)
    most = 0
    for root in roots:
        stages.value(root)
        most = max(most, len(stages._values))
        stages.release(root)
    assert most > 3
    assert not stages._values
    assert stage_context.memory.used == 0


# ---- the cache


@pytest.mark.slow
def test_what_is_cached_gives_bit_identical_results(
    tmp_path: Path, toy_tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    specs, split = planned(tmp_path, toy_tree)
    cache = {"cache": tmp_path / "cache", "cache_limit": 10**9}
    few = [s for s in specs if s.parameters.get("coreset_sampling_ratio") == 0.05 or s.model == "spade"]
    outcomes(few, split, tmp_path, **cache)
    # One more ratio and more neighbours: from the features and the order that are there, with no image read.
    monkeypatch.setattr(ImageSource, "__getitem__", lambda *_: pytest.fail("an image was read"))
    chosen = [s for s in specs if s.model in {"patchcore", "spade"}]
    again = outcomes(chosen, split, tmp_path, **cache)
    # And all from the cache.
    once_more = outcomes(chosen, split, tmp_path, **cache)
    monkeypatch.undo()
    for one, other, plain in zip(again, once_more, outcomes(chosen, split, tmp_path), strict=True):
        same(one, plain)
        same(other, plain)
        # What it would have cost alone is what it once took, not what reading it took.
        assert other.seconds["alone"] > other.seconds["spent"]


@pytest.mark.slow
def test_a_damaged_cache_file_is_dropped_and_made_again(tmp_path: Path, toy_tree: Path) -> None:
    specs, split = planned(tmp_path, toy_tree)
    chosen = [spec for spec in specs if spec.model == "patchcore"]
    cache = {"cache": tmp_path / "cache", "cache_limit": 10**9}
    plain = outcomes(chosen, split, tmp_path, **cache)
    files = sorted((tmp_path / "cache").iterdir())
    assert len(files) == 3 * 2 + 2  # layers of three roles, orders of two sets of layers
    for number, file in enumerate(files):
        content = bytearray(file.read_bytes())
        if number % 3 == 0:
            content[-5] ^= 255
        file.write_bytes(content[: len(content) // (number % 3)] if number % 3 else content)
    again = outcomes(chosen, split, tmp_path, **cache)
    for one, other in zip(plain, again, strict=True):
        same(one, other)
    assert any("is damaged" in text and "computed again" in text for one in again for text in one.warnings)
    assert sorted((tmp_path / "cache").iterdir()) == files


def test_the_least_recently_used_go_first(tmp_path: Path) -> None:
    notes: list[str] = []
    cache = StageCache(tmp_path / "cache", 3000, notes.append)
    keys = [{"stage": "x", "number": number} for number in range(3)]
    for number, key in enumerate(keys[:2]):
        cache.put(key, {"a": np.full(250, number, np.float32)}, 1.5)
        os.utime(cache._path(key), ns=(number, number))
    assert cache.get(keys[0]) is not None  # used just now, so the other is older
    cache.put(keys[2], {"a": np.zeros(250, np.float32)}, 1.5)
    assert cache.get(keys[1]) is None
    entry = cache.get(keys[0])
    assert entry is not None
    assert entry[0]["a"].tolist() == [0.0] * 250
    assert entry[1] == 1.5
    cache.put(keys[1], {"a": np.zeros(2500, np.float32)}, 1.5)
    assert "larger than cache_limit" in notes[0]
    assert cache.get(keys[0]) is not None
    assert not list((tmp_path / "cache").glob("*.tmp"))


def test_a_cache_that_cant_be_had_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cache: can't write"):
        StageCache(tmp_path / "file" / "cache", 1, print)


# ---- the memory budget


@pytest.mark.slow
def test_features_beyond_the_budget_go_to_files_and_change_nothing(
    tmp_path: Path, toy_tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harness.detectors.memory.ALWAYS", 0)
    specs, split = planned(tmp_path, toy_tree)
    scratch = tmp_path / "scratch"
    for one, other in zip(
        outcomes(specs, split, tmp_path), outcomes(specs, split, scratch, memory_limit=0), strict=True
    ):
        same(one, other)
    # What comes from the cache keeps to the budget, too.
    cache = {"cache": tmp_path / "cache", "cache_limit": 10**9}
    outcomes(specs, split, tmp_path, **cache)
    mapped: list[int] = []
    original = Memory._mapped
    monkeypatch.setattr(
        Memory, "_mapped", lambda self, shape, size: (mapped.append(size), original(self, shape, size))[1]
    )
    monkeypatch.setattr(ImageSource, "__getitem__", lambda *_: pytest.fail("an image was read"))
    outcomes(specs, split, scratch, memory_limit=0, **cache)
    assert len(mapped) >= 3 * 3
    # Nothing is left: a file is gone from its folder as soon as it is mapped.
    assert list(scratch.iterdir()) == []


def test_a_budget_is_kept_and_given_back(tmp_path: Path) -> None:
    memory = Memory(15 * 2**20, tmp_path)  # of which 9 are for arrays
    first = memory.tensor(2 * 2**20)
    assert (memory.used, memory.spilled) == (8 * 2**20, 0)
    second = memory.tensor(2 * 2**20)
    second[:] = 3
    assert (memory.used, memory.spilled) == (8 * 2**20, 8 * 2**20)
    view = first[10:]
    del first
    assert memory.used == 8 * 2**20
    del view
    assert memory.used == 0
    assert float(second.sum()) == 3 * 2 * 2**20


def test_no_room_on_the_disk_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import shutil

    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(100, 100, 5))  # type: ignore[attr-defined]
    with pytest.raises(MemoryLimitError, match=r"memory_limit: .* expected room"):
        Memory(0, tmp_path).tensor(10**6)


KILLED = """
import sys, time
from pathlib import Path
from harness.detectors.memory import Memory
tensor = Memory(0, Path(sys.argv[1])).tensor(4 * 2**20)
tensor[:] = 1
print("mapped", flush=True)
time.sleep(60)
"""


def test_a_kill_leaves_no_file_behind(tmp_path: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", KILLED, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "mapped\n"
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert list(tmp_path.iterdir()) == []


# ---- through the command line


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


@pytest.mark.parametrize(
    ("grid", "expected"),
    [
        ("model: spdae", "grid.model: unknown native model 'spdae'. Did you mean 'spade'?"),
        ("model: spade, n_neighbors: 3", "spade has no such parameter. Did you mean 'num_neighbors'?"),
        ("model: patchcore, layers: [layer2], coreset_sampling_ratio: 0.00001", "leaves an empty coreset"),
        ("model: patchcore, layers: [layer2], coreset_sampling_ratio: 0.01, num_neighbors: 99", "found 99, expected"),
        ("model: padim, n_features: many", "n_features: found 'many', expected a whole number"),
        ("model: padim, n_features: 50.5", "n_features: found 50.5, expected a whole number"),
        ("model: padim, center_crop: 50.5", "center_crop: found 50.5, expected pixels"),
        ("model: padim, center_crop: true", "center_crop: found True, expected pixels"),
        ("model: cflow, lr: 0", "lr: found 0.0, expected a number above 0"),
        ("model: patchcore, layers: [layer22]", "has no layer 'layer22'. Did you mean 'layer2'?"),
        ("model: padim, layers: [layer1], n_features: 65", "found 65 of resnet18 layer1; expected 1 to 64"),
        ("model: padim, precision: int8", "precision: found 'int8', expected fp32, bf16, fp16"),
        ("model: padim, center_crop: 300", "center_crop: found (300, 300), expected at most"),
        ("model: padim, backbone: vit_tiny_patch16_224, layers: [blocks.1], image_size: 100, n_features: 5",
         "expected multiples of 16, the patch size of vit_tiny_patch16_224, such as 96"),
        ("model: cflow, max_epochs: 0", "max_epochs: found 0"),
        ("model: padim, coreset: exact", "padim has no such parameter"),
    ],
)  # fmt: skip
def test_bad_grids_are_refused_whole(grid: str, expected: str, tmp_path: Path, toy_tree: Path, cli: Cli) -> None:
    backbone = "" if "backbone" in grid else "backbone: resnet18, "
    path = config_file(tmp_path, toy_tree, f"{{backend: native, {backbone}{grid}}}")
    result = cli("sweep", path, "--output", tmp_path / "out")
    assert result.exit_code == 2
    assert expected in result.stderr, result.stderr
    assert not (tmp_path / "out").exists()


def test_a_cache_folder_that_cant_be_had_ends_it_before_any_work(tmp_path: Path, toy_tree: Path, cli: Cli) -> None:
    (tmp_path / "file").write_text("")
    grid = f"{{{COMMON}, model: padim, layers: [layer2], n_features: 5}}"
    path = config_file(tmp_path, toy_tree, grid, f"cache: {tmp_path}/file/cache")
    result = cli("sweep", path, "--output", tmp_path / "out")
    assert result.exit_code == 2
    assert "cache: can't write to" in result.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("cache_limit: much", "expected bytes, as a number or a text such as 20 GB; found 'much'"),
        ("memory_limit: -1", "memory_limit"),
        ("trainer: {gradient_clip_val: 1}", "trainer.gradient_clip_val: found, but no run is trained by"),
    ],
)
def test_bad_settings_are_refused(line: str, expected: str, tmp_path: Path, toy_tree: Path) -> None:
    grid = f"{{{COMMON}, model: padim, layers: [layer2], n_features: 5}}"
    with pytest.raises(ConfigError, match=expected.replace("(", r"\(")):
        prepare(load_config(config_file(tmp_path, toy_tree, grid, line)))


def test_a_crop_of_two_sides_and_a_precision_are_axes(tmp_path: Path, toy_tree: Path, cli: Cli) -> None:
    grid = (
        f"{{{COMMON}, model: padim, layers: [layer2], n_features: 5, center_crop: [[40, 48]], precision: [fp32, bf16]}}"
    )
    path = config_file(tmp_path, toy_tree, grid)
    result = cli("sweep", path, "--output", tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert "2/2" in result.output


def test_options_of_a_run_are_taken_as_they_are(tmp_path: Path) -> None:
    options = {"output": "runs #3", "weights": "a: b", "backbone": "resnet18"}
    config = one_run("spade", "native", tmp_path, options, [])
    assert (config.output, config.weights) == ("runs #3", "a: b")
    assert config.grid[0]["backbone"] == ["resnet18"]
    assert one_run("spade", "native", tmp_path, {"output": "2024"}, []).output == "2024"


def test_pairs_differ_in_their_backend_only() -> None:
    def record(backend: str, trainer: dict[str, Any], **params: Any) -> RunRecord:
        same = {"model": "cflow", "backbone": "r", "layers": ["a"], "image_size": None, "seed": 0, "data_kind": "toy"}
        spec = {**same, "backend": backend, "category": "", "threshold": {}, "params": params, "trainer": trainer}
        data = {"fingerprint": "f", "root": "x", "kind": "toy"}
        return RunRecord(backend + str(params), "ok", spec, list(params), data)

    theirs = record("anomalib", {"max_epochs": 2}, lr=1.0)
    ours = {"lr": 1.0, "max_epochs": 2, "precision": "fp32", "upsampling": "nearest"}

    def results(*records: RunRecord) -> Results:
        return Results(ResultFolder(Path("nowhere")), records)

    assert len(backends_table(results(theirs, record("native", {}, **ours)))) == 1
    others = {"max_epochs": 3, "precision": "bf16", "upsampling": "bilinear", "center_crop": 9, "lr": 2.0}
    for key, value in others.items():
        assert backends_table(results(theirs, record("native", {}, **{**ours, key: value}))).empty, key


def test_sizes_are_read_as_people_write_them(tmp_path: Path, toy_tree: Path) -> None:
    config = load_config(config_file(tmp_path, toy_tree, more="cache_limit: 1.5 GB\nmemory_limit: 2GiB"))
    assert (config.cache_limit, config.memory_limit) == (1_500_000_000, 2 * 2**30)


def test_epochs_come_from_the_trainer_block_unless_an_axis_says_otherwise(tmp_path: Path, toy_tree: Path) -> None:
    def epochs(more: str) -> list[Any]:
        grid = f"{{{COMMON}, model: cflow, layers: [layer3]{more}}}"
        runs = prepare(load_config(config_file(tmp_path, toy_tree, grid, "trainer: {max_epochs: 7}"))).runs
        assert all(run.spec.trainer == () for run in runs)
        return [run.spec.parameters["max_epochs"] for run in runs]

    assert epochs("") == [7]
    assert epochs(", max_epochs: [1, 2]") == [1, 2]


def test_one_run_tells_its_own_keys_from_the_models(tmp_path: Path) -> None:
    config = one_run("spade", "native", tmp_path, {"weights": "random"}, ["num_neighbors=5", "seed=3", "data.val=0"])
    assert config.grid == [{"backend": ["native"], "model": ["spade"], "num_neighbors": [5]}]
    assert (config.seeds, config.data.val, config.weights) == ([3], 0, "random")
    with pytest.raises(ConfigError, match="expected key=value"):
        one_run("spade", "native", tmp_path, {}, ["num_neighbors"])


def test_planning_imports_no_torch_where_timm_need_not_be_asked(tmp_path: Path, toy_tree: Path) -> None:
    path = config_file(tmp_path, toy_tree, GRID.replace(COMMON, f"{COMMON}, normalization: imagenet"))
    code = (
        "import sys; from harness.cli.main import app\n"
        f"try: app(['plan', {str(path)!r}, '--no-check'])\n"
        "except SystemExit as end: assert end.code in (0, None), end.code\n"
        "assert not {'torch', 'numba', 'anomalib', 'timm'} & set(sys.modules)"
    )
    process = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False,
                          env={**os.environ, "PYTHONPATH": str(ROOT)})  # fmt: skip
    assert process.returncode == 0, process.stderr


# ---- our coreset in anomalib's PatchCore


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


def test_every_stage_says_what_it_is(tmp_path: Path, toy_tree: Path) -> None:
    stages: list[str] = []
    specs, split = planned(tmp_path, toy_tree)
    list(NativeBackend().run(specs, split, RunContext(tmp_path, "cpu", 0, stages.append)))
    assert {"features", "embedding", "coreset", "neighbours", "gaussians", "training", "scores"} <= {
        text.split()[0] for text in stages
    }
    assert "features 100%" in stages
