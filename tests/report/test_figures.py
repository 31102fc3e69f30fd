"""The figures of the page as files: all of them, with their text as text, and the values of the page."""

from __future__ import annotations

import json
import re
import shutil
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import matplotlib as mpl
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import rgb_to_hsv, to_rgb
from matplotlib.lines import Line2D
from PIL import Image

from harness.report.figures.canvas import INK, MARKERS, QUIET, STYLE, NamedFigure, lines_of, shade
from harness.report.figures.curve import curve_figure
from harness.report.figures.ranks import ranks_figure
from harness.report.figures.search import search_figures
from harness.report.figures.sweep import Place, sweep_figures
from harness.report.figures.write import write_figures
from harness.report.model_styles import PALETTE
from harness.report.parts import task_report
from harness.report.results import Results
from harness.results.run_folder import DETAILS
from harness.results.scores import SCORES
from harness.results.store import ResultFolder
from tests.conftest import ROOT, Cli
from tests.fake_results import fake_run
from tests.report.conftest import FAIR, GOOD, LABELS, POOR

STORED = ROOT / "tests" / "stored" / "results"
# The titles of the axes of each figure.
AXES = {
    "cost": ("ms an image", "image AUROC"),
    "effect": ("model", "ms an image", "image AUROC"),
    "compare": ("image AUROC",),
    "ranks": ("mean rank",),
    "curve": ("normal images", "image AUROC"),
    "roc": ("false positive rate", "true positive rate"),
    "pr": ("recall", "precision"),
    "pimo": ("false positive rate of normal images", "1e-05", "overlap with the defect"),
    "scores": ("raw score", "images"),
    "convergence": ("trial", "image AUROC"),
    "parallel": ("neighbors",),
    "importance": ("share of the importance",),
    "confusion": ("predicted label", "true label"),
    "reliability": ("probability of the predicted label", "share of right labels"),
    "labels": ("F1",),
    "images": ("images",),
    "epochs": ("epoch", "loss", "macro F1"),
    "risk": ("share of images with an answer, out of fold", "wrong answers"),
}


def of_page(results: Results, left_out: Sequence[str] = ()) -> set[str]:
    """The figures that the scripts of a page draw."""
    folder = files("harness.report") / "page"
    scripts = [name for name in task_report(results).page(results).scripts if name not in left_out]
    return {name for script in scripts for name in re.findall(r'draw\("plot-(\w+)"', (folder / script).read_text())}


def texts(file: Path) -> str:
    """The text of an SVG file, which has to be valid."""
    return "\n".join(node.text or "" for node in ET.parse(file).iter("{http://www.w3.org/2000/svg}text"))


def check(written: dict[str, Path]) -> None:
    for name, file in written.items():
        for title in AXES[name]:
            assert title in texts(file), (name, title)


def without_figures(folder: ResultFolder, run: str) -> None:
    """Remove what the figures of a run show."""
    for name in (DETAILS, SCORES):
        (folder.run_folder(run) / name).unlink()


@pytest.fixture
def parts(folder: ResultFolder) -> ResultFolder:
    """Three configurations on two categories; the first run has figures of its own."""
    for category in ("lid", "box"):
        for name, values, spec, params in (
            ("good", GOOD, {}, {"coreset_sampling_ratio": 0.1}),
            ("fair", FAIR, {}, {"coreset_sampling_ratio": 0.5}),
            ("poor", POOR, {"model": "padim"}, {}),
        ):
            fake_run(folder, f"{category}-{name}", values, LABELS, spec={**spec, "category": category}, params=params)
            if (category, name) != ("lid", "good"):
                without_figures(folder, f"{category}-{name}")
    details = folder.run_folder("lid-good") / DETAILS
    points = [{"rate": 10.0**power, "overlap": 0.2 * (7 + power)} for power in (-6, -5, -4, -3)]
    details.write_text(json.dumps({**json.loads(details.read_text()), "pimo_curve": points}))
    return folder


def searched() -> dict[str, Any]:
    """The data of a search with a trial that was stopped."""
    trials: list[dict[str, Any]] = [
        {"number": 1, "state": "done", "value": 0.6, "looks": [], "point": {"neighbors": 3, "layers": "a"}, "run": "x"},
        {"number": 2, "state": "done", "value": 0.9, "looks": [], "point": {"neighbors": 9, "layers": "b"}, "run": "y"},
        {"number": 3, "state": "stopped", "value": None, "looks": [[1, 0.4]], "point": {"neighbors": 1, "layers": "a"},
         "run": None},
        {"number": 4, "state": "done", "value": 0.7, "looks": [], "point": {"neighbors": 5, "layers": "a"}, "run": "z"},
    ]  # fmt: skip
    axes = [{"name": "neighbors", "log": True}, {"name": "layers", "log": False}]
    importance = {"neighbors": 0.75, "layers": 0.25}
    return {"metric": "image_AUROC", "sign": 1, "axes": axes, "importance": importance, "trials": trials}


def learnt() -> dict[str, Any]:
    """The data of a learning curve; one point has no interval."""
    points = [
        {"images": 4.0, "value": 0.8, "low": 0.7, "high": 0.85},
        {"images": 40.0, "value": 0.9, "low": None, "high": None},
    ]
    line = {"label": "padim\nnative", "style": {"model": 0, "backend": 0}, "points": points}
    return {"dataset": 0, "sentences": [], "lines": [line]}


def test_every_figure_of_a_detection_is_a_file(parts: ResultFolder, tmp_path: Path) -> None:
    results = Results.of(parts)
    drawn, problems = write_figures(results, tmp_path / "out", "svg")
    assert problems == []
    with mpl.rc_context(STYLE):
        for one in (*search_figures(searched()), NamedFigure("curve", curve_figure(learnt(), "parts"))):
            one.figure.savefig(file := tmp_path / f"{one.name}.svg")
            drawn.append(file)
    written = {file.stem: file for file in drawn}
    assert set(written) == of_page(results)
    assert written["roc"].relative_to(tmp_path) == Path("out/runs/lid-good/roc.svg")
    check(written)
    assert "lid, patchcore coreset_sampling_ratio 0.1, seed 0" in texts(written["roc"])


def test_every_figure_of_a_classification_is_a_file(cli: Cli, tmp_path: Path) -> None:
    folder = ResultFolder(tmp_path / "named")
    shutil.copytree(STORED / "named", folder.root)
    first, second = sorted(folder.runs.iterdir())
    shutil.rmtree(second)
    details = json.loads((first / DETAILS).read_text())
    # The version that wrote this run did not count the images of each label.
    details["distribution"] = {name: list(range(len(details["labels"]))) for name in ("fold 0", "fold 1", "test")}
    (first / DETAILS).write_text(json.dumps(details))
    result = cli("figures", folder.root, "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output
    drawn = list((tmp_path / "out").rglob("*.svg"))
    assert f"{len(drawn)} figures." in result.stdout
    assert {file.parent.name for file in drawn} == {first.name}
    written = {file.stem: file for file in drawn}
    # This folder is not of a search, and the page takes the layout alone from the other script.
    assert set(written) == of_page(Results.of(folder), left_out=("plots.js", "search.js"))
    check(written)


def data_of(**changes: Any) -> dict[str, Any]:
    """The data of a page with four configurations of two models on one category."""
    points = [("padim", 90.0, 0.7), ("padim", 70.0, 0.8), ("patchcore", 60.0, 0.75), ("patchcore", 50.0, 0.9)]
    settings = [
        {
            "facts": {"model": model, "backend": "native"},
            "values": {place: {"images_per_second": speed, "image_AUROC": value} for place in ("", "lid")},
            "label": f"{model}\n{speed:g}",
            "effects": {"size": {"value": speed, "series": ["padim", "patchcore"].index(model)}},
            "dataset": 0,
            "complete": 1,
            "run": f"{model} {speed}",
            "style": {"model": ["padim", "patchcore"].index(model), "backend": 0},
            "recommended": "recommended" if value == 0.9 else None,
        }
        for model, speed, value in points
    ]
    runs = [{"setting": 1, "category": "lid", "image_AUROC_low": 0.6, "image_AUROC_high": 0.95}]
    base = {"settings": settings, "runs": runs, "leaders": ["padim 70.0"], "datasets": ["parts"], "axes": ["size"]}
    return {**base, "costs": ["images_per_second"], "falling": [], **changes}


def drawn_of(data: dict[str, Any]) -> dict[str, Any]:
    return {one.name: one.figure.axes for one in sweep_figures(Place(data, 0, "image_AUROC"))}


def series_of(axes: Axes) -> list[Line2D]:
    """The lines of the series, without points and rings."""
    return [line for line in axes.lines if line.get_linestyle() != "None"]


def values_of(axes: Axes, name: str) -> list[Any]:
    """The points of each line with a name."""
    return [line.get_xydata().tolist() for line in axes.lines if line.get_label() == name]


def test_a_model_has_one_colour_in_all_figures() -> None:
    drawn = drawn_of(data_of(leaders=["padim 70.0", "patchcore 50.0"]))
    points = [(line.get_label(), line) for line in drawn["cost"][0].lines]
    points += [(bars.get_label(), bars.lines[0]) for bars in drawn["compare"][0].containers]
    for name, colour in (("padim", PALETTE[0]), ("patchcore", PALETTE[1])):
        of_model = [line for label, line in points if label == f"{name} (native)"]
        assert len(of_model) == 2
        lines = [line for line in drawn["effect"][0].lines if line.get_label() == name]
        assert {line.get_markeredgecolor() for line in of_model} == {line.get_color() for line in lines} == {colour}
    marks = {line.get_markeredgecolor() for line in drawn["effect"][0].lines if line.get_marker() in MARKERS[:2]}
    assert marks == {PALETTE[0], PALETTE[1], INK}


def test_lines_of_one_model_differ_and_keep_their_hue() -> None:
    blue, orange = ({"model": model, "backend": 0} for model in (0, 1))
    lines = lines_of([[blue], [blue, blue], [orange], [blue, orange], [orange, blue]])
    assert [line["color"] for line in lines] == [PALETTE[0], shade(blue, 1), PALETTE[1], QUIET, QUIET]
    assert len({(line["color"], str(line["linestyle"])) for line in lines}) == 5
    assert len({str(line) for line in lines_of([[blue]] * 30)}) == 30
    hues = [rgb_to_hsv(to_rgb(shade(blue, place)))[0] for place in range(5)]
    assert hues == pytest.approx([hues[0]] * 5, abs=0.02)


def test_the_figures_have_the_values_of_the_page() -> None:
    drawn = drawn_of(data_of())
    (cost,) = drawn["cost"]
    assert values_of(cost, "padim (native)") == [[[90, 0.7], [70, 0.8]]]
    assert values_of(cost, "patchcore (native)") == [[[60, 0.75], [50, 0.9]]]
    # More images in a second are cheaper: the front begins there, and leaves out what is slower and worse.
    assert values_of(cost, "Pareto front") == [[[90, 0.7], [70, 0.8], [50, 0.9]]]
    assert values_of(cost, "_ring") == [[[50, 0.9]]]
    assert [note.get_text() for note in cost.texts] == ["recommended"]
    quality, speed = drawn["effect"]
    # The best series comes first; what its configurations share is its name.
    assert [line.get_label() for line in series_of(quality)] == ["patchcore", "padim"]
    assert values_of(quality, "patchcore") == [[[50, 0.9], [60, 0.75]]]
    assert values_of(quality, "padim") == [[[70, 0.8], [90, 0.7]]]
    assert [line.get_ydata().tolist() for line in series_of(speed)] == [[50, 60], [70, 90]]
    assert (values_of(quality, "_ring"), values_of(speed, "_ring")) == ([[[50, 0.9]]], [[[50, 50]]])
    (bar,) = drawn["compare"][0].containers
    (ends,) = bar.lines[2][0].get_segments()
    assert ends[:, 0].tolist() == pytest.approx([0.6, 0.95])


def test_only_lines_have_a_name_and_single_points_have_that_of_their_model() -> None:
    data = data_of()
    data["settings"][0]["effects"]["size"]["series"] = 2
    quality, _ = drawn_of(data)["effect"]
    assert [line.get_label() for line in series_of(quality)] == ["patchcore"]
    names = [text.get_text() for text in quality.figure.legends[0].get_texts()]
    assert names == ["patchcore", "other padim (native)"]


def test_the_word_beside_a_ring_stays_inside() -> None:
    for best in range(4):
        data = data_of()
        for number, one in enumerate(data["settings"]):
            one["recommended"] = "recommended" if number == best else None
        for axes in (*drawn_of(data)["cost"], *drawn_of(data)["effect"]):
            axes.figure.draw_without_rendering()
            (word,) = axes.texts
            inside, frame = word.get_window_extent(), axes.get_window_extent()
            assert frame.x0 <= inside.x0 and inside.x1 <= frame.x1
            assert inside.y1 <= frame.y1


def test_an_axis_of_words_has_them_at_its_ticks() -> None:
    data = data_of()
    for number, one in enumerate(data["settings"]):
        one["effects"]["layers"] = {"value": "layer1+layer2" if number % 2 else "layer1", "series": 2}
        one["effects"]["size"]["series"] = number
    quality, speed = drawn_of(data)["effect"]
    assert [tick.get_text() for tick in speed.get_xticklabels()] == ["layer1", "layer1+layer2"]
    # Of two configurations with one value, the better one counts.
    (line,) = series_of(quality)
    assert line.get_xydata().tolist() == [[0, 0.75], [1, 0.9]]


def test_a_learning_curve_has_an_interval_where_there_is_one() -> None:
    (bar,) = curve_figure(learnt(), "parts").axes[0].containers
    assert [ends[:, 1].tolist() for ends in bar.lines[2][0].get_segments()] == [
        pytest.approx([0.7, 0.85]),
        pytest.approx([0.9, 0.9]),
    ]


def test_what_has_no_value_is_left_out() -> None:
    data = data_of(costs=[])
    for one in data["settings"]:
        one["effects"] = {}
    assert set(drawn_of(data)) == {"compare"}
    for one in data["settings"]:
        one["complete"] = 0
    assert "cost" not in drawn_of({**data, "costs": ["images_per_second"]})
    # Several seeds have no common interval.
    (bar,) = drawn_of({**data, "runs": data["runs"] * 2})["compare"][0].containers
    assert not bar.has_xerr


def test_a_smaller_error_rate_is_better() -> None:
    cost = drawn_of(data_of(falling=["image_AUROC"]))["cost"][0]
    assert values_of(cost, "Pareto front") == [[[90, 0.7]]]


def test_bars_outside_of_the_critical_difference_are_marked() -> None:
    rows = [{"label": f"model\n{rank}", "rank": rank} for rank in (1.0, 1.5, 3.0)]
    ranked = {"rows": rows, "critical": 1.2, "significant": True, "configurations": 3}
    axes = ranks_figure(ranked, "parts").axes[0]
    assert [(bar.get_label(), bar.lines[0].get_xdata().tolist()) for bar in axes.containers] == [
        ("no significant difference from the first", [1.0, 1.5]),
        ("significantly worse than the first", [3.0]),
    ]
    axes = ranks_figure({**ranked, "significant": False}, "parts").axes[0]
    assert [bar.get_label() for bar in axes.containers] == ["no significant difference"]


def test_the_best_value_of_a_search_never_gets_worse() -> None:
    axes = {one.name: one.figure.axes[0] for one in search_figures(searched())}
    assert axes["convergence"].lines[0].get_xydata().tolist() == [[1, 0.6], [2, 0.9], [3, 0.9], [4, 0.9]]
    stopped = axes["convergence"].collections[1]
    assert stopped.get_offsets().tolist() == [[3, 0.4]]
    # The best trial is drawn last; its values are at the ends of their axes.
    assert axes["parallel"].lines[-1].get_ydata()[[0, 2]].tolist() == [1, 1]
    falling = {one.name: one.figure.axes[0] for one in search_figures({**searched(), "sign": -1})}
    assert falling["convergence"].lines[0].get_ydata().tolist() == [0.6] * 4


def test_labels_are_text_whatever_is_in_them(folder: ResultFolder, tmp_path: Path) -> None:
    name = "<b>$a_b$ 部品"
    fake_run(folder, "one", GOOD, LABELS, spec={"category": name})
    without_figures(folder, "one")
    drawn, problems = write_figures(Results.of(folder), tmp_path, "svg")
    assert problems == []
    before = {file.name: file.read_bytes() for file in drawn}
    assert set(before) == {"cost.svg", "compare.svg"}
    assert name in texts(tmp_path / "compare.svg")
    write_figures(Results.of(folder), tmp_path, "svg")
    assert {file.name: file.read_bytes() for file in drawn} == before
    pictures, problems = write_figures(Results.of(folder), tmp_path, "png")
    assert problems == ["The font of the figures lacks 2 characters of the labels. Use --format svg: it keeps them."]
    with Image.open(pictures[0]) as picture:
        assert picture.width > 1000


def test_pdf_files_of_another_metric(cli: Cli, folder: ResultFolder, tmp_path: Path) -> None:
    fake_run(folder, "one", GOOD, LABELS, metrics={"pixel_AUPRO": 0.5})
    without_figures(folder, "one")
    result = cli("figures", folder.root, "--out", tmp_path, "--format", "pdf", "--metric", "pixel_AUPRO")
    assert result.exit_code == 0, result.output
    assert (tmp_path / "cost.pdf").read_bytes().startswith(b"%PDF")
    result = cli("figures", folder.root, "--out", tmp_path, "--metric", "pixel_AUPR")
    assert result.exit_code == 2
    assert "unknown --metric 'pixel_AUPR'. Did you mean 'pixel_AUPRO'" in result.stderr


def test_what_is_wrong_is_said(cli: Cli, folder: ResultFolder, tmp_path: Path) -> None:
    fake_run(folder, "one", GOOD, LABELS)
    (tmp_path / "file").write_text("mine")
    for arguments, sentence in (
        ((folder.root, "--format", "gif"), "unknown --format 'gif'"),
        ((tmp_path / "nowhere",), "nowhere"),
        ((folder.root, "--out", tmp_path / "file"), "--out: can't write to"),
        ((STORED / "named", "--metric", "image_AUROC"), "--metric: 'image_AUROC' found; expected none"),
    ):
        result = cli("figures", "--out", tmp_path / "out", *arguments)
        assert (result.exit_code, result.stdout) == (2, ""), arguments
        assert sentence in result.stderr
    assert not list((tmp_path / "out").glob("*.svg"))
    assert (tmp_path / "file").read_text() == "mine"
