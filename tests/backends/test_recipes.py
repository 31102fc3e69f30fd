"""Recipes of classifications: which one, what it sets, and what the grid sets; identities of earlier settings."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from harness.backends.supervised import SupervisedBackend, recipes
from harness.backends.supervised.settings import DEFAULTS
from harness.cli.main import app
from harness.common.errors import ConfigError
from harness.config.spec import RunSpec, run_id
from harness.config.sweep import SweepConfig
from harness.planning.plan import make_plan
from harness.results.store import ResultFolder
from tests.conftest import ROOT


def spec_of(**grid: Any) -> RunSpec:
    point = {"model": "baseline", "backbone": "test_resnet", "image_size": 32, **grid}
    values = {"task": "classification", "name": "c", "data": {"kind": "toy"}, "weights": "random", "grid": point}
    config = SweepConfig.model_validate(values)
    (spec,) = make_plan(config, [""], lambda _, model: SupervisedBackend().parameters(model), "supervised").specs
    return spec


def filled(spec: RunSpec, images: int = 200, epochs: int = 10) -> tuple[dict[str, Any], dict[str, Any]]:
    complete, description = recipes.with_recipe(spec, images, epochs)
    return complete.parameters, description


def test_a_grid_without_values_of_a_recipe_gets_one() -> None:
    spec = spec_of(dropout=0.1)
    assert spec.parameters["recipe"] == "auto"
    values, description = filled(spec)
    assert description["name"] == "small"
    assert values["dropout"] == 0.1
    assert {key: values[key] for key in recipes.KEYS if key in values} == description["values"]
    assert description["values"]["lr"] == recipes.RECIPES["small"]["lr"]


def test_a_grid_with_a_value_of_a_recipe_keeps_the_defaults() -> None:
    with_value, with_none = spec_of(lr=1e-2), spec_of(lr=1e-2, recipe="none")
    assert with_value == with_none
    assert "recipe" not in with_value.parameters
    assert with_value.parameters["balance"] == DEFAULTS["balance"]
    assert filled(with_value)[1] == {}


def test_identities_of_earlier_settings_stay() -> None:
    """The identity is that of a spec from before the key."""
    assert run_id(spec_of(lr=2e-4), "data", None) == "supervised-baseline-test_resnet-l0.0002-32px-s0-dbaedbef"


@pytest.mark.parametrize("value", [("lr", 3e-3), ("warmup_epochs", 0), ("augment", "none")])
def test_values_of_the_grid_win(value: tuple[str, Any]) -> None:
    key, expected = value
    values, description = filled(spec_of(recipe="small", **{key: expected}))
    assert values[key] == expected
    assert key not in description["values"]


def test_a_value_of_the_grid_may_leave_others_without_effect() -> None:
    values, description = filled(spec_of(recipe="auto", balance="none"))
    assert values["balance"] == "none"
    assert not {"balance_strength"} & set(description["values"])


@pytest.mark.parametrize(
    ("images", "epochs", "name"), [(200, 10, "small"), (600, 10, "small"), (601, 10, "none"), (20_000, 30, "none")]
)
def test_images_and_epochs_choose(images: int, epochs: int, name: str) -> None:
    assert filled(spec_of(), images, epochs)[1].get("name", "none") == name
    assert filled(spec_of(recipe="long"), images, epochs)[1]["name"] == "long"


def test_one_epoch_has_no_warmup() -> None:
    assert filled(spec_of(), epochs=1)[0]["warmup_epochs"] == 0


@pytest.mark.parametrize("name", ["smal", 3])
def test_an_unknown_recipe_is_refused(name: object) -> None:
    with pytest.raises(ConfigError, match=r"recipe: found .*expected one of auto, none, small, medium, long"):
        spec_of(recipe=name)


def test_the_record_names_the_recipe_and_its_values(tmp_path: Path) -> None:
    config = tmp_path / "c.yaml"
    config.write_text(
        "task: classification\nname: c\nweights: random\ndevice: cpu\ntrainer: {max_epochs: 1}\nlatency: false\n"
        "data: {kind: toy, train: 48, test: 16, size: 32, folds: 0.3, train_batch_size: 16}\n"
        "grid: {model: baseline, backbone: test_resnet, image_size: 32, recipe: medium, average: none}\n"
    )
    result = CliRunner().invoke(app, ["sweep", str(config), "--output", str(tmp_path / "r")])
    assert result.exit_code == 0, result.output
    (record,) = ResultFolder(tmp_path / "r" / "c").read_records().by_id.values()
    assert record.recipe["name"] == record.recipe["asked"] == "medium"
    assert record.recipe["values"]["lr"] == recipes.RECIPES["medium"]["lr"]
    assert "average" not in record.recipe["values"]
    assert json.loads(json.dumps(record.recipe)) == record.recipe


def test_the_page_has_the_values() -> None:
    page = (ROOT / "docs" / "classification.md").read_text()
    rows = [line for line in page.split("<!-- recipes -->")[1].split("<!-- end -->")[0].splitlines() if "`" in line]
    shown = {cells[1].strip("` "): [cell.strip() for cell in cells[2:5]] for cells in (row.split("|") for row in rows)}
    assert shown == {key: [str(values[key]) for values in recipes.RECIPES.values()] for key in recipes.KEYS}
