"""First page: a finished run predicts uploaded images. A detector also shows its test images, worst first."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import streamlit as st

from harness.common.errors import HarnessError
from harness.data.images import Reading, read
from harness.data.samples import GOOD
from harness.demo.dropped import cached, dropped_images
from harness.demo.labels import show_classifier
from harness.demo.show import (
    ShownImage,
    choose_colours,
    error,
    notes,
    problems,
    show,
    shown_images,
    threshold_note,
)
from harness.inference.classifier import Classifier, classifier_of
from harness.inference.find import find_run
from harness.inference.model import Model, model_of
from harness.inference.predict import Row, predict_reading
from harness.inference.result import Result
from harness.registry import HEADLINES
from harness.report.facts import category
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
        title: the run's entry in the list of runs.
    """

    folder: Path
    record: RunRecord
    title: str


def choices(results: Path) -> tuple[list[Choice], list[str]]:
    """List the runs below `results` that have a saved model: sweep by sweep, the recommended one first.

    Returns:
        The runs, and one sentence for each record that can't be read.
    """
    folders = [results] if (results / "runs").is_dir() else sorted(path.parent for path in results.glob("*/runs"))
    runs: list[Choice] = []
    unreadable: list[str] = []
    for folder in map(ResultFolder, folders):
        runs_of_sweep: list[RunRecord] = []
        for file in sorted(folder.runs.glob(f"*/{RECORD}")):
            try:
                record = folder.read_record(file.parent.name)
            except HarnessError as damaged:
                unreadable += damaged.problems
                continue
            if record is not None and record.status == "ok" and model_in(file.parent) is not None:
                runs_of_sweep.append(record)
        if runs_of_sweep:
            runs += _named(Results.of(folder), runs_of_sweep)
    return runs, unreadable


def _named(results: Results, records: Sequence[RunRecord]) -> list[Choice]:
    """The runs of a sweep with their titles, the recommended ones first."""
    recommended = {record.run_id for record in recommended_runs(results)}
    ordered = sorted(records, key=lambda record: (record.run_id in recommended, *record.rank()), reverse=True)
    titles = [_title(results, record, record.run_id in recommended) for record in ordered]
    # Titles must differ, because Streamlit identifies an entry by its title.
    repeated = {title for title, count in Counter(titles).items() if count > 1}
    return [
        Choice(
            results.folder.run_folder(record.run_id),
            record,
            f"{results.folder.root.name}: {title}{f' ({record.run_id})' if title in repeated else ''}",
        )
        for record, title in zip(ordered, titles, strict=True)
    ]


def _title(results: Results, record: RunRecord, recommended: bool) -> str:
    """The category, the configuration, the seed where runs differ in it, and the first metric."""
    seeds = {one.spec["seed"] for one in results.ok()}
    metric = HEADLINES[record.task][0]
    value = record.metrics.get(metric)
    words = [
        category(record),
        results.configuration_name(record),
        f"seed {record.spec['seed']}" if len(seeds) > 1 else "",
        "" if value is None else f"{metric.replace('_', ' ')} {value:.3f}",
    ]
    return f"{', '.join(filter(None, words))}{' (recommended)' if recommended else ''}"


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
    run = st.selectbox("Run", runs, format_func=lambda choice: choice.title, key="run")
    # A narrow screen cuts the title in the list.
    notes([f"{run.title}; run {run.record.run_id}"])
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
    return shown_images(dropped_images(model, key))


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
                continue
            reading, outcome = prediction
            if isinstance(outcome.result, Result):
                truth = row.defect if row.label else GOOD
                images.append(ShownImage(row.path, reading.pixels, outcome.result, truth))
            else:
                problems([f"{row.path}: {outcome.error}"])
    if missing:
        problems([f"{len(missing)} of these images can't be read below {root}, such as {missing[0]}."])
    return images


def _read_and_predicted(model: Model, root: Path, name: str) -> tuple[Reading, Row] | None:
    try:
        reading = read(root / name)
    except HarnessError:
        return None
    return reading, predict_reading(model, Path(name), reading)
