"""For pytest -p tests.knn_plugin: the detector of the guide is registered, so that every contract test runs over it."""

from __future__ import annotations

import atexit
import re
import shutil
import sys
import tempfile
from pathlib import Path

from harness import registry

GUIDE = Path(__file__).resolve().parents[1] / "docs" / "extending.md"


def guide_source() -> str:
    """The first Python block of the guide that defines a detector."""
    blocks = re.findall(r"```python[^\n]*\n(.*?)```", GUIDE.read_text(), flags=re.DOTALL)
    return next(block for block in blocks if "(Detector)" in block)


folder = tempfile.mkdtemp(prefix="knn-")
atexit.register(shutil.rmtree, folder, ignore_errors=True)
Path(folder, "guide_knn.py").write_text(guide_source())
sys.path.insert(0, folder)
registry.DETECTORS["knn"] = "guide_knn:KNN"
