"""The figure of effects: which axes vary, and which configurations one line joins."""

from __future__ import annotations

from harness.report.effects import effects, varying_axes
from harness.report.results import Results
from harness.results.store import ResultFolder
from tests.report.conftest import FAIR, GOOD, POOR, Run


def test_configurations_of_one_series_differ_in_the_axis_only(folder: ResultFolder, run: Run) -> None:
    run(GOOD, spec={"layers": ["layer1"]}, params={"k": 1})
    run(FAIR, spec={"layers": ["layer1", "layer2"]}, params={"k": 1})
    run(POOR, spec={"layers": ["layer1"], "image_size": [64, 64]}, params={"k": 9})
    run(POOR, spec={"layers": ["layer3"], "model": "padim"}, params={"dimensions": 50})
    (points,) = Results.of(folder).configurations.values()
    axes = varying_axes(points, ["k", "dimensions"])
    # Only one run has a size or dimensions, so these axes have nothing to compare.
    assert axes == ["model", "layers", "k"]
    by_run = {
        point.best_run: effect for point, effect in zip(points, effects(points, axes, ["k", "dimensions"]), strict=True)
    }
    one, two, three, other = (by_run[f"run-{number}"] for number in range(4))
    assert (one["layers"]["value"], two["layers"]["value"]) == ("layer1", "layer1+layer2")
    assert one["layers"]["series"] == two["layers"]["series"] != three["layers"]["series"]
    assert (one["k"]["value"], three["k"]["value"]) == (1, 9)
    assert one["k"]["series"] != three["k"]["series"]
    # The parameters and the layers of a model follow from it.
    assert one["model"]["series"] == two["model"]["series"] == other["model"]["series"] != three["model"]["series"]
    assert "k" not in other
