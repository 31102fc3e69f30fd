"""The page report.html and the files that it loads; templates and scripts lie in page/."""

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
    """Replace report.html and the files that it loads.

    Args:
        folder: the result folder.
        results: its results; None to read the records first.

    Raises:
        StoreError: no record can be read, or the report can't be written.
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
    """The HTML of the page, including data, styles and scripts."""
    page = files("harness.report") / "page"
    part = task_report(results).page(results)
    data = part.data
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    search_report = SearchReport.of(results)
    search = ""
    if search_report is not None:
        data = {**data, "search": (search_data := search_report.page())}
        search = environment.from_string((page / "search.html").read_text(encoding="utf-8")).render(search_data)
    template = environment.from_string((page / part.template).read_text(encoding="utf-8"))
    return template.render(
        search=search,
        name=results.folder.root.resolve().name,
        date=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
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
    """JSON for a script element: no text in the data can end the element."""
    return json.dumps(data, allow_nan=False).replace("<", "\\u003c")


def _copy_plotly(target: Path) -> None:
    """Copy Plotly's script from the installed package, unless it is there."""
    script = target / "plotly.min.js"
    if not script.is_file():
        replace_file(script, (files("plotly") / "package_data" / "plotly.min.js").read_bytes())


def replace_file(file: Path, content: bytes) -> None:
    """Write a file whole or not at all.

    The content is not forced to the disk: that takes longer than another write after a crash.

    Args:
        file: the path.
        content: of the file.
    """
    scratch = file.with_suffix(".tmp")
    scratch.write_bytes(content)
    scratch.replace(file)
