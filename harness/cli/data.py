"""The command `data`: what a folder contains, and the `data:` block for it. Returns the exit status."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from harness.common.errors import DataError
from harness.common.terminal import terminal
from harness.config.first import data_lines
from harness.data.detect import detect, options_of, wrong_names
from harness.data.survey import Survey, survey

SHOWN = 3  # sizes and modes that the terminal lists


def data(folder: Path) -> int:
    """Look at a folder, and print its kind, its content and its `data:` block.

    Args:
        folder: of images.

    Raises:
        DataError: no kind recognises the folder, or its files have problems. The content comes first.
    """
    keys = detect(folder, "data")
    content = survey(options_of(keys), Path())
    console = terminal()
    _print_content(console, folder, keys, content)
    if hint := wrong_names(folder, keys["kind"], content.categories):
        console.print(f"[yellow]{escape(hint)}[/]", highlight=False, soft_wrap=True)
    console.print("\ndata:", highlight=False)
    for line in data_lines(keys, content.categories):
        console.print(f"  {escape(line)}", highlight=False, soft_wrap=True)
    if content.problems:
        raise DataError(list(content.problems))
    return 0


def _print_content(console: Console, folder: Path, keys: Mapping[str, Any], content: Survey) -> None:
    named = [name for name in content.categories if name]
    categories = f", {len(named)} categor{'y' if len(named) == 1 else 'ies'}" if named else ""
    console.print(f"[bold]{escape(str(folder))}[/]: kind {keys['kind']}{categories}", highlight=False, soft_wrap=True)
    table = Table(box=None, pad_edge=False)
    for name in ("category", "part", "type", "images", "with mask"):
        table.add_column(name, justify="right" if name in {"images", "with mask"} else "left")
    for part in content.parts:
        table.add_row(escape(part.category), part.role, escape(part.defect), str(part.images), str(part.masks or ""))
    console.print(table)
    missing = sum(
        part.images - part.masks for part in content.parts if part.role == "test" and part.defect not in {"good", ""}
    )
    masks = sum(part.masks for part in content.parts)
    console.print(f"masks: {masks} anomalous test images with a mask, {missing} without", highlight=False)
    sizes = Counter({f"{width} x {height}": count for (width, height), count in content.sizes.items()})
    console.print(f"sizes of {content.headers} images: {_most(sizes)}", highlight=False)
    console.print(f"modes of {content.headers} images: {_most(content.modes)}", highlight=False)
    for note in content.notes:
        console.print(escape(note), highlight=False, soft_wrap=True)


def _most(counter: Counter[str]) -> str:
    """The most common values with their numbers."""
    shown = [f"{value} ({count})" for value, count in counter.most_common(SHOWN)]
    return ", ".join(shown) + (f" and {len(counter) - SHOWN} more" if len(counter) > SHOWN else "")
