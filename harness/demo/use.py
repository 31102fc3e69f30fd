"""First page: a finished run judges dropped images, and shows its test images, worst first."""

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
from harness.demo.show import Colours, Shown, choose_colours, error, notes, problems, show, threshold_note
from harness.demo.uploads import LARGEST_FILE, TYPES, images_of
from harness.inference.model import Model, load_model
from harness.inference.result import Result
from harness.results.record import RunRecord
from harness.results.scores import read_scores
from harness.results.store import RECORD, ResultFolder, model_in

PER_PAGE = 5


@dataclass(frozen=True)
class Choice:
    """A run that can be used.

    Attributes:
        folder: its folder.
        record: its record.
        sweep: the name of its sweep.
    """

    folder: Path
    record: RunRecord
    sweep: str

    def title(self) -> str:
        """For the list."""
        figure = self.record.metrics.get("image_AUROC")
        tail = "" if figure is None else f", image AUROC {figure:.3f}"
        # The id tells all runs apart; the page takes runs of one title for one.
        return f"{self.sweep}: {self.record.run_id}{tail}"


def choices(results: Path) -> tuple[list[Choice], list[str]]:
    """Runs below `results` with a kept model, sweep by sweep, best first; and what could not be read."""
    folders = [results] if (results / "runs").is_dir() else sorted(path.parent for path in results.glob("*/runs"))
    found: list[Choice] = []
    unreadable: list[str] = []
    for folder in map(ResultFolder, folders):
        chosen = []
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
                chosen.append(Choice(file.parent, record, folder.root.name))
        found += sorted(chosen, key=lambda one: one.record.rank(), reverse=True)
    return found, unreadable


@st.cache_resource(max_entries=2, show_spinner="loading the model")
def _load(folder: str, changed: float) -> Model:
    del changed
    return load_model(folder)


def page(results: Path) -> None:
    """The page."""
    st.title("Use a run")
    found, unreadable = choices(results)
    problems(unreadable)
    if not found:
        problems([
            f"No runs with a saved model found in {results}. Run a sweep (the best run's model is kept), or make a run "
            "on the page Fit a new run."
        ])  # fmt: skip
        return
    chosen = st.selectbox("Run", found, format_func=Choice.title, key="run")
    file = model_in(chosen.folder)
    assert file is not None
    try:
        model = _load(str(chosen.folder), file.stat().st_mtime)
    except HarnessError as refused:
        error(refused.problems)
        return
    notes([*threshold_note(model.thresholds), *model.notes, *chosen.record.warnings])
    # A run that was made again is another.
    key = f"{chosen.folder} {file.stat().st_mtime_ns}"
    own, tested = st.tabs(["Your images", "Test images of the run"])
    with own:
        mine = _dropped(model, key)
    with tested:
        theirs = _tested(model, chosen, _test_rows(chosen), key)
    colours = choose_colours([*mine, *theirs], "use")
    with own:
        _show_all(mine, colours)
    with tested:
        _show_all(theirs, colours)


def _show_all(shown: Sequence[Shown], colours: Colours) -> None:
    for one in shown:
        show(one, colours)


def _dropped(model: Model, key: str) -> list[Shown]:
    files = st.file_uploader(
        f"Drop images (up to {LARGEST_FILE} MB each; they stay on this machine)",
        type=TYPES,
        accept_multiple_files=True,
        key="images",
    )
    uploads, wrong = images_of(files or [], st.session_state.setdefault("decoded", {}))
    problems(wrong)
    shown = []
    with _remembered("judged") as results:
        for upload in uploads:
            result = results(f"{key} {upload.digest}", partial(_judged, model, None, upload.reading))
            if isinstance(result, str):
                problems([f"{upload.name}: {result}"])
            else:
                shown.append(Shown(upload.name, upload.reading.pixels, result))
    return sorted(shown, key=lambda one: one.result.score, reverse=True)


def _judged(model: Model, path: str | None, reading: Reading) -> Result | str:
    """What the model says, or why it can't."""
    try:
        (result,) = model.results([(path, reading)], [model.scorer.prepare(reading.pixels)])
    # Torch may run out of memory, an image be too small for a network: said on the page, which goes on.
    except Exception as refused:  # noqa: BLE001
        return str(refused)
    return result


@contextmanager
def _remembered(name: str) -> Iterator[Callable[[str, Callable[[], Any]], Any]]:
    """Results by key: every move of a slider runs the page again, and not the network. What is not asked for goes."""
    before: dict[str, Any] = st.session_state.setdefault(name, {})
    kept: dict[str, Any] = {}

    def result(key: str, compute: Callable[[], Any]) -> Any:
        kept[key] = before[key] if key in before else compute()
        return kept[key]

    yield result
    st.session_state[name] = kept


@dataclass(frozen=True)
class _Row:
    path: str
    label: bool
    defect: str
    score: float


def _test_rows(chosen: Choice) -> list[_Row]:
    """The run's test images: those on the wrong side of the threshold first, by how far; then those nearest to it."""
    try:
        scores = read_scores(chosen.folder)
    except HarnessError as damaged:
        problems(damaged.problems)
        return []
    if scores is None:
        return []
    parts = zip(scores.names, scores.labels.tolist(), scores.defects, scores.scores.tolist(), strict=True)
    rows = [_Row(*part) for part in parts]
    threshold = chosen.record.thresholds.get("image")
    if threshold is None:
        ordered = sorted(row.score for row in rows)
        threshold = ordered[len(ordered) // 2] if ordered else 0.0
    return sorted(rows, key=lambda row: (row.score - threshold) * (1 if row.label else -1))


def _tested(model: Model, chosen: Choice, rows: Sequence[_Row], key: str) -> list[Shown]:
    if not rows:
        st.info("This run has no scores.csv that can be read.")
        return []
    pages = -(-len(rows) // PER_PAGE)
    number = 1
    if pages > 1:
        number = int(st.number_input(f"Page of {pages}, worst first", 1, pages, 1, key=f"page-{chosen.folder}"))
    shown, missing = [], []
    root = Path(str(chosen.record.data.get("root", "")))
    with _remembered("tested") as results:
        for row in rows[(number - 1) * PER_PAGE : number * PER_PAGE]:
            found = results(f"{key} {row.path}", partial(_read_and_judged, model, root, row.path))
            if found is None:
                missing.append(row.path)
            elif isinstance(found[1], str):
                problems([f"{row.path}: {found[1]}"])
            else:
                shown.append(Shown(row.path, found[0].pixels, found[1], row.defect if row.label else GOOD))
    if missing:
        problems([f"{len(missing)} of these images can't be read below {root}, such as {missing[0]}."])
    return shown


def _read_and_judged(model: Model, root: Path, name: str) -> tuple[Reading, Result | str] | None:
    try:
        reading = read(root / name)
    except HarnessError:
        return None
    return reading, _judged(model, name, reading)
