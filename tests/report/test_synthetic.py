"""`rank: synthetic`: the answer without labels, the agreement with labels, and when there is no answer."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from openpyxl import load_workbook
from PIL import Image
from typer.testing import CliRunner

from harness import registry
from harness.cli.main import app
from harness.report.answer_card import answer_cards
from harness.report.recommend import answers
from harness.report.results import Results
from harness.report.synthetic import dataset_ranking, tau_and_regret
from harness.results.scores import SYNTHETIC, TEST, read_scores
from harness.results.store import ResultFolder
from tests.conftest import Cli, read_me, write_config
from tests.report.conftest import FAIR, GOOD, POOR, Run

CONFIG = """
name: ranked
rank: synthetic
data: {{kind: mvtec, root: {root}, val: 0.5}}
weights: random
latency: false
grid: {{backend: dummy, model: mean, power: {powers}}}
"""
# On noise, more power weighs large differences more. So these three find synthetic defects differently well.
CLEAR, EQUAL = "[0.25, 1.0, 4.0]", "[4.0, 4.000001, 4.000002]"


def write_noise(root: Path, defects: int) -> Path:
    """Two categories of noise. A defective image has a bright square."""
    for seed, category in enumerate(("one", "two")):
        rng = np.random.default_rng(seed)
        for role, count in (("train/good", 24), ("test/good", 3), ("test/bad", defects)):
            for i in range(count):
                image = rng.normal(128, 10, (48, 48, 3))
                image[4:8, 4:8] += 12 * i * (role == "test/bad")
                (root / category / role).mkdir(parents=True, exist_ok=True)
                Image.fromarray(image.clip(0, 255).astype(np.uint8)).save(root / category / role / f"{i:02}.png")
    return root


@pytest.fixture(scope="module")
def normal(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images without a defect."""
    return write_noise(tmp_path_factory.mktemp("normal") / "parts", 0)


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images with and without defects."""
    return write_noise(tmp_path_factory.mktemp("labelled") / "parts", 3)


def swept(cli: Cli, root: Path, powers: str = CLEAR, *overrides: str) -> tuple[Results, str]:
    """A sweep, and what it prints."""
    config = write_config(Path("ranked.yaml"), CONFIG.format(root=root, powers=powers))
    result = cli("sweep", config, *overrides)
    assert result.exit_code == 0, result.output
    return Results.of(ResultFolder(Path("results/ranked"))), " ".join(result.output.split())


@pytest.fixture(scope="module")
def finished(normal: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder of a sweep without labels, and what it prints; not to be changed: copy it."""
    root = tmp_path_factory.mktemp("finished")
    config = write_config(root / "ranked.yaml", CONFIG.format(root=normal, powers=CLEAR))
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(registry.BACKENDS, "dummy", "tests.dummy:DummyBackend")
        result = CliRunner().invoke(app, ["sweep", str(config), "--output", str(root / "results")])
    assert result.exit_code == 0, result.output
    return root / "results" / "ranked", " ".join(result.output.split())


@pytest.fixture
def results(finished: tuple[Path, str]) -> Results:
    """A copy of the finished sweep."""
    return Results.of(ResultFolder(Path(shutil.copytree(finished[0], "ranked"))))


def rows(results: Results, sheet: str) -> tuple[list[dict[str, object]], str]:
    """The rows of a sheet, and the sentences of the sheet *Read me*."""
    book = load_workbook(results.folder.workbook)
    header, *lines = book[sheet].iter_rows(values_only=True)
    return [dict(zip(map(str, header), line, strict=True)) for line in lines], " ".join(read_me(book))


def test_without_a_defective_image_synthetic_defects_give_one_answer(
    cli: Cli, results: Results, finished: tuple[Path, str]
) -> None:
    output = finished[1]
    (answer,) = answers(results)
    assert answer.configuration is not None
    assert (answer.synthetic, answer.word) == (True, "Recommended (by synthetic defects)")
    name = answer.configuration.name
    (group,) = results.configurations.values()
    assert max(group, key=lambda one: one.metric("synthetic_AUROC") or 0).name == name == "mean power 4.0"
    # The terminal, the command, the page and both sheets.
    assert f"Recommended (by synthetic defects): {name}. report.html says why." in output
    assert "synthetic_AUROC 0." in output
    shown = " ".join(cli("recommend", results.folder.root).output.split())
    assert f"Recommended (by synthetic defects) on mvtec parts: {name}." in shown
    assert "Synthetic defects differ from real ones" in shown
    assert "the highest of 3 configurations. 0 others are at least as good in 20% or more" in shown
    (on_page,) = answer_cards(results)
    assert (on_page["chosen"], on_page["word"]) == (name, answer.word)
    assert [(one["place"], one["rank"], one["auroc"]) for one in on_page["ranked"]] == [
        (1, None, None), (2, None, None), (3, None, None)]  # fmt: skip
    assert on_page["ranked"][0]["name"] == name
    assert "Ranking by synthetic defects (3)" in results.folder.report.read_text()
    summary, _ = rows(results, "Summary")
    assert [(row["recommended"], row["synthetic_rank"]) for row in summary] == [("by synthetic defects", 1)]
    runs, _ = rows(results, "Runs")
    of_plate = [float(str(row["synthetic_AUROC"])) for row in runs if row["category"] == "one"]
    assert of_plate == sorted(of_plate, reverse=True)
    # Its models are kept, one for each category.
    kept = {record.run_id for record in results.records if results.folder.model_file(record.run_id)}
    assert kept == {run.run_id for run in answer.configuration.best_runs}
    assert len(kept) == 2


def test_an_unstable_ranking_gives_no_answer_and_says_what_to_do(cli: Cli, normal: Path, dummy: type) -> None:
    del dummy
    results, output = swept(cli, normal, EQUAL)
    (answer,) = answers(results)
    assert answer.configuration is None
    assert "No recommendation: The ranking by synthetic defects is unstable: 100% of the other" in output
    assert "expected at most 25%. Raise data.val, try more different configurations, or test on real" in output
    result = cli("recommend", results.folder.root)
    assert result.exit_code == 1
    assert "The ranking by synthetic defects is unstable" in " ".join(result.output.split())
    (on_page,) = answer_cards(results)
    assert (on_page["chosen"], len(on_page["ranked"])) == (None, 3)
    assert rows(results, "Summary")[0][0]["recommended"] is None


def test_no_label_decides_a_tie(folder: ResultFolder, run: Run) -> None:
    run(POOR, params={"k": 1}, metrics={"synthetic_AUROC": 0.9})
    run(GOOD, params={"k": 0}, metrics={"synthetic_AUROC": 0.9})
    run(FAIR, params={"k": 2}, metrics={"synthetic_AUROC": 0.8})
    results = Results.of(folder)
    ranking = dataset_ranking(results, "mvtec /data")
    assert ranking is not None
    assert [one.name for one in results.configurations["mvtec /data"]] == [f"patchcore k {k}" for k in (0, 2, 1)]
    assert [one.name for one in ranking.configurations] == [f"patchcore k {k}" for k in (1, 0, 2)]
    assert [row["place"] for row in ranking.rows()] == [1, 1, 3]
    assert [row["rank"] for row in ranking.rows()] == [3, 1, 2]
    lost = (ranking.labelled or [])[1] - (ranking.labelled or [])[0]
    (sentence,) = [reason for reason in answers(results)[0].reasons if "regret" in reason]
    assert sentence.startswith(
        "Synthetic defects would give no answer. The first one is patchcore k 1: its image AUROC"
    )
    assert f"is {lost:.3f} below the highest (regret)" in sentence


def test_few_held_out_images_give_no_answer(cli: Cli, normal: Path, dummy: type) -> None:
    del dummy
    results, output = swept(cli, normal, CLEAR, "data.val=0.2")
    assert answers(results)[0].configuration is None
    assert "Synthetic defects lie on 5 held-out images; at least 8 expected. Raise data.val." in output
    assert "unstable: 5 held-out images found; expected at least 8. Raise data.val." in output


def test_a_single_configuration_is_the_answer(cli: Cli, normal: Path, dummy: type) -> None:
    del dummy
    results, _ = swept(cli, normal, "[1.0]")
    (answer,) = answers(results)
    assert answer.configuration is not None
    assert "It is the only configuration." in answer.reasons


def test_with_labels_both_rankings_stand_side_by_side(cli: Cli, labelled: Path, dummy: type) -> None:
    del dummy
    results, output = swept(cli, labelled)
    (answer,) = answers(results)
    assert answer.configuration is not None
    assert not answer.synthetic
    group = results.configurations["mvtec " + str(labelled)]
    true = [one.metric("image_AUROC") or 0 for one in group]
    synthetic = [one.metric("synthetic_AUROC") or 0 for one in group]
    tau, regret = tau_and_regret(true, synthetic)
    sentence = (
        f"its image AUROC is {regret:.3f} below the highest (regret). Kendall's tau of both rankings is {tau:.2f}"
    )
    assert sentence in " ".join(answer.reasons)
    summary, notices = rows(results, "Summary")
    assert sentence in notices
    assert [row["recommended"] for row in summary if row["recommended"]] == ["leading" if answer.doubts else "yes"]
    (on_page,) = answer_cards(results)
    assert [(one["auroc"], one["synthetic"]) for one in sorted(on_page["ranked"], key=lambda one: one["rank"])] == [
        *zip(true, synthetic, strict=True)
    ]
    page = results.folder.report.read_text()
    assert "Ranking by synthetic defects, beside that by labels (3)" in page
    # Its terms have their meanings under the pointer.
    assert sentence.replace("'", "&#39;") in re.sub(r"</?abbr[^>]*>", "", page)
    assert "by synthetic defects)" not in output


def test_the_other_results_are_those_of_a_run_without_synthetic_defects(cli: Cli, labelled: Path, dummy: type) -> None:
    """Both are one configuration: the later run counts."""
    del dummy
    results, _ = swept(cli, labelled, "[1.0]")
    both, _ = swept(cli, labelled, "[1.0]", "rank=labels")
    assert len(both.records) == 2 * len(results.records)
    for ranked in results.records:
        (plain,) = [one for one in both.records if one.run_id != ranked.run_id and one.data == ranked.data]
        assert "rank" not in plain.spec
        without = {name: value for name, value in ranked.metrics.items() if name != "synthetic_AUROC"}
        assert without == plain.metrics
        assert (ranked.intervals, ranked.defects) == (plain.intervals, plain.defects)
        folders = [both.folder.run_folder(one.run_id) for one in (ranked, plain)]
        tested = [read_scores(folder) for folder in folders]
        assert tested[0] is not None and tested[1] is not None
        assert tested[0].names == tested[1].names
        assert np.array_equal(tested[0].scores, tested[1].scores)
        drawn = [read_scores(folder, SYNTHETIC) for folder in folders]
        assert drawn[0] is not None and drawn[1] is not None
        assert (len(drawn[0].names), len(drawn[1].names)) == (36, 0)
    assert [len(group) for group in both.configurations.values()] == [1]
    assert dataset_ranking(both, next(iter(both.configurations))) is None


def test_limits_hold_for_this_answer_too(cli: Cli, results: Results) -> None:
    fastest = cli("recommend", results.folder.root, "--max-ms", "0.3")
    assert "power 0.25" in fastest.output, fastest.output
    none = cli("recommend", results.folder.root, "--min-recall", "0.9")
    assert none.exit_code == 1
    text = " ".join(none.output.split())
    assert "No configuration keeps all limits (min_recall 0.9). The nearest is" in text
    assert re.search(r"\(synthetic AUROC 0\.\d{3}\): change min_recall from 0\.9 to an unknown value\.", text)


@pytest.mark.parametrize(
    ("file", "pattern", "replacement"),
    [
        ("calibration.csv", r"(?m)^\S+\n\Z", ""),
        ("calibration.csv", r"\Apath", "name"),
        ("scores.csv", r"(?m)^.*00000-0\.png.*\n", ""),
        ("scores.csv", r"_synthetic/(\w+)/0", r"_synthetic/\1/9"),
        ("scores.csv", r"_synthetic/(\w+)/0", r"_synthetic/\1/x"),
        ("scores.csv", r"synthetic", "test"),
    ],
)
def test_damaged_scores_give_no_answer(cli: Cli, results: Results, file: str, pattern: str, replacement: str) -> None:
    path = results.folder.run_folder(results.records[0].run_id) / file
    text = path.read_text()
    changed = re.sub(pattern, replacement, text)
    assert changed != text
    path.write_text(changed)
    (answer,) = answers(Results.of(results.folder))
    assert answer.configuration is None
    assert "scores of some runs can't be used. Run the sweep again." in answer.reasons[0]
    assert cli("report", results.folder.root).exit_code in {0, 1}


def test_other_held_out_images_are_not_compared(cli: Cli, normal: Path, dummy: type) -> None:
    del dummy
    swept(cli, normal, CLEAR)
    results, _ = swept(cli, normal, "[2.0]", "data.val=0.4")
    (answer,) = answers(results)
    assert "Left out, because they scored other synthetic defects or none: 1." in answer.reasons


def test_without_the_key_the_reader_learns_of_it(cli: Cli, normal: Path, dummy: type) -> None:
    del dummy
    results, output = swept(cli, normal, "[1.0]", "rank=labels")
    assert "To rank by synthetic defects, set rank to synthetic." in output
    assert read_scores(results.folder.run_folder(results.records[0].run_id), TEST) is not None


@pytest.mark.parametrize("method", ["none", "normal_quantile", "{method: fixed, image: 1.0}", "f1_on_val"])
def test_every_other_threshold_works(cli: Cli, labelled: Path, dummy: type, method: str) -> None:
    del dummy
    results, _ = swept(cli, labelled, "[1.0, 4.0]", f"threshold={method}")
    ranking = dataset_ranking(results, next(iter(results.configurations)))
    assert ranking is not None
    assert ranking.equals is not None


def test_tau_and_regret() -> None:
    assert tau_and_regret([0.9, 0.8, 0.7], [0.6, 0.5, 0.4]) == (pytest.approx(1), 0)
    assert tau_and_regret([0.9, 0.8, 0.7], [0.4, 0.5, 0.6]) == (pytest.approx(-1), pytest.approx(0.2))
    tau, regret = tau_and_regret([0.9, 0.8], [1.0, 1.0])
    assert np.isnan(tau)
    assert regret == 0
