"""The sheet Misses: small pictures of missed defects and of false alarms of the best runs."""

from __future__ import annotations

import io
from collections.abc import Sequence
from itertools import islice
from math import ceil
from typing import Any

from openpyxl import Workbook
from openpyxl.drawing.image import Image as SheetImage
from openpyxl.styles import Alignment
from openpyxl.utils import get_column_letter
from PIL import Image

from harness.common.errors import HarnessError
from harness.data.images import read
from harness.report.cells import HEADER, bold, write
from harness.report.facts import category
from harness.report.results import Results
from harness.report.sheets import LINE_HEIGHT, landscape_sheet
from harness.results.record import RunRecord

RUNS = 24  # rows at most
IMAGES = 3  # of each run
PIXELS = 4_000_000  # limit of a picture file; the harness writes far smaller ones
HEIGHT = 128  # pixels of a picture
WIDEST = 8 * HEIGHT  # pixels
WIDTH = 4 * HEIGHT // 7 + 2  # characters of a column of pictures: four squares
POINTS = 0.75  # of one pixel
CAPTION = 18  # points of a line under a picture
WRONG = ("missed", "false-alarm")


def add_misses(book: Workbook, results: Results) -> None:
    """Append the sheet, unless no run has pictures of wrong predictions.

    Args:
        book: the workbook.
        results: of the result folder.
    """
    candidates = ((name, run, entries) for name, run in _best_runs(results) if (entries := _worst(results, run)))
    rows = list(islice(candidates, RUNS))
    if not rows:
        return
    sheet = landscape_sheet(book, "Misses")
    titles = ["category", "run", *(f"{number}. worst: image, map, mask, outline" for number in range(1, IMAGES + 1))]
    for position, title in enumerate(titles, 1):
        cell = write(sheet, 1, position, title)
        cell.font, cell.fill = bold("FFFFFF"), HEADER
        sheet.column_dimensions[get_column_letter(position)].width = WIDTH if position > 2 else 26
    sheet.freeze_panes = "C2"
    for number, (name, run, entries) in enumerate(rows, 2):
        lines = name.count("\n") + 1
        captions = [_caption(run, entry) for entry in entries]
        below = max(ceil(len(caption) / WIDTH) for caption in captions) * CAPTION
        sheet.row_dimensions[number].height = max(HEIGHT * POINTS + below, lines * LINE_HEIGHT)
        write(sheet, number, 1, category(run)).alignment = Alignment(vertical="top")
        write(sheet, number, 2, name).alignment = Alignment(vertical="top", wrap_text=True)
        for position, (entry, caption) in enumerate(zip(entries, captions, strict=True), 3):
            write(sheet, number, position, caption).alignment = Alignment(vertical="bottom", wrap_text=True)
            picture = _thumbnail(results, run, entry)
            if picture is not None:
                sheet.add_image(picture, f"{get_column_letter(position)}{number}")


def _best_runs(results: Results) -> list[tuple[str, RunRecord]]:
    """The best run of each category for the best configuration of each model, then for the second best ..."""
    ranked: list[tuple[int, str, RunRecord]] = []
    for of_dataset in results.configurations.values():
        counts: dict[tuple[str, str], int] = {}
        for configuration in of_dataset:
            rank = counts[configuration.model] = counts.get(configuration.model, 0) + 1
            if rank > RUNS:
                continue
            ranked += [
                (rank, configuration.label, max(runs, key=RunRecord.rank))
                for runs in configuration.by_category.values()
            ]
    return [(name, run) for _, name, run in sorted(ranked, key=lambda item: item[0])]


def _worst(results: Results, run: RunRecord) -> Sequence[dict[str, Any]]:
    return [entry for entry in results.details(run.run_id).get("gallery", []) if entry["role"] in WRONG][:IMAGES]


def _caption(run: RunRecord, entry: dict[str, Any]) -> str:
    threshold = run.thresholds.get("image")
    limit = "" if threshold is None else f" (threshold {threshold:.3g})"
    return f"{entry['role']}: {entry['name']}, {entry['score']:.3g}{limit}"


def _thumbnail(results: Results, run: RunRecord, entry: dict[str, Any]) -> SheetImage | None:
    """A small picture; None where its file is missing, lies outside the run's folder, or can't be read."""
    folder = results.folder.run_folder(run.run_id)
    try:
        file = (folder / entry["file"]).resolve()
        if not file.is_relative_to(folder.resolve()):
            return None
        pixels = read(file, PIXELS).pixels
    except (HarnessError, OSError):
        return None
    picture = Image.fromarray(pixels)
    size = (min(WIDEST, max(1, round(HEIGHT * picture.width / picture.height))), HEIGHT)
    # Means of whole pixels come first, which takes an eighth of the time.
    small = picture.resize(size, reducing_gap=1.0)
    data = io.BytesIO()
    small.save(data, "JPEG", quality=80)
    data.seek(0)
    return SheetImage(data)
