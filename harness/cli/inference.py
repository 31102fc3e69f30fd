"""What `predict`, `export` and `demo` do, in terms of the modules that do it. Each gives the exit status."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TextIO, cast

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeElapsedColumn, TimeRemainingColumn

from harness.common.errors import ConfigError, StoreError
from harness.common.files import make_folder
from harness.common.terminal import Terminal
from harness.execution.log_capture import capture_logs
from harness.inference.inputs import below, images_named
from harness.inference.rows import CLASS_COLUMNS, COLUMNS

if TYPE_CHECKING:
    from harness.inference.classifier import Classifier
    from harness.inference.model import Model

ROWS = "predictions.csv"
HEADERS = tuple(",".join(columns).encode() for columns in (COLUMNS, CLASS_COLUMNS))


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
) -> int:
    """Rows, pictures, and a sentence; 0 if all images could be judged, 1 if one could not."""
    console = Terminal(sys.stderr)
    if maps not in {"tiff", "png"}:
        raise ConfigError(f"--map: {maps!r} found; expected tiff or png.")
    if maps == "png" and out is None:
        raise ConfigError("--map: png found without --out, and so no map to be written; expected --out too.")
    for stream in (sys.stdin, sys.stdout):
        if isinstance(stream, io.TextIOWrapper):
            # File names need not be text; what comes in goes out.
            stream.reconfigure(errors="surrogateescape")
    paths = images_named(names, sys.stdin, recursive, apart=out)
    if out is not None:
        csv = csv or out / ROWS
    _check_targets(paths, out, csv)
    if not recursive and (left := below(names)):
        console.print(f"{left} images in folders below are left out: say --recursive to take them.")
    with capture_logs(io.StringIO(), show=False):
        from harness.inference.classifier import Classifier
        from harness.inference.pictures import check_map_format
        from harness.inference.predict import Row, predict_images

        model = _loaded(run, category, device, trust)
    map_format: Literal["png", "tiff"] = "png" if maps == "png" else "tiff"
    if isinstance(model, Classifier):
        if out is not None:
            make_folder(out, "--out")
    elif out is not None:
        check_map_format(map_format, model.thresholds)
        make_folder(out, "--out")
    for note in (*([model.run.note] if model.run and model.run.note else []), *model.notes):
        console.print(f"[dim]{escape(note)}[/]")
    with _rows(csv) as stream, _bar(console) as bar:
        task = bar.add_task("", total=len(paths))

        def tell(row: Row) -> None:
            bar.advance(task)
            if row.error:
                bar.console.print(f"[red]{escape(str(row.path))}[/]: {escape(row.error)}")

        counts = predict_images(model, paths, stream, batch, out, map_format, tell, max_pixels)
    console.print(counts.sentence())
    for made in (csv, out):
        if made is not None:
            console.print(f"[bold]{escape(str(made))}[/]")
    return 1 if counts.failed else 0


def _loaded(run: Path, category: str | None, device: str, trust: bool) -> Model | Classifier:
    """A detector or a classifier, as the run is."""
    from harness.inference.classifier import Classifier, classifier_of
    from harness.inference.find import find_run
    from harness.inference.model import load_model, model_of

    if run.is_file():
        return load_model(run, category=category, device=device, trust=trust)
    found = find_run(run, category)
    return classifier_of(found, device) if found.record.task == Classifier.task else model_of(found, device, trust)


def export(run: Path, chosen: str, out: Path | None, check: Sequence[str], category: str | None, trust: bool) -> int:
    """The file, its JSON, and what the check found."""
    console = Terminal(sys.stdout)
    if chosen not in {"torchscript", "onnx", "openvino"}:
        raise ConfigError(f"--format: {chosen!r} found; expected torchscript, onnx or openvino.")
    images = images_named(check, (), recursive=True) if check else []
    with capture_logs(io.StringIO(), show=False):
        from harness.backends.formats import check_installed
        from harness.export.check import test_images
        from harness.export.write import export
        from harness.inference.model import load_model

        check_installed(cast(Any, chosen))
        model = load_model(run, category=category, device="cpu", trust=trust)
        if model.run is not None and not images:
            images = test_images(model.run)
        with console.status("exporting") if console.is_terminal else nullcontext():
            file, found = export(model, cast(Any, chosen), out, images)
    for note in (*([model.run.note] if model.run and model.run.note else []), *model.notes):
        console.print(f"[dim]{escape(note)}[/]")
    console.print(
        f"checked on {found.images} image{'' if found.images == 1 else 's'}: scores differ by at most "
        f"{found.largest_relative_difference:.1e} (relative), no label differs."
    )
    console.print(f"[bold]{escape(str(file))}[/]\n[bold]{escape(str(file))}.json[/]")
    return 0


def _check_targets(images: Sequence[Path], out: Path | None, csv: Path | None) -> None:
    """Nothing that is there already, other than earlier rows and pictures, is written over.

    Raises:
        StoreError: it would be.
    """
    inputs = {path.resolve() for path in images}
    within = [path for path in images if out is not None and path.resolve().is_relative_to(out.resolve())]
    if within:
        raise StoreError(
            f"--out: {out} holds images that are to be judged ({within[0]}); expected a folder of its own."
        )
    if csv is None:
        return
    if csv.is_dir():
        raise StoreError(f"--csv: {csv} is a folder; expected a file.")
    if csv.resolve() in inputs:
        raise StoreError(f"--csv: {csv} is one of the images; expected another file.")
    if csv.is_file():
        with csv.open("rb") as stream:
            begins = stream.read(max(map(len, HEADERS)))
        if begins and not begins.startswith(HEADERS):
            raise StoreError(f"--csv: {csv} exists and holds something else than such rows; expected another file.")


class _Rows:
    """A stream of rows; whatever goes wrong with writing them is said as that.

    Args:
        stream: open.
        name: for errors.
    """

    def __init__(self, stream: TextIO, name: str) -> None:
        self._stream, self._name = stream, name

    def write(self, text: str, /) -> None:
        """See `TextIO.write`."""
        self._tried(lambda: self._stream.write(text))

    def flush(self) -> None:
        """See `TextIO.flush`."""
        self._tried(self._stream.flush)

    def _tried(self, work: Callable[[], object]) -> None:
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
    """Where rows go: a file, or standard output."""
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


def _bar(console: Console) -> Progress:
    columns = (MofNCompleteColumn(), BarColumn(bar_width=24), TimeElapsedColumn(), TimeRemainingColumn())
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
