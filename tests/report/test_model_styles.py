"""A model has one style in all figures, and styles differ for every reader."""

from __future__ import annotations

import itertools

import numpy as np
import numpy.typing as npt
import pytest

from harness.report.detection_page import page_part
from harness.report.model_styles import DARK_PALETTE, PALETTE, ModelStyles
from harness.report.results import Results
from harness.results.store import ResultFolder
from tests.report.conftest import FAIR, GOOD, POOR, Run

# Colours as people without the first or the second kind of cones see them, from linear RGB: Machado, Oliveira and
# Fernandes (2009), "A physiologically-based model for simulation of color vision deficiency", severity 1.
BLINDNESS = {
    "none": np.eye(3),
    "protanopia": np.array([[0.152, 1.053, -0.205], [0.115, 0.786, 0.099], [-0.004, -0.048, 1.052]]),
    "deuteranopia": np.array([[0.367, 0.861, -0.228], [0.280, 0.673, 0.047], [-0.012, 0.043, 0.969]]),
}


def linear(colour: str) -> npt.NDArray[np.float64]:
    """Linear RGB of #rrggbb."""
    share = np.array([int(colour[start : start + 2], 16) for start in (1, 3, 5)]) / 255
    return np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)


def lab(rgb: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """CIELAB of linear RGB, for white of daylight (D65)."""
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    x, y, z = np.cbrt(np.maximum(to_xyz @ rgb / np.array([0.9505, 1.0, 1.089]), 0.0))
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize("blindness", BLINDNESS)
@pytest.mark.parametrize("palette", [PALETTE, DARK_PALETTE])
def test_colour_blind_readers_can_tell_the_models_apart(palette: tuple[str, ...], blindness: str) -> None:
    points = [lab(np.clip(BLINDNESS[blindness] @ linear(colour), 0, 1)) for colour in palette]
    closest = min(float(np.linalg.norm(one - other)) for one, other in itertools.combinations(points, 2))
    # A difference of 2.3 is just noticeable.
    assert closest > 10


def test_a_model_has_one_style_on_both_backends_and_in_all_parts_of_the_page(folder: ResultFolder, run: Run) -> None:
    for scores, model, backend in (
        (GOOD, "patchcore", "native"),
        (FAIR, "padim", "native"),
        (POOR, "padim", "anomalib"),
    ):
        for images in (10, None):
            spec = {"model": model, "backend": backend, **({"n_train": images} if images else {})}
            run(scores, spec=spec, data={"train": images or 40, "val": 0})
    data = page_part(results := Results.of(folder)).data
    styles = {(one["facts"]["model"], one["facts"]["backend"]): one["style"] for one in data["settings"]}
    assert styles == {
        ("patchcore", "native"): {"model": 1, "backend": 1},
        ("padim", "native"): {"model": 0, "backend": 1},
        ("padim", "anomalib"): {"model": 0, "backend": 0},
    }
    assert all(one["style"] == styles[one["model"], one["backend"]] for one in data["runs"])
    lines = [line for figure in data["curves"] for line in figure["lines"]]
    assert len(lines) == 3
    runs = {one["run"]: one["style"] for one in data["runs"]}
    assert all(line["style"] == runs[point["run"]] for line in lines for point in line["points"])
    assert [one["recommended"] for one in data["settings"]] == ["recommended", None, None]
    assert ModelStyles.of(results).models == ("padim", "patchcore")
