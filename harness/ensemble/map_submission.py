"""Maps of the images without a label, as the archive that a public data set asks for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from harness.common.errors import ConfigError, DataError, StoreError
from harness.common.files import replacement
from harness.data.listing import list_images
from harness.ensemble.archive import check_archive, tar_gz
from harness.ensemble.submission_format import SubmissionFormat, categories_without_run, count_problems
from harness.ensemble.submission_maps import SubmissionMaps
from harness.inference.find import SavedRun, find_run, finished_run
from harness.inference.model import Model, model_of
from harness.inference.predictor import BATCH
from harness.inference.result import Result
from harness.report.facts import category
from harness.results.record import RunRecord
from harness.results.run_folder import RECORD
from harness.results.scores import UNLABELLED, read_scored_images
from harness.results.store import ResultFolder
from harness.results.thresholds import thresholds_of

SUFFIX = ".tar.gz"
SHOWN = 20  # images in an error message


@dataclass(frozen=True)
class CategoryRun:
    """The run of one category.

    Attributes:
        category: its name.
        saved: the run with its model.
        images: paths of the images, relative to `root`.
    """

    category: str
    saved: SavedRun
    images: tuple[str, ...]

    @property
    def root(self) -> Path:
        """The folder of the category."""
        return Path(self.saved.record.data["root"])

    @property
    def threshold(self) -> float | None:
        """The threshold of a pixel; None without one."""
        return thresholds_of(self.saved.folder, self.saved.record).pixel


@dataclass
class MapSubmission:
    """Facts on a written archive.

    Attributes:
        images: number of images by category.
        missing: categories of the data set without a run.
        notes: what a user must know, one sentence each.
    """

    images: dict[str, int] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def category_runs(paths: Sequence[Path], form: SubmissionFormat, partial: bool) -> list[CategoryRun]:
    """The run of each category, checked before any prediction.

    Args:
        paths: folders of runs, or of sweeps; a sweep gives its recommended run of each category.
        form: the format.
        partial: whether categories and images of the data set may be missing.

    Raises:
        ConfigError: a run is of another task or of another kind of data.
        StoreError: there is no run, its model was not kept, or it has no threshold of pixels or no unlabelled images;
            or two runs are of the same category.
        DataError: the images on disk are not those that the run predicted, or not all images of the data set.
    """
    runs: dict[str, CategoryRun] = {}
    problems: list[str] = []
    for path in dict.fromkeys(paths):
        for saved in _saved_runs(path, form):
            scored = read_scored_images(saved.folder) or []
            images = tuple(image.name for image in scored if image.role == UNLABELLED)
            run = CategoryRun(category(saved.record), saved, images)
            if run.category in runs:
                raise StoreError(
                    f"{saved.folder}: a second run of category {run.category} found, beside "
                    f"{runs[run.category].saved.folder}; expected one run for each category. Name one of them."
                )
            runs[run.category] = run
            problems += _image_problems(run, form)
    if problems:
        raise DataError(problems)
    if not partial:
        _check_complete({name: run.images for name, run in sorted(runs.items())}, form)
    return [runs[name] for name in sorted(runs)]


def _check_complete(images: Mapping[str, Sequence[str]], form: SubmissionFormat) -> None:
    """Refuse what a server would refuse after the upload."""
    problems = [f"{problem}." for name, files in images.items() for problem in count_problems(form, name, files)]
    if missing := categories_without_run(form, images):
        problems.append(
            f"{', '.join(missing)}: no run found; expected a run for each of the {len(form.categories)} categories of "
            "the data set."
        )
    if problems:
        remedy = "The archive would not be complete. Add the runs and images, or give --partial to write it anyway."
        raise DataError([*problems, remedy])


def _saved_runs(path: Path, form: SubmissionFormat) -> Iterator[SavedRun]:
    if (path / RECORD).is_file():
        _check_kind(path, finished_run(path)[1], form)
        yield find_run(path)
        return
    records = [record for record in ResultFolder(path).read_records().good if record.status == "ok"]
    for record in records:
        _check_kind(path, record, form)
    names: list[str | None] = [*sorted({str(one.spec["category"] or one.data["category"] or "") for one in records})]
    # Without a finished run, `find_run` says what is wrong.
    yield from (find_run(path, name) for name in names or [None])


def _check_kind(path: Path, record: RunRecord, form: SubmissionFormat) -> None:
    if record.task != "detection":
        raise ConfigError(
            f"--format: {form.kind} found, but {path} is a {record.task}; expected a detection. Remove --format: the "
            "submission of a classification has no maps."
        )
    if record.data["kind"] != form.kind:
        raise ConfigError(
            f"--format: {form.kind} found, but {path} is of data.kind {record.data['kind']}; expected runs of "
            f"data.kind {form.kind}."
        )


def _image_problems(run: CategoryRun, form: SubmissionFormat) -> list[str]:
    """Sentences about images without a prediction, and about predictions without an image.

    Raises:
        StoreError: the run has no unlabelled images or no threshold of pixels.
    """
    folder, parts = run.saved.folder, " and ".join(form.parts)
    if not run.images:
        raise StoreError(
            f"{folder}: no unlabelled images found; expected predictions for {parts}. Put these folders into "
            f"{run.root}, and run the sweep again."
        )
    if run.threshold is None:
        raise StoreError(f"{folder}: no threshold of pixels found; expected one. Set `threshold`, and run it again.")
    places = [run.root / part for part in form.parts if (run.root / part).is_dir()]
    on_disk = {file.relative_to(run.root).as_posix() for place in places for file in list_images(place)}
    problems = []
    if missing := sorted(on_disk - set(run.images)):
        problems.append(
            f"{run.category}: {len(missing)} images of {run.root} without a prediction found ({_listed(missing)}); "
            "expected a prediction for each. Run the sweep again."
        )
    if gone := sorted(set(run.images) - on_disk):
        problems.append(
            f"{run.category}: {len(gone)} predicted images are missing in {run.root} ({_listed(gone)}); expected the "
            "images of the run. Restore them."
        )
    return problems


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


def submit_maps(
    runs: Sequence[CategoryRun],
    form: SubmissionFormat,
    out: Path,
    device: str,
    trust: bool,
    on_image: Callable[[], None] = lambda: None,
) -> MapSubmission:
    """Predict the unlabelled images, write the archive, and check it by reading it again.

    Args:
        runs: of `category_runs`.
        form: the format.
        out: path of the archive. An earlier archive stays until the new one is complete and checked.
        device: auto, cpu, cuda, cuda:N or mps.
        trust: whether a checkpoint may execute code.
        on_image: called after each image.

    Returns:
        The numbers of images, and what the user must know.

    Raises:
        StoreError: a model has no maps, or the archive can't be written.
        DataError: an image can't be read.
    """
    submission = MapSubmission(missing=categories_without_run(form, {run.category for run in runs}))
    sizes: dict[str, tuple[int, int]] = {}
    with replacement(out) as scratch:
        with tar_gz(scratch) as add:
            for run in runs:
                model = model_of(run.saved, device, trust)
                assert run.threshold is not None
                maps = SubmissionMaps(run.saved.folder, run.threshold)
                for name, result in _predicted(model, run):
                    names = form.names(run.category, name)
                    for member, content in zip(names, form.files(*maps.of(result)), strict=True):
                        add(member, content)
                        sizes[member] = result.image_size
                    on_image()
                submission.images[run.category] = len(run.images)
                submission.notes += [f"{run.category}: {note}" for note in (*model.notes, *maps.notes())]
                submission.notes += count_problems(form, run.category, run.images)
        check_archive(scratch, sizes, form.problem)
    return submission


def _predicted(model: Model, run: CategoryRun) -> Iterator[tuple[str, Result]]:
    for begin in range(0, len(run.images), BATCH):
        names = run.images[begin : begin + BATCH]
        yield from zip(names, model.predict([run.root / name for name in names]), strict=True)
