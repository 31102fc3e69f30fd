"""First page: a finished run predicts uploaded images, and shows its test images, worst first."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import streamlit as st

from harness.common.errors import HarnessError
from harness.data.base import GOOD
from harness.data.images import Reading, read
from harness.demo.show import ShownImage, choose_colours, error, notes, problems, show, threshold_note
from harness.demo.uploads import LARGEST_FILE, TYPES, decode
from harness.inference.model import Model, load_model
from harness.inference.result import Result
from harness.results.record import RunRecord
from harness.results.scores import read_scores
from harness.results.store import RECORD, ResultFolder, model_in

PER_PAGE = 5


@dataclass(frozen=True)
class Choice:
    """A run with a saved model.

    Attributes:
        folder: the run's folder.
        record: the run's record.
        sweep: the name of the run's sweep.
    """

    folder: Path
    record: RunRecord
    sweep: str

    def title(self) -> str:
        """The run's entry in the list of runs."""
        auroc = self.record.metrics.get("image_AUROC")
        suffix = "" if auroc is None else f", image AUROC {auroc:.3f}"
        # Titles must differ, because Streamlit identifies an entry by its title. The id makes them differ.
        return f"{self.sweep}: {self.record.run_id}{suffix}"


def choices(results: Path) -> tuple[list[Choice], list[str]]:
    """List the runs below `results` that have a saved model: sweep by sweep, the best run first.

    Returns:
        The runs, and one sentence for each record that can't be read.
    """
    folders = [results] if (results / "runs").is_dir() else sorted(path.parent for path in results.glob("*/runs"))
    runs: list[Choice] = []
    unreadable: list[str] = []
    for folder in map(ResultFolder, folders):
        runs_of_sweep = []
        for file in sorted(folder.runs.glob(f"*/{RECORD}")):
            try:
                record = folder.read_record(file.parent.name)
            except HarnessError as damaged:
                unreadable += damaged.problems
                continue
            if (
                record is not None
                and record.status == "ok"
                and record.task == "detection"
                and model_in(file.parent) is not None
            ):
                runs_of_sweep.append(Choice(file.parent, record, folder.root.name))
        runs += sorted(runs_of_sweep, key=lambda run: run.record.rank(), reverse=True)
    return runs, unreadable


@st.cache_resource(max_entries=2, show_spinner="loading the model")
def _load(folder: str, changed: float) -> Model:
    del changed
    return load_model(folder)


def page(results: Path) -> None:
    """Show the page for the runs below the folder `results`."""
    st.title("Use a run")
    runs, unreadable = choices(results)
    problems(unreadable)
    if not runs:
        problems([
            f"No runs with a saved model found in {results}. Run a sweep (the best run's model is kept), or make a run "
            "on the page Fit a new run."
        ])  # fmt: skip
        return
    run = st.selectbox("Run", runs, format_func=Choice.title, key="run")
    file = model_in(run.folder)
    assert file is not None
    try:
        model = _load(str(run.folder), file.stat().st_mtime)
    except HarnessError as failure:
        error(failure.problems)
        return
    notes([*threshold_note(model.thresholds), *model.notes, *run.record.warnings])
    # With the time of the file, a run that was made again has new keys.
    key = f"{run.folder} {file.stat().st_mtime_ns}"
    upload_tab, test_tab = st.tabs(["Your images", "Test images of the run"])
    with upload_tab:
        uploaded = _uploaded_images(model, key)
    with test_tab:
        tested = _test_images(model, run, _test_rows(run), key)
    colours = choose_colours([*uploaded, *tested], "use")
    for tab, images in ((upload_tab, uploaded), (test_tab, tested)):
        with tab:
            for image in images:
                show(image, colours)


def _uploaded_images(model: Model, key: str) -> list[ShownImage]:
    files = st.file_uploader(
        f"Drop images (up to {LARGEST_FILE} MB each; they stay on this machine)",
        type=TYPES,
        accept_multiple_files=True,
        key="images",
    )
    uploads, refusals = decode(files or [], st.session_state.setdefault("decoded", {}))
    problems(refusals)
    images = []
    with _cached("predicted") as cached:
        for upload in uploads:
            result = cached(f"{key} {upload.digest}", partial(_predicted, model, None, upload.reading))
            if isinstance(result, str):
                problems([f"{upload.name}: {result}"])
            else:
                images.append(ShownImage(upload.name, upload.reading.pixels, result))
    return sorted(images, key=lambda image: image.result.score, reverse=True)


def _predicted(model: Model, path: str | None, reading: Reading) -> Result | str:
    """The prediction, or the message of its error."""
    try:
        (result,) = model.results([(path, reading)], [model.scorer.prepare(reading.pixels)])
    # Torch may run out of memory, or an image may be too small. The page shows the message and goes on.
    except Exception as failure:  # noqa: BLE001
        return str(failure)
    return result


@contextmanager
def _cached(name: str) -> Iterator[Callable[[str, Callable[[], Any]], Any]]:
    """Cache results by key, so that a slider runs the page again, but not the network. Unused results are dropped."""
    previous: dict[str, Any] = st.session_state.setdefault(name, {})
    current: dict[str, Any] = {}

    def result(key: str, compute: Callable[[], Any]) -> Any:
        current[key] = previous[key] if key in previous else compute()
        return current[key]

    yield result
    st.session_state[name] = current


@dataclass(frozen=True)
class _Row:
    path: str
    label: bool
    defect: str
    score: float


def _test_rows(run: Choice) -> list[_Row]:
    """The run's test images, worst first: by the distance to the threshold, from its wrong side to its right side."""
    try:
        scores = read_scores(run.folder)
    except HarnessError as damaged:
        problems(damaged.problems)
        return []
    if scores is None:
        return []
    columns = (scores.names, scores.labels.tolist(), scores.defects, scores.scores.tolist())
    rows = [_Row(*cells) for cells in zip(*columns, strict=True)]
    threshold = run.record.thresholds.get("image")
    if threshold is None:
        ordered = sorted(row.score for row in rows)
        threshold = ordered[len(ordered) // 2] if ordered else 0.0
    return sorted(rows, key=lambda row: (row.score - threshold) * (1 if row.label else -1))


def _test_images(model: Model, run: Choice, rows: Sequence[_Row], key: str) -> list[ShownImage]:
    if not rows:
        st.info("This run has no readable scores.csv.")
        return []
    pages = -(-len(rows) // PER_PAGE)
    number = 1
    if pages > 1:
        number = int(st.number_input(f"Page of {pages}, worst first", 1, pages, 1, key=f"page-{run.folder}"))
    images, missing = [], []
    root = Path(str(run.record.data.get("root", "")))
    with _cached("tested") as cached:
        for row in rows[(number - 1) * PER_PAGE : number * PER_PAGE]:
            prediction = cached(f"{key} {row.path}", partial(_read_and_predicted, model, root, row.path))
            if prediction is None:
                missing.append(row.path)
            elif isinstance(prediction[1], str):
                problems([f"{row.path}: {prediction[1]}"])
            else:
                truth = row.defect if row.label else GOOD
                images.append(ShownImage(row.path, prediction[0].pixels, prediction[1], truth))
    if missing:
        problems([f"{len(missing)} of these images can't be read below {root}, such as {missing[0]}."])
    return images


def _read_and_predicted(model: Model, root: Path, name: str) -> tuple[Reading, Result | str] | None:
    try:
        reading = read(root / name)
    except HarnessError:
        return None
    return reading, _predicted(model, name, reading)
