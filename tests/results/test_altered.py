"""Result folders that come from elsewhere: every value altered in every way, and every verb that reads them.

None may end in a traceback, write outside the folder, or keep the sound runs from being shown.
"""

from __future__ import annotations

import copy
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from harness.cli.main import app
from harness.common.errors import StoreError
from harness.demo.use import choices
from harness.report.run_files import read_details
from harness.results.run_folder import read_record
from harness.results.store import ResultFolder
from tests.conftest import write_config

CONFIG = """
name: altered
data: {{kind: mvtec, root: {root}, category: plate, val: 0.3}}
weights: random
latency: false
save_models: all
device: cpu
grid: {{backend: native, model: padim, backbone: resnet18, layers: [layer1], n_features: [5, 6], image_size: 64}}
"""
# All verbs on all values, which takes minutes.
EVERYTHING = "HARNESS_EVERYTHING" in os.environ
RAW = "@@"  # stands for what JSON has no value for
DAMAGES: dict[str, Any] = {
    "missing": ...,
    "null": None,
    "not a number": f"{RAW}NaN{RAW}",
    "beyond all numbers": f"{RAW}1e400{RAW}",
    "text": "text",
    "no text": "",
    "below zero": -1,
    "a large number": 2**70,
    "a list": [],
    "a mapping": {"x": [1]},
    "yes": True,
    "a path out, and no Unicode": f"../../../victim/x{RAW}\\ud800{RAW}",
}
Path_ = tuple[str | int, ...]


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory, toy_tree: Path) -> Path:
    return write_config(tmp_path_factory.mktemp("altered") / "altered.yaml", CONFIG.format(root=toy_tree))


@pytest.fixture(scope="module")
def sound(config: Path) -> ResultFolder:
    """Two finished runs; not to be changed."""
    result = CliRunner().invoke(app, ["sweep", str(config), "--output", str(config.parent / "made")])
    assert result.exit_code == 0, result.output
    return ResultFolder(config.parent / "made" / "altered")


def places(value: Any, path: Path_ = ()) -> Iterator[Path_]:
    """Every value in a JSON file; of a long list the first."""
    yield path
    if isinstance(value, dict):
        for key, item in value.items():
            yield from places(item, (*path, key))
    elif isinstance(value, list) and value:
        yield from places(value[0], (*path, 0))


def altered(values: Any, path: Path_, damage: Any) -> str:
    """The file's text with one value changed."""
    text = copy.deepcopy(values)
    if not path:
        text = None if damage is ... else damage
    else:
        holder = text
        for part in path[:-1]:
            holder = holder[part]
        if damage is ...:
            del holder[path[-1]]
        else:
            holder[path[-1]] = damage
    return json.dumps(text).replace(f'"{RAW}', "").replace(f'{RAW}"', '"').replace(RAW, "").replace("\\\\u", "\\u")


def is_read(file: Path) -> bool:
    """Whether an altered file passes for a sound one."""
    try:
        read_record(file.parent) if file.name == "record.json" else read_details(file.parent)
    except StoreError:
        return False
    return True


class Tried:
    """Verbs on altered folders, and how many held."""

    def __init__(self, folder: ResultFolder, config: Path, image: Path) -> None:
        self.folder, self.config, self.image = folder, config, image
        self.count = 0
        self.fell: list[str] = []
        self.victim = folder.root.parent.parent / "victim"
        self.victim.mkdir()
        self.runs = [folder.run_folder(record.run_id) for record in folder.records()]

    def verbs(self, damage: str, file: Path, *names: str) -> None:
        """Each verb once; nothing that it makes stays."""
        before = {path: path.read_bytes() for path in self.runs[0].rglob("*") if path.is_file()}
        for name in names:
            self.count += 1
            problem = self._problem(name)
            if list(self.victim.iterdir()):
                problem = f"wrote {list(self.victim.iterdir())}"
            if problem:
                self.fell.append(f"{name}, {file.name}, {damage}: {problem}")
        for path, content in before.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)

    def _problem(self, name: str) -> str:
        root = str(self.folder.root)
        if name == "demo":
            offered, _ = choices(self.folder.root)
            return "" if any(one.folder == self.runs[1] for one in offered) else "the sound run is not offered"
        arguments = {
            "report": ["report", root],
            "together": ["report", root, str(self.config.parent / "made" / "altered"), "--output", f"{root}-both"],
            "plan": ["plan", str(self.config), "--output", str(self.folder.root.parent), "--no-check"],
            "compare": ["compare", str(self.runs[0]), str(self.runs[1])],
            "sweep": ["sweep", str(self.config), "--output", str(self.folder.root.parent)],
            "predict": ["predict", str(self.runs[0]), str(self.image)],
        }[name]
        result = CliRunner().invoke(app, arguments)
        shutil.rmtree(f"{root}-both", ignore_errors=True)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            return f"{type(result.exception).__name__}: {result.exception}"
        if result.exit_code not in (0, 1, 2) or (result.exit_code == 2 and "error: " not in result.output):
            return f"exit status {result.exit_code}"
        if name == "report" and result.exit_code in (0, 1) and not self._shows_the_other():
            return "the sound run is not shown"
        return f"exit status 2: {result.output[:200]}" if name == "report" and result.exit_code == 2 else ""

    def _shows_the_other(self) -> bool:
        return self.runs[1].name in self.folder.report.read_text()


@pytest.fixture
def tried(sound: ResultFolder, config: Path, toy_tree: Path, tmp_path: Path) -> Tried:
    shutil.copytree(sound.root, tmp_path / "results" / "altered")
    image = next((toy_tree / "plate/test/good").glob("*.png"))
    return Tried(ResultFolder(tmp_path / "results" / "altered"), config, image)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", ["record.json", "details.json"])
def test_every_value_in_every_way(tried: Tried, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    file = tried.runs[0] / name
    values = json.loads(file.read_text())
    verbs = ("report", "plan", "compare", "sweep", "predict", "demo")
    # Every second one is a report, which reads most of the file.
    turns = ("report", "plan", "report", "compare", "report", "sweep", "report", "predict", "report", "demo")
    for number, (path, damage) in enumerate((path, damage) for path in places(values) for damage in DAMAGES):
        file.write_text(altered(values, path, DAMAGES[damage]))
        # What the one reader refuses is the same to every verb, so every sixteenth of these values is enough. Of
        # those that pass for sound, every sixth is tried, and the verbs take turns, unless all are asked for.
        sound = is_read(file)
        chosen = verbs if EVERYTHING and sound else (turns[number // 6 % len(turns)],)
        if EVERYTHING or number % (6 if sound else 16) == 0:
            tried.verbs(f"{'.'.join(map(str, path))}: {damage}", file, *chosen)
        file.write_text(json.dumps(values))
    with capsys.disabled():
        print(f"\n{name}: {tried.count} tries on altered values, {tried.count - len(tried.fell)} held")
    assert not tried.fell, "\n".join(tried.fell[:20])
