"""report.html: what a page needs, gathered; what it looks like lies in page/."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2

from harness.common.errors import StoreError
from harness.common.files import write_atomic
from harness.report.parts import task_report
from harness.report.results import Results
from harness.report.search import SearchReport
from harness.report.tables import environment_table, failures_table
from harness.results.store import REPORT_FILES, RUNS, ResultFolder


def write_report(folder: ResultFolder, results: Results | None = None) -> None:
    """Scan the records (unless they were just read) and replace report.html and what it loads.

    Raises:
        StoreError: a record or a run's files are damaged, or the report can't be written.
    """
    results = results or Results.of(folder)
    target = folder.root / REPORT_FILES
    with folder.workbook_lock():
        try:
            (target / RUNS).mkdir(parents=True, exist_ok=True)
            _copy_plotly(target)
            task_report(results).write_details(results, target / RUNS)
        except OSError as error:
            raise StoreError(f"{target}: can't be written ({error.strerror}).") from error
        write_atomic(folder.report, build_page(results))


def build_page(results: Results) -> str:
    """The page's HTML, with its data, styles and scripts in it."""
    page = files("harness.report") / "page"
    part = task_report(results).page(results)
    data = part.data
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    searched = SearchReport.of(results)
    search = ""
    if searched is not None:
        data = {**data, "search": (found := searched.page())}
        search = environment.from_string((page / "search.html").read_text(encoding="utf-8")).render(found)
    template = environment.from_string((page / part.template).read_text(encoding="utf-8"))
    return template.render(
        search=search,
        name=results.folder.root.resolve().name,
        made=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        runs=len(results.ok()),
        failed=len(results.failed()),
        skipped=len(results.skipped()),
        failures=failures_table(results).drop(columns="traceback").fillna("").to_dict("records"),
        environment=environment_table(results).to_dict("records"),
        config=results.folder.read_config(),
        style=(page / "style.css").read_text(encoding="utf-8"),
        script="\n".join((page / name).read_text(encoding="utf-8") for name in part.scripts),
        data=as_script(data),
        plotly=f"{REPORT_FILES}/plotly.min.js",
        workbook=results.folder.workbook.name,
        **part.context,
    )


def as_script(data: Any) -> str:
    """JSON that can stand in a script element: nothing in it can end the element."""
    return json.dumps(data, allow_nan=False).replace("<", "\\u003c")


def _copy_plotly(target: Path) -> None:
    """Plotly's script, from the installed package; once."""
    script = target / "plotly.min.js"
    if not script.is_file():
        replace_file(script, (files("plotly") / "package_data" / "plotly.min.js").read_bytes())


def replace_file(file: Path, content: bytes) -> None:
    """Write a file whole or not at all; not forced to the disk, which takes longer than making it again."""
    scratch = file.with_suffix(".tmp")
    scratch.write_bytes(content)
    scratch.replace(file)
