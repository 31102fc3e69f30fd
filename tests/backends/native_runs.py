"""Grids of native runs without the command line."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from harness.backends.base import Failure, Outcome, RunContext
from harness.backends.native import NativeBackend
from harness.config.load import load_config
from harness.config.spec import RunSpec
from harness.data.samples import Split
from harness.planning.prepare import prepare
from tests.conftest import write_config
from tests.networks import only_transformers
from tests.trained import UNNAMED

COMMON = "backend: native, backbone: resnet18, image_size: 64"
GRID = f"""
  - {{{COMMON}, model: patchcore, layers: [[layer2], [layer2, layer3]], coreset_sampling_ratio: [0.05, 0.2], num_neighbors: [1, 5]}}
  - {{{COMMON}, model: padim, layers: [layer1, layer2], n_features: [10, 30]}}
  - {{{COMMON}, model: spade, layers: [layer2, layer3], num_neighbors: [2, 5, 50]}}
  - {{{COMMON}, model: cflow, layers: [layer3], coupling_blocks: [1, 2], max_epochs: 1, condition_vector: 8}}
"""  # noqa: E501
# A bank from blocks of images has a pass over the images of its own.
BANKS = (
    f"  - {{{COMMON}, model: patchcore, layers: [layer3], coreset_sampling_ratio: [0.05, 0.2], "
    "bank: [merge_reduce, exact]}\n"
)

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
    "dinomaly": "layers: [[blocks.1, blocks.3]], bottleneck_dropout: [0.0, 0.3], max_steps: 2, decoder_depth: 2",
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
