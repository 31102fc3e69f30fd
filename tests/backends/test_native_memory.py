"""The cache of costly stages, and the limit of the memory for features."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from harness.common.errors import MemoryLimitError, StoreError
from harness.detectors.cache import StageCache
from harness.detectors.memory import Memory
from harness.detectors.sources import ImageSource
from tests.backends.native_runs import (
    COMMON,
    config_file,
    outcomes,
    planned,
    same,
)
from tests.conftest import Cli


@pytest.mark.slow
def test_what_is_cached_gives_bit_identical_results(
    tmp_path: Path, toy_tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    specs, split = planned(tmp_path, toy_tree)
    cache = {"cache": tmp_path / "cache", "cache_limit": 10**9}
    few = [s for s in specs if s.parameters.get("coreset_sampling_ratio") == 0.05 or s.model == "spade"]
    outcomes(few, split, tmp_path, **cache)
    # One more ratio and more neighbours: from the features and the order that are there, with no image read.
    monkeypatch.setattr(ImageSource, "__getitem__", lambda *_: pytest.fail("an image was read"))
    chosen = [s for s in specs if s.model in {"patchcore", "spade"}]
    again = outcomes(chosen, split, tmp_path, **cache)
    # And all from the cache.
    once_more = outcomes(chosen, split, tmp_path, **cache)
    monkeypatch.undo()
    for one, other, plain in zip(again, once_more, outcomes(chosen, split, tmp_path), strict=True):
        same(one, plain)
        same(other, plain)
        # What it would have cost alone is what it once took, not what reading it took.
        assert other.seconds["alone"] > other.seconds["spent"]


@pytest.mark.slow
def test_a_damaged_cache_file_is_dropped_and_made_again(tmp_path: Path, toy_tree: Path) -> None:
    specs, split = planned(tmp_path, toy_tree)
    chosen = [spec for spec in specs if spec.model == "patchcore"]
    cache = {"cache": tmp_path / "cache", "cache_limit": 10**9}
    plain = outcomes(chosen, split, tmp_path, **cache)
    files = sorted((tmp_path / "cache").iterdir())
    assert len(files) == 3 * 2 + 2  # layers of three roles, orders of two sets of layers
    for number, file in enumerate(files):
        content = bytearray(file.read_bytes())
        if number % 3 == 0:
            content[-5] ^= 255
        file.write_bytes(content[: len(content) // (number % 3)] if number % 3 else content)
    again = outcomes(chosen, split, tmp_path, **cache)
    for one, other in zip(plain, again, strict=True):
        same(one, other)
    assert any("is damaged" in text and "computed again" in text for one in again for text in one.warnings)
    assert sorted((tmp_path / "cache").iterdir()) == files


def test_the_least_recently_used_go_first(tmp_path: Path) -> None:
    notes: list[str] = []
    cache = StageCache(tmp_path / "cache", 3000, notes.append)
    keys = [{"stage": "x", "number": number} for number in range(3)]
    for number, key in enumerate(keys[:2]):
        cache.put(key, {"a": np.full(250, number, np.float32)}, 1.5)
        os.utime(cache._path(key), ns=(number, number))
    assert cache.get(keys[0]) is not None  # used just now, so the other is older
    cache.put(keys[2], {"a": np.zeros(250, np.float32)}, 1.5)
    assert cache.get(keys[1]) is None
    entry = cache.get(keys[0])
    assert entry is not None
    assert entry[0]["a"].tolist() == [0.0] * 250
    assert entry[1] == 1.5
    cache.put(keys[1], {"a": np.zeros(2500, np.float32)}, 1.5)
    assert "larger than cache_limit" in notes[0]
    assert cache.get(keys[0]) is not None
    assert not list((tmp_path / "cache").glob("*.tmp"))


def test_a_cache_that_cant_be_had_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cache: can't write"):
        StageCache(tmp_path / "file" / "cache", 1, print)


@pytest.mark.slow
def test_features_beyond_the_budget_go_to_files_and_change_nothing(
    tmp_path: Path, toy_tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harness.detectors.memory.ALWAYS", 0)
    specs, split = planned(tmp_path, toy_tree)
    scratch = tmp_path / "scratch"
    for one, other in zip(
        outcomes(specs, split, tmp_path), outcomes(specs, split, scratch, memory_limit=0), strict=True
    ):
        same(one, other)
    # What comes from the cache keeps to the budget, too.
    cache = {"cache": tmp_path / "cache", "cache_limit": 10**9}
    outcomes(specs, split, tmp_path, **cache)
    mapped: list[int] = []
    original = Memory._mapped
    monkeypatch.setattr(
        Memory, "_mapped", lambda self, shape, size: (mapped.append(size), original(self, shape, size))[1]
    )
    monkeypatch.setattr(ImageSource, "__getitem__", lambda *_: pytest.fail("an image was read"))
    outcomes(specs, split, scratch, memory_limit=0, **cache)
    assert len(mapped) >= 3 * 3
    # Nothing is left: a file is gone from its folder as soon as it is mapped.
    assert list(scratch.iterdir()) == []


def test_a_budget_is_kept_and_given_back(tmp_path: Path) -> None:
    memory = Memory(15 * 2**20, tmp_path)  # of which 9 are for arrays
    first = memory.tensor(2 * 2**20)
    assert (memory.used, memory.spilled) == (8 * 2**20, 0)
    second = memory.tensor(2 * 2**20)
    second[:] = 3
    assert (memory.used, memory.spilled) == (8 * 2**20, 8 * 2**20)
    view = first[10:]
    del first
    assert memory.used == 8 * 2**20
    del view
    assert memory.used == 0
    assert float(second.sum()) == 3 * 2 * 2**20


def test_no_room_on_the_disk_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import shutil

    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(100, 100, 5))  # type: ignore[attr-defined]
    with pytest.raises(MemoryLimitError, match=r"memory_limit: .* expected room"):
        Memory(0, tmp_path).tensor(10**6)


KILLED = """
import sys, time
from pathlib import Path
from harness.detectors.memory import Memory
tensor = Memory(0, Path(sys.argv[1])).tensor(4 * 2**20)
tensor[:] = 1
print("mapped", flush=True)
time.sleep(60)
"""


def test_a_kill_leaves_no_file_behind(tmp_path: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", KILLED, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "mapped\n"
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert list(tmp_path.iterdir()) == []


def test_a_cache_folder_that_cant_be_had_ends_it_before_any_work(tmp_path: Path, toy_tree: Path, cli: Cli) -> None:
    (tmp_path / "file").write_text("")
    grid = f"{{{COMMON}, model: padim, layers: [layer2], n_features: 5}}"
    path = config_file(tmp_path, toy_tree, grid, f"cache: {tmp_path}/file/cache")
    result = cli("sweep", path, "--output", tmp_path / "out")
    assert result.exit_code == 2
    assert "cache: can't write to" in result.stderr
    assert not (tmp_path / "out").exists()
