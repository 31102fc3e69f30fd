"""The page report.html and the files that it loads; templates and scripts lie in page/."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from importlib.resources import files
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import jinja2

from harness.common.errors import StoreError
from harness.common.files import write_atomic
from harness.report.glossary import glossary, pieces, used
from harness.report.model_styles import styles_for_scripts
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


def write_single(results: Results, file: Path) -> None:
    """Write the page as one file with all plots, which needs neither other files nor a network. It has no pictures.

    Args:
        results: of the result folder.
        file: the new file; its folder exists.

    Raises:
        StoreError: the file can't be written.
    """
    write_atomic(file, build_page(results, single=True))


def build_page(results: Results, single: bool = False) -> str:
    """The HTML of the page, including data, styles and scripts.

    Args:
        results: of the result folder.
        single: whether the page also holds Plotly and the details of all runs.
    """
    page = files("harness.report") / "page"
    part = task_report(results).page(results)
    data = {**part.data, "single": single, "styles": styles_for_scripts()}
    templates = jinja2.FunctionLoader(lambda name: (page / name).read_text(encoding="utf-8"))
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, loader=templates)
    environment.globals |= {"pieces": pieces, "used": used, "glossary": glossary}
    search_report = SearchReport.of(results)
    search = ""
    if search_report is not None:
        data = {**data, "search": (search_data := search_report.page())}
        search = environment.get_template("search.html").render(search_data)
    notices = part.context["notices"]
    return environment.get_template(part.template).render(
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
        single=single,
        plotly=f"{REPORT_FILES}/plotly.min.js",
        plotly_source=_plotly().decode() if single else "",
        run_details=_details(results) if single else [],
        workbook=results.folder.workbook.name,
        # The header has the first words of the first notice, so that nobody misses it below the answer.
        lead=re.split(r"[:.](?:\s|$)", notices[0])[0] if notices else "",
        **part.context,
    )


def as_script(data: Any) -> str:
    """JSON for a script element: no text in the data can end the element."""
    return json.dumps(data, allow_nan=False).replace("<", "\\u003c")


def _copy_plotly(target: Path) -> None:
    """Copy Plotly's script from the installed package, unless it is there."""
    script = target / "plotly.min.js"
    if not script.is_file():
        replace_file(script, _plotly())


def _plotly() -> bytes:
    return (files("plotly") / "package_data" / "plotly.min.js").read_bytes()


def _details(results: Results) -> list[str]:
    """The scripts that a page loads when a reader opens a run."""
    with TemporaryDirectory() as name:
        task_report(results).write_details(results, Path(name))
        return [file.read_text(encoding="utf-8") for file in sorted(Path(name).glob("*.js"))]


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
