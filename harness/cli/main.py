"""The verbs: parse, call, print. No logic, and nothing heavy is imported before it is needed."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from harness import __version__
from harness.common.errors import HarnessError
from harness.common.secrets import concealed
from harness.common.terminal import printable
from harness.execution.interrupt import Interrupt

app = typer.Typer(
    name="harness",
    help="Which anomaly detector to trust on your images: sweeps over models, measured alike, in one workbook.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

CLOSED_PIPE = 141  # 128 + SIGPIPE

Jobs = Annotated[int | None, typer.Option("--jobs", min=1, help="Workers at once; default: GPUs, or 2.")]
Retries = Annotated[int, typer.Option("--retries", min=0, help="More tries for runs whose worker died.")]
Address = Annotated[
    str | None, typer.Option("--address", help="Of the Ray cluster: auto, HOST:PORT or ray://HOST:PORT.")
]
ShipData = Annotated[bool, typer.Option("--ship-data", help="Send images to the cluster's nodes.")]
Cpus = Annotated[
    float | None, typer.Option("--cpus-per-job", min=0.1, help="Of a node. Default: 1, or trainer.devices.")
]
Gpus = Annotated[float | None, typer.Option("--gpus-per-job", min=0, help="Default: trainer.devices.")]
Memory = Annotated[float | None, typer.Option("--memory-per-job", min=0, help="GB; default: memory_limit.")]
Verbose = Annotated[bool, typer.Option("-v", "--verbose", help="Show what the libraries print.")]
Config = Annotated[Path, typer.Argument(help="The sweep's YAML file.", show_default=False)]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(metavar="[KEY=VALUE]...", help="Changes to the config, such as data.val=0 or grid[0].model=padim."),
]
Output = Annotated[Path | None, typer.Option("--output", help="Folder for results, instead of the config's `output`.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show tracebacks.")]
Run = Annotated[
    Path, typer.Argument(metavar="RUN", help="A run's folder, or a sweep's (its best run).", show_default=False)
]
Device = Annotated[str, typer.Option("--device", help="auto, cpu, cuda, cuda:N or mps.")]
Category = Annotated[str | None, typer.Option("--category", help="Of a sweep with several categories.")]
Trust = Annotated[
    bool, typer.Option("--trust", help="Execute code that a checkpoint names, where it can't be loaded without.")
]
NoCheck = Annotated[
    bool, typer.Option("--no-check", help="Do not check backbones, layers and weights (imports nothing heavy).")
]


@app.command()
def sweep(
    config: Config,
    overrides: Overrides = None,
    output: Output = None,
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="Make at most this many runs now.")] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Make all runs again, finished ones too.")] = False,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Make only the runs that failed before.")
    ] = False,
    launcher: Annotated[
        str, typer.Option("--launcher", help="Where runs are made: here, local (worker processes), ray (a cluster).")
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
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Try failed trials again, too.")] = False,
    jobs: Annotated[int | None, typer.Option("--jobs", min=1, help="Trials at once; default: as fit.")] = None,
    retries: Retries = 2,
    address: Address = None,
    ship_data: ShipData = False,
    cpus: Cpus = None,
    gpus: Gpus = None,
    memory: Memory = None,
    verbose: Verbose = False,
    debug: Debug = False,
) -> None:
    """Search for good settings (`search:` in the YAML) with Ray Tune. What is known is not tried again."""
    from harness.cli import sweep as commands
    from harness.execution.launchers.options import LaunchOptions

    launch = LaunchOptions("ray", jobs, retries, address, ship_data, cpus, gpus, memory)
    _guard(lambda: commands.tune(config, overrides or [], output, retry_failed, verbose, launch), debug)


@app.command()
def run(
    method: Annotated[str, typer.Argument(help="patchcore, padim, spade, cflow ...", show_default=False)],
    data: Annotated[Path, typer.Option("--data", help="A folder in MVTec layout.", show_default=False)],
    parameters: Annotated[
        list[str] | None,
        typer.Argument(metavar="[PARAM=VALUE]...", help="The model's, such as num_neighbors=5 or layers=\\[layer2]."),
    ] = None,
    backbone: Annotated[str | None, typer.Option("--backbone", help="timm's name; default: the model's own.")] = None,
    weights: Annotated[str | None, typer.Option("--weights", help="auto, pretrained, random or a path.")] = None,
    backend: Annotated[str, typer.Option("--backend", help="native or anomalib.")] = "native",
    device: Annotated[str | None, typer.Option("--device", help="auto, cpu, cuda, cuda:N or mps.")] = None,
    output: Annotated[Path, typer.Option("--output", help="Results go to <output>/run.")] = Path("results"),
    fresh: Annotated[bool, typer.Option("--fresh", help="Make the run again if it is done.")] = False,
    verbose: Verbose = False,
    debug: Debug = False,
) -> None:
    """Make one run without a YAML file: same records and same sheet as a sweep's."""
    from harness.cli import sweep as commands

    given = {"output": str(output), "weights": weights, "device": device, "backbone": backbone}
    _guard(lambda: commands.run(method, backend, data, given, parameters or [], fresh, verbose), debug)


@app.command()
def plan(
    config: Config,
    overrides: Overrides = None,
    output: Output = None,
    no_check: NoCheck = False,
    debug: Debug = False,
) -> None:
    """Print the runs of a sweep, how many points collapsed, and which are done."""
    from harness.cli import sweep as commands

    _guard(lambda: commands.plan(config, overrides or [], output, not no_check), debug)


@app.command()
def report(
    folders: Annotated[
        list[Path], typer.Argument(metavar="DIR...", help="Result folders of sweeps.", show_default=False)
    ],
    output: Annotated[
        Path | None,
        typer.Option("--output", help="Where several sweeps are put together; default: combined/."),
    ] = None,
    debug: Debug = False,
) -> None:
    """Make models_comparing.xlsx and report.html anew from the records, of several sweeps together if several."""
    from harness.cli import reports as commands

    _guard(lambda: commands.report(folders, output), debug)


@app.command()
def compare(
    first: Annotated[Path, typer.Argument(metavar="RUN", help="A run's folder.", show_default=False)],
    second: Annotated[Path, typer.Argument(metavar="RUN", help="Another's.", show_default=False)],
    debug: Debug = False,
) -> None:
    """Print two runs side by side, with DeLong's paired test of their image AUROC."""
    from harness.cli import reports as commands

    _guard(lambda: commands.compare(first, second), debug)


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
        typer.Option("--csv", help="File for the rows; default: standard output, with --out predictions.csv there."),
    ] = None,
    batch: Annotated[int, typer.Option("--batch", min=1, help="Images that the network sees at a time.")] = 8,
    device: Device = "auto",
    recursive: Annotated[bool, typer.Option("--recursive", help="Take what is below a folder too.")] = False,
    maps: Annotated[
        str, typer.Option("--map", help="tiff: raw values; png: 16 bits, 32768 at the pixel threshold.")
    ] = "tiff",
    category: Category = None,
    trust: Trust = False,
    max_pixels: Annotated[
        int | None,
        typer.Option("--max-pixels", min=1, help="Of an image. Default: 100 million."),
    ] = None,
    debug: Debug = False,
) -> None:
    """Judge images with the model of a run: a CSV row an image, and with --out its pictures."""
    from harness.cli import inference as commands

    _guard(
        lambda: commands.predict(run, images, out, csv, batch, device, recursive, maps, category, trust, max_pixels),
        debug,
    )


@app.command()
def export(
    run: Run,
    chosen: Annotated[str, typer.Option("--format", help="torchscript, onnx or openvino.", show_default=False)],
    out: Annotated[
        Path | None,
        typer.Option("--out", help="The file; default: exported/model.<suffix> in the run's folder."),
    ] = None,
    check: Annotated[
        list[str] | None,
        typer.Option("--check", help="Images to check it on; default: test images of the run."),
    ] = None,
    category: Category = None,
    trust: Trust = False,
    debug: Debug = False,
) -> None:
    """Write a run's model with everything around it to one file for other programs, and check it against the run."""
    from harness.cli import inference as commands

    _guard(lambda: commands.export(run, chosen, out, check or [], category, trust), debug)


@app.command()
def submit(
    runs: Annotated[
        list[Path],
        typer.Argument(metavar="RUN...", help="Folders of runs, or of sweeps (their best).", show_default=False),
    ],
    out: Annotated[Path, typer.Option("--out", help="The file.")] = Path("submission.csv"),
    debug: Debug = False,
) -> None:
    """Write what classifications call their test images, averaged, in the form of the sample submission."""
    from harness.cli import ensemble as commands

    _guard(lambda: commands.submit(runs, out), debug)


@app.command()
def blend(
    config: Annotated[Path, typer.Argument(help="The blend's YAML file.", show_default=False)],
    out: Annotated[Path | None, typer.Option("--out", help="Write a submission too.")] = None,
    device: Device = "auto",
    debug: Debug = False,
) -> None:
    """Put classifications together: averages, then rules, each with macro F1 before and after."""
    from harness.cli import ensemble as commands

    _guard(lambda: commands.blend(config, out, device), debug)


@app.command()
def demo(
    results: Annotated[Path, typer.Argument(metavar="[RESULTS]", help="Folder of result folders.")] = Path("results"),
    port: Annotated[int, typer.Option("--port", min=1024, max=65535, help="Of localhost.")] = 8501,
    no_browser: Annotated[bool, typer.Option("--no-browser", help="Do not open the page.")] = False,
    debug: Debug = False,
) -> None:
    """Open a web page, on this machine only: a run judges dropped images, or a few good ones make a new run."""
    from harness.demo.launch import serve

    _guard(lambda: serve(results, port, not no_browser), debug)


@app.command()
def weights(
    backbones: Annotated[list[str] | None, typer.Argument(help="timm names; default: those of the configs.")] = None,
    folder: Annotated[Path, typer.Option("--weights", help="Folder to look in.")] = Path("weights"),
    debug: Debug = False,
) -> None:
    """List where each backbone's weights would come from, with their hash."""
    from harness.cli import inventory as commands

    _guard(lambda: commands.weights(backbones or [], folder), debug)


@app.command()
def init(
    folder: Annotated[
        Path | None,
        typer.Argument(metavar="[DIR]", help="A folder of images; without one the sample configs are written."),
    ] = None,
    debug: Debug = False,
) -> None:
    """Write a commented config for your images, or the sample configs to configs/."""
    from harness.cli import start as commands

    _guard(lambda: commands.init(folder), debug)


@app.command()
def models(
    markdown: Annotated[bool, typer.Option("--markdown", help="For a page, without what is on this machine.")] = False,
    debug: Debug = False,
) -> None:
    """List all detectors: how they train, which sizes they take, what they need and whether it is here."""
    from harness.cli import inventory as commands

    _guard(lambda: commands.models(markdown), debug)


@app.command("make-data")
def make_data(
    folder: Annotated[Path, typer.Argument(help="Where to write it.", show_default=False)],
    seed: Annotated[int, typer.Option(min=0, help="Everything is drawn from it.")] = 0,
    size: Annotated[int, typer.Option(min=32, max=1024, help="Height and width in pixels.")] = 128,
    train: Annotated[
        int | None, typer.Option(min=2, help="Normal training images a category (100); labelled: in all (400).")
    ] = None,
    good: Annotated[int, typer.Option(min=1, help="Normal test images a category.")] = 30,
    bad: Annotated[int, typer.Option(min=1, help="Test images of each type of defect.")] = 10,
    labelled: Annotated[
        bool, typer.Option("--labelled", help="Labelled data for classification, in a competition's layout.")
    ] = False,
    debug: Debug = False,
) -> None:
    """Write the toy data as a normal folder of MVTec AD's shape, or labelled for classification."""
    from harness.cli import start as commands

    _guard(lambda: commands.make_data(folder, seed, size, train, good, bad, labelled), debug)


@app.callback(invoke_without_command=True)
def _version(
    version: Annotated[bool, typer.Option("--version", help="Print the version and end.", is_eager=True)] = False,
) -> None:
    if version:
        typer.echo(__version__)
        raise typer.Exit


def _guard(work: Callable[[], int], debug: bool) -> NoReturn:
    """Run a verb; expected errors become a line each and exit status 2."""
    try:
        # SIGTERM too leaves nothing half-written behind.
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
        # Whoever reads has had enough (`| head`): the status that a shell gives to programs that a closed pipe ends.
        # Python would complain once more when it ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = CLOSED_PIPE
    except OSError as error:
        # A full disk, a path that is too long, a folder that may not be read: not ours, and no bug.
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
    """Entry point."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A terminal whose encoding lacks a letter of a name shows its number, and the sweep goes on.
            stream.reconfigure(errors="backslashreplace")
    app()
