"""A result folder as one zip file to send: page, workbook, tables, config and pictures, without models."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from pathlib import Path

from harness.common.files import replacement
from harness.report.results import Results
from harness.results.gallery import FOLDER
from harness.results.record import RunRecord
from harness.results.store import REPORT_FILES, RUNS

LIMIT = 20_000_000  # bytes, which most mail servers accept
ROOM = 200_000  # bytes of the zip file's own directory
LETTER = "READ-ME.txt"


def write_pack(results: Results, out: Path, limit: int = LIMIT) -> list[str]:
    """Write the zip file. Pictures of the best runs come first, until the file would be too large.

    Args:
        results: of a folder with its reports.
        out: the new file; its folder exists. An old file stays until the new one is complete.
        limit: largest size of the file in bytes.

    Returns:
        Sentences about the content.

    Raises:
        StoreError: the file can't be written.
    """
    root = results.folder.root
    top = root.resolve().name
    with replacement(out) as scratch, zipfile.ZipFile(scratch, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in _reports(results):
            archive.write(file, f"{top}/{file.relative_to(root).as_posix()}")
        packed = missing = 0
        for file in _pictures(results):
            # JPEG files do not get smaller.
            if archive.fp is not None and archive.fp.tell() + file.stat().st_size + ROOM > limit:
                missing += 1
                continue
            archive.write(file, f"{top}/{file.relative_to(root).as_posix()}", zipfile.ZIP_STORED)
            packed += 1
        sentences = [f"{packed} pictures, no models."]
        if missing:
            sentences.append(f"{missing} pictures were left out: the limit is {limit / 1e6:.0f} MB.")
        archive.writestr(f"{top}/{LETTER}", "\n".join(["Open report.html in a browser.", *sentences, ""]))
    return sentences


def _reports(results: Results) -> Iterator[Path]:
    folder = results.folder
    yield from filter(
        _is_plain, (folder.report, folder.workbook, folder.results_csv, folder.summary_csv, folder.config)
    )
    yield from filter(_is_plain, sorted((folder.root / REPORT_FILES).glob("*")))
    yield from filter(_is_plain, sorted((folder.root / REPORT_FILES / RUNS).glob("*.js")))


def _pictures(results: Results) -> Iterator[Path]:
    for record in sorted(results.ok(), key=RunRecord.rank, reverse=True):
        pictures = results.folder.run_folder(record.run_id) / FOLDER
        if not pictures.is_symlink():
            yield from filter(_is_plain, sorted(pictures.glob("*.jpg")))


def _is_plain(path: Path) -> bool:
    """Whether the path is a file of the folder itself. A link may lead to any file of this machine."""
    return path.is_file() and not path.is_symlink()
