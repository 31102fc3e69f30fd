"""A small finished sweep with everything in it, for tests of sheet and report: two categories, two seeds, a failure."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from harness import registry
from harness.cli import app
from harness.store import ResultFolder

CONFIG = """
name: {name}
seeds: [0, 1]
data: {{kind: toy, category: [plate, fabric], size: 64, train: 6, good: 4, bad: 2}}
weights: random
grid:
  - {{backend: dummy, model: mean, power: [1.0, 2.0, 3.0]}}
  - {{backend: dummy, model: plain}}
  - {{backend: dummy, model: mean, fail: true}}
"""


def make_results(root: Path, name: str = "demo") -> ResultFolder:
    """Run it with the backend of tests/dummy.py."""
    config = root / f"{name}.yaml"
    config.write_text(CONFIG.format(name=name))
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(registry.BACKENDS, "dummy", "tests.dummy:DummyBackend")
        done = CliRunner().invoke(app, ["sweep", str(config), "--output", str(root / "results")])
    assert done.exit_code == 1, done.output  # the runs that were asked to fail
    return ResultFolder(root / "results" / name)
