"""report.html in a real headless Chromium, opened from the disk as somebody would who got it by mail."""

from __future__ import annotations

import itertools
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.metrics.friedman import critical_difference
from harness.report.html import write_report, write_single
from harness.report.results import Results
from harness.results.run_folder import DETAILS
from harness.results.store import ResultFolder
from tests.fake_results import fake_run

CHROMIUM = next((p for p in map(shutil.which, ("chromium", "chromium-browser", "google-chrome")) if p), None)
playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright: pip install 'harness[test]'")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs a browser: Debian's chromium, or Google Chrome")

Open = Callable[..., Any]
READY = "body[data-ready=true]"
# The traces of the figure of cost, without the ring around the recommended configuration.
COST = "document.getElementById('plot-cost').data.filter((trace) => trace.name !== 'recommended')"

# WCAG's contrast of text against what lies behind it, the least on the page.
CONTRAST = """() => {
  const linear = (x) => x <= 0.03928 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4;
  const light = (text) => {
    const [r, g, b] = text.match(/\\d+/g).slice(0, 3).map((x) => linear(x / 255));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (node) => {
    const own = getComputedStyle(node).backgroundColor;
    if (!own.startsWith("rgba(0, 0, 0, 0")) return own;
    return node.parentElement ? behind(node.parentElement) : "rgb(255, 255, 255)";
  };
  const contrast = (node) => {
    const [a, b] = [light(getComputedStyle(node).color), light(behind(node))];
    return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
  };
  const text = "h1, p, td, th button, .link, label, summary, .tag";
  return Math.min(...[...document.querySelectorAll(text)].filter((n) => n.innerText).map(contrast));
}"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as driver:
        # Containers run as root, which Chromium's sandbox refuses.
        chromium = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture
def open_report(browser: Any) -> Iterator[Open]:
    """Opens a result folder's report; at the end nothing may have been logged as an error."""
    contexts, errors = [], []

    def open_it(folder: ResultFolder, width: int = 1280, scheme: str = "light", anchor: str = "") -> Any:
        context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme, offline=True)
        contexts.append(context)
        page = context.new_page()
        page.on(
            "console", lambda message: errors.append(message.text) if message.type in {"error", "warning"} else None
        )
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("requestfailed", lambda request: errors.append(f"failed: {request.url}"))
        page.goto(f"{folder.report.resolve().as_uri()}{anchor}")
        page.wait_for_selector(READY)
        return page

    yield open_it
    for context in contexts:
        context.close()
    assert errors == []


def column(page: Any, name: str) -> list[str]:
    heads = page.locator("#runs thead th").evaluate_all("cells => cells.map(cell => cell.dataset.name)")
    cells = page.locator(f"#single-runs tr td:nth-child({heads.index(name) + 1})").all_inner_texts()
    return [text.split()[0] if text else "" for text in cells]


@pytest.mark.slow
def test_the_table_sorts_by_any_column_both_ways(sweep_folder: ResultFolder, open_report: Open) -> None:
    page = open_report(sweep_folder)
    first = [float(text) for text in column(page, "image_AUROC")]
    assert len(first) == 16
    assert first == sorted(first, reverse=True)
    assert page.get_attribute("#runs th[data-name=image_AUROC]", "aria-sort") == "descending"
    page.click("#runs th[data-name=image_AUROC] button")
    assert [float(text) for text in column(page, "image_AUROC")] == sorted(first)
    page.click("#runs th[data-name=ms_per_image_p50] button")
    times = [float(text) for text in column(page, "ms_per_image_p50")]
    assert times == sorted(times)


@pytest.mark.slow
def test_without_labels_the_page_ranks_by_synthetic_defects(tmp_path: Path, open_report: Open) -> None:
    folder = ResultFolder(tmp_path / "normal")
    folder.create()
    for k, value in enumerate((0.7, 0.9)):
        fake_run(folder, f"run-{k}", [0.1, 0.2], [0, 0], params={"k": k}, metrics={"synthetic_AUROC": value})
    write_report(folder)
    page = open_report(folder)
    ranked = page.locator(".card table tbody tr").all_inner_texts()
    assert [text.split("\t") for text in ranked] == [["patchcore k 1", "1", "0.900"], ["patchcore k 0", "2", "0.700"]]
    assert column(page, "synthetic_AUROC") == ["0.900", "0.700"]
    page.click(".card table button >> nth=0")
    page.wait_for_selector("#run[open]")


def test_the_table_filters_by_words_and_category(sweep_folder: ResultFolder, open_report: Open) -> None:
    page = open_report(sweep_folder)
    page.fill("#filter", "power 4")
    assert page.inner_text("#shown") == "0 of 16 runs"
    page.fill("#filter", "POWER 3")
    assert len(column(page, "category")) == 4
    page.select_option("#category", "fabric")
    assert column(page, "category") == ["fabric", "fabric"]
    assert page.inner_text("#shown") == "2 of 16 runs"
    page.select_option("#columns", "all metrics")
    assert {len(text) for text in column(page, "pixel_AUPRO")} == {5}


@pytest.mark.slow
def test_a_plot_shows_the_setting_under_the_pointer_and_opens_its_run(
    sweep_folder: ResultFolder, open_report: Open
) -> None:
    page = open_report(sweep_folder)
    page.locator("#plot-cost").scroll_into_view_if_needed()
    point = page.locator("#plot-cost .scatterlayer .trace .points path").first
    box = point.bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2 - 3, box["y"] + box["height"] / 2 - 3)
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    label = page.locator("#plot-cost .hoverlayer .hovertext")
    label.wait_for()
    assert "ms an image" in label.text_content()
    page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.wait_for_selector("dialog[open] #gallery")


def test_the_answer_has_pictures_and_its_average_is_in_the_table(sweep_folder: ResultFolder, open_report: Open) -> None:
    page = open_report(sweep_folder, width=390)
    assert page.locator(".cases[data-answer] .tag").all_inner_texts() == ["found", "missed"]
    assert page.evaluate("document.querySelector('.figures').getBoundingClientRect().bottom") < 900
    assert page.locator("#averages tr").count() == 1
    shown = page.inner_text("#averages")
    assert "average of 4 runs" in shown
    average = page.evaluate("harness.data.averages[0]")
    runs = page.evaluate("id => harness.data.runs.filter((run) => run.setting === id)", average["setting"])
    mean = sum(run["image_AUROC"] for run in runs) / len(runs)
    assert average["image_AUROC"] == pytest.approx(mean, abs=1e-5)
    assert f"{average['image_AUROC']:.3f}" in shown
    # A filter that leaves the answer out leaves its average out too.
    page.select_option("#category", "fabric")
    assert page.locator("#averages tr").count() == 0


@pytest.mark.slow
def test_columns_can_be_chosen_one_by_one(sweep_folder: ResultFolder, open_report: Open) -> None:
    page = open_report(sweep_folder)
    page.click("text=Choose columns")
    page.uncheck("#boxes input[value=vs_best]")
    page.check("#boxes input[value=model_MB]")
    heads = page.locator("#runs thead th").evaluate_all("cells => cells.map(cell => cell.dataset.name)")
    assert "model_MB" in heads
    assert "vs_best" not in heads
    assert page.input_value("#columns") == "my columns"


@pytest.mark.slow
def test_the_table_of_runs_has_the_rates_of_false_alarms(tmp_path: Path, open_report: Open) -> None:
    folder = ResultFolder(tmp_path / "alarms")
    folder.create()
    rate = {"false_alarms": 0.1, "false_alarms_asked": 0.1, "guarantee": "promised"}
    thresholds = {"image": 0.5, "fixed_by": "9 held-out normal images", **rate}
    for category, alarms in (("lid", 0), ("box", 1)):
        fake_run(folder, category, [0.1, 0.6, 0.8, 0.9], [0, 0, 1, 1], spec={"category": category},
                 thresholds=thresholds, metrics={"image_FalsePositives": alarms})  # fmt: skip
    write_report(folder)
    page = open_report(folder)
    page.click("#runs th[data-name=false_alarms_on_test] button")
    assert column(page, "false_alarms_on_test") == ["0.0%", "50.0%"]
    assert column(page, "false_alarms_expected") == ["10.0%", "10.0%"]
    assert page.inner_text("#single-runs").count("10.0% promised") == 2
    assert "25.0%" in page.inner_text("#averages")


@pytest.mark.slow
def test_two_configurations_show_the_same_image(sweep_folder: ResultFolder, open_report: Open) -> None:
    page = open_report(sweep_folder)
    page.locator("#side").scroll_into_view_if_needed()
    page.wait_for_selector("#side-pictures h3")
    # Where both runs kept pictures of one image, the page begins with it.
    assert page.locator("#side-pictures .strip").count() == 2
    counts = page.inner_text("#side-counts")
    numbers = [int(word.strip(",.")) for word in counts.split() if word.strip(",.").isdigit()]
    assert numbers[0] == sum(numbers[1:]) == 6
    name = page.locator("#side-image option").last.get_attribute("value")
    page.select_option("#side-image", name)
    page.wait_for_function("name => [...document.querySelectorAll('#side-pictures > div')].filter("
                           "(side) => side.innerText.includes(name)).length === 2", arg=name)  # fmt: skip
    assert page.locator("#side-pictures h3").count() == 2


@pytest.mark.slow
def test_the_effect_of_an_axis_with_names_has_a_series_for_each_rest(tmp_path: Path, open_report: Open) -> None:
    folder = ResultFolder(tmp_path / "named")
    folder.create()
    for number, (layers, k) in enumerate(itertools.product((["layer1"], ["layer2"], ["layer2", "layer3"]), (1, 9))):
        spec = {"layers": layers}
        fake_run(folder, f"run-{number}", [0.1, 0.2, 0.8, 0.9], [0, 0, 1, 1], spec=spec, params={"k": k})
    write_report(folder)
    page = open_report(folder)
    assert page.locator("#effect-axis option").all_inner_texts() == ["layers", "k"]
    page.select_option("#effect-axis", "layers")
    names = page.locator("#effect-names li").all_inner_texts()
    assert sorted(names) == ["●patchcore k 1", "●patchcore k 9"]
    lines = (
        "document.getElementById('plot-effect').data.filter((trace) => trace.mode === 'lines+markers')"
        ".map((trace) => [trace.x, trace.line.color])"
    )
    traces = page.evaluate(lines)
    assert all(values == ["layer1", "layer2", "layer2+layer3"] for values, _ in traces)
    assert len({ink for _, ink in traces}) == 2
    fake_run(folder, "single", [0.1, 0.2, 0.8, 0.9], [0, 0, 1, 1], spec={"model": "padim"})
    write_report(folder)
    page.reload()
    page.wait_for_selector(READY)
    page.select_option("#effect-axis", "layers")
    names = page.locator("#effect-names li").all_inner_texts()
    assert names[-1] == "●1 other, padim (anomalib): point at one for its name"
    assert sorted(names[:-1]) == ["◆patchcore k 1", "◆patchcore k 9"]


@pytest.mark.slow
def test_a_model_has_one_colour_and_the_recommended_one_a_ring_in_all_plots(tmp_path: Path, open_report: Open) -> None:
    folder = ResultFolder(tmp_path / "models")
    folder.create()
    for number, (model, backend) in enumerate(itertools.product(("padim", "patchcore"), ("anomalib", "native"))):
        spec = {"model": model, "backend": backend}
        cost, metrics = {"seconds_p50": 0.01 * (number + 1)}, {"image_AUROC": 0.9 + number / 100}
        fake_run(folder, f"run-{number}", [0.1, 0.2, 0.8, 0.9], [0, 0, 1, 1], spec=spec, cost=cost, metrics=metrics)
    write_report(folder)
    page = open_report(folder)
    recommended = page.evaluate("harness.data.settings.find((one) => one.recommended)")
    colours = {}
    for plot in ("cost", "compare", "effect"):
        traces = page.evaluate(f"document.getElementById('plot-{plot}').data")
        points = {run: colour for one in traces for run, colour in zip(one.get("customdata", []),
                  one["marker"]["color"] if "marker" in one else [], strict=False)}  # fmt: skip
        colours[plot] = {run: points[run] for run in sorted(points)}
        rings = [one for one in traces if one["name"] == "recommended"]
        costs = recommended["values"][""]["ms_per_image_p50"]
        assert [ring["text"] for ring in rings] == [[recommended["recommended"]]] * {
            "cost": 1,
            "compare": 0,
            "effect": 2,
        }[plot]
        assert plot != "cost" or rings[0]["x"] == [costs]
    assert colours["cost"] == colours["compare"] == colours["effect"]
    assert len(colours["cost"]) == 4
    assert len(set(colours["cost"].values())) == 2
    names = page.locator("#cost-names li").all_inner_texts()
    assert sorted(name[1:] for name in names[:-1]) == [
        f"{model} ({backend})" for model in ("padim", "patchcore") for backend in ("anomalib", "native")
    ]
    assert len({name[0] for name in names[:-1]}) == 4


@pytest.mark.slow
def test_the_front_has_nothing_better_and_cheaper(sweep_folder: ResultFolder, open_report: Open) -> None:
    page = open_report(sweep_folder)
    traces = page.evaluate(f"{COST}.map(t => ({{name: t.name, x: t.x, y: t.y}}))")
    front = traces[0]
    assert front["name"] == "Pareto front"
    points = [pair for trace in traces[1:] for pair in zip(trace["x"], trace["y"], strict=True)]
    assert len(points) == 4
    for x, y in zip(front["x"], front["y"], strict=True):
        assert not any(px <= x and py >= y and (px, py) != (x, y) for px, py in points)


@pytest.mark.slow
def test_the_front_of_an_error_rate_falls(sweep_folder: ResultFolder, open_report: Open) -> None:
    page = open_report(sweep_folder)
    assert "image_FPR95" in page.locator("#cost-y option").evaluate_all("options => options.map(o => o.value)")
    points = "[{x: 1, y: 0.5}, {x: 2, y: 0.3}, {x: 3, y: 0.4}, {x: 4, y: 0.6}]"
    front = f"pareto({points}, 'ms_per_image_p50', name).map(point => point.y)"
    assert page.evaluate(f"name => {front}", "image_FPR95") == [0.5, 0.3]
    assert page.evaluate(f"name => {front}", "image_AUROC") == [0.5, 0.6]


@pytest.mark.slow
def test_a_number_s_effect_is_drawn_for_quality_and_cost(sweep_folder: ResultFolder, open_report: Open) -> None:
    page = open_report(sweep_folder)
    traces = page.evaluate("document.getElementById('plot-effect').data.map(t => ({x: t.x, y: t.y, axis: t.yaxis}))")
    lines = [trace for trace in traces if len(trace["x"]) == 3]
    assert [line["x"] for line in lines] == [[1, 2, 3], [1, 2, 3]]
    assert {line["axis"] for line in lines} == {"y", "y2"}


def test_a_run_opens_by_keyboard_with_curves_histogram_and_gallery(
    sweep_folder: ResultFolder, open_report: Open
) -> None:
    page = open_report(sweep_folder)
    page.focus("#runs tbody tr button")
    page.keyboard.press("Enter")
    page.wait_for_selector("dialog[open] #gallery figure")
    for plot in ("roc", "pr", "scores"):
        page.wait_for_selector(f"#plot-{plot} .main-svg")
    threshold = page.evaluate("document.getElementById('plot-scores').layout.shapes[0].x0")
    details = page.evaluate("[...harness.details.values()][0]")
    assert threshold == details["thresholds"]["image"]
    bars = page.evaluate("document.getElementById('plot-scores').data.map(t => t.x.length)")
    assert bars == [4, 6]
    roles = page.locator("#gallery .tag").all_inner_texts()
    order = ["missed", "false alarm", "lowest anomalous", "highest normal", "highest anomalous"]
    assert roles == sorted(roles, key=order.index)
    panel = page.locator("#gallery figure").first.locator("[role=img]")
    assert panel.count() == 4
    captions = page.locator("#gallery .strip").evaluate_all("strips => strips.map((strip) => strip.innerText)")
    assert {text.replace("\n", " ") for text in captions} == {"image anomaly map mask predicted outline"}
    url = panel.first.evaluate("node => node.style.backgroundImage.slice(5, -2)")
    size = page.evaluate(
        "url => new Promise(done => { const i = new Image(); i.onload = () => done([i.naturalWidth, i.naturalHeight]);"
        " i.onerror = () => done(null); i.src = url; })",
        url,
    )
    assert size == [1024, 256]
    page.keyboard.press("Escape")
    assert not page.evaluate("document.getElementById('run').open")


@pytest.mark.slow
def test_a_run_shows_its_protocol_and_the_tables_of_metrics_on_request(tmp_path: Path, open_report: Open) -> None:
    folder = ResultFolder(tmp_path / "extra")
    folder.create()
    metrics = {"region_Recall": 0.75, "pixel_AUPIMO": 0.25}
    fake_run(folder, "one", [0.1, 0.9], [0, 1], spec={"protocol": {"size": "original"}}, metrics=metrics)
    groups = [{"smallest": 4, "largest": 9, "defects": 4, "found": 2}, {"smallest": 30, "largest": 30, "defects": 4,
              "found": 4}]  # fmt: skip
    images = [{"name": f"bad/{number}.png", "value": number / 20} for number in range(12)]
    details = folder.run_folder("one") / DETAILS
    points = [{"rate": 10.0**power, "overlap": 0.2 * (7 + power)} for power in (-6, -5, -4, -3)]
    tables = {"recall_by_area": groups, "aupimo_by_image": images, "pimo_curve": points}
    details.write_text(json.dumps({**(json.loads(details.read_text()) if details.exists() else {}), **tables}))
    write_report(folder)
    page = open_report(folder)
    assert "PROTOCOL of the pixel metrics in 1 of 1 runs: size original." in page.inner_text("body")
    page.click("#runs button[data-run=one]")
    page.wait_for_selector("text=Recall by the area of the defect")
    text = page.inner_text("#run-body")
    assert "Protocol of the pixel metrics: size original." in text
    rows = [row.split("\t")[:4] for row in page.locator("#run-body table tbody tr").all_inner_texts()]
    assert ["4 to 9", "4", "2", "0.500"] in rows
    assert ["30", "4", "4", "1.000"] in rows
    assert "AUPIMO of single images, the 10 lowest of 12" in text
    curve = page.locator("#plot-pimo").evaluate("(plot) => ({ x: plot.data[1].x, axis: plot.layout.xaxis.type })")
    assert curve == {"x": [point["rate"] for point in points], "axis": "log"}
    assert "bad/9.png" in text
    assert "bad/10.png" not in text
    assert "0.750" in text


@pytest.mark.slow
def test_back_closes_a_run_and_forward_opens_it_again(sweep_folder: ResultFolder, open_report: Open) -> None:
    page = open_report(sweep_folder)
    page.locator("#runs tbody button").first.click()
    page.wait_for_selector("dialog[open] #gallery figure")
    page.go_back()
    page.wait_for_selector("dialog", state="hidden")
    assert page.url == sweep_folder.report.resolve().as_uri()
    page.go_forward()
    page.wait_for_selector("dialog[open] #gallery figure")
    page.click("#close")
    page.wait_for_selector("dialog", state="hidden")
    assert "#run" not in page.url


@pytest.mark.slow
def test_a_link_leads_to_a_run(sweep_folder: ResultFolder, open_report: Open) -> None:
    run = next(record.run_id for record in sweep_folder.records() if record.status == "ok")
    page = open_report(sweep_folder, anchor=f"#run={run}")
    page.wait_for_selector("dialog[open] #gallery figure")
    shown = page.evaluate("id => harness.data.runs.find((one) => one.run === id).label", run)
    assert page.inner_text("#run-title").startswith(shown)


@pytest.mark.parametrize(
    ("width", "scheme"),
    [
        (1280, "light"),
        (390, "dark"),
        *(pytest.param(*one, marks=pytest.mark.slow) for one in [(1280, "dark"), (390, "light")]),
    ],
)
def test_nothing_hangs_over_and_text_is_readable(
    sweep_folder: ResultFolder, open_report: Open, width: int, scheme: str
) -> None:
    page = open_report(sweep_folder, width=width, scheme=scheme)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate(CONTRAST) >= 4.5
    page.locator("#runs tbody button").first.click()
    page.wait_for_selector("dialog[open] #gallery figure")
    assert page.evaluate("document.getElementById('run').scrollWidth <= document.getElementById('run').clientWidth")
    columns = page.locator("#gallery .strip").first.evaluate(
        "n => getComputedStyle(n).gridTemplateColumns.split(' ').length"
    )
    assert columns == (4 if width > 620 else 2)


@pytest.mark.slow
def test_markup_in_names_is_only_text(sweep_folder: ResultFolder, open_report: Open, tmp_path: Path) -> None:
    """A category or a message may come from a folder's name, which anybody may have chosen."""
    copy = ResultFolder(tmp_path / "copy")
    shutil.copytree(sweep_folder.root, copy.root)
    evil = "<img src=x onerror=window.hacked=1></script><script>window.hacked=1</script>"
    for file in copy.runs.glob("*/record.json"):
        record = json.loads(file.read_text())
        record["spec"]["category"] = record["spec"]["category"] + evil
        record["warnings"] = [evil]
        for one in record["defects"]:
            one["defect"] = evil
        if record["error"]:
            record["error"]["message"] = evil
        file.write_text(json.dumps(record))
    for file in copy.runs.glob("*/details.json"):
        details = json.loads(file.read_text())
        for one in details["gallery"]:
            one["name"] = evil
        # Python's reader keeps the last of equal keys, and JavaScript refuses two of this one in an object of its own.
        file.write_text('{"__proto__": 1, "__proto__": {"curves": 2}, ' + json.dumps(details)[1:])
    write_report(copy)
    page = open_report(copy)
    page.locator("#runs tbody button").first.click()
    page.wait_for_selector("dialog[open] #gallery figure")
    assert evil in page.inner_text("#gallery")
    assert evil in page.inner_text("#run-body")
    assert page.evaluate("window.hacked") is None


@pytest.mark.slow
def test_a_single_file_shows_plots_and_runs(sweep_folder: ResultFolder, browser: Any, tmp_path: Path) -> None:
    write_single(Results.of(sweep_folder), tmp_path / "alone.html")
    page = browser.new_page()
    urls: list[str] = []
    page.on("request", lambda request: urls.append(request.url))
    page.goto((tmp_path / "alone.html").as_uri())
    page.wait_for_selector(READY)
    assert page.evaluate("document.getElementById('plot-cost').data.length") > 0
    page.focus("#runs tbody tr button")
    page.keyboard.press("Enter")
    page.wait_for_selector("#plot-scores .main-svg")
    assert "Pictures are in the result folder" in page.locator("#run-body").inner_text()
    assert len(urls) == 1
    page.close()


@pytest.mark.slow
def test_a_page_without_its_folder_says_what_is_missing(
    sweep_folder: ResultFolder, browser: Any, tmp_path: Path
) -> None:
    """Somebody mails report.html alone."""
    shutil.copy(sweep_folder.report, tmp_path)
    page = browser.new_page()
    page.goto((tmp_path / "report.html").as_uri())
    page.wait_for_selector(READY)
    assert "send the whole folder along" in page.inner_text("#plot-cost")
    page.locator("#runs tbody button").first.click()
    page.wait_for_selector("#run-body .notice")
    assert "send the whole folder along" in page.inner_text("#run-body")
    page.close()


@pytest.mark.slow
def test_two_data_sets_are_plotted_one_at_a_time(open_report: Open, tmp_path: Path) -> None:
    folder = ResultFolder(tmp_path / "two")
    folder.create()
    labels = [0] * 9 + [1] * 9
    rng = np.random.default_rng(0)
    for root, configurations in (("/one", 2), ("/two", 3)):
        data = {"root": f"{root}/bottle", "fingerprint": root, "test_fingerprint": root}
        for k in range(configurations):
            scores = (rng.standard_normal(18) + np.array(labels)).tolist()
            # The better ones are slower here, and so are fewer images a second.
            cost = {"seconds_p50": 0.01 * (k + 1), "images_per_second": 90.0 - 20 * k}
            metrics = {"image_AUROC": 0.5 + 0.1 * k}
            fake_run(
                folder, f"run{root[1:]}{k}", scores, labels, data=data, params={"k": k}, cost=cost, metrics=metrics
            )
    write_report(folder)
    page = open_report(folder)
    points = f"{COST}.slice(1).reduce((n, t) => n + t.x.length, 0)"
    assert page.evaluate(points) == 2
    page.select_option("#dataset", "1")
    page.wait_for_function(f"{points} === 3")
    page.select_option("#cost-x", "images_per_second")
    page.wait_for_function("document.getElementById('plot-cost').data[0].x[0] === 90")
    front = page.evaluate("document.getElementById('plot-cost').data[0]")
    # From the cheapest on: level to the left until a better one is reached, then up.
    assert (front["x"], front["line"]["shape"]) == ([90, 70, 50], "hv")


@pytest.mark.slow
def test_records_of_an_earlier_version_open_without_their_curves(
    sweep_folder: ResultFolder, open_report: Open, tmp_path: Path
) -> None:
    copy = ResultFolder(tmp_path / "copy")
    shutil.copytree(sweep_folder.root, copy.root, ignore=shutil.ignore_patterns("details.json", "report"))
    write_report(copy)
    page = open_report(copy)
    page.locator("#runs tbody button").first.click()
    page.wait_for_selector("#plot-scores .main-svg")
    assert "an earlier version made this run, or its details.json is missing" in page.inner_text("#run-body")


# ---- ranks over categories

# Of each name in the figure: its text, and how far it reaches beyond the figure.
RANK_NAMES = """() => {
  const figure = document.getElementById("plot-ranks").getBoundingClientRect();
  return [...document.querySelectorAll("#plot-ranks .annotation-text")].map((node) => {
    const lines = [...node.querySelectorAll("tspan")].map((line) => line.textContent);
    const box = node.getBoundingClientRect();
    const beyond = Math.max(figure.left - box.left, box.right - figure.right, box.bottom - figure.bottom);
    return [lines.length ? lines.join(" ") : node.textContent, beyond, box.top, box.bottom];
  });
}"""
LAYERS = [f"blocks.{block}.0.conv_pwl" for block in range(6)]


@pytest.fixture(scope="module")
def ranked(tmp_path_factory: pytest.TempPathFactory) -> ResultFolder:
    """12 configurations on 8 categories, with long names that differ at their ends only; and another data set."""
    folder = ResultFolder(tmp_path_factory.mktemp("ranked") / "ranked")
    folder.create()
    scores, labels = [0.1, 0.2, 0.8, 0.9], [0, 0, 1, 1]
    for category in range(8):
        for k in range(12):
            spec = {"category": f"part {category}", "layers": LAYERS, "model": ["padim", "patchcore"][k % 2]}
            # Neighbours in the order change places from category to category.
            metrics = {"image_AUROC": 0.95 - 0.02 * (k + (k + category) % 2)}
            params = {"a_long_name_of_a_parameter": "x" * 60, "coreset_sampling_ratio": round(0.1 + k / 100, 2)}
            fake_run(folder, f"run-{category}-{k}", scores, labels, spec=spec, params=params, metrics=metrics)
    fake_run(folder, "the-other", scores, labels, data={"root": "/other/part", "fingerprint": "other"})
    write_report(folder)
    return folder


@pytest.mark.parametrize(("width", "scheme"), [(1366, "light"), (390, "dark")])
@pytest.mark.slow
def test_the_names_of_the_ranks_are_whole_and_readable(
    ranked: ResultFolder, open_report: Open, width: int, scheme: str
) -> None:
    page = open_report(ranked, width=width, scheme=scheme)
    for again in (width, 1756 - width):
        page.set_viewport_size({"width": again, "height": 900})
        # Plotly gives its plots their new width a moment later.
        page.wait_for_function(f"document.documentElement.scrollWidth <= {again}")
        page.wait_for_function(f"Math.max(...({RANK_NAMES})().map((name) => name[1])) <= 0")
        names = page.evaluate(RANK_NAMES)
        rows = page.evaluate("harness.data.ranks[0].rows")
        shown = [name.replace(" ", "") for name, *_ in names]
        expected = [f"{row['label']}({row['rank']:.2f})".replace("\n", "").replace(" ", "") for row in rows]
        assert shown == expected
        assert len(set(shown)) == 12
        assert max(beyond for _, beyond, _, _ in names) <= 0
        # No name covers the next one.
        assert all(one[3] < other[2] for one, other in itertools.pairwise(names))


@pytest.mark.slow
def test_the_figure_of_the_ranks_marks_what_is_worse_than_the_first(ranked: ResultFolder, open_report: Open) -> None:
    page = open_report(ranked)
    assert page.inner_text("#ranks-sentences").startswith("12 configurations on 8 categories. Friedman's test:")
    assert "(p < 0.001)" in page.inner_text("#ranks-sentences")
    critical = critical_difference(12, 8)
    assert f"The critical difference is {critical:.2f}:" in page.inner_text("#ranks-sentences")
    traces = "document.getElementById('plot-ranks').data.map((trace) => ({x: trace.x, bar: trace.error_x.value}))"
    similar, worse = page.evaluate(traces)
    assert len(similar["x"] + worse["x"]) == 12
    assert max(similar["x"]) - similar["x"][0] <= critical < min(worse["x"]) - similar["x"][0]
    assert similar["bar"] == worse["bar"] == pytest.approx(critical / 2)
    # Another data set without ranks has no such part.
    page.select_option("#dataset", "1")
    page.wait_for_selector("#ranks", state="hidden")
    page.select_option("#dataset", "0")
    page.wait_for_selector("#ranks", state="visible")


@pytest.mark.slow
def test_ranks_on_few_categories_warn_and_mark_nothing(sweep_folder: ResultFolder, open_report: Open) -> None:
    page = open_report(sweep_folder)
    assert page.inner_text("#ranks-sentences .notice").startswith("FEW CATEGORIES: with fewer than 5")
    assert page.is_hidden("#ranks-band")
    assert page.evaluate("document.getElementById('plot-ranks').data.map((trace) => trace.name)") == [
        "no significant difference"
    ]
    assert page.locator("#plot-ranks .annotation-text").count() == 4


# ---- the page of a classification


def test_settings_of_a_classification_sort_by_any_column(classified: ResultFolder, open_report: Open) -> None:
    page = open_report(classified)
    heads = page.locator("#settings th").all_inner_texts()
    for name in ("macro F1", "tail F1"):
        place = heads.index(name) + 1
        for _ in range(2):
            page.locator(f"#settings th:nth-child({place}) button").click()
            way = page.locator(f"#settings th:nth-child({place})").get_attribute("aria-sort")
            figures = [float(text) for text in page.locator(f"#settings td:nth-child({place})").all_inner_texts()]
            assert len(figures) == 3
            assert figures == sorted(figures, reverse=way == "descending")


@pytest.mark.slow
def test_one_setting_shows_confusions_pairs_and_epochs(classified: ResultFolder, open_report: Open) -> None:
    page = open_report(classified)
    for index in range(3):
        page.select_option("#setting", index=index)
        page.wait_for_function(f"harness.data.settings[{index}].folder.endsWith(document.querySelector('#files')"
                               ".getAttribute('href'))")  # fmt: skip
        one = page.evaluate(f"harness.data.settings[{index}]")
        # The plot's own numbers: each image once, in the row of what it is.
        counts = page.evaluate("document.getElementById('plot-confusion').data[0].customdata")
        assert [sum(row) for row in counts] == [label["images"] for label in one["labels"]]
        pairs = page.locator("#confused figure")
        assert pairs.count() == len(one["confused"]) > 0
        pair = one["confused"][0]
        assert pairs.first.inner_text().startswith(f"{pair['label']} predicted as {pair['said']}")
        # The feature map of the small images has one cell, and the page says so.
        assert "There is no Grad-CAM: its last feature map has one cell for images of 32 x" in page.inner_text("#cam")
        pairs.first.scroll_into_view_if_needed()
        page.wait_for_function("[...document.querySelectorAll('#confused figure:first-child img')].every("
                               "(image) => image.complete && image.naturalWidth > 0)")  # fmt: skip
        curves = page.evaluate("document.getElementById('plot-epochs').data.map((trace) => trace.x.length)")
        assert set(curves) == {2}
        assert len(curves) == 3 * len(one["epochs"])
        bars = page.evaluate("document.getElementById('plot-images').data.map((trace) => [trace.name, trace.y])")
        assert {name: sorted(counts) for name, counts in bars} == {
            name: sorted(counts) for name, counts in one["distribution"].items() if any(counts)
        }
        assert page.inner_text("#coverage") == one["coverage"]
        assert one["coverage"].startswith("Prediction sets: promised coverage 0.9, from ")
        assert page.inner_text("#calibration") == one["calibration"]
        assert "The expected calibration error out of fold is" in one["calibration"]
        points = page.evaluate("document.getElementById('plot-reliability').data.map((trace) => [trace.name, trace.y])")
        assert [name for name, _ in points] == ["calibrated perfectly", "raw", "calibrated"]
        for (_, shares), bins in zip(points[1:], one["reliability"].values(), strict=True):
            assert shares == [share["accuracy"] for share in bins]
        page.wait_for_function(f"JSON.stringify(document.getElementById('plot-risk').data?.[0].y) === "
                               f"JSON.stringify(harness.data.settings[{index}].risk.risk)")  # fmt: skip
        wrong = sum(sum(row) - row[place] for place, row in enumerate(one["confusion"]))
        assert one["risk"]["answered"][-1] == 1
        assert one["risk"]["risk"][-1] == pytest.approx(wrong / sum(map(sum, one["confusion"])), abs=1e-5)


@pytest.mark.slow
def test_a_table_fades_out_where_columns_are_hidden(sweep_folder: ResultFolder, open_report: Open) -> None:
    page = open_report(sweep_folder, width=390)
    box = page.locator(".scroll:has(#runs)")
    page.wait_for_function("document.querySelector('.scroll:has(#runs)').classList.contains('more')")
    assert "gradient" in box.evaluate("node => getComputedStyle(node).maskImage")
    box.evaluate("node => { node.scrollLeft = node.scrollWidth; }")
    page.wait_for_function("!document.querySelector('.scroll:has(#runs)').classList.contains('more')")
    page.set_viewport_size({"width": 4000, "height": 800})
    page.wait_for_function("!document.querySelector('.scroll.more')")


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
@pytest.mark.slow
def test_the_page_of_a_classification_fits_and_is_readable(
    classified: ResultFolder, open_report: Open, width: int, scheme: str
) -> None:
    page = open_report(classified, width=width, scheme=scheme)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.get_by_text("Glossary").click()
    assert page.evaluate(CONTRAST) >= 4.5
    # Numbers and labels of the confusion matrix are large enough to read; a narrow screen scrolls.
    page.locator("#plot-confusion").scroll_into_view_if_needed()
    texts = "[...document.querySelectorAll('#plot-confusion text')]"
    assert page.evaluate(f"Math.min(...{texts}.map((node) => parseFloat(getComputedStyle(node).fontSize)))") >= 11
    cells = page.locator("#plot-confusion .hm image").first.bounding_box()
    assert cells["width"] >= 16 * 20
    # The answer is on the first screen, before all notices.
    assert (
        page.locator(".card .figures").bounding_box()["y"] < page.locator("#notices .notice").first.bounding_box()["y"]
    )


@pytest.mark.slow
def test_times_of_a_busy_machine_are_marked(tmp_path: Path, open_report: Open) -> None:
    folder = ResultFolder(tmp_path / "busy")
    folder.create()
    for name, cost in (("quiet", {}), ("loud", {"seconds_p50": 0.5, "latency_busy": True})):
        fake_run(folder, name, [0.1, 0.2, 0.8, 0.9], [0, 0, 1, 1], spec={"model": name}, cost=cost)
    write_report(folder)
    page = open_report(folder)
    heads = page.locator("#runs thead th").evaluate_all("cells => cells.map(cell => cell.dataset.name)")
    place = heads.index("ms_per_image_p50") + 1
    cells = page.locator(f"#runs tbody tr td:nth-child({place})").all_inner_texts()
    assert sorted(cells) == ["10.0", "500.0 (busy)"]
    assert "BUSY MACHINE in 1 of 2 runs" in page.inner_text("body")
    page.click("#runs button[data-run=loud]")
    page.wait_for_selector("text=500.0")
    assert page.get_by_role("row", name="ms an image").filter(has_text="500.0").inner_text().endswith("(busy)")


# ---- the learning curve


@pytest.mark.slow
def test_the_learning_curve_has_a_line_for_each_configuration(tmp_path: Path, open_report: Open) -> None:
    folder = ResultFolder(tmp_path / "made-up")
    folder.create()
    for images in (10, 20, None):
        for k in (1, 2):
            spec = {"n_train": images} if images else {}
            data = {"train": images or 40, "val": 0}
            fake_run(folder, f"{k}-{images}", [0.1, 0.4, 0.3, 0.8], [0, 0, 1, 1], spec=spec, data=data, params={"k": k},
                     axes=["k", "n_train"])  # fmt: skip
    write_report(folder)
    page = open_report(folder)
    traces = "document.getElementById('plot-curve').data.map((trace) => [trace.name, [...trace.x]])"
    assert page.evaluate(traces) == [["patchcore k 1", [10, 20, 40]], ["patchcore k 2", [10, 20, 40]]]
    assert page.inner_text("#curve-sentences").count("From 20 to 40 images") == 1
    assert page.is_visible("nav a[href='#curve']")
    place = (
        page.locator("#runs thead th").evaluate_all("cells => cells.map(cell => cell.dataset.name)").index("n_train")
    )
    cells = page.locator(f"#single-runs tr td:nth-child({place + 1})").all_inner_texts()
    assert sorted(cells) == ["10", "10", "20", "20", "all", "all"]
