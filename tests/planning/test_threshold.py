"""The method of the thresholds where the config names none: the same for all runs of a sweep."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

from harness import registry
from harness.common.errors import ConfigError
from harness.config.load import load_config
from harness.config.stored import as_yaml
from harness.data.base import DataOptions
from harness.planning.plan import make_plan
from harness.planning.prepare import signature, task
from harness.planning.threshold import with_method
from tests.conftest import write_config

SIGNATURES = partial(signature, task("detection"))
OUT_OF_FOLD = [name for name in registry.DETECTORS if SIGNATURES("native", name).folds is not None]
WITHOUT = [name for name in registry.DETECTORS if name not in OUT_OF_FOLD]
NATIVE = f"{{backend: native, model: {OUT_OF_FOLD[0]}}}"


def resolved(tmp_path: Path, data: str, grid: str, more: str = "") -> tuple[str | None, float | None, list[str]]:
    text = f"data: {{kind: toy{data}}}\n{more}\ngrid: {grid}\n"
    config, notes = with_method(load_config(write_config(tmp_path / "p.yaml", text)), SIGNATURES, "anomalib")
    assert isinstance(config.data, DataOptions)
    return config.threshold.method, config.data.val, notes


@pytest.mark.parametrize(
    ("data", "grid", "more", "expected"),
    [
        ("", NATIVE, "", ("cross_conformal", 0.0)),
        (", val: 0", NATIVE, "", ("cross_conformal", 0.0)),
        (", val: 0.2", NATIVE, "", ("held_out", 0.2)),
        ("", NATIVE, "threshold: {folds: 3}", ("cross_conformal", 0.0)),
        ("", NATIVE, "threshold: held_out", ("held_out", 0.1)),
        ("", NATIVE, "threshold: normal_quantile", ("normal_quantile", 0.1)),
        ("", NATIVE, "threshold: none", ("none", 0.1)),
        ("", "{model: padim}", "", ("held_out", 0.1)),
        (", val: 0", "{model: padim}", "", ("held_out", 0)),
    ],
)
def test_the_default(tmp_path: Path, data: str, grid: str, more: str, expected: tuple[str, float]) -> None:
    assert resolved(tmp_path, data, grid, more) == (*expected, [])


@pytest.mark.parametrize("other", ["{model: padim}", *(f"{{backend: native, model: {name}}}" for name in WITHOUT)])
def test_all_runs_learn_from_the_same_images(tmp_path: Path, other: str) -> None:
    method, val, notes = resolved(tmp_path, "", f"[{NATIVE}, {other}]")
    assert (method, val) == ("held_out", 0.1)
    assert len(notes) == 1
    assert "no out-of-fold scores, and all runs must learn from the same images" in notes[0]
    assert resolved(tmp_path, ", val: 0.2", f"[{NATIVE}, {other}]") == ("held_out", 0.2, [])


@pytest.mark.parametrize("threshold", ["cross_conformal", "{folds: 3}"])
def test_out_of_fold_scores_that_a_model_does_not_have(tmp_path: Path, threshold: str) -> None:
    with pytest.raises(ConfigError, match=r"found with padim \(anomalib\), which has no out-of-fold scores; expected"):
        resolved(tmp_path, "", f"[{NATIVE}, {{model: padim}}]", f"threshold: {threshold}")


def test_the_policy_stands_in_the_spec_and_in_the_stored_config(tmp_path: Path) -> None:
    text = f"data: {{kind: toy}}\nthreshold: {{false_alarms: 0.05}}\ngrid: {NATIVE}\n"
    config, _ = with_method(load_config(write_config(tmp_path / "p.yaml", text)), SIGNATURES, "anomalib")
    (spec,) = make_plan(config, [""], SIGNATURES).specs
    folds = SIGNATURES("native", OUT_OF_FOLD[0]).folds
    assert dict(spec.threshold) == {
        "method": "cross_conformal", "false_alarms": 0.05, "pixel_quantile": 0.999, "folds": folds, "seed": 0,
    }  # fmt: skip
    again = load_config(write_config(tmp_path / "again.yaml", as_yaml(config)))
    assert (again.threshold.policy(), again.data) == (config.threshold.policy(), config.data)


def test_a_search_that_cannot_stop_early_says_so(tmp_path: Path) -> None:
    text = (
        "data: {kind: toy}\nsearch: {metric: image_F1Score, space: {backend: native, "
        f"model: {OUT_OF_FOLD[0]}, image_size: {{choice: [64, 96]}}}}}}\n"
    )
    config = load_config(write_config(tmp_path / "p.yaml", text))
    resolved_config, notes = with_method(config, SIGNATURES, "anomalib")
    assert resolved_config.threshold.method == "cross_conformal"
    assert notes[0].startswith("search.stop_early has no effect: image_F1Score needs a threshold")
    early = load_config(write_config(tmp_path / "p.yaml", text.replace("image_F1Score", "image_AUROC")))
    assert with_method(early, SIGNATURES, "anomalib")[1] == []
