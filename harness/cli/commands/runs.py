"""Commands that train and test models, or plan it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated

import typer

from harness import registry
from harness.cli.guard import guard
from harness.cli.options import (
    Address,
    Config,
    Cpus,
    Debug,
    Gpus,
    Jobs,
    Memory,
    NoCheck,
    Output,
    Overrides,
    Retries,
    ShipData,
    Verbose,
)


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
    guard(lambda: commands.sweep(config, overrides or [], output, limit, fresh, retry_failed, verbose, launch), debug)


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
    guard(lambda: commands.tune(config, overrides or [], output, retry_failed, verbose, launch), debug)


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
    guard(lambda: commands.run(method, backend, data, options, parameters or [], fresh, verbose), debug)


def audit(
    data: Annotated[
        Path,
        typer.Argument(
            metavar="CONFIG|DIR", help="A sweep's YAML file, or a folder that `data` recognises.", show_default=False
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
    guard(lambda: commands.audit(data, overrides or [], output, not no_model, options), debug)


def plan(
    config: Config,
    overrides: Overrides = None,
    output: Output = None,
    no_check: NoCheck = False,
    debug: Debug = False,
) -> None:
    """Print the runs of a sweep, the number of equal points, and the runs that are done."""
    from harness.cli import sweep as commands

    guard(lambda: commands.plan(config, overrides or [], output, not no_check), debug)


COMMANDS: Mapping[str, Callable[..., None]] = {
    "sweep": sweep,
    "tune": tune,
    "run": run,
    "audit": audit,
    "plan": plan,
}
