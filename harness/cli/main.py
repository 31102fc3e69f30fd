"""The commands: parsing and calls only. Heavy libraries are imported where a command needs them."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from harness import __version__, registry
from harness.common.errors import HarnessError
from harness.common.secrets import concealed
from harness.common.terminal import printable
from harness.execution.interrupt import Interrupt

app = typer.Typer(
    name="harness",
    help="Find the anomaly detector to trust on your images: sweeps over models with equal tests, in one workbook.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

CLOSED_PIPE = 141  # 128 + SIGPIPE

Jobs = Annotated[int | None, typer.Option("--jobs", min=1, help="Parallel workers. Default: number of GPUs, or 2.")]
Retries = Annotated[int, typer.Option("--retries", min=0, help="Further attempts for runs whose worker died.")]
Address = Annotated[
    str | None, typer.Option("--address", help="Address of the Ray cluster: auto, HOST:PORT or ray://HOST:PORT.")
]
ShipData = Annotated[bool, typer.Option("--ship-data", help="Send images to the cluster's nodes.")]
Cpus = Annotated[
    float | None, typer.Option("--cpus-per-job", min=0.1, help="CPUs a run. Default: 1, or trainer.devices.")
]
Gpus = Annotated[float | None, typer.Option("--gpus-per-job", min=0, help="GPUs a run. Default: trainer.devices.")]
Memory = Annotated[float | None, typer.Option("--memory-per-job", min=0, help="GB a run. Default: memory_limit.")]
Verbose = Annotated[bool, typer.Option("-v", "--verbose", help="Show what the libraries print.")]
Config = Annotated[Path, typer.Argument(help="The sweep's YAML file.", show_default=False)]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(metavar="[KEY=VALUE]...", help="Changes to the config, such as data.val=0 or grid[0].model=padim."),
]
Output = Annotated[Path | None, typer.Option("--output", help="Folder for results; overrides `output` of the config.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show tracebacks.")]
Run = Annotated[
    Path,
    typer.Argument(metavar="RUN", help="Folder of a run, or of a sweep (its recommended run).", show_default=False),
]
Device = Annotated[str, typer.Option("--device", help="auto, cpu, cuda, cuda:N or mps.")]
Category = Annotated[str | None, typer.Option("--category", help="Category, for a sweep with several.")]
Trust = Annotated[bool, typer.Option("--trust", help="Let a checkpoint execute code, if it can't be loaded otherwise.")]
NoCheck = Annotated[
    bool, typer.Option("--no-check", help="Skip the check of backbones, layers and weights (no heavy imports).")
]


@app.command()
def sweep(
    config: Config,
    overrides: Overrides = None,
    output: Output = None,
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="Run at most this many runs now.")] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Repeat all runs, finished ones too.")] = False,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Run only the runs that failed before.")] = False,
    launcher: Annotated[
        str, typer.Option("--launcher", help="Where to run: here, local (worker processes) or ray (a cluster).")
    ] = "here",
    jobs: Jobs = None,
    retries: Retries = 2,
    address: Address = None,
    ship_data: ShipData = False,
    cpus: Cpus = None,
    gpus: Gpus = None,
    memory: Memory = None,
    verbose: Verbose = False,
    debug: Debug = False,
) -> None:
    """Run a grid and write models_comparing.xlsx. Finished runs are skipped."""
    from harness.cli import sweep as commands
    from harness.execution.launchers.options import LaunchOptions

    launch = LaunchOptions(launcher, jobs, retries, address, ship_data, cpus, gpus, memory)
    _guard(lambda: commands.sweep(config, overrides or [], output, limit, fresh, retry_failed, verbose, launch), debug)


@app.command()
def tune(
    config: Config,
    overrides: Overrides = None,
    output: Output = None,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Repeat failed trials too.")] = False,
    jobs: Annotated[int | None, typer.Option("--jobs", min=1, help="Parallel trials. Default: as fit.")] = None,
    retries: Retries = 2,
    address: Address = None,
    ship_data: ShipData = False,
    cpus: Cpus = None,
    gpus: Gpus = None,
    memory: Memory = None,
    verbose: Verbose = False,
    debug: Debug = False,
) -> None:
    """Search for good configurations (`search:` in the YAML) with Ray Tune. Known trials are not repeated."""
    from harness.cli import sweep as commands
    from harness.execution.launchers.options import LaunchOptions

    launch = LaunchOptions("ray", jobs, retries, address, ship_data, cpus, gpus, memory)
    _guard(lambda: commands.tune(config, overrides or [], output, retry_failed, verbose, launch), debug)


@app.command()
def run(
    method: Annotated[str, typer.Argument(help=f"{', '.join(registry.DETECTORS)} ...", show_default=False)],
    data: Annotated[Path, typer.Option("--data", help="A folder in MVTec layout.", show_default=False)],
    parameters: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[PARAM=VALUE]...", help="Model parameters, such as num_neighbors=5 or layers=\\[layer2]."
        ),
    ] = None,
    backbone: Annotated[str | None, typer.Option("--backbone", help="timm name. Default: that of the model.")] = None,
    weights: Annotated[str | None, typer.Option("--weights", help="auto, pretrained, random or a path.")] = None,
    backend: Annotated[str, typer.Option("--backend", help="native or anomalib.")] = "native",
    device: Annotated[str | None, typer.Option("--device", help="auto, cpu, cuda, cuda:N or mps.")] = None,
    output: Annotated[Path, typer.Option("--output", help="Results go to <output>/run.")] = Path("results"),
    fresh: Annotated[bool, typer.Option("--fresh", help="Repeat the run if it is done.")] = False,
    verbose: Verbose = False,
    debug: Debug = False,
) -> None:
    """Run one configuration without a YAML file, with the records and the workbook of a sweep."""
    from harness.cli import sweep as commands

    options = {"output": str(output), "weights": weights, "device": device, "backbone": backbone}
    _guard(lambda: commands.run(method, backend, data, options, parameters or [], fresh, verbose), debug)


@app.command()
def audit(
    data: Annotated[
        Path,
        typer.Argument(
            metavar="CONFIG|DIR", help="A sweep's YAML file, or a folder in MVTec layout.", show_default=False
        ),
    ],
    overrides: Overrides = None,
    no_model: Annotated[
        bool, typer.Option("--no-model", help="Do not score the training images: no network is needed.")
    ] = False,
    backbone: Annotated[
        str | None, typer.Option("--backbone", help="timm name for the scores. Default: tf_efficientnet_lite0.")
    ] = None,
    layers: Annotated[
        str | None, typer.Option("--layers", help="Layers of --backbone, with commas. Default: blocks.2,blocks.4.")
    ] = None,
    weights: Annotated[
        str | None, typer.Option("--weights", help="auto, pretrained, random or a path. Default: as the config.")
    ] = None,
    device: Annotated[str | None, typer.Option("--device", help="auto, cpu, cuda, cuda:N or mps.")] = None,
    output: Output = None,
    debug: Debug = False,
) -> None:
    """Look for copies, odd images, wrong masks and suspicious labels. Write <output>/<name>/audit/ with exclude.txt."""
    from harness.cli import audit as commands

    options = {"backbone": backbone, "layers": layers, "weights": weights, "device": device}
    _guard(lambda: commands.audit(data, overrides or [], output, not no_model, options), debug)


@app.command()
def plan(
    config: Config,
    overrides: Overrides = None,
    output: Output = None,
    no_check: NoCheck = False,
    debug: Debug = False,
) -> None:
    """Print the runs of a sweep, the number of equal points, and the runs that are done."""
    from harness.cli import sweep as commands

    _guard(lambda: commands.plan(config, overrides or [], output, not no_check), debug)


@app.command()
def report(
    folders: Annotated[
        list[Path], typer.Argument(metavar="DIR...", help="Result folders of sweeps.", show_default=False)
    ],
    output: Annotated[
        Path | None,
        typer.Option("--output", help="Folder for several sweeps together. Default: combined/."),
    ] = None,
    debug: Debug = False,
) -> None:
    """Rebuild models_comparing.xlsx and report.html from the records of one or several sweeps."""
    from harness.cli import reports as commands

    _guard(lambda: commands.report(folders, output), debug)


@app.command()
def pack(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Result folder of a sweep.", show_default=False)],
    out: Annotated[Path | None, typer.Option("--out", help="The file. Default: DIR's name and .zip or .html.")] = None,
    single: Annotated[bool, typer.Option("--single", help="One HTML file with all plots, without pictures.")] = False,
    debug: Debug = False,
) -> None:
    """Write page, workbook and pictures of a sweep as one file to send, without models."""
    from harness.cli import reports as commands

    _guard(lambda: commands.pack(folder, out, single), debug)


@app.command()
def recommend(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Result folder of a sweep.", show_default=False)],
    max_ms: Annotated[str | None, typer.Option(help="Largest median time of a single image, in ms.")] = None,
    max_memory: Annotated[str | None, typer.Option(help="Largest peak memory, such as 500MB.")] = None,
    max_model: Annotated[str | None, typer.Option(help="Largest size of the model, such as 100MB.")] = None,
    max_fit: Annotated[str | None, typer.Option(help="Longest training, such as 60s.")] = None,
    min_recall: Annotated[str | None, typer.Option(help="Smallest share of detected anomalous images.")] = None,
    margin: Annotated[str | None, typer.Option(help="AUROC lower by less than this is as good as the best.")] = None,
    debug: Debug = False,
) -> None:
    """Print the recommended configuration inside limits, and what the limits cost."""
    from harness.cli import reports as commands

    options = {
        "max_ms": max_ms,
        "max_memory": max_memory,
        "max_model": max_model,
        "max_fit": max_fit,
        "min_recall": min_recall,
        "margin": margin,
    }
    _guard(lambda: commands.recommend(folder, options), debug)


@app.command()
def table(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Result folder of a sweep.", show_default=False)],
    metric: Annotated[str, typer.Option(help="The metric, such as pixel_AUPRO. Default: the first of the task.")] = "",
    rows: Annotated[str, typer.Option(help="Axes of the rows, with commas: category, backbone ...")] = "category",
    columns: Annotated[str, typer.Option(help="Axes of the columns: model, layers, configuration ...")] = "model",
    table_format: Annotated[str, typer.Option("--format", help="markdown, latex, csv or html.")] = "markdown",
    digits: Annotated[int, typer.Option(min=0, max=8, help="Digits after the decimal point.")] = 3,
    out: Annotated[Path | None, typer.Option("--out", help="The file. Default: the terminal.")] = None,
    debug: Debug = False,
) -> None:
    """Print a table of one metric for a paper, with mean and standard deviation over seeds."""
    from harness.cli import reports as commands

    _guard(lambda: commands.table(folder, metric, rows, columns, table_format, digits, out), debug)


@app.command()
def figures(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Result folder of a sweep.", show_default=False)],
    out: Annotated[Path, typer.Option("--out", help="Folder for the figures.")] = Path("figures"),
    file_format: Annotated[str, typer.Option("--format", help="svg, pdf or png.")] = "svg",
    metric: Annotated[str, typer.Option(help="The quality to show. Default: the one that the page shows first.")] = "",
    debug: Debug = False,
) -> None:
    """Draw all figures of report.html as files, for a paper or a presentation."""
    from harness.cli import reports as commands

    _guard(lambda: commands.figures(folder, out, file_format, metric), debug)


@app.command()
def compare(
    first: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a run.", show_default=False)],
    second: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of another run.", show_default=False)],
    debug: Debug = False,
) -> None:
    """Print two runs side by side, with DeLong's paired test of their image AUROC."""
    from harness.cli import reports as commands

    _guard(lambda: commands.compare(first, second), debug)


@app.command()
def threshold(
    run: Run,
    false_alarms: Annotated[
        float | None, typer.Option("--false-alarms", help="Share of normal images above the threshold, such as 0.02.")
    ] = None,
    miss: Annotated[
        float | None, typer.Option("--miss", help="Share of anomalous test images below the threshold, such as 0.")
    ] = None,
    reset: Annotated[bool, typer.Option("--reset", help="Go back to the threshold of the test.")] = False,
    category: Category = None,
    debug: Debug = False,
) -> None:
    """Change the threshold of a finished run, without a new training: predict, export and demo use it."""
    from harness.cli import inference as commands

    _guard(lambda: commands.threshold(run, false_alarms, miss, reset, category), debug)


@app.command()
def predict(
    run: Run,
    images: Annotated[
        list[str],
        typer.Argument(metavar="PATH...", help="Images, folders, patterns, or - for a list on standard input."),
    ],
    out: Annotated[
        Path | None, typer.Option("--out", help="Folder for overlay, map and outline of each image.")
    ] = None,
    csv: Annotated[
        Path | None,
        typer.Option("--csv", help="File for the rows. Default: standard output, or predictions.csv in --out."),
    ] = None,
    batch: Annotated[int, typer.Option("--batch", min=1, help="Images in one batch.")] = 8,
    device: Device = "auto",
    recursive: Annotated[bool, typer.Option("--recursive", help="Include images in folders below.")] = False,
    maps: Annotated[
        str, typer.Option("--map", help="tiff: raw values; png: 16 bits, 32768 at the pixel threshold.")
    ] = "tiff",
    category: Category = None,
    trust: Trust = False,
    max_pixels: Annotated[
        int | None,
        typer.Option("--max-pixels", min=1, help="Limit of an image. Default: 100 million."),
    ] = None,
    coverage: Annotated[
        float | None,
        typer.Option("--coverage", help="Of a classification: promised coverage. Default: that of the sweep."),
    ] = None,
    image_size: Annotated[
        int | None,
        typer.Option("--image-size", help="Of a classification: read images at N x N pixels. Default: as the run."),
    ] = None,
    debug: Debug = False,
) -> None:
    """Predict images with the model of a run: a CSV row for each image, and pictures with --out."""
    from harness.cli import inference as commands

    _guard(
        lambda: commands.predict(
            run, images, out, csv, batch, device, recursive, maps, category, trust, max_pixels, coverage, image_size
        ),
        debug,
    )


@app.command()
def export(
    run: Run,
    file_format: Annotated[str, typer.Option("--format", help="torchscript, onnx or openvino.", show_default=False)],
    out: Annotated[
        Path | None,
        typer.Option("--out", help="The file. Default: exported/model.<suffix> in the run's folder."),
    ] = None,
    check: Annotated[
        list[str] | None,
        typer.Option("--check", help="Images for the check. Default: test images of the run."),
    ] = None,
    category: Category = None,
    trust: Trust = False,
    debug: Debug = False,
) -> None:
    """Write the model of a run, with its preprocessing, to one file for other programs. Check it against the run."""
    from harness.cli import inference as commands

    _guard(lambda: commands.export(run, file_format, out, check or [], category, trust), debug)


@app.command()
def submit(
    runs: Annotated[
        list[Path],
        typer.Argument(metavar="RUN...", help="Folders of runs, or of sweeps (their best).", show_default=False),
    ],
    out: Annotated[
        Path | None,
        typer.Option("--out", help="The file. Default: submission.csv, or submission.tar.gz with --format."),
    ] = None,
    file_format: Annotated[
        str | None, typer.Option("--format", help=f"Format for maps of detections: {', '.join(registry.SUBMISSIONS)}.")
    ] = None,
    device: Device = "auto",
    trust: Trust = False,
    debug: Debug = False,
) -> None:
    """Write averaged predictions of classifications for their test images, in the form of the sample submission.

    With --format, write the maps of detections for the images without a label.
    """
    from harness.cli import ensemble as commands

    _guard(lambda: commands.submit(runs, out, file_format, device, trust), debug)


@app.command()
def blend(
    config: Annotated[Path, typer.Argument(help="The blend's YAML file.", show_default=False)],
    out: Annotated[Path | None, typer.Option("--out", help="File of a submission to write too.")] = None,
    device: Device = "auto",
    debug: Debug = False,
) -> None:
    """Blend classifications: an average, then rules and votes, each with macro F1 before and after."""
    from harness.cli import ensemble as commands

    _guard(lambda: commands.blend(config, out, device), debug)


@app.command()
def demo(
    results: Annotated[Path, typer.Argument(metavar="[RESULTS]", help="Folder of result folders.")] = Path("results"),
    port: Annotated[int, typer.Option("--port", min=1024, max=65535, help="Port of localhost.")] = 8501,
    no_browser: Annotated[bool, typer.Option("--no-browser", help="Do not open the page.")] = False,
    debug: Debug = False,
) -> None:
    """Open a local web page: a run predicts dropped images, or a few normal images train a new detector."""
    from harness.demo.launch import serve

    _guard(lambda: serve(results, port, not no_browser), debug)


@app.command()
def weights(
    backbones: Annotated[list[str] | None, typer.Argument(help="timm names. Default: those of the configs.")] = None,
    folder: Annotated[Path, typer.Option("--weights", help="Folder of weights.")] = Path("weights"),
    debug: Debug = False,
) -> None:
    """List the source of the weights of each backbone, with their hash."""
    from harness.cli import inventory as commands

    _guard(lambda: commands.weights(backbones or [], folder), debug)


@app.command()
def data(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A folder of images.", show_default=False)],
    debug: Debug = False,
) -> None:
    """Look at a folder: its kind of data, its images, sizes and masks, and the `data:` block to paste."""
    from harness.cli import data as commands

    _guard(lambda: commands.data(folder), debug)


@app.command()
def init(
    folder: Annotated[
        Path | None,
        typer.Argument(metavar="[DIR]", help="A folder of images. Without one, init writes the sample configs."),
    ] = None,
    debug: Debug = False,
) -> None:
    """Write a commented config for your images, or the sample configs to configs/."""
    from harness.cli import start as commands

    _guard(lambda: commands.init(folder), debug)


@app.command("import")
def import_config(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A YAML file of anomalib.", show_default=False)],
    out: Annotated[Path | None, typer.Option("--out", help="The new file. Default: the terminal.")] = None,
    debug: Debug = False,
) -> None:
    """Convert a configuration of `anomalib train` or `anomalib benchmark`, and say what was left out."""
    from harness.cli import start as commands

    _guard(lambda: commands.import_config(file, out), debug)


@app.command()
def models(
    markdown: Annotated[bool, typer.Option("--markdown", help="Print Markdown, without this machine's files.")] = False,
    debug: Debug = False,
) -> None:
    """List all detectors with training, image sizes and needed files, and whether the files are on this machine."""
    from harness.cli import inventory as commands

    _guard(lambda: commands.models(markdown), debug)


@app.command("make-data")
def make_data(
    folder: Annotated[Path, typer.Argument(help="A new or empty folder.", show_default=False)],
    seed: Annotated[int, typer.Option(min=0, help="Seed of all random numbers.")] = 0,
    size: Annotated[int, typer.Option(min=32, max=1024, help="Height and width in pixels.")] = 128,
    train: Annotated[
        int | None, typer.Option(min=2, help="Normal training images of each category (100); labelled: in total (400).")
    ] = None,
    good: Annotated[int, typer.Option(min=1, help="Normal test images of each category.")] = 30,
    bad: Annotated[int, typer.Option(min=1, help="Test images of each type of defect.")] = 10,
    labelled: Annotated[
        bool, typer.Option("--labelled", help="Labelled data for classification, in a competition's layout.")
    ] = False,
    debug: Debug = False,
) -> None:
    """Write the toy data in the layout of MVTec AD, or labelled for classification."""
    from harness.cli import start as commands

    _guard(lambda: commands.make_data(folder, seed, size, train, good, bad, labelled), debug)


@app.callback(invoke_without_command=True)
def _version(
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.", is_eager=True)] = False,
) -> None:
    if version:
        typer.echo(__version__)
        raise typer.Exit


def _guard(work: Callable[[], int], debug: bool) -> NoReturn:
    """Run a command; each expected error becomes one line, with exit status 2."""
    try:
        # SIGTERM too must leave no half-written file.
        with Interrupt():
            status = work()
        sys.stdout.flush()
    except HarnessError as error:
        if debug:
            raise
        for problem in error.problems:
            print(f"error: {printable(concealed(problem))}", file=sys.stderr)
        status = 2
    except BrokenPipeError:
        # The reader closed the pipe, as `| head` does: a shell gives this status to programs that a closed pipe ends.
        # Without the redirection Python would report the closed pipe again at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = CLOSED_PIPE
    except OSError as error:
        # A full disk, a path that is too long, or a folder without permission is no bug of the harness.
        if debug or not error.strerror:
            raise
        names = " -> ".join(str(name) for name in (error.filename, error.filename2) if name)
        print(f"error: {printable(concealed(names))}{': ' if names else ''}{error.strerror}.", file=sys.stderr)
        status = 2
    except KeyboardInterrupt:
        print("stopped.", file=sys.stderr)
        status = 130
    raise typer.Exit(status)


def main() -> None:
    """Entry point of `python -m harness`."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # If the encoding of a terminal lacks a letter, the terminal shows its code, and the sweep continues.
            stream.reconfigure(errors="backslashreplace")
    app()
