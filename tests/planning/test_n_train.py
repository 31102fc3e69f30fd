"""`n_train` in a config: an axis that leaves the identity of other runs as it was."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from harness.common.errors import ConfigError
from harness.config.axes import parameter
from harness.config.load import load_config
from harness.config.spec import RunSpec, run_id
from tests.conftest import write_config
from tests.planning.test_plan import plan

PATCHCORE = "{model: patchcore}"


def refused(tmp_path: Path, text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load_config(write_config(tmp_path / "c.yaml", text))
    return "\n".join(caught.value.problems)


def test_all_images_have_the_identity_of_earlier_versions(tmp_path: Path) -> None:
    (plain,) = plan(tmp_path, f"  {PATCHCORE}").specs
    assert "n_train" not in plain.as_dict()
    for grid, more in (("{model: patchcore, n_train: all}", ""), (PATCHCORE, "n_train: all")):
        (spec,) = plan(tmp_path, f"  {grid}", more).specs
        assert (spec, run_id(spec, "data", None)) == (plain, run_id(plain, "data", None))


@pytest.mark.parametrize(
    ("grid", "more"),
    [("{model: patchcore, n_train: [1, 4, all]}", ""), (PATCHCORE, "n_train: [1, 4, all]")],
)
def test_an_axis_of_the_grid_or_of_the_whole_config(tmp_path: Path, grid: str, more: str) -> None:
    planned = plan(tmp_path, f"  {grid}", more)
    assert [spec.n_train for spec in planned.specs] == [1, 4, None]
    assert [parameter(spec.as_dict(), "n_train") for spec in planned.specs] == [1, 4, "all"]
    assert len({run_id(spec, "data", None) for spec in planned.specs}) == 3
    assert all(spec.axes == ("n_train",) or "n_train" in spec.axes for spec in planned.specs)
    assert all(RunSpec.from_dict(spec.as_dict()) == replace(spec, axes=()) for spec in planned.specs)
    assert " n4 " in f"{planned.specs[1].label()} "


def test_a_mapping_may_have_its_own_numbers(tmp_path: Path) -> None:
    planned = plan(tmp_path, "  - {model: padim, n_train: 2}\n  - {model: patchcore}", "n_train: 8")
    assert [(spec.model, spec.n_train) for spec in planned.specs] == [("padim", 2), ("patchcore", 8)]


@pytest.mark.parametrize("value", ["0", "[2, -1]", "few", "true", "2.5", "[]"])
def test_other_values_are_refused(tmp_path: Path, value: str) -> None:
    text = refused(tmp_path, f"data: {{kind: toy}}\nn_train: {value}\ngrid: {PATCHCORE}\n")
    assert "n_train" in text
    if value != "[]":
        assert "expected numbers of images from 1 up, or all" in text
        grid = f"{{model: patchcore, n_train: {value}}}"
        assert "expected numbers of images" in refused(tmp_path, f"data: {{kind: toy}}\ngrid: {grid}\n")


def test_a_classification_has_no_n_train(tmp_path: Path) -> None:
    start = "task: classification\ndata: {kind: toy}\n"
    text = refused(tmp_path, f"{start}n_train: 4\ngrid: {{model: baseline}}\n")
    assert "`n_train` has no effect in task 'classification'" in text
    text = refused(tmp_path, f"{start}grid: {{model: baseline, n_train: 4}}\n")
    assert "grid.n_train: no axis of task 'classification'" in text


def test_synthetic_defects_and_a_search_need_equal_images(tmp_path: Path) -> None:
    start = "data: {kind: toy, val: 0.2}\n"
    assert "rank: found 'synthetic' with n_train" in refused(
        tmp_path, f"{start}rank: synthetic\nn_train: [4, all]\ngrid: {PATCHCORE}\n"
    )
    space = "{model: patchcore, num_neighbors: {randint: [1, 9]}}"
    assert "n_train: [4, 'all'] found with `search`" in refused(
        tmp_path, f"{start}n_train: [4, all]\nsearch: {{space: {space}}}\n"
    )
    space = "{model: patchcore, n_train: {choice: [1, 2]}}"
    assert "search.space.n_train: found" in refused(tmp_path, f"{start}search: {{space: {space}}}\n")
