"""Runs on a subset of the normal images: equal in a group and alone, and equal to a run on a folder of these images."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.backends.base import Detected, RunContext
from harness.backends.native import NativeBackend
from harness.common.errors import ConfigError
from harness.config.load import load_config
from harness.config.spec import RunSpec
from harness.data.samples import Split
from harness.detectors.sources import ImageSource
from harness.planning.check import check
from harness.planning.prepare import PlannedRun, prepare
from tests.conftest import write_config

COMMON = "backend: native, backbone: resnet18, image_size: 64"
PATCHCORE = f"{{{COMMON}, model: patchcore, layers: [layer2], coreset_sampling_ratio: 0.2, num_neighbors: 3}}"
PADIM = f"{{{COMMON}, model: padim, layers: [layer1], n_features: 10}}"


def planned(
    tmp_path: Path, tree: Path, grid: str, numbers: str, val: float = 0, seeds: str = "[0, 1]"
) -> tuple[PlannedRun, ...]:
    text = f"data: {{kind: mvtec, root: {tree}, val: {val}}}\nweights: random\ndevice: cpu\nlatency: false\n"
    file = write_config(tmp_path / "n.yaml", f"{text}seeds: {seeds}\nn_train: {numbers}\ngrid: [{grid}]\n")
    return prepare(load_config(file, [f"output={tmp_path}/out"])).runs


def outcomes(specs: Sequence[RunSpec], split: Split | Any, tmp_path: Path) -> list[Detected]:
    results = list(NativeBackend().run(specs, split, RunContext(tmp_path, "cpu", 0, lambda _: None)))
    assert all(isinstance(result, Detected) for result in results), results
    return [result for result in results if isinstance(result, Detected)]


def same(one: Detected, other: Detected) -> None:
    for left, right in ((one.test, other.test), (one.calibration, other.calibration)):
        assert (left is None) == (right is None)
        if left is not None and right is not None:
            assert left.maps is not None
            assert right.maps is not None
            assert [Path(s.path).name for s in left.samples] == [Path(s.path).name for s in right.samples]
            np.testing.assert_allclose(left.scores, right.scores, rtol=1e-4)
            np.testing.assert_allclose(left.maps, right.maps, rtol=1e-3, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("val", [0, 0.3])
def test_a_run_on_a_subset_is_the_same_alone_and_on_a_folder_of_its_images(
    tmp_path: Path, toy_tree: Path, val: float
) -> None:
    runs = planned(tmp_path, toy_tree, f"{PATCHCORE}, {PADIM}", "[4, all]", val, "[1]")
    assert len({NativeBackend().share_key(run.spec) for run in runs}) == 1
    together = outcomes([run.spec for run in runs], runs[0].split, tmp_path)
    few = [(run, result) for run, result in zip(runs, together, strict=True) if run.spec.n_train == 4]
    assert len(few) == 2
    for run, result in few:
        (alone,) = outcomes([run.spec], run.split, tmp_path)
        for left, right in ((alone.test, result.test), (alone.calibration, result.calibration)):
            assert left is not None
            assert right is not None
            assert left.scores.tolist() == right.scores.tolist()
        assert len(run.own_split.train) + len(run.own_split.val) == 4  # type: ignore[union-attr]
        (of_folder,) = outcomes([_on_all(run.spec)], run.own_split, tmp_path)
        same(result, of_folder)


def _on_all(spec: RunSpec) -> RunSpec:
    return RunSpec.from_dict({**spec.as_dict(), "n_train": None})


def test_all_sizes_and_seeds_share_the_features(
    tmp_path: Path, toy_tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    grid = f"{{{COMMON}, model: spade, layers: [layer2], num_neighbors: 1, normalization: imagenet}}"
    runs = planned(tmp_path, toy_tree, grid, "[1, 2, all]")
    decoded: list[str] = []
    original = ImageSource.__getitem__
    monkeypatch.setattr(
        ImageSource, "__getitem__", lambda self, i: (decoded.append(str(self.images[i])), original(self, i))[1]
    )
    # Random weights depend on the seed, so each seed has its own features.
    specs = [run.spec for run in runs if run.spec.seed == 0]
    outcomes(specs, runs[0].split, tmp_path)
    split = runs[0].split
    assert sorted(decoded) == sorted(sample.path for sample in (*split.train, *split.test))


def test_too_few_images_for_folds_give_no_threshold(tmp_path: Path, toy_tree: Path) -> None:
    runs = planned(tmp_path, toy_tree, PATCHCORE, "[1, 2]", seeds="[0]")
    check(runs, "cpu")
    one, two = outcomes([run.spec for run in runs], runs[0].split, tmp_path)
    assert one.calibration is None
    assert "threshold.folds: 5 expected, none used: 1 training images are too few, so no threshold" in one.warnings
    assert two.calibration is not None
    assert len(two.calibration.scores) == 2
    assert any("5 expected, 2 used" in warning for warning in two.warnings)


def test_what_a_detector_cannot_learn_from_is_refused_before_any_run(tmp_path: Path, toy_tree: Path) -> None:
    with pytest.raises(ConfigError, match="n_train 1: padim: 1 normal training images found; expected 2 or more"):
        check(planned(tmp_path, toy_tree, PADIM, "[1, 2]"), "cpu")
    with pytest.raises(ConfigError, match=r"n_train: 99 found, but category 'plate' has 8 .* expected at most 8"):
        planned(tmp_path, toy_tree, PADIM, "[2, 99, all]")


def test_the_same_images_in_any_order_of_the_folder(tmp_path: Path, toy_tree: Path) -> None:
    shutil.copytree(toy_tree, tmp_path / "copy")
    first, second = (planned(tmp_path, tree, PADIM, "3") for tree in (toy_tree, tmp_path / "copy"))
    names = [[sample.name for sample in run.own_split.train] for run in (*first, *second)]
    assert names[:2] == names[2:]
    assert names[0] != names[1]
    assert [run.run_id for run in first] == [run.run_id for run in second]


def test_a_group_without_all_images_reads_whole_batches_only(
    tmp_path: Path, toy_tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = planned(tmp_path, toy_tree, PATCHCORE, "[2, 3]", 0.4, "[1]")
    specs = [RunSpec.from_dict({**run.spec.as_dict(), "eval_batch_size": 2}) for run in runs]
    whole = runs[0].split
    assert isinstance(whole, Split)
    read: set[str] = set()
    original = ImageSource.__getitem__
    monkeypatch.setattr(
        ImageSource, "__getitem__", lambda self, i: (read.add(str(self.images[i])), original(self, i))[1]
    )
    few = outcomes(specs, whole, tmp_path)
    batches = [[sample.path for sample in whole.train[i : i + 2]] for i in range(0, len(whole.train), 2)]
    was_read = [bool(read & set(batch)) for batch in batches]
    assert 0 < sum(was_read) < len(batches)
    assert all(read >= set(batch) for batch, touched in zip(batches, was_read, strict=True) if touched)
    together = outcomes([*specs, _on_all(specs[0])], whole, tmp_path)
    assert [one.test.scores.tolist() for one in few] == [one.test.scores.tolist() for one in together[:2]]


def test_the_time_alone_has_the_share_of_the_features_that_a_run_uses(
    tmp_path: Path, toy_tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Each look at this clock is a second later, so all stages but the features take both runs the same time.
    monkeypatch.setattr("time.perf_counter", map(float, count()).__next__)
    grid = f"{{{COMMON}, model: spade, layers: [layer2], num_neighbors: 1}}"
    runs = planned(tmp_path, toy_tree, grid, "[2, all]", 0.3, "[0]")
    few, whole = outcomes([run.spec for run in runs], runs[0].split, tmp_path)
    assert few.seconds["fit"] < whole.seconds["fit"]
    assert few.seconds["alone"] < whole.seconds["alone"]
