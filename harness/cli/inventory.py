"""The commands `weights` and `models`, which list weights and detectors. Each returns the exit status."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

from rich.markup import escape

from harness.common.terminal import plain_table, terminal
from harness.execution.log_capture import capture_logs

NAMED_BACKBONES = ("resnet18", "resnet50", "wide_resnet50_2", "tf_efficientnet_b7", "cspdarknet53")


def weights(backbones: Sequence[str], folder: Path) -> int:
    """Print source, hash and file of the weights of each backbone.

    Args:
        backbones: timm names; empty for those of the sample configs, of packages and of the folder.
        folder: with files of weights.

    Raises:
        ConfigError: timm does not know a backbone.
    """
    from harness.backbones.local import file_name, find_in, weight_files
    from harness.backbones.packages import installed, packaged_networks
    from harness.common.files import file_hash

    console = terminal()
    names = list(backbones or [*packaged_networks(), *NAMED_BACKBONES])
    if not backbones:
        # Without names, the list has all files of the folder too.
        listed = {find_in(folder, name) for name in names}
        names += dict.fromkeys(file_name(path) for path in weight_files(folder) if path not in listed)
    with capture_logs(io.StringIO(), show=False):
        from harness.backbones.networks import known_backbone
        from harness.backbones.resolve import cached

        for name in backbones:
            known_backbone(name)
    table = plain_table(("backbone", "source", "sha256", "file"), fold=True)
    for name in names:
        local, package, hub = find_in(folder, name), installed(name), cached(name)
        path, source = (
            (local, f"{folder}/")
            if local
            else (package.file, f"package {package.package} {package.version}")
            if package
            else (hub, "hub cache")
            if hub
            else (None, "none on this machine")
        )
        table.add_row(name, source, file_hash(path)[:12] if path else "", escape(str(path)) if path else "")
    console.print(table)
    console.print(f"To add one: put a state dict of the network at {folder}/<backbone>.safetensors (or .pth, .pt).")
    return 0


def models(markdown: bool) -> int:
    """Print a table of all detectors; as Markdown without marks of this machine's files."""
    console = terminal()
    with capture_logs(io.StringIO(), show=False):
        from harness.cli.catalogue import COLUMNS, detectors

        rows = detectors(marked=not markdown)
    if markdown:
        for row in (COLUMNS, ("---",) * len(COLUMNS), *rows):
            print("| " + " | ".join(cell.replace("\n", "<br>") for cell in row) + " |")
        return 0
    table = plain_table(COLUMNS, fold=True)
    for row in rows:
        table.add_row(*map(escape, row))
    console.print(table)
    console.print("Put a missing file at the named path. `python -m harness weights NAME` shows where weights are.")
    return 0
