"""Options and arguments that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

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
