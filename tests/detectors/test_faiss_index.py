"""PatchCore with an index of FAISS: its rows and distances, its notes, saved and exported models, and wrong values."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from openpyxl import load_workbook

from harness import load_model
from harness.backends.base import Failure
from harness.common.errors import ConfigError
from harness.detectors import PatchCore, faiss_index, load
from harness.detectors.faiss_index import EXACT_SEARCH, FLAT, HNSW, IVF, LEAST_ROWS, NEIGHBOURS, FaissIndex, recall
from harness.detectors.neighbours import nearest_in_prefixes
from harness.detectors.saving import build_saved, description, network_tensors
from harness.results.store import ResultFolder
from tests.backends.native_runs import COMMON, answers, outcomes, planned, same
from tests.conftest import Cli, write_config
from tests.detectors.cases import evaluate_predictions, make

pytest.importorskip("faiss", reason="needs FAISS: pip install 'harness[faiss]'")

INDEXES = (FLAT, HNSW, IVF)
# A bank of 512 patches: enough for each index.
WHOLE: dict[str, Any] = {"layers": ["layer2"], "coreset_sampling_ratio": 1.0}


def points(count: int, seed: int) -> torch.Tensor:
    """Patches in clusters, as those of real images."""
    centers = torch.randn(20, 16, generator=torch.Generator().manual_seed(0))
    noise = torch.Generator().manual_seed(seed)
    return centers[torch.randint(20, (count,), generator=noise)] + 0.3 * torch.randn(count, 16, generator=noise)


@pytest.mark.parametrize("kind", INDEXES)
def test_an_index_chooses_rows_and_the_distances_to_them_are_exact(kind: str) -> None:
    bank, queries = points(2000, 1), points(300, 2)
    threads = torch.get_num_threads()
    nearest = FaissIndex(bank, kind).nearest(queries)
    assert torch.get_num_threads() == threads
    differences = queries.double() - bank[nearest.rows].double()
    torch.testing.assert_close(nearest.distances.double(), differences.norm(dim=1), rtol=1e-5, atol=0)
    share = recall(nearest, nearest_in_prefixes(queries, bank, [len(bank)])[0])
    assert share == 1 if kind == FLAT else share > 0.95
    again = FaissIndex(bank.clone(), kind).nearest(queries)
    assert again.rows.tolist() == nearest.rows.tolist()


def test_recall_counts_the_queries_with_the_smallest_distance(monkeypatch: pytest.MonkeyPatch) -> None:
    bank, queries = points(2000, 1), points(300, 2)
    monkeypatch.setattr(faiss_index, "PROBES", 1)
    index = FaissIndex(bank, IVF)
    distances = torch.cdist(queries.double(), bank.double())
    chosen = distances.gather(1, index.nearest(queries).rows[:, None])[:, 0]
    expected = float((chosen <= 1.001 * distances.amin(dim=1)).double().mean())
    assert 0.3 < expected < 0.99
    monkeypatch.setattr(faiss_index, "SAMPLE", 300)
    assert f"neighbours: ivf: approximate, on the cpu; {expected:.1%} of 300 test patches" in index.note(queries)


@pytest.mark.parametrize("kind", [HNSW, IVF])
def test_a_saved_detector_builds_its_index_again(kind: str, train: Path, unseen: list[Path], tmp_path: Path) -> None:
    fitted = make("patchcore", neighbours=kind, **WHOLE).fit(train)
    assert list(fitted.fitted()) == ["bank"]
    again = load(fitted.save(tmp_path / "model.safetensors"), device="cpu", progress=False)
    assert isinstance(again, PatchCore)
    assert again.neighbours == kind
    before, after = evaluate_predictions(fitted, unseen[:3]), evaluate_predictions(again, unseen[:3])
    assert before[0].tolist() == after[0].tolist()
    assert np.array_equal(before[1], after[1])


def test_a_model_from_before_the_argument_is_searched_exactly(unseen: list[Path]) -> None:
    fitted = make("patchcore").fit(unseen[:2])
    about = description(fitted)
    del about["parameters"]["neighbours"]
    again = build_saved(about, {**fitted.fitted(), **network_tensors(fitted)}, "cpu", progress=False)
    assert again.parameters()["neighbours"] == EXACT_SEARCH


def test_a_run_of_a_grid_has_the_results_of_a_run_alone(tmp_path: Path, toy_tree: Path) -> None:
    grid = f"{{{COMMON}, model: patchcore, layers: [layer3], num_neighbors: 2, neighbours: [exact, faiss_flat], "
    specs, split = planned(tmp_path, toy_tree, grid + "coreset_sampling_ratio: [0.1, 0.3]}")
    together = outcomes(specs, split, tmp_path)
    exact = {one.spec.parameters["coreset_sampling_ratio"]: one for one in together if not _kind(one)}
    assert len(exact) == 2
    same(together[-1], outcomes([together[-1].spec], split, tmp_path)[0])
    for one in together:
        notes = [text for text in one.warnings if text.startswith("neighbours:")]
        assert len(notes) == (1 if _kind(one) else 0)
        if _kind(one) == FLAT:
            assert "faiss_flat: exact up to rounding" in notes[0]
            expected = exact[one.spec.parameters["coreset_sampling_ratio"]]
            assert one.test.scores.tolist() == pytest.approx(expected.test.scores.tolist(), rel=1e-5)


def _kind(outcome: Any) -> str:
    return str(dict(outcome.spec.params).get("neighbours", ""))


def test_a_run_says_its_recall_and_an_exported_file_searches_exactly(
    tmp_path: Path, toy_tree: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    # So few candidates and links that the index often misses the nearest patch.
    monkeypatch.setattr(faiss_index, "CANDIDATES", 1)
    monkeypatch.setattr(faiss_index, "BUILD_CANDIDATES", 1)
    monkeypatch.setattr(faiss_index, "LINKS", 2)
    grid = f"{{{COMMON}, model: patchcore, layers: [layer2], coreset_sampling_ratio: 0.9, neighbours: [exact, hnsw]}}"
    config = write_config(
        tmp_path / "index.yaml",
        f"data: {{kind: mvtec, root: {toy_tree}, val: 0.2}}\nweights: random\ndevice: cpu\nlatency: false\n"
        f"save_models: all\noutput: results\ngrid: {grid}\n",
    )
    result = cli("sweep", config)
    assert result.exit_code == 0, result.output
    folder = ResultFolder(tmp_path / "results" / "index")
    header, *rows = load_workbook(folder.workbook)["Runs"].iter_rows(values_only=True)
    assert sorted(row[header.index("neighbours")] for row in rows) == ["exact", "hnsw"]
    (indexed,) = [run for run in folder.records() if run.spec["params"].get("neighbours") == HNSW]
    (note,) = [text for text in indexed.warnings if text.startswith("neighbours:")]
    assert 0 < float(note.split("cpu; ")[1].split("%")[0]) < 99, note

    run = folder.run_folder(indexed.run_id)
    result = cli("export", run, "--format", "torchscript", "--out", tmp_path / "model.pt")
    assert result.exit_code == 0, result.output
    sentence = "An exported file searches the whole bank exactly"
    assert sentence in " ".join(result.stdout.split())
    assert any(sentence in text for text in json.loads((tmp_path / "model.pt.json").read_text())["notes"])
    images = sorted((toy_tree / "plate" / "test").rglob("*.png"))
    maps = [load_model(path, device="cpu", trust=True).predict(images) for path in (run, tmp_path / "model.pt")]
    sums = [sum(float(one.anomaly_map.sum()) for one in results if one.anomaly_map is not None) for results in maps]
    # A missed neighbour makes a distance larger.
    assert sums[0] > 1.001 * sums[1]


def test_an_unknown_search_is_an_error() -> None:
    with pytest.raises(ConfigError, match=r"neighbours: found 'annoy', expected exact, faiss_flat, hnsw, ivf\."):
        make("patchcore", neighbours="annoy")


def test_without_faiss_the_message_names_the_extra(
    tmp_path: Path, toy_tree: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(faiss_index, "find_spec", lambda _: None)
    assert make("patchcore").parameters()["neighbours"] == EXACT_SEARCH
    config = _config(tmp_path, toy_tree, "neighbours: hnsw")
    result = cli("plan", config)
    assert result.exit_code == 2
    assert "pip install 'harness[faiss]', or choose exact." in " ".join(result.output.split())


def test_a_bank_that_is_too_small_is_an_error_before_the_training_and_in_it(
    tmp_path: Path, toy_tree: Path, train: Path, cli: Cli
) -> None:
    sentence = f"neighbours: ivf found with a bank of 102 patches; expected {LEAST_ROWS[IVF]} or more."
    result = cli("plan", _config(tmp_path, toy_tree, "neighbours: ivf, coreset_sampling_ratio: 0.2"))
    assert result.exit_code == 2
    assert sentence in " ".join(result.output.split())
    with pytest.raises(ConfigError, match=sentence):
        make("patchcore", neighbours=IVF, layers=["layer2"], coreset_sampling_ratio=0.2).fit(train)
    # Without the patches of a fold, the bank of 358 patches is too small.
    result = cli("plan", _config(tmp_path, toy_tree, "neighbours: ivf, coreset_sampling_ratio: 0.7"))
    assert result.exit_code == 2
    assert "threshold.folds: without the images of a fold, neighbours: ivf found" in " ".join(result.output.split())


def test_a_bank_that_is_too_small_fails_its_own_run_only(tmp_path: Path, toy_tree: Path) -> None:
    grid = f"{{{COMMON}, model: patchcore, layers: [layer2], coreset_sampling_ratio: 0.9, neighbours: [exact, ivf]}}"
    specs, split = planned(tmp_path, toy_tree, grid)
    results = answers(specs, replace(split, train=split.train[:2]), tmp_path)
    failures = [one for one in results if isinstance(one, Failure)]
    assert [dict(one.spec.params)["neighbours"] for one in failures] == [IVF]
    assert "expected 312 or more" in str(failures[0].error)


def _config(tmp_path: Path, tree: Path, axes: str) -> Path:
    grid = f"{{{COMMON}, model: patchcore, layers: [layer2], {axes}}}"
    text = f"data: {{kind: mvtec, root: {tree}}}\nweights: random\ndevice: cpu\noutput: results\ngrid: {grid}\n"
    return write_config(tmp_path / "index.yaml", text)


def test_all_kinds_have_a_builder() -> None:
    assert {*NEIGHBOURS} == {EXACT_SEARCH, *faiss_index._BUILDERS}
