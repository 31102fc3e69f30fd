"""`python -m benchmarks NAME [--quick]`: runs one measurement, prints a table, writes benchmarks/results/NAME.json.

`python -m benchmarks all --quick` runs every measurement with small inputs, two at a time, to show that all of them
work.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from pathlib import Path
from typing import Any

from benchmarks.tables import page
from harness.common.errors import HarnessError
from harness.results.provenance import provenance

ALL = "all"
AT_ONCE = 2  # measurements with small inputs
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
    "neighbours",
    "overhead",
    "predict",
    "probe",
    "reading",
    "recipes",
    "report",
    "scale",
    "scale_data",
    "scaling",
    "sweep",
    "trust",
    "warm",
    "with_detector",
)
RESULTS = Path(__file__).parent / "results"


def main() -> None:
    """Parse, measure, print, write."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "name",
        choices=(*NAMES, ALL, README),
        help=f"{ALL}: every measurement, with --quick; {README}: bring benchmarks/*.md up to date",
    )
    parser.add_argument("--quick", action="store_true", help="fewer repetitions, smaller inputs; nothing is written")
    parser.add_argument("--only", nargs="+", metavar="TABLE", help="these tables; the other tables keep their figures")
    arguments = parser.parse_args()
    if arguments.name == README:
        for file in sorted(RESULTS.parent.glob("*.md")):
            file.write_text(page(file))
        return
    if arguments.name == ALL:
        if not arguments.quick:
            parser.error(f"{ALL}: expected --quick, since the whole measurements take hours. Name one measurement.")
        raise SystemExit(_run_all())
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


def _run_all() -> int:
    """Run each measurement in a process of its own, two at a time. One that fails does not stop the others.

    Their seconds say how long each takes here, and nothing about the harness.

    Returns:
        The exit status: 1 if a measurement failed.
    """
    with ThreadPoolExecutor(AT_ONCE) as pool:
        return int(not all(list(pool.map(_works, NAMES))))


def _works(name: str) -> bool:
    """Run a measurement with small inputs, and print its seconds and its errors."""
    begin = time.perf_counter()
    command = [sys.executable, "-m", "benchmarks", name, "--quick"]
    threads = {"OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // AT_ONCE))}
    process = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | threads)
    failed = process.returncode != 0
    print(f"{name:16}{time.perf_counter() - begin:6.0f} s{'  failed' if failed else ''}", flush=True)
    if failed:
        print(process.stderr, file=sys.stderr)
    return not failed


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
