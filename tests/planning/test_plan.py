"""The grid expands to canonical specs: each run once."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from harness.backends.anomalib import AnomalibBackend
from harness.backends.base import Signature
from harness.common.errors import ConfigError
from harness.config.load import load_config
from harness.config.spec import differing, run_id
from harness.demo.fit import BACKBONES
from harness.planning.plan import Plan, make_plan
from harness.planning.prepare import prepare
from tests.conftest import write_config


def signatures(backend: str, model: str) -> Signature:
    assert backend == "anomalib"
    return AnomalibBackend().parameters(model)


def plan(tmp_path: Path, grid: str, more: str = "", categories: tuple[str, ...] = ("a",)) -> Plan:
    text = f"data: {{kind: toy}}\n{more}\ngrid:\n{grid}"
    return make_plan(load_config(write_config(tmp_path / "p.yaml", text)), categories, signatures)


def problems(tmp_path: Path, grid: str) -> str:
    with pytest.raises(ConfigError) as caught:
        plan(tmp_path, grid)
    return "\n".join(caught.value.problems)


def test_product_over_categories_axes_and_seeds(tmp_path: Path) -> None:
    planned = plan(
        tmp_path,
        "  {model: patchcore, layers: [[layer2], [layer2, layer3]], num_neighbors: [1, 9]}",
        "seeds: [0, 1]",
        ("a", "b"),
    )
    assert len(planned.specs) == 2 * 2 * 2 * 2
    assert planned.collapsed == 0
    assert [spec.category for spec in planned.specs] == ["a"] * 8 + ["b"] * 8


def test_union_of_mappings_runs_equal_points_once(tmp_path: Path) -> None:
    planned = plan(tmp_path, "  - {model: padim, n_features: [10, 20]}\n  - {model: PaDiM, n_features: 20}")
    assert len(planned.specs) == 2
    assert (planned.points, planned.collapsed) == (3, 1)


def test_a_default_spelled_out_is_the_same_run(tmp_path: Path) -> None:
    planned = plan(
        tmp_path, "  - {model: patchcore}\n  - {model: patchcore, num_neighbors: 9, backbone: wide_resnet50_2}"
    )
    assert len(planned.specs) == 1


def test_whole_number_for_a_float_is_the_same_run(tmp_path: Path) -> None:
    planned = plan(tmp_path, "  - {model: patchcore, coreset_sampling_ratio: [1, 1.0]}")
    assert len(planned.specs) == 1
    assert planned.specs[0].parameters["coreset_sampling_ratio"] == 1.0


def test_axis_collapses_for_models_without_it(tmp_path: Path) -> None:
    planned = plan(
        tmp_path, "  {model: [patchcore, padim], backbone: resnet18, coreset_sampling_ratio: [0.1, 0.2, 0.3]}"
    )
    assert [spec.model for spec in planned.specs] == ["patchcore"] * 3 + ["padim"]
    assert planned.collapsed == 2


def test_axis_without_use_is_an_error_for_one_model(tmp_path: Path) -> None:
    text = problems(tmp_path, "  {model: padim, coreset_sampling_ratio: 0.1}")
    assert "grid.coreset_sampling_ratio: padim has no such parameter" in text
    assert "n_features" in text


@pytest.mark.parametrize(
    ("grid", "part"),
    [
        ("  {model: patchcor}", "unknown anomalib model 'patchcor'. Did you mean 'patchcore'"),
        ("  {model: patchcore, num_neighbours: 3}", "Did you mean 'num_neighbors'?"),
        ("  {model: patchcore, num_neighbors: many}", "num_neighbors: found 'many', expected a whole number"),
        ("  {model: patchcore, num_neighbors: 1.5}", "expected a whole number"),
        ("  {model: patchcore, coreset_sampling_ratio: [[1, 2]]}", "found [1, 2], expected a number"),
        ("  {model: patchcore, coreset_sampling_ratio: .nan}", "expected a finite number"),
        ("  {model: patchcore, num_neighbors: null}", "num_neighbors: found None, expected a whole number"),
        ("  {model: patchcore, layers: [2, 3]}", "layers: found [2, 3], expected names such as layer2"),
        ("  {model: vlmad}", "asks a language model's server"),
        ("  {model: patchcore, pre_trained: false}", "not an axis; `weights:` says"),
        ("  {model: patchcore, max_epochs: 3}", "use `trainer:"),
        ("  {model: cflow, permute_soft: 1}", "expected true or false"),
        ("  {model: patchcore, layers: [[layer2, layer2]]}", "expected each layer once"),
        ("  - {model: padim}\n  - {model: patchcor}", "grid[1].model"),
    ],
)
def test_bad_grids(tmp_path: Path, grid: str, part: str) -> None:
    assert part in problems(tmp_path, grid)


def test_every_problem_of_a_grid_is_found(tmp_path: Path) -> None:
    grid = "  - {model: patchcor}\n  - {model: padim, n_feature: 3}\n  - {model: cflow, lr: fast, coupling_blocks: x}"
    assert len(problems(tmp_path, grid).splitlines()) == 4


def test_mappings_in_trainer_arguments_come_back_as_mappings(tmp_path: Path) -> None:
    spec = plan(tmp_path, "  {model: cflow}", "trainer: {max_time: {minutes: 5}, callbacks: [[1]]}").specs[0]
    assert spec.as_dict()["trainer"] == {"max_time": {"minutes": 5}, "callbacks": [[1]]}
    hash(spec)


def test_run_id_is_readable_and_depends_on_what_matters(tmp_path: Path) -> None:
    grid = "  {model: patchcore, backbone: resnet18, layers: [layer2, layer3], coreset_sampling_ratio: 0.1}"
    spec = plan(tmp_path, grid).specs[0]
    name = run_id(spec, "data", None)
    assert name.startswith("a-patchcore-resnet18-layer2+layer3-csr0.1-s0-")
    assert run_id(spec, "data", None) == name
    others = {run_id(spec, "other", None), run_id(spec, "data", "hash")}
    others |= {run_id(plan(tmp_path, grid, more).specs[0], "data", None) for more in ("seed: 1", "weights: random")}
    others.add(run_id(plan(tmp_path, grid, "threshold: none").specs[0], "data", None))
    assert len(others | {name}) == 6
    # On the terminal what differs is in full, and what does not is left out.
    assert spec.label(set()) == "a patchcore resnet18 layer2+layer3"
    several = plan(tmp_path, grid.replace("0.1", "[0.1, 0.5]"), "seeds: [0, 1]").specs
    assert differing(several) == {"coreset_sampling_ratio", "seed"}
    assert several[-1].label(differing(several)).endswith("coreset_sampling_ratio=0.5 seed=1")


def test_run_id_does_not_depend_on_how_the_grid_is_written(tmp_path: Path) -> None:
    one = plan(tmp_path, "  {num_neighbors: 9, model: patchcore}").specs[0]
    other = plan(tmp_path, "  {model: PatchCore}", "device: cpu\nsave_models: all").specs[0]
    assert run_id(one, "d", None).rsplit("-", 1)[1] == run_id(other, "d", None).rsplit("-", 1)[1]
    json.dumps(one.as_dict())


@pytest.mark.slow
def test_planning_imports_little(tmp_path: Path) -> None:
    axes = "model: patchcore, backbone: resnet18, layers: [layer2, layer3]"
    write_config(tmp_path / "p.yaml", f"data: {{kind: toy, size: 64}}\ngrid: {{{axes}}}")
    heavy = {"torch", "anomalib", "lightning", "timm", "pandas", "torchvision"}
    code = (
        "import sys; from harness.cli.main import app\n"
        "try: app(['plan', 'p.yaml', '--no-check'])\n"
        "except SystemExit as e: assert e.code == 0, e.code\n"
        f"heavy = {heavy!r} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert process.returncode == 0, process.stderr
    assert "patchcore" in process.stdout


@pytest.mark.parametrize("backend", ["native", "anomalib"])
@pytest.mark.parametrize("backbone", [*BACKBONES, "tf_efficientnet_lite0", "tf_efficientnet_lite2", "convnext_tiny"])
def test_layers_left_out_are_those_of_the_backbone(tmp_path: Path, backend: str, backbone: str) -> None:
    """Every backbone that the demo offers, and a family with other names."""
    from harness.backbones.layers import feature_layers

    file = write_config(
        tmp_path / "l.yaml",
        "data: {kind: toy, size: 32, train: 8, good: 2, bad: 1}\nweights: random\n"
        f"grid: {{backend: {backend}, model: patchcore, backbone: {backbone}, normalization: imagenet}}",
    )
    (spec,) = {run.spec.layers for run in prepare(load_config(file)).runs}
    known = feature_layers(backbone)
    assert spec is not None
    assert [known[str(name)].stride for name in spec] == [8, 16]


def test_layers_of_a_transformer_are_as_deep_as_a_resnets_stages(tmp_path: Path) -> None:
    from harness.backbones.layers import default_layers

    assert default_layers("vit_tiny_patch16_224", ("layer1", "layer3", "layer4")) == (
        "blocks.2",
        "blocks.8",
        "blocks.11",
    )
    assert default_layers("resnet50", ("layer2", "layer3")) == ("layer2", "layer3")
    # Names that are no stages are the user's business.
    assert default_layers("resnet50", ("nope",)) == ("nope",)
