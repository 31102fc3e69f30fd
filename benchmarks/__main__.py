"""`python -m benchmarks NAME [--quick]`: runs one measurement, prints a table, writes benchmarks/results/NAME.json."""

from __future__ import annotations

import argparse
import json
import platform
from importlib import import_module
from pathlib import Path

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
    "memory",
    "metrics",
    "overhead",
    "predict",
    "probe",
    "recipes",
    "report",
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
    arguments = parser.parse_args()
    if arguments.name == README:
        for file in sorted(RESULTS.parent.glob("*.md")):
            file.write_text(page(file))
        return
    try:
        result = import_module(f"benchmarks.{arguments.name}").measure(arguments.quick)
    except HarnessError as error:
        raise SystemExit(f"error: {error}") from error
    print(json.dumps(result, indent=2))
    if not arguments.quick:
        RESULTS.mkdir(exist_ok=True)
        machine = {key: provenance()[key] for key in ("cpu", "cores", "packages", "python")}
        text = json.dumps({"machine": {**machine, "system": platform.system()}, **result}, indent=2)
        (RESULTS / f"{arguments.name}.json").write_text(text + "\n")


if __name__ == "__main__":
    main()
