"""Second page: a few good images make a run, on the spot, by the native engine; what is liked is saved."""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import streamlit as st

from harness import registry
from harness.backbones.local import file_name, weight_files
from harness.backbones.packages import packaged_networks
from harness.common.errors import ConfigError, HarnessError, StoreError, WeightsError
from harness.config.sweep import one_run
from harness.demo.show import Shown, choose_colours, error, notes, problems, show, success, threshold_note
from harness.demo.uploads import LARGEST_FILE, TYPES, Upload, images_of
from harness.execution.progress import SweepProgress
from harness.execution.sweep import execute
from harness.inference.model import load_model
from harness.planning.prepare import check, prepare
from harness.report.html import write_report
from harness.results.record import RunRecord
from harness.results.store import ResultFolder

LEAST = 3  # good images
HELD_OUT = 0.2
BACKBONES = ("resnet18", "wide_resnet50_2", "mobilenetv2_100", "efficientnet_b0")
WEIGHTS = Path("weights")
SIZES = (128, 224, 256, 320, 384, 512)


class PageProgress(SweepProgress):
    """What goes on, on the page."""

    def __init__(self, place: Any) -> None:
        super().__init__(1, live=False)
        self._place = place

    def stage(self, stage: str, label: str | None = None) -> None:
        """See `SweepProgress.stage`."""
        self._place.update(label=f"{stage} ...")

    def note(self, text: str) -> None:
        """The record has it too."""

    def done(self, label: str, record: RunRecord) -> None:
        """The page says so itself."""

    def failed(self, label: str, record: RunRecord) -> None:
        """The page says so itself."""


ON_THE_PAGE = (
    "On this page: choose a backbone whose weights are included or in weights/, or tick Random weights to try it."
)


def page(results: Path) -> None:
    """The page."""
    st.title("Fit a new run")
    good = _uploader(f"Good images: {LEAST} or more, of parts without a defect", "good")
    test = _uploader("Images to test: one or more", "test")
    settings = _settings()
    enough = len(good) >= LEAST and bool(test)
    if good and len(good) < LEAST:
        problems([f"{len(good)} good image{'' if len(good) == 1 else 's'} found; at least {LEAST} expected."])
    if good and not test:
        problems(["no image to test found; at least 1 expected."])
    if st.button("Fit", type="primary", disabled=not enough):
        _fit(good, test, settings)
    elif st.session_state.pop("fitting", False):
        problems(["Something was clicked before the fit had ended, which stopped it; press Fit again."])
    fitted = st.session_state.get("fitted")
    if fitted is None:
        st.caption("One good image in five, at least one, is held out to fix the threshold.")
        return
    shown = _shown(fitted)
    colours = choose_colours(shown, "fit")
    if fitted["of"] != _identity(good, test, settings):
        st.info("Images or settings have changed since; what follows is of before. Press *Fit* to bring it up to date.")
    notes(fitted["notes"])
    for one in shown:
        show(one, colours)
    _save(fitted, results)


def _uploader(label: str, key: str) -> list[Upload]:
    files = st.file_uploader(
        f"{label} (up to {LARGEST_FILE} MB each; they stay on this machine)",
        type=TYPES,
        accept_multiple_files=True,
        key=key,
    )
    uploads, wrong = images_of(files or [], st.session_state.setdefault(f"decoded-{key}", {}))
    problems(wrong)
    if uploads:
        st.caption(f"{len(uploads)} image{'' if len(uploads) == 1 else 's'}")
    return uploads


def _settings() -> dict[str, Any]:
    """method, backbone, image_size, weights."""
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
        help=f"Any timm network. Those with a file in {WEIGHTS}/ come first, then those whose weights are included.",
    )
    size = third.selectbox("Image size in pixels", SIZES, index=SIZES.index(256), key="size")
    random = st.checkbox("Random weights: to try the page where there are no others; scores mean little", key="random")
    return {
        "method": method,
        "backbone": str(backbone).strip(),
        "image_size": size,
        "weights": "random" if random else "auto",
    }


def _identity(good: Sequence[Upload], test: Sequence[Upload], settings: dict[str, Any]) -> Any:
    return [one.digest for one in good], [one.digest for one in test], settings


def _fit(good: Sequence[Upload], test: Sequence[Upload], settings: dict[str, Any]) -> None:
    st.session_state.pop("fitted", None)
    # A click ends this run of the page wherever it is; the next one then finds the mark.
    st.session_state["fitting"] = True
    folder = TemporaryDirectory(prefix="harness-demo-", ignore_cleanup_errors=True)
    try:
        # Nobody has said yet what the test images are; the figures of this run are never shown.
        root = Path(folder.name)
        _write(root / "images", good, {one.name: "unknown" for one in test}, test)
        model = load_model(_make(root / "images", root / "results", "fit", settings))
        results = model.predict([one.reading.pixels for one in test])
    except HarnessError as refused:
        error([*refused.problems, *([ON_THE_PAGE] if isinstance(refused, WeightsError) else [])])
    # Torch may run out of memory, say: on the page, which goes on.
    except Exception as failed:  # noqa: BLE001
        error([f"{settings['method']}: {type(failed).__name__}: {failed}"])
    else:
        assert model.run is not None
        st.session_state["fitted"] = {
            "of": _identity(good, test, settings),
            "folder": folder,  # goes with the session
            "good": list(good),
            "test": list(test),
            "settings": settings,
            "results": results,
            "notes": [*threshold_note(model.thresholds), *model.notes, *model.run.record.warnings],
        }
    st.session_state["fitting"] = False


def _write(root: Path, good: Sequence[Upload], states: dict[str, str], test: Sequence[Upload]) -> None:
    try:
        for one in good:
            one.write(root / "train" / "good")
        for one in test:
            one.write(root / "test" / states[one.name])
    except OSError as problem:
        raise StoreError(f"{root}: can't be written ({problem.strerror}).") from problem


def _make(images: Path, output: Path, name: str, settings: dict[str, Any]) -> Path:
    """A sweep of one run, by the way that all sweeps take; its folder."""
    given = {
        "name": name,
        "output": str(output),
        "weights": settings["weights"],
        "backbone": settings["backbone"],
    }
    options = [f"data.val={HELD_OUT}", "latency=false", f"image_size={settings['image_size']}"]
    config = one_run(settings["method"], "native", images, given, options)
    with st.status("reading images ...") as place:
        try:
            prepared = prepare(config)
            check(prepared.runs, config.device)
            prepared.folder.create()
            summary = execute(prepared, prepared.runs, PageProgress(place))
            if summary.failed:
                raise ConfigError(f"{settings['method']}: {(summary.failed[0].error or {}).get('message', '')}")
        except HarnessError:
            place.update(label="could not be fitted", state="error")
            raise
        place.update(label="fitted", state="complete")
    return prepared.folder.run_folder(prepared.runs[0].run_id)


def _shown(fitted: dict[str, Any]) -> list[Shown]:
    pairs = zip(fitted["test"], fitted["results"], strict=True)
    shown = [Shown(one.name, one.reading.pixels, result) for one, result in pairs]
    return sorted(shown, key=lambda one: one.result.score, reverse=True)


def _save(fitted: dict[str, Any], results: Path) -> None:
    st.subheader("Save it as a run")
    st.caption(
        f"It goes to {results}, with its images and model, and is then on the page *Use a run*, for `predict` and "
        "`export`. Its figures need to know which of the test images are defective."
    )
    name = st.text_input("Name", "my-part", key="name", help="A folder's: letters, digits, '.', '_' and '-'.")
    names = [one.name for one in fitted["test"]]
    tell = "Which of the test images are defective? (the others count as good)"
    defective = st.pills(tell, names, selection_mode="multi", key="bad")
    none = st.checkbox("None of them is defective", key="none", disabled=bool(defective))
    if not st.button("Save", disabled=not (defective or none)):
        return
    try:
        run = _saved(fitted, results, name, defective)
    except HarnessError as refused:
        error(refused.problems)
        return
    success(f"Saved: {run}")


def _saved(fitted: dict[str, Any], results: Path, name: str, defective: Sequence[str]) -> Path:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,60}", name):
        raise ConfigError(f"Name: {name!r} found; expected letters, digits, '.', '_' and '-', such as my-part.")
    target = results / name
    try:
        target.mkdir()
    except FileExistsError as there:
        raise StoreError(f"Name: {target} exists already; choose another one.") from there
    except OSError as problem:
        raise StoreError(f"{target}: can't be written ({problem.strerror}).") from problem
    states = {one.name: "defective" if one.name in defective else "good" for one in fitted["test"]}
    try:
        _write(target / "images", fitted["good"], states, fitted["test"])
        run = _make(target / "images", results, name, fitted["settings"])
        write_report(ResultFolder(target))
    except BaseException:
        # Also where a click ends this run of the page: a half-made run would take the name.
        shutil.rmtree(target, ignore_errors=True)
        raise
    return run
