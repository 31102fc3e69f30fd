"""First page: a finished run predicts uploaded images. A detector also shows its test images, worst first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import streamlit as st

from harness.common.errors import HarnessError
from harness.data.images import Reading, read
from harness.data.samples import GOOD
from harness.demo.dropped import attempt, cached, dropped_images
from harness.demo.labels import show_classifier
from harness.demo.show import ShownImage, choose_colours, error, notes, problems, show, threshold_note
from harness.inference.classifier import Classifier, classifier_of
from harness.inference.find import find_run
from harness.inference.model import Model, model_of
from harness.inference.result import Result
from harness.registry import HEADLINES
from harness.report.recommended import recommended_runs
from harness.report.results import Results
from harness.results.record import RunRecord
from harness.results.run_folder import RECORD, model_in
from harness.results.scores import read_scores
from harness.results.store import ResultFolder
from harness.results.thresholds import THRESHOLD

PER_PAGE = 5


@dataclass(frozen=True)
class Choice:
    """A run with a saved model.

    Attributes:
        folder: the run's folder.
        record: the run's record.
        sweep: the name of the run's sweep.
        recommended: whether the run is of the recommended configuration.
    """

    folder: Path
    record: RunRecord
    sweep: str
    recommended: bool = False

    def title(self) -> str:
        """The run's entry in the list of runs."""
        metric = HEADLINES[self.record.task][0]
        value = self.record.metrics.get(metric)
        suffix = "" if value is None else f", {metric.replace('_', ' ')} {value:.3f}"
        # Titles must differ, because Streamlit identifies an entry by its title. The id makes them differ.
        return f"{self.sweep}: {self.record.run_id}{suffix}{' (recommended)' if self.recommended else ''}"


def choices(results: Path) -> tuple[list[Choice], list[str]]:
    """List the runs below `results` that have a saved model: sweep by sweep, the recommended one first.

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
            if record is not None and record.status == "ok" and model_in(file.parent) is not None:
                runs_of_sweep.append(Choice(file.parent, record, folder.root.name))
        recommended = {record.run_id for record in recommended_runs(Results.of(folder))} if runs_of_sweep else set()
        named = [replace(run, recommended=run.record.run_id in recommended) for run in runs_of_sweep]
        runs += sorted(named, key=lambda run: (run.recommended, *run.record.rank()), reverse=True)
    return runs, unreadable


@st.cache_resource(max_entries=2, show_spinner="loading the model")
def _load(folder: str, state: str) -> Model | Classifier:
    del state
    run = find_run(Path(folder))
    return classifier_of(run, "auto") if run.record.task == Classifier.task else model_of(run, "auto", trust=False)


def _state(folder: Path, model: Path) -> str:
    """A key of the run that differs after the run was made again, and after its threshold was changed."""
    files = [file for file in (model, folder / THRESHOLD) if file.is_file()]
    return " ".join([str(folder), *(str(file.stat().st_mtime_ns) for file in files)])


def page(results: Path) -> None:
    """Show the page for the runs below the folder `results`."""
    st.title("Use a run")
    runs, unreadable = choices(results)
    problems(unreadable)
    if not runs:
        problems([
            f"No runs with a saved model found in {results}. Run a sweep: it keeps the recommended model. Or make a "
            "run on the page Fit a new run."
        ])  # fmt: skip
        return
    run = st.selectbox("Run", runs, format_func=Choice.title, key="run")
    file = model_in(run.folder)
    assert file is not None
    try:
        model = _load(str(run.folder), key := _state(run.folder, file))
    except HarnessError as failure:
        error(failure.problems)
        return
    if isinstance(model, Classifier):
        show_classifier(model, key)
        return
    notes([*threshold_note(model.thresholds), *model.notes, *run.record.warnings])
    upload_tab, test_tab = st.tabs(["Your images", "Test images of the run"])
    with upload_tab:
        uploaded = _uploaded_images(model, key)
    with test_tab:
        tested = _test_images(model, run, _test_rows(model, run), key)
    colours = choose_colours([*uploaded, *tested], "use")
    for tab, images in ((upload_tab, uploaded), (test_tab, tested)):
        with tab:
            for image in images:
                show(image, colours)


def _uploaded_images(model: Model, key: str) -> list[ShownImage]:
    images = dropped_images(partial(_predicted, model, None), key)
    shown = [ShownImage(upload.name, upload.reading.pixels, result) for upload, result in images]
    return sorted(shown, key=lambda image: image.result.score, reverse=True)


def _predicted(model: Model, path: str | None, reading: Reading) -> Result:
    (result,) = model.results([(path, reading)], [model.scorer.prepare(reading.pixels)])
    return result


@dataclass(frozen=True)
class _Row:
    path: str
    label: bool
    defect: str
    score: float


def _test_rows(model: Model, run: Choice) -> list[_Row]:
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
    threshold = model.thresholds.image
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
    with cached("tested") as prediction_of:
        for row in rows[(number - 1) * PER_PAGE : number * PER_PAGE]:
            prediction = prediction_of(f"{key} {row.path}", partial(_read_and_predicted, model, root, row.path))
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
    return reading, attempt(partial(_predicted, model, name), reading)
