"""The web page in a real browser: from upload to heatmap on both pages; what is wrong is said, and nothing leaves."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
from base64 import b64decode
from collections.abc import Iterator
from contextlib import closing
from csv import DictReader
from http.client import HTTPConnection
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from harness import load_classifier, load_model
from harness.cli.main import app
from harness.data.images import read_image
from harness.demo import launch
from harness.demo.uploads import LARGEST_IMAGE, decode
from harness.demo.use import choices
from harness.inference.rows import CLASS_COLUMNS
from harness.predictions.classification import ClassPredictions
from harness.predictions.drawing import heat, overlay
from harness.results.run_folder import MODELS
from harness.results.store import ResultFolder
from tests.classified import CONFIG
from tests.conftest import Cli
from tests.fake_results import fake_run
from tests.report.test_browser import CHROMIUM
from tests.trained import run_of, scores_of

WAITS = 60  # reads of a picture until the page has drawn it; each takes 0.3 seconds or more
in_browser = pytest.mark.skipif(CHROMIUM is None, reason="needs a browser: Debian's chromium, or Google Chrome")


class File:
    """As Streamlit hands one over."""

    def __init__(self, name: str, content: bytes) -> None:
        self.name, self.content = name, content

    def getvalue(self) -> bytes:
        return self.content


def png(value: int, size: tuple[int, int] = (8, 6)) -> bytes:
    stream = BytesIO()
    Image.new("RGB", size, (value, value, value)).save(stream, "png")
    return stream.getvalue()


def test_uploads() -> None:
    large = BytesIO()
    Image.new("1", (LARGEST_IMAGE // 5000 + 1, 5000)).save(large, "png")
    files = [
        File("a.png", png(1)),
        File("../../a.png", png(2)),
        File("C:\\x\\A.PNG", png(3)),
        File("again.png", png(1)),
        File("empty.png", b""),
        File("text.png", b"hello"),
        File("half.png", png(4, (90, 90))[:60]),
        File("large.png", large.getvalue()),
        File("<b>.png", png(5)),
        File("..", png(6)),
        File("部品.png", png(7)),
        File("é.JPG", png(8)),
        File("?.exe", png(9)),
    ]
    known: dict[str, Any] = {}
    uploads, problems = decode(files, known)
    assert [one.name for one in uploads] == [
        "a.png",
        "a-2.png",
        "A-3.png",
        "b.png",
        "image.png",
        "部品.png",
        "é.jpg",
        "image-2.png",
    ]
    assert [one.reading.pixels[0, 0, 0] for one in uploads] == [1, 2, 3, 5, 6, 7, 8, 9]
    assert set(known) == {one.digest for one in uploads}
    again, _ = decode(files[:1], known)
    assert again[0].reading is uploads[0].reading
    assert len(known) == 1
    assert problems[0] == "again.png: the same image as a.png; it is taken once."
    assert problems[1] == "empty.png: the file is empty. It is left out."
    assert problems[2] == "text.png: can't be read as an image (no PNG, JPEG, BMP, TIFF or WebP). It is left out."
    assert problems[3].startswith("half.png: can't be read as an image")
    assert problems[4] == "large.png: 10001 x 5000 pixels found, at most 50 million expected. It is left out."
    assert len(problems) == 5


def free_port() -> int:
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def results(trained: ResultFolder, classified: ResultFolder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("demo") / "results"
    shutil.copytree(trained.root, root / "trained")
    shutil.copytree(classified.root, root / "without-maps")
    config = root.parent / "with-maps.yaml"
    config.write_text(CONFIG.format(name="with-maps"))
    point = "grid=[{model: baseline, backbone: test_resnet, image_size: 96, lr: 5.0e-3}]"
    result = CliRunner().invoke(app, ["sweep", str(config), point, "--output", str(root)])
    assert result.exit_code == 0, result.output
    return root


@pytest.fixture(scope="module")
def server(results: Path) -> Iterator[int]:
    """The real command; gives its port."""
    port = free_port()
    command = [sys.executable, "-m", "harness", "demo", str(results), "--port", str(port), "--no-browser"]
    # In a folder without weights, as a new user's.
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=results.parent) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert f"http://localhost:{port}" in line
        yield port
        process.send_signal(2)
        assert process.wait(30) == 0
    with closing(socket.socket()) as client:
        assert client.connect_ex(("127.0.0.1", port)) != 0  # nobody is left


def answer(port: int, host: str, path: str, **more: str) -> int:
    """The status that a request for a host gets."""
    client = HTTPConnection("127.0.0.1", port, timeout=30)
    client.putrequest("GET", path, skip_host=True)
    for name, value in {"Host": host, **more}.items():
        client.putheader(name, value)
    client.endheaders()
    status = client.getresponse().status
    client.close()
    return status


@pytest.mark.slow
def test_requests_for_other_hosts_are_refused(server: int) -> None:
    """A page of another site reaches this server under that site's name (DNS rebinding)."""
    upgrade = {
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "x3JJHMbDL1EzLkh9GBhXDw==",
    }
    pages = ("/", "/use", "/_stcore/health", "/_stcore/upload_file/a/b", "/media/x.png")
    for host in (f"evil.example:{server}", "evil.example", f"localhost.evil.example:{server}", "", "169.254.169.254"):
        assert [answer(server, host, path) for path in pages] == [400] * len(pages), host
        assert answer(server, host, "/_stcore/stream", Origin=f"http://{host}", **upgrade) == 400
    for name in ("localhost", "127.0.0.1", "[::1]"):
        host = f"{name}:{server}"
        assert answer(server, host, "/") == 200
        assert answer(server, host, "/_stcore/stream", Origin=f"http://{host}", **upgrade) == 101
        # Another site's page asks for this machine by its own name: the browser says where the page is from.
        assert answer(server, host, "/_stcore/stream", Origin="http://evil.example", **upgrade) == 403


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture
def page(browser: Any, server: int) -> Iterator[Any]:
    """The first page, loaded; in the end nothing went wrong in the console and nothing was asked of other machines."""
    opened = browser.new_page(viewport={"width": 1280, "height": 1000})
    opened.set_default_timeout(100_000)
    wrong: list[str] = []
    urls: list[str] = []
    opened.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
    opened.on("pageerror", lambda error: wrong.append(str(error)))
    opened.on("request", lambda request: urls.append(request.url))
    opened.goto(f"http://localhost:{server}")
    opened.get_by_role("tab", name="Test images of the run").wait_for()
    yield opened
    opened.close()
    assert wrong == []
    hosts = {url.split("/")[2] for url in urls if url.startswith(("http", "ws"))}
    assert hosts == {f"localhost:{server}"}


def settle(page: Any) -> None:
    """Wait until the page has taken in what was done to it."""
    page.wait_for_timeout(300)
    page.locator("[data-test-script-state=notRunning]").wait_for()


def choose(page: Any, label: str, option: str) -> None:
    settle(page)
    page.get_by_role("combobox", name=label).click()
    page.get_by_role("option").filter(has_text=option).first.click()
    settle(page)


DRAWN = """image => {
    const canvas = document.createElement("canvas");
    [canvas.width, canvas.height] = [image.naturalWidth, image.naturalHeight];
    canvas.getContext("2d").drawImage(image, 0, 0);
    return canvas.toDataURL("image/png").split(",")[1];
}"""


def picture(page: Any, panel: Any, caption: str) -> Any:
    """Pixels of the picture over a caption, as the browser has them."""
    settle(page)
    image = panel.locator("[data-testid=stImageContainer]").filter(has_text=caption).locator("img")
    image.wait_for()
    page.wait_for_function("image => image.complete && image.naturalWidth > 0", arg=image.element_handle())
    return np.asarray(Image.open(BytesIO(b64decode(image.evaluate(DRAWN)))).convert("RGB"))


def saved_rows(page: Any) -> list[dict[str, str]]:
    """The rows of the file that the page saves."""
    settle(page)
    with page.expect_download() as download:
        page.get_by_role("button", name="Results as CSV").click()
    assert download.value.suggested_filename == "predictions.csv"
    with Path(download.value.path()).open(encoding="utf-8", newline="") as stream:
        return list(DictReader(stream))


def predicted_rows(cli: Cli, run: Path, images: list[Path]) -> list[dict[str, str]]:
    """The rows of the command."""
    result = cli("predict", run, *images)
    assert result.exit_code == 0, result.output
    return list(DictReader(result.stdout.splitlines()))


@in_browser
@pytest.mark.slow
def test_a_run_judges_dropped_images(page: Any, results: Path, toy_tree: Path, tmp_path: Path, cli: Cli) -> None:
    trained = ResultFolder(results / "trained")
    record = run_of(trained, "native", "padim")
    choose(page, "Run", "trained: plate, padim native")
    assert page.get_by_text(f"; run {record.run_id}").is_visible()
    path = toy_tree / "plate" / "test" / "dent" / "000.png"
    hostile = tmp_path / "**b** [x](http:evil) $a$ <i>.png"
    shutil.copy(path, hostile)
    whole = path.read_bytes()
    (tmp_path / "half.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.png").write_text("no image")
    page.locator("input[type=file]").first.set_input_files([hostile, tmp_path / "half.png", tmp_path / "text.png"])
    page.get_by_text(
        "text.png: can't be read as an image (no PNG, JPEG, BMP, TIFF or WebP). It is left out."
    ).wait_for()
    assert page.get_by_text("half.png: can't be read as an image").count() == 1

    result = load_model(trained.run_folder(record.run_id)).predict(path)
    panel = page.get_by_role("tabpanel").first
    panel.get_by_text(f"score {result.score:.4g}").wait_for()
    assert panel.get_by_text({True: "anomalous", False: "normal"}[bool(result.label)], exact=True).first.is_visible()
    # A file's name is text, whatever is in it.
    assert page.locator("i, a[href*=evil]").count() == 0
    assert page.locator("strong").filter(has_text="b").count() == 0

    rows = saved_rows(page)
    (predicted,) = predicted_rows(cli, trained.run_folder(record.run_id), [path])
    assert list(rows[0]) == list(predicted)
    changing = {"path", "seconds"}
    assert [rows[0][name] for name in rows[0] if name not in changing] == [
        predicted[name] for name in predicted if name not in changing
    ]
    assert [row["path"] for row in rows] == [page.locator("[data-testid=stText]").first.inner_text()]

    image = picture(page, panel, "image with outlines")
    assert np.abs(image.astype(int) - read_image(path)).mean() < 40
    warm, mixed = picture(page, panel, "heatmap"), picture(page, panel, "overlay")
    anomaly_map = result.map_at_image_size()
    assert anomaly_map is not None
    # Viridis grows lighter with the value.
    assert np.corrcoef(warm.sum(axis=2).ravel(), anomaly_map.clip(*result.thresholds.span).ravel())[0, 1] > 0.9
    expected = 0.5 * warm.astype(float) + 0.5 * read_image(path)
    assert np.abs(mixed - expected).mean() < 6

    # The colours by hand, and the opacity.
    page.get_by_text("by hand").click()
    page.get_by_text("Raw map values").wait_for()
    handle = page.get_by_role("slider", name="Overlay opacity")
    handle.focus()
    for _ in range(10):
        handle.press("ArrowRight")
    # The page draws the overlay of each press in turn; the last one is the heatmap.
    for _ in range(WAITS):
        difference = np.abs(picture(page, panel, "overlay") - picture(page, panel, "heatmap").astype(float)).mean()
        if difference < 2:
            break
    assert difference < 2


@in_browser
@pytest.mark.slow
def test_a_classification_labels_dropped_images(page: Any, results: Path) -> None:
    folder = ResultFolder(results / "with-maps")
    (record,) = folder.records()
    choose(page, "Run", "with-maps: ")
    model = load_classifier(folder.root, device="cpu")
    names = ClassPredictions.load(folder.run_folder(record.run_id)).test_names[:2]
    paths = [Path(str(record.data["root"])) / name for name in names]
    predictions = model.predict(paths)
    assert isinstance(predictions, list)
    page.locator("input[type=file]").first.set_input_files(paths)
    for one in predictions:
        first, second = one.labels[one.position], one.labels[one.second]
        page.get_by_text(f"label {first}, probability {one.probability:.3f}").first.wait_for()
        text = page.inner_text("body")
        assert f"second label {second}, probability {one.probabilities[one.second]:.3f}" in text
        assert f"label set: {'; '.join(one.label_set or ())}" in text
        assert page.get_by_text(one.answer, exact=True).count() >= 1
    assert page.get_by_text("probabilities are calibrated: temperature").count() == 1
    assert page.get_by_text("promised coverage of 0.9").count() == 1

    rows = saved_rows(page)
    assert list(rows[0]) == list(CLASS_COLUMNS)
    assert [(row["path"], row["answer"]) for row in rows] == [
        (path.name, one.answer) for path, one in zip(paths, predictions, strict=True)
    ]

    # The least sure one comes first.
    least, path = min(zip(predictions, paths, strict=True), key=lambda pair: pair[0].probability)
    facts = page.get_by_text("second label").all_inner_texts()
    assert f"label {least.label}, probability {least.probability:.3f}" in facts[0]
    cam = model.grad_cam(path)
    assert cam is not None
    blocks = page.locator("[data-testid=stVerticalBlock]")
    card = blocks.filter(has_text=path.name).filter(has_text="Grad-CAM of").last
    assert np.abs(picture(page, card, "image").astype(int) - read_image(path)).mean() < 8
    drawn = picture(page, card, f"Grad-CAM of {least.label}")
    assert np.abs(drawn.astype(int) - heat(cam, (0, 1))).mean() < 8
    assert np.abs(picture(page, card, "overlay").astype(int) - overlay(read_image(path), cam, (0, 1))).mean() < 8

    # A run without maps says so, and labels the same images.
    choose(page, "Run", "one_class")
    page.get_by_text("there is no Grad-CAM: its last feature map has one cell").wait_for()
    page.get_by_text("second label").first.wait_for()
    assert page.get_by_text("second label").count() == 2


@in_browser
@pytest.mark.slow
def test_test_images_worst_first(page: Any, results: Path) -> None:
    trained = ResultFolder(results / "trained")
    record = run_of(trained, "native", "padim")
    choose(page, "Run", "trained: plate, padim native")
    page.get_by_role("tab", name="Test images of the run").click()
    panel = page.get_by_role("tabpanel").last
    panel.get_by_text("ground truth").first.wait_for()
    captions = panel.get_by_text("ground truth").all_inner_texts()
    assert len(captions) == 5
    threshold = float(record.thresholds["image"])
    rows = [row for row in scores_of(trained, record).values() if row["role"] == "test"]
    margins = sorted((float(r["score"]) - threshold) * (1 if r["label"] == "1" else -1) for r in rows)
    wrong = [margin for margin in margins if margin < 0]
    assert wrong
    mistakes = sum("false positive" in text or "false negative" in text for text in captions)
    assert mistakes == min(len(wrong), 5)
    panel.get_by_role("button", name="Increment").or_(panel.get_by_test_id("stNumberInputStepUp")).first.click()
    page.wait_for_function("text => !document.body.innerText.includes(text)", arg=captions[0])


CAMERA = ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]


def take_picture(page: Any) -> None:
    """Press the button as soon as the camera has a picture."""
    settle(page)
    page.locator("video").wait_for()
    page.wait_for_function("(video => video.videoWidth > 0 && video.currentTime > 0)(document.querySelector('video'))")
    page.get_by_role("button", name="Take Photo").click()


@in_browser
@pytest.mark.slow
def test_pictures_of_a_camera_are_images_too(browser: Any, server: int) -> None:
    with_camera = browser.browser_type.launch(executable_path=CHROMIUM, args=["--no-sandbox", *CAMERA])
    with closing(with_camera):
        page = with_camera.new_page(viewport={"width": 1280, "height": 1400})
        page.set_default_timeout(100_000)
        page.goto(f"http://localhost:{server}")
        choose(page, "Run", "trained: plate, padim native")
        assert page.get_by_role("button", name="Results as CSV").count() == 0
        page.get_by_text("Take pictures with a camera").click()
        take_picture(page)
        page.get_by_text("Pictures: picture-1.jpg", exact=True).wait_for()
        page.get_by_role("button", name="Clear photo").click()
        take_picture(page)
        page.get_by_text("Pictures: picture-1.jpg, picture-2.jpg", exact=True).wait_for()
        rows = saved_rows(page)
        assert [row["path"] for row in rows] == ["picture-1.jpg", "picture-2.jpg"]
        assert page.get_by_text(f"score {float(rows[0]['score']):.4g}").count() >= 1
        page.get_by_role("button", name="Remove the pictures").click()
        settle(page)
        assert page.get_by_text("picture-1.jpg").count() == 0
        assert page.get_by_role("button", name="Results as CSV").count() == 0


@in_browser
@pytest.mark.slow
def test_a_browser_without_a_camera_goes_on(page: Any, toy_tree: Path) -> None:
    page.get_by_text("Take pictures with a camera").click()
    page.get_by_text("permission to access your camera").or_(
        page.get_by_role("button", name="Take Photo")
    ).first.wait_for()
    page.locator("input[type=file]").first.set_input_files(toy_tree / "plate" / "test" / "dent" / "000.png")
    page.get_by_role("tabpanel").first.get_by_text("score ").first.wait_for()


@in_browser
@pytest.mark.slow
def test_too_large_a_file_is_said(page: Any, tmp_path: Path) -> None:
    with (tmp_path / "large.png").open("wb") as stream:
        stream.truncate(51 * 2**20)
    page.locator("input[type=file]").first.set_input_files(tmp_path / "large.png")
    page.get_by_text("50.0MB or smaller").first.wait_for()
    page.get_by_role("tab", name="Test images of the run").wait_for()


@in_browser
@pytest.mark.slow
def test_a_few_good_images_make_a_run(page: Any, results: Path, toy_tree: Path, cli: Cli) -> None:
    page.get_by_role("link", name="Fit a new run").click()
    page.get_by_text("Images to test: one or more").wait_for()
    good = sorted((toy_tree / "plate" / "train" / "good").glob("*.png"))[:5]
    bad = [toy_tree / "plate" / "test" / "dent" / "000.png", toy_tree / "plate" / "test" / "good" / "001.png"]
    files = page.locator("input[type=file]")
    fit = page.get_by_role("button", name="Fit", exact=True)
    files.nth(0).set_input_files(good[:2])
    page.get_by_text("2 good images found; at least 3 expected.").wait_for()
    page.get_by_text("no image to test found; at least 1 expected.").wait_for()
    assert fit.is_disabled()
    # One after the other: a page that takes in files draws its other field anew, and may lose what is put there.
    for number, paths in enumerate((good[2:], bad)):
        settle(page)
        files.nth(number).set_input_files(paths)
        page.get_by_text(f"{(5, 2)[number]} images", exact=True).wait_for()

    # Without weights: said, with what to do, and nothing else happens.
    choose(page, "Backbone", "resnet18")
    fit.click()
    page.get_by_text("weights: none found for backbone 'resnet18'").wait_for()
    page.get_by_text("could not be fitted").wait_for()
    page.get_by_text("Random weights: to try the page").click()
    fit.click()
    page.get_by_text("Save it as a run").wait_for()
    settle(page)
    assert page.get_by_text("threshold fixed by: 5 training images in 5 folds").is_visible()
    assert page.get_by_text("heatmap", exact=True).count() == 2

    choose(page, "Method", "padim")
    page.get_by_text("Images or settings have changed since").wait_for()
    fit.click()
    page.get_by_text("fitted", exact=True).wait_for()
    settle(page)
    assert page.get_by_text("Images or settings have changed since").count() == 0
    page.locator("[data-testid=stButtonGroup]").get_by_text("000.png", exact=True).click()
    settle(page)
    assert page.get_by_text("A name has letters, digits, '.', '_' and '-', such as my-part;").is_visible()
    page.get_by_role("textbox", name="Name").fill("../evil")
    page.get_by_role("textbox", name="Name").press("Enter")
    page.get_by_role("button", name="Save").click()
    page.get_by_text("'../evil' found; expected letters, digits").wait_for()
    page.get_by_role("textbox", name="Name").fill("bracket")
    page.get_by_role("textbox", name="Name").press("Enter")
    page.get_by_role("button", name="Save").click()
    page.get_by_text("Saved: ").wait_for()

    saved = results / "bracket"
    assert (saved / "report.html").is_file()
    assert (saved / "models_comparing.xlsx").is_file()
    assert {path.name for path in (saved / "images" / "test" / "defective").iterdir()} == {"000.png"}
    (record,) = ResultFolder(saved).records()
    assert record.status == "ok"
    assert record.spec["model"] == "padim"
    assert record.metrics["image_AUROC"] in {0.0, 1.0}
    result = cli("predict", saved, *bad)
    assert result.exit_code == 0, result.output
    page.get_by_role("button", name="Save").click()
    page.get_by_text("exists already; choose another name").wait_for()
    page.get_by_role("link", name="Use a run").click()
    page.get_by_role("combobox", name="Run").click()
    assert page.get_by_role("option").filter(has_text="bracket: ").count() == 1


def test_a_run_is_named_in_words(tmp_path: Path) -> None:
    folder = ResultFolder(tmp_path / "lids")
    began = {"began": "2025-01-01T00:00:00"}
    for name, neighbours, seed, changes in (
        ("a", 5, 0, {}),
        ("b", 5, 1, {}),
        ("c", 9, 0, {}),
        ("d", 9, 0, {"provenance": began}),
        ("e", 5, 0, {"provenance": began}),
    ):
        spec = {"category": "lid", "seed": seed}
        params = {"num_neighbors": neighbours}
        fake_run(folder, name, [0.1, 0.4, 0.3, 0.2 * neighbours], [0, 0, 1, 1], spec=spec, params=params, **changes)
        (folder.run_folder(name) / MODELS[0]).write_text("a model")
    fake_run(folder, "without-a-model", [0.1, 0.9], [0, 1])
    runs, unreadable = choices(tmp_path)
    assert unreadable == []
    end = "image AUROC 0.750"
    assert {run.record.run_id: run.title.removesuffix(" (recommended)") for run in runs} == {
        "a": f"lids: lid, patchcore num_neighbors 5, seed 0, {end}",
        "b": f"lids: lid, patchcore num_neighbors 5, seed 1, {end}",
        "c": f"lids: lid, patchcore num_neighbors 9, seed 0, {end}",
        # Earlier runs of the same configurations. A title that is not the only one has the id.
        "d": f"lids: lid, patchcore (left out of the comparison), seed 0, {end} (d)",
        "e": f"lids: lid, patchcore (left out of the comparison), seed 0, {end} (e)",
    }


@in_browser
@pytest.mark.slow
def test_only_this_machine_can_reach_it(server: int) -> None:
    with closing(socket.socket()) as client:
        client.settimeout(2)
        assert client.connect_ex(("127.0.0.1", server)) == 0
    # Listening there and nowhere else: 0100007F is 127.0.0.1, and state 0A is listening.
    lines = [
        line.split() for table in ("tcp", "tcp6") for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]
    ]
    assert {line[1] for line in lines if line[3] == "0A" and line[1].endswith(f":{server:04X}")} == {
        f"0100007F:{server:04X}"
    }


def test_settings_keep_everything_here() -> None:
    assert launch.SETTINGS["server.address"] == "127.0.0.1"
    assert launch.SETTINGS["browser.gatherUsageStats"] == "false"
    # Streamlit knows them all; one that it does not know would be an error when it starts.
    from streamlit import config

    for name in launch.SETTINGS:
        assert name in config._config_options_template


def test_what_is_wrong_is_said(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result = cli("demo", tmp_path / "nowhere", "--no-browser")
    assert result.exit_code == 2
    assert "nothing found; expected a folder with results of sweeps" in result.stderr
    with closing(socket.socket()) as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        result = cli("demo", tmp_path, "--no-browser", "--port", taken.getsockname()[1])
    assert result.exit_code == 2
    assert "can't be used (Address already in use)" in result.stderr
    monkeypatch.setattr(launch, "find_spec", lambda _: None)
    result = cli("demo", tmp_path, "--no-browser")
    assert result.exit_code == 2
    assert "streamlit not installed. Run" in result.stderr
