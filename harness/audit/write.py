"""The files of an audit: audit.html, audit.xlsx, audit.csv, and exclude.txt for each data set."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd
from openpyxl import Workbook
from PIL import Image

from harness.audit.audit import Audit, first_to_look_at
from harness.audit.finding import KINDS, Finding
from harness.audit.images import AuditImage
from harness.common.files import make_folder, write_atomic
from harness.common.tables import csv_text
from harness.report.read_me import NOTICE, sheet_of
from harness.report.sheets import Sheet, add_sheet

PAGE, BOOK, TABLE, EXCLUDE = "audit.html", "audit.xlsx", "audit.csv", "exclude.txt"
DATASET = "data_set"  # column of an audit over several data sets
COLUMNS = ("kind", DATASET, "image", "role", "label", "other_image", "other_role", "value", "exclude", "reason")
NOTE = "note"  # in the column `kind`
SHOWN = 48  # pictures of a section of the page
FIRST = "highest scores"
HEAD = """\
# Images that `python -m harness audit` proposes to leave out{dataset}. Use this file at {key}.exclude.
# The findings in lines that begin with "# " need your judgement. Remove the mark to leave an image out.
"""


def write_audit(folder: Path, result: Audit) -> list[Path]:
    """Replace the files of an audit.

    Args:
        folder: for the files; made where it is missing.
        result: the audit.

    Returns:
        The paths of the files.

    Raises:
        StoreError: a file can't be written.
    """
    make_folder(folder, "output", " Choose another with --output.")
    contents: dict[str, str | bytes] = {
        PAGE: page_of(result),
        BOOK: book_of(result),
        TABLE: csv_text([columns_of(result), *table_of(result)]),
        **{file: exclude_of(result, dataset) for dataset, file in exclude_files(result).items()},
    }
    for name, content in contents.items():
        write_atomic(folder / name, content)
    return [folder / name for name in contents]


def exclude_files(result: Audit) -> dict[str, str]:
    """The name of the file with proposals for each data set: exclude.txt, or exclude-0.txt for data[0] ..."""
    if len(result.datasets) == 1:
        return {result.datasets[0]: EXCLUDE}
    stem, suffix = EXCLUDE.split(".")
    return {dataset: f"{stem}-{position}.{suffix}" for position, dataset in enumerate(result.datasets)}


def columns_of(result: Audit) -> list[str]:
    """The columns of the findings."""
    return [name for name in COLUMNS if name != DATASET or len(result.datasets) > 1]


def table_of(result: Audit) -> list[list[Any]]:
    """The rows of audit.csv: the findings, then the notes."""
    notes = [{"kind": NOTE, "reason": sentence} for sentence in result.notes]
    return [[row.get(name, "") for name in columns_of(result)] for row in (*rows_of(result), *notes)]


def rows_of(result: Audit) -> list[dict[str, Any]]:
    """A row for each finding, with the columns `COLUMNS`."""
    return [
        {
            "kind": one.kind,
            DATASET: one.image.dataset,
            "image": one.image.name,
            "role": one.image.role,
            "label": one.image.label,
            "other_image": one.other.name if one.other else "",
            "other_role": one.other.role if one.other else "",
            "value": one.value,
            "exclude": "yes" if one.exclude else "",
            "reason": one.reason,
        }
        for one in result.findings
    ]


def exclude_of(result: Audit, dataset: str = "") -> str:
    """The content of exclude.txt: proposals, then the other findings as comments.

    Args:
        result: the audit.
        dataset: name of the data set; empty for the only one.
    """
    proposed = result.excluded(dataset)
    # A name that begins with the mark of a comment would be none.
    lines = [f"[#]{name[1:]}" if name.startswith("#") else name for name in proposed]
    for kind in KINDS:
        images = (one.image for one in result.of_kind(kind))
        names = sorted({image.name for image in images if image.dataset == dataset} - set(proposed))
        lines += [f"# {kind}:", *(f"# {name}" for name in names)] if names else []
    key = f"data[{result.datasets.index(dataset)}]" if dataset else "data"
    head = HEAD.format(dataset=f" of {dataset}" if dataset else "", key=key)
    return head + "".join(f"{line}\n" for line in lines)


def book_of(result: Audit) -> bytes:
    """The workbook: findings, and the scores of all scored images."""
    book = Workbook()
    book.remove(book.worksheets[0])
    notices = [*result.notes, *result.summary()]
    findings = pd.DataFrame(rows_of(result), columns=columns_of(result))
    add_sheet(book, Sheet("Audit", findings, notices, frozen=2, empty="nothing unusual found"))
    add_sheet(book, sheet_of([(NOTICE, sentence) for sentence in notices]))
    scored = [(image, value) for pairs in (result.scored.train, result.scored.test) for image, value in pairs]
    rows = [(image.dataset, image.name, image.role, image.label, value) for image, value in scored]
    frame = pd.DataFrame(rows, columns=[DATASET, "image", "role", "label", "score"]).sort_values(
        ["role", "score"], ascending=[False, False], ignore_index=True
    )
    if len(result.datasets) == 1:
        frame = frame.drop(columns=DATASET)
    add_sheet(book, Sheet("Scores", frame, scaled=["score"], falling=["score"], format="0.000", empty="no scores"))
    stream = io.BytesIO()
    book.save(stream)
    return stream.getvalue()


def page_of(result: Audit) -> str:
    """The page with pictures; it needs no other file and no network."""
    style = (files("harness.report") / "page" / "style.css").read_text(encoding="utf-8")
    text = (files("harness.audit") / "page" / "audit.html").read_text(encoding="utf-8")
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    sections = [_section(kind, KINDS[kind], result.of_kind(kind), result) for kind in KINDS if result.of_kind(kind)]
    if first := first_to_look_at(result.scored):
        findings = [Finding(FIRST, image, f"score {value:.3g}", value=value) for image, value in first]
        title = "The 5% of the training images that a detector of the others finds most anomalous."
        sections.append(_section(FIRST, title, findings, result))
    return environment.from_string(text).render(
        name=result.name,
        date=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        style=style,
        notes=result.notes,
        summary=result.summary(),
        sections=sections,
        exclude=exclude_files(result),
    )


def _section(kind: str, text: str, findings: Sequence[Finding], result: Audit) -> dict[str, Any]:
    cards = [_card(one, result) for one in findings[:SHOWN]]
    return {"kind": kind, "anchor": kind.replace(" ", "-"), "text": text, "count": len(findings), "cards": cards}


def _card(one: Finding, result: Audit) -> dict[str, Any]:
    images = [_shown(image, result) for image in (one.image, one.other) if image is not None]
    return {
        "name": one.image.name,
        "role": _role(one.image),
        "other": one.other.name if one.other else "",
        "other_role": _role(one.other) if one.other else "",
        "reason": one.reason,
        "images": [image for image in images if image],
    }


def _role(image: AuditImage) -> str:
    return ", ".join(filter(None, (image.dataset, image.role, image.label)))


def _shown(image: AuditImage, result: Audit) -> dict[str, str]:
    """A thumbnail inside the page; empty for an unreadable image."""
    thumb = result.thumbs.get(image.path)
    if thumb is None:
        return {}
    stream = io.BytesIO()
    Image.fromarray(thumb).save(stream, "JPEG", quality=85)
    return {"source": f"data:image/jpeg;base64,{base64.b64encode(stream.getvalue()).decode()}", "name": image.name}
