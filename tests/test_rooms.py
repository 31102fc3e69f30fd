"""The folders of `harness/` are rooms: each imports from those below it only, and no module imports in a circle."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from tests.conftest import ROOT

# From the top down. A module may import from its own room and from rooms further down.
ROOMS = (
    "cli",
    "demo",
    "ensemble",
    "export",
    "analysis",
    "inference",
    "search",
    "audit",
    "execution",
    "report",
    "planning",
    "tracking",
    "tasks",
    "backends",
    "results",
    "detectors",
    "config",
    "backbones",
    "metrics",
    "predictions",
    "data",
    "common",
)


def modules(root: Path) -> dict[str, Path]:
    """Name -> file of every module below `root`/harness."""
    files = {}
    for file in sorted((root / "harness").rglob("*.py")):
        parts = file.relative_to(root).with_suffix("").parts
        files[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = file
    return files


def imports(name: str, known: dict[str, Path], at_run_time: bool) -> Iterator[str]:
    """Modules of the project that a module imports; `at_run_time` leaves out those that only types need."""
    tree = ast.parse(known[name].read_text())
    skipped = {
        id(node)
        for check in ast.walk(tree)
        if at_run_time and isinstance(check, ast.If) and ast.unparse(check.test) == "TYPE_CHECKING"
        for node in ast.walk(check)
    }
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in known)
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                if inner in known or node.module in known:
                    yield inner if inner in known else node.module


def test_every_folder_is_a_room() -> None:
    folders = {path.parent.name for path in (ROOT / "harness").glob("*/*.py")}
    assert folders == set(ROOMS)
    loose = {path.name for path in (ROOT / "harness").glob("*.py")}
    assert loose == {"__init__.py", "__main__.py", "registry.py"}


def test_no_arrow_leads_up() -> None:
    known = modules(ROOT)
    up = []
    for name in known:
        room = name.split(".")[1] if "." in name else ""
        if room not in ROOMS:
            continue
        for other in imports(name, known, at_run_time=False):
            below = other.split(".")[1] if "." in other else ""
            if below in ROOMS and ROOMS.index(below) < ROOMS.index(room):
                up.append(f"{name} imports {other}")
    assert not up


def test_no_module_imports_in_a_circle() -> None:
    known = modules(ROOT)
    graph = {name: {other for other in imports(name, known, at_run_time=True) if other != name} for name in known}
    # A package's __init__ stands for what its users see; inside the package nobody imports it.
    try:
        order = list(TopologicalSorter(graph).static_order())
    except CycleError as error:
        pytest.fail(f"a circle: {' -> '.join(error.args[1])}")
    assert len(order) == len(known)
