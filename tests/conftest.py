"""Shared fixtures: tiny real data, a fast backend, and the command line in this process."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import Result
from openpyxl import Workbook, load_workbook
from typer.testing import CliRunner

from harness import registry
from harness.cli.main import app
from harness.common import secrets
from harness.data.toy_images import write_toy
from harness.results.store import ResultFolder

# Workers of pytest share the processors, and tiny images gain nothing from threads. Torch reads both at its import.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("OMP_NUM_THREADS", "1")

ROOT = Path(__file__).resolve().parent.parent
# Real images and weights, where somebody put them beside the checkout; tests that need them skip otherwise.
SHARED = Path(os.environ.get("HARNESS_SHARED", ROOT.parent / "shared"))
HAZELNUT = SHARED / "data" / "hazelnut_reduced"
MOBILENET = SHARED / "weights" / "mobilenetv2_100.safetensors"

real_data = pytest.mark.skipif(
    not (HAZELNUT.is_dir() and MOBILENET.is_file()),
    reason=f"needs {HAZELNUT.name} and {MOBILENET.name} in {SHARED.name}/ beside the checkout",
)

Cli = Callable[..., Result]


def read_me(workbook: Workbook | Path) -> list[str]:
    """The sentences of the sheet *Read me*."""
    book = workbook if isinstance(workbook, Workbook) else load_workbook(workbook)
    return [str(row[1]) for row in book["Read me"].iter_rows(min_row=2, values_only=True)]


def pytest_addoption(parser: pytest.Parser) -> None:
    """An option for the tests on other versions of the dependencies."""
    parser.addoption("--first-of-each", action="store_true", help="run each test with its first parameters only")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the other parameters of each test, where the option asks for it."""
    if config.getoption("--first-of-each"):
        first = {item.nodeid.split("[")[0]: item for item in reversed(items)}
        items[:] = [item for item in items if first[item.nodeid.split("[")[0]] is item]


@pytest.fixture(autouse=True)
def _empty_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test runs in a folder of its own, without a hub."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


@pytest.fixture(autouse=True)
def _no_secrets_of_other_tests(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process conceals what its configs took from the environment; a test is a process of its own."""
    monkeypatch.setattr(secrets, "_remembered", {})


@pytest.fixture(scope="session")
def toy_tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny tree of MVTec AD's shape with one category, "plate"."""
    root = tmp_path_factory.mktemp("toy")
    write_toy(root, categories=["plate"], size=64, train=8, good=4, bad=2)
    return root


@pytest.fixture(scope="session")
def sweep_folder(tmp_path_factory: pytest.TempPathFactory) -> ResultFolder:
    """A finished sweep with everything in it; not to be changed: copy it."""
    from tests.fake_results import make_results

    return make_results(tmp_path_factory.mktemp("sweep"))


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory, toy_tree: Path) -> ResultFolder:
    """A finished sweep of small real models of both backends, all kept; not to be changed: copy it."""
    from tests.trained import train

    return train(tmp_path_factory.mktemp("trained"), toy_tree)


@pytest.fixture(scope="session")
def classified(tmp_path_factory: pytest.TempPathFactory) -> ResultFolder:
    """A finished sweep of three small classifications, all kept; not to be changed: copy it."""
    from tests.classified import classify

    return classify(tmp_path_factory.mktemp("classified"))


@pytest.fixture
def cli() -> Cli:
    """Run the command line in this process: `cli("sweep", config, ...)`."""

    def run(*arguments: object) -> Result:
        return CliRunner().invoke(app, [str(argument) for argument in arguments])

    return run


@pytest.fixture
def dummy(monkeypatch: pytest.MonkeyPatch) -> Iterator[type]:
    """Register the backend of tests/dummy.py; gives its class."""
    from tests.dummy import DummyBackend

    monkeypatch.setitem(registry.BACKENDS, "dummy", "tests.dummy:DummyBackend")
    DummyBackend.runs.clear()
    DummyBackend.before_run = None
    yield DummyBackend
    DummyBackend.before_run = None


def write_config(path: Path, text: str) -> Path:
    """Write a YAML file."""
    path.write_text(text)
    return path
