"""The detector of the contributor's guide (docs/extending.md) does what the guide promises."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from tests.conftest import ROOT

CONTRACTS = (
    "tests/detectors/test_contract.py",
    "tests/detectors/test_reproducible.py",
    "tests/export/test_export.py",
    "tests/inference/test_inference.py",
    "tests/backends/test_native.py",
)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_detector_of_the_guide_keeps_all_contracts() -> None:
    """In a process of its own, where the detector is registered before the tests are collected."""
    code = "from tests.knn_plugin import guide_source; print(len(guide_source().splitlines()))"
    lines = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert int(lines.stdout) < 80
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "tests.knn_plugin"]
    command += ["-m", "slow or not slow", "-k", "knn or (says_alone and None)", *CONTRACTS]
    process = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stdout[-4000:]
    passed = re.search(r"(\d+) passed", process.stdout)
    assert passed is not None
    assert int(passed[1]) >= 14
