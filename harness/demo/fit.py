"""Second page: fit a new native run on some good images, test it, and save it."""

from __future__ import annotations

import re
import shutil
from bisect import bisect_right
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import streamlit as st

from harness import registry
from harness.backbones.local import file_name, weight_files
from harness.backbones.packages import packaged_networks
from harness.common.errors import ConfigError, HarnessError, StoreError, WeightsError
from harness.config.load import one_run
from harness.demo.dropped import offer_csv, predicted, with_result
from harness.demo.fields import image_field
from harness.demo.show import (
    choose_colours,
    error,
    notes,
    problems,
    show,
    shown_images,
    success,
    threshold_note,
)
from harness.demo.uploads import Upload
from harness.execution.progress import SweepProgress
from harness.execution.sweep import execute
from harness.inference.model import load_model
from harness.planning.check import check
from harness.planning.prepare import prepare
from harness.report.html import write_report
from harness.results.record import RunRecord
from harness.results.store import ResultFolder

MIN_GOOD = 3  # images
LONGEST_NAME = 61  # characters
NAME = rf"[A-Za-z0-9][A-Za-z0-9._-]{{0,{LONGEST_NAME - 1}}}"
NAME_RULE = "letters, digits, '.', '_' and '-', such as my-part; the first character is a letter or a digit"
BACKBONES = ("resnet18", "wide_resnet50_2", "mobilenetv2_100", "efficientnet_b0")
WEIGHTS = Path("weights")
SIZES = (128, 224, 256, 320, 384, 512)


class PageProgress(SweepProgress):
    """The progress of the sweep in a status box of the page.

    Args:
        status: the status box of Streamlit.
    """

    def __init__(self, status: Any) -> None:
        super().__init__(1, live=False)
        self._status = status

    def stage(self, stage: str, label: str | None = None) -> None:
        """Show the stage of the run in the status box.

        Args:
            stage: the work in progress, one or two words.
            label: unused.
        """
        self._status.update(label=f"{stage} ...")

    def note(self, text: str) -> None:
        """Show nothing: the record has this note too."""

    def done(self, label: str, record: RunRecord) -> None:
        """Show nothing: the page itself shows the result.

        Args:
            label: unused.
            record: unused.
        """

    def failed(self, label: str, record: RunRecord) -> None:
        """Show nothing: the page itself shows the error.

        Args:
            label: unused.
            record: unused.
        """


WEIGHTS_HINT = (
    "On this page: choose a backbone with included weights or with a file in weights/, or tick Random weights."
)


def page(results: Path) -> None:
    """Show the page; new runs are saved below the folder `results`."""
    st.title("Fit a new run")
    good = _uploader(f"Good images: {MIN_GOOD} or more, of parts without a defect", "good")
    test = _uploader("Images to test: one or more", "test")
    settings = _settings()
    enough = len(good) >= MIN_GOOD and bool(test)
    if good and len(good) < MIN_GOOD:
        problems([f"{len(good)} good image{'' if len(good) == 1 else 's'} found; at least {MIN_GOOD} expected."])
    if good and not test:
        problems(["no image to test found; at least 1 expected."])
    if st.button("Fit", type="primary", disabled=not enough):
        _fit(good, test, settings)
    elif st.session_state.pop("fitting", False):
        problems(["A click on the page stopped the fit before its end. Press Fit again."])
    fitted = st.session_state.get("fitted")
    if fitted is None:
        st.caption("The good images also fix the threshold; the result says how.")
        return
    offer_csv(fitted["model"], fitted["rows"], "fit")
    images = shown_images(with_result(fitted["test"], fitted["rows"]))
    colours = choose_colours(images, "fit")
    if fitted["inputs"] != _inputs(good, test, settings):
        st.info("Images or settings have changed since the last fit. Press *Fit* to update the results below.")
    notes(fitted["notes"])
    for image in images:
        show(image, colours)
    _save(fitted, results)


def _uploader(label: str, key: str) -> list[Upload]:
    uploads = image_field(label, key)
    if uploads:
        st.caption(f"{len(uploads)} image{'' if len(uploads) == 1 else 's'}")
    return uploads


def _settings() -> dict[str, Any]:
    """The settings by key: method, backbone, image_size, weights."""
    local = [file_name(path) for path in weight_files(WEIGHTS)]
    packaged = packaged_networks()
    origin = {**dict.fromkeys(packaged, " (included)"), **dict.fromkeys(local, f" ({WEIGHTS}/)")}
    first, second, third = st.columns(3)
    method = first.selectbox("Method", list(registry.DETECTORS), key="method")
    backbone = second.selectbox(
        "Backbone",
        list(dict.fromkeys([*local, *packaged, *BACKBONES])),
        format_func=lambda name: f"{name}{origin.get(name, '')}",
        key="backbone",
        accept_new_options=True,
        help=f"Any timm network. Networks with a file in {WEIGHTS}/ come first, then networks with included weights.",
    )
    default: int = registry.load(registry.DETECTORS[method]).default_image_size
    size = third.selectbox("Image size in pixels", SIZES, index=bisect_right(SIZES, default) - 1, key="size")
    random = st.checkbox("Random weights: to try the page without trained weights; scores mean little", key="random")
    return {
        "method": method,
        "backbone": str(backbone).strip(),
        "image_size": size,
        "weights": "random" if random else "auto",
    }


def _inputs(good: Sequence[Upload], test: Sequence[Upload], settings: dict[str, Any]) -> Any:
    return [upload.digest for upload in good], [upload.digest for upload in test], settings


def _fit(good: Sequence[Upload], test: Sequence[Upload], settings: dict[str, Any]) -> None:
    st.session_state.pop("fitted", None)
    # A click on the page can end this function anywhere. The next run of the page then finds this mark.
    st.session_state["fitting"] = True
    folder = TemporaryDirectory(prefix="harness-demo-", ignore_cleanup_errors=True)
    try:
        # The test images have no ground truth yet, so the page never shows the metrics of this run.
        root = Path(folder.name)
        _write(root / "images", good, {upload.name: "unknown" for upload in test}, test)
        model = load_model(_make(root / "images", root / "results", "fit", settings))
        rows = [predicted(model, upload) for upload in test]
    except HarnessError as failure:
        error([*failure.problems, *([WEIGHTS_HINT] if isinstance(failure, WeightsError) else [])])
    # Torch may run out of memory, for example. The page shows the message and goes on.
    except Exception as failure:  # noqa: BLE001
        error([f"{settings['method']}: {type(failure).__name__}: {failure}"])
    else:
        assert model.run is not None
        st.session_state["fitted"] = {
            "inputs": _inputs(good, test, settings),
            "folder": folder,  # Python removes the folder when the session ends
            "good": list(good),
            "test": list(test),
            "settings": settings,
            "model": model,
            "rows": rows,
            "notes": [*threshold_note(model.thresholds), *model.notes, *model.run.record.warnings],
        }
    st.session_state["fitting"] = False


def _write(root: Path, good: Sequence[Upload], defects: dict[str, str], test: Sequence[Upload]) -> None:
    try:
        for upload in good:
            upload.write(root / "train" / "good")
        for upload in test:
            upload.write(root / "test" / defects[upload.name])
    except OSError as failure:
        raise StoreError(f"{root}: can't be written ({failure.strerror}). Check the disk.") from failure


def _make(images: Path, output: Path, name: str, settings: dict[str, Any]) -> Path:
    """Run a sweep with one run and return the run's folder."""
    top_level = {
        "name": name,
        "output": str(output),
        "weights": settings["weights"],
        "backbone": settings["backbone"],
    }
    options = ["latency=false", f"image_size={settings['image_size']}"]
    config = one_run(settings["method"], "native", images, top_level, options)
    with st.status("reading images ...") as status:
        try:
            prepared = prepare(config)
            check(prepared.runs, config.device)
            prepared.folder.create()
            summary = execute(prepared, prepared.runs, PageProgress(status))
            if summary.failed:
                raise ConfigError(f"{settings['method']}: {(summary.failed[0].error or {}).get('message', '')}")
        except HarnessError:
            status.update(label="could not be fitted", state="error")
            raise
        status.update(label="fitted", state="complete")
    return prepared.folder.run_folder(prepared.runs[0].run_id)


def _save(fitted: dict[str, Any], results: Path) -> None:
    st.subheader("Save it as a run")
    st.caption(
        f"The run goes to {results}, with its images and model, for the page *Use a run*, `predict` and `export`. "
        "The metrics of the run need the ground truth: mark the defective test images."
    )
    notes([f"A name has {NAME_RULE}."])
    name = st.text_input("Name", "my-part", max_chars=LONGEST_NAME, key="name")
    names = [upload.name for upload in fitted["test"]]
    question = "Which of the test images are defective? (the others count as good)"
    defective = st.pills(question, names, selection_mode="multi", key="bad")
    none = st.checkbox("None of them is defective", key="none", disabled=bool(defective))
    if not st.button("Save", disabled=not (defective or none)):
        return
    try:
        run = _saved(fitted, results, name, defective)
    except HarnessError as failure:
        error(failure.problems)
        return
    success(f"Saved: {run}")


def _saved(fitted: dict[str, Any], results: Path, name: str, defective: Sequence[str]) -> Path:
    if not re.fullmatch(NAME, name):
        raise ConfigError(f"Name: {name!r} found; expected {NAME_RULE}. Type another name.")
    target = results / name
    try:
        target.mkdir()
    except FileExistsError as failure:
        raise StoreError(f"Name: {target} exists already; choose another name.") from failure
    except OSError as failure:
        raise StoreError(f"{target}: can't be written ({failure.strerror}). Choose another folder.") from failure
    defects = {image.name: "defective" if image.name in defective else "good" for image in fitted["test"]}
    try:
        _write(target / "images", fitted["good"], defects, fitted["test"])
        run = _make(target / "images", results, name, fitted["settings"])
        write_report(ResultFolder(target))
    except BaseException:
        # A click on the page also ends up here. An unfinished run would block its name.
        shutil.rmtree(target, ignore_errors=True)
        raise
    return run
