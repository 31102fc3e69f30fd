"""The commands `predict`, `export` and `threshold`. Each returns the exit status."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TextIO, cast

from rich.markup import escape

from harness.common.errors import ConfigError, StoreError
from harness.common.files import make_folder
from harness.common.terminal import Terminal, progress_bar
from harness.config.coverage import checked_coverage
from harness.execution.log_capture import capture_logs
from harness.inference.inputs import below, images_named
from harness.inference.rows import CLASS_COLUMNS, COLUMNS

if TYPE_CHECKING:
    from harness.inference.classifier import Classifier
    from harness.inference.model import Model

ROWS = "predictions.csv"
# Enough columns to tell rows from another file; earlier versions had fewer columns after these.
HEADERS = tuple(",".join(columns[:5]).encode() for columns in (COLUMNS, CLASS_COLUMNS))


def predict(
    run: Path,
    names: Sequence[str],
    out: Path | None,
    csv: Path | None,
    batch: int,
    device: str,
    recursive: bool,
    maps: str,
    category: str | None,
    trust: bool,
    max_pixels: int | None,
    coverage: float | None,
    image_size: int | None,
) -> int:
    """Predict images with the model of a run: write rows and pictures, and print the counts.

    Args:
        run: folder of a run or of a sweep, or an exported model.
        names: images, folders, patterns, or - for standard input.
        out: folder for pictures; None for none.
        csv: file for the rows; None for standard output, or for predictions.csv in `out`.
        batch: images in one batch.
        device: auto, cpu, cuda, cuda:N or mps.
        recursive: whether to take images in folders below.
        maps: tiff or png, the format of maps.
        category: of a sweep with several categories.
        trust: whether a checkpoint may execute code.
        max_pixels: limit of an image; None for the default.
        coverage: promised coverage of the prediction sets of a classification; None for that of the sweep.
        image_size: height and width of the images that a classification reads; None for those of the run.

    Returns:
        0, or 1 if an image failed.

    Raises:
        ConfigError: an option has a wrong value.
        StoreError: the run can't be used, or an output can't be written.
    """
    console = Terminal(sys.stderr)
    if maps not in {"tiff", "png"}:
        raise ConfigError(f"--map: {maps!r} found; expected tiff or png.")
    if maps == "png" and out is None:
        raise ConfigError("--map: png found without --out; expected --out, because maps go there. Add --out.")
    for stream in (sys.stdin, sys.stdout):
        if isinstance(stream, io.TextIOWrapper):
            # File names may hold bytes that are no text; this error handler passes them on unchanged.
            stream.reconfigure(errors="surrogateescape")
    paths = images_named(names, sys.stdin, recursive, apart=out)
    if out is not None:
        csv = csv or out / ROWS
    _check_targets(paths, out, csv)
    if not recursive and (skipped := below(names)):
        console.print(f"{skipped} images in folders below are left out. Use --recursive to include them.")
    with capture_logs(io.StringIO(), show=False):
        from harness.inference.classifier import Classifier
        from harness.inference.pictures import check_map_format
        from harness.inference.predict import Row, predict_images

        model = _load(run, category, device, trust, coverage, image_size)
    map_format: Literal["png", "tiff"] = "png" if maps == "png" else "tiff"
    if out is not None:
        if not isinstance(model, Classifier):
            check_map_format(map_format, model.thresholds)
        make_folder(out, "--out")
    for note in (*([model.run.note] if model.run and model.run.note else []), *model.notes):
        console.print(f"[dim]{escape(note)}[/]")
    with _rows(csv) as stream, progress_bar(console) as bar:
        task = bar.add_task("", total=len(paths))

        def tell(row: Row) -> None:
            bar.advance(task)
            if row.error:
                bar.console.print(f"[red]{escape(str(row.path))}[/]: {escape(row.error)}")

        counts = predict_images(model, paths, stream, batch, out, map_format, tell, max_pixels)
    console.print(counts.sentence())
    for path in (csv, out):
        if path is not None:
            console.print(f"[bold]{escape(str(path))}[/]")
    return 1 if counts.failed else 0


def _load(
    run: Path,
    category: str | None,
    device: str,
    trust: bool,
    coverage: float | None = None,
    image_size: int | None = None,
) -> Model | Classifier:
    """The model of a run: a detector or a classifier.

    Raises:
        ConfigError: the coverage is no number between 0 and 1, or the run is of a detector, which has no such options.
    """
    if coverage is not None:
        checked_coverage(coverage, "--coverage")
    from harness.inference.classifier import Classifier, classifier_of, load_classifier
    from harness.inference.exported import task_of
    from harness.inference.find import find_run
    from harness.inference.model import load_model, model_of

    source = None if run.is_file() else find_run(run, category)
    if source is not None and source.record.task == Classifier.task:
        return classifier_of(source, device, coverage, image_size)
    if source is None and task_of(run) == Classifier.task:
        return load_classifier(run, device=device, coverage=coverage, trust=trust, image_size=image_size)
    for name, value in (("--coverage", coverage), ("--image-size", image_size)):
        if value is not None:
            raise ConfigError(
                f"{name}: {value} found; expected a classification, since {run} is a detector. Remove it."
            )
    if source is None:
        return load_model(run, category=category, device=device, trust=trust)
    return model_of(source, device, trust)


def export(run: Path, kind: str, out: Path | None, check: Sequence[str], category: str | None, trust: bool) -> int:
    """Export the model of a run, check the file against the run, and print the result.

    Args:
        run: folder of a run or of a sweep.
        kind: torchscript, onnx or openvino.
        out: the file; None for a file in the run's folder.
        check: images for the check; empty for test images of the run.
        category: of a sweep with several categories.
        trust: whether a checkpoint may execute code.

    Raises:
        ConfigError: `kind` is unknown.
        StoreError: the run can't be used, or the file can't be written.
    """
    console = Terminal(sys.stdout)
    if kind not in {"torchscript", "onnx", "openvino"}:
        raise ConfigError(f"--format: {kind!r} found; expected torchscript, onnx or openvino.")
    images = images_named(check, (), recursive=True) if check else []
    with capture_logs(io.StringIO(), show=False):
        from harness.backends.formats import check_installed
        from harness.export.write import export, images_of_check

        check_installed(cast(Any, kind))
        model = _load(run, category, "cpu", trust)
        if model.run is not None and not images:
            images = images_of_check(model)
        with console.status("exporting") if console.is_terminal else nullcontext():
            file, check_result = export(model, cast(Any, kind), out, images)
    for note in (*([model.run.note] if model.run and model.run.note else []), *model.notes):
        console.print(f"[dim]{escape(note)}[/]")
    console.print(check_result.sentence())
    console.print(f"[bold]{escape(str(file))}[/]\n[bold]{escape(str(file))}.json[/]")
    return 0


def threshold(run: Path, false_alarms: float | None, miss: float | None, reset: bool, category: str | None) -> int:
    """Change the threshold of a finished run, or take the change back, and print what the threshold does.

    Args:
        run: folder of a run or of a sweep.
        false_alarms: share of normal images above the new threshold.
        miss: share of the anomalous test images below the new threshold.
        reset: whether to go back to the threshold of the test.
        category: of a sweep with several categories.

    Raises:
        ConfigError: not exactly one change is asked for, or a share is out of range.
        StoreError: the run can't be used, has no scores for the change, or its folder can't be written.
    """
    from harness.inference import threshold as changes
    from harness.inference.find import finished_run

    options = {"--false-alarms": false_alarms is not None, "--miss": miss is not None, "--reset": reset}
    chosen = [name for name, is_set in options.items() if is_set]
    if len(chosen) != 1:
        listed = " and ".join(chosen) or "no option"
        raise ConfigError(f"threshold: {listed} found; expected one of --false-alarms, --miss and --reset. Name one.")
    folder, record = finished_run(run, category)
    console = Terminal(sys.stdout)
    if reset:
        console.print(escape(changes.reset(folder)))
        return 0
    new = changes.for_misses(folder, record, miss) if miss is not None else None
    if new is None:
        assert false_alarms is not None
        new = changes.for_false_alarms(folder, record, false_alarms)
    for sentence in changes.change(folder, new):
        console.print(escape(sentence))
    return 0


def _check_targets(images: Sequence[Path], out: Path | None, csv: Path | None) -> None:
    """Refuse to overwrite files other than earlier rows and pictures.

    Raises:
        StoreError: an output would overwrite other files.
    """
    inputs = {path.resolve() for path in images}
    inside = [path for path in images if out is not None and path.resolve().is_relative_to(out.resolve())]
    if inside:
        raise StoreError(f"--out: {out} holds input images ({inside[0]}); expected another folder. Name a new one.")
    if csv is None:
        return
    if csv.is_dir():
        raise StoreError(f"--csv: {csv} is a folder; expected a file. Name a file.")
    if csv.resolve() in inputs:
        raise StoreError(f"--csv: {csv} is one of the images; expected another file. Name a new one.")
    if csv.is_file():
        with csv.open("rb") as stream:
            head = stream.read(max(map(len, HEADERS)))
        if head and not head.startswith(HEADERS):
            raise StoreError(f"--csv: {csv} exists and holds no predictions; expected another file. Name a new one.")


class _Rows:
    """A stream of rows that reports failed writes as StoreError.

    Args:
        stream: an open text stream.
        name: of the stream, for messages.
    """

    def __init__(self, stream: TextIO, name: str) -> None:
        self._stream, self._name = stream, name

    def write(self, text: str, /) -> None:
        """Write a text, as `TextIO.write` does."""
        self._guarded(lambda: self._stream.write(text))

    def flush(self) -> None:
        """Flush the stream, as `TextIO.flush` does."""
        self._guarded(self._stream.flush)

    def _guarded(self, work: Callable[[], object]) -> None:
        try:
            work()
        except BrokenPipeError:
            raise
        except OSError as error:
            if self._stream is sys.stdout:
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise StoreError(f"{self._name}: rows can't be written ({error.strerror}).") from error


@contextmanager
def _rows(csv: Path | None) -> Iterator[_Rows]:
    """The stream of rows: a file, or standard output."""
    if csv is None:
        yield _Rows(sys.stdout, "standard output")
        return
    try:
        csv.parent.mkdir(parents=True, exist_ok=True)
        stream = csv.open("w", encoding="utf-8", newline="", errors="surrogateescape")
    except OSError as error:
        raise StoreError(f"--csv: {csv} can't be written ({error.strerror}).") from error
    with stream:
        yield _Rows(stream, str(csv))
