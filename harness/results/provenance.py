"""Provenance of a result: versions, code and hardware. Package metadata has the versions, so no package is imported."""

from __future__ import annotations

import os
import platform
import subprocess
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import harness

PACKAGES = ("anomalib", "lightning", "torch", "torchvision", "timm", "numpy")


@cache
def provenance() -> dict[str, Any]:
    """Versions of the packages, git revision of a checkout, and the machine."""
    return {
        "harness": harness.__version__,
        "git": _git_revision(),
        "python": platform.python_version(),
        "packages": {name: installed_version(name) for name in PACKAGES},
        "system": platform.platform(terse=True),
        "cpu": _cpu(),
        "cores": os.cpu_count(),
    }


def installed_version(name: str) -> str | None:
    """The version of a package; None where the package is not installed."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _git_revision() -> str | None:
    """Commit of the checkout with this package; a '+' follows where the checkout has changes."""
    root = Path(__file__).resolve().parent.parent
    if not (root / ".git").exists():
        return None
    try:
        commit = _git(root, "rev-parse", "--short=12", "HEAD")
        changed = _git(root, "status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.SubprocessError):
        return None
    return commit + ("+" if changed else "")


def _git(root: Path, *arguments: str) -> str:
    process = ["git", "-C", str(root), *arguments]
    return subprocess.run(process, capture_output=True, text=True, timeout=10, check=True).stdout.strip()


def _cpu() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
