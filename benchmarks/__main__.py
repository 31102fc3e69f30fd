"""`python -m benchmarks NAME [--quick]`: runs one measurement, prints a table, writes benchmarks/results/NAME.json."""

from __future__ import annotations

import argparse
import json
import platform
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

from benchmarks.tables import page
from harness.common.errors import HarnessError
from harness.results.provenance import provenance

README = "readme"
NAMES = (
    "audit",
    "classify",
    "coreset",
    "inference",
    "launch",
    "learning_curve",
    "memory",
    "metrics",
    "modern",
    "overhead",
    "predict",
    "probe",
    "recipes",
    "report",
    "scale_data",
    "scaling",
    "sweep",
    "trust",
    "with_detector",
)
RESULTS = Path(__file__).parent / "results"


def main() -> None:
    """Parse, measure, print, write."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("name", choices=(*NAMES, README), help=f"{README}: bring benchmarks/*.md up to date")
    parser.add_argument("--quick", action="store_true", help="fewer repetitions, smaller inputs; nothing is written")
    parser.add_argument("--only", nargs="+", metavar="TABLE", help="these tables; the other tables keep their figures")
    arguments = parser.parse_args()
    if arguments.name == README:
        for file in sorted(RESULTS.parent.glob("*.md")):
            file.write_text(page(file))
        return
    module = import_module(f"benchmarks.{arguments.name}")
    tables = getattr(module, "TABLES", {})
    if unknown := set(arguments.only or ()) - set(tables):
        parser.error(f"--only: {', '.join(sorted(unknown))} found; expected tables of {', '.join(tables) or 'trust'}")
    try:
        for result in _results(module, tables, arguments.only, arguments.quick):
            print(json.dumps(result, indent=2), flush=True)
            if not arguments.quick:
                _write(RESULTS / f"{arguments.name}.json", result, keep=bool(tables))
    except HarnessError as error:
        raise SystemExit(f"error: {error}") from error


def _results(module: Any, tables: dict[str, Any], only: list[str] | None, quick: bool) -> Iterator[dict[str, Any]]:
    """The whole result; or one result for each table, so that a measurement that takes hours can be stopped."""
    if not tables:
        yield module.measure(quick)
    for name in only or tables:
        yield {name: tables[name](quick)}


def _write(file: Path, result: dict[str, Any], keep: bool) -> None:
    """Write a result with the facts of this machine.

    Args:
        file: of the benchmark.
        result: by table or by name.
        keep: whether the other tables of the file stay.
    """
    RESULTS.mkdir(exist_ok=True)
    before = json.loads(file.read_text()) if keep and file.is_file() else {}
    machine = {key: provenance()[key] for key in ("cpu", "cores", "packages", "python")}
    written = {**before, "machine": {**machine, "system": platform.system()}, **result}
    file.write_text(json.dumps({"machine": written.pop("machine"), **written}, indent=2) + "\n")


if __name__ == "__main__":
    main()
