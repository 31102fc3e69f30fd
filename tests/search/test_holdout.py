"""Held-out images of a search: which, who sees them, what is reported, and how a search goes on."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Mapping
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness import registry
from harness.backends.base import EpochDetections
from harness.common.errors import ConfigError, DataError
from harness.config.load import load_config
from harness.config.spec import RunSpec, run_id
from harness.config.stored import as_yaml
from harness.data.samples import Sample
from harness.execution.jobs import Job, execute_job
from harness.execution.progress import SweepProgress
from harness.execution.session import RunSession
from harness.metrics.ranking import Ranking, measure
from harness.metrics.selection import expected_maximum, with_others
from harness.metrics.validation import holdout_part
from harness.planning.prepare import Prepared, prepare
from harness.predictions.classification import ClassPredictions
from harness.predictions.detection import Predictions
from harness.report import configurations
from harness.report.answer_card import key_figures
from harness.report.excel import write_workbook
from harness.report.facts import dataset
from harness.report.holdout import unseen
from harness.report.html import write_report
from harness.report.recommend import answers
from harness.report.results import Results
from harness.report.search import SearchReport
from harness.results.best_models import BestModels
from harness.results.record import RunRecord
from harness.results.scores import HOLDOUT, read_scores
from harness.results.store import ResultFolder
from harness.search.history import History, evaluated_points, value_of
from harness.search.holdout import with_holdout
from harness.search.points import Space
from harness.tasks.classification import metrics
from harness.tasks.detection import Detection
from tests.classified import CONFIG as CLASSIFIED
from tests.conftest import ROOT, Cli, read_me, write_config

SEARCH = """
name: s
seeds: [0, 1]
data: {kind: toy, category: [plate, fabric], size: 64, train: 6, good: 6, bad: 4, val: 0.34}
weights: random
search:
  num_samples: 4
  space: {backend: dummy, model: mean, power: {choice: [1.0, 2.0, 3.0, 1.5]}}
"""
SINGLE = ("data.category=plate", "seeds=[0]")
CLASSIFIERS = (
    CLASSIFIED.format(name="c").split("grid:", maxsplit=1)[0]
    + "search: {num_samples: 3, space: {model: baseline, backbone: test_resnet, image_size: 32, lr: {uniform: [0, 1]}}}"
)


@pytest.fixture(autouse=True)
def dummy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(registry.BACKENDS, "dummy", "tests.dummy:DummyBackend")


def samples_of(**numbers: int) -> list[Sample]:
    return [
        Sample(f"/{kind}/{i}", f"{kind}/{i}", int(kind != "good"), kind)
        for kind, count in numbers.items()
        for i in range(count)
    ]


def decided(text: str, *overrides: str) -> tuple[Prepared, str]:
    return with_holdout(prepare(load_config(write_config(Path("s.yaml"), text), overrides)))


def share_of(prepared: Prepared) -> float | None:
    assert prepared.config.search is not None
    return prepared.config.search.holdout


def test_a_share_of_each_type_is_held_out() -> None:
    samples = samples_of(good=20, crack=10, hole=10, rare=1)
    chosen = holdout_part(samples, 0.3, 5)
    held_out = [sample.defect for sample, out in zip(samples, chosen, strict=True) if out]
    assert {kind: held_out.count(kind) for kind in ("good", "crack", "hole", "rare")} == {
        "good": 6, "crack": 3, "hole": 3, "rare": 0
    }  # fmt: skip
    assert np.array_equal(chosen, holdout_part(samples, 0.3, 5))
    assert not np.array_equal(chosen, holdout_part(samples, 0.3, 6))


@pytest.mark.parametrize(
    ("numbers", "share", "message"),
    [
        (
            {"good": 3, "crack": 40},
            0.3,
            r"search.holdout: 0.3 found, which holds out 1 of 3 normal.*at least 2",
        ),
        ({"good": 40, "crack": 3}, 0.9, r"0.9 found, which holds out 2 of 3 anomalous.* and 2 for the search"),
        ({"good": 40, "a": 1, "b": 1}, 0.5, r"holds out 0 of 2 anomalous.*or set search.holdout to 0"),
    ],
)
def test_too_few_images_are_refused(numbers: dict[str, int], share: float, message: str) -> None:
    with pytest.raises(DataError, match=message):
        holdout_part(samples_of(**numbers), share, 0)


@pytest.mark.parametrize(
    ("value", "expected"), [("1", "less than 1"), ("-0.1", "equal to 0"), ("some", "number"), (".nan", "finite")]
)
def test_a_share_that_is_none_is_refused(value: str, expected: str) -> None:
    with pytest.raises(ConfigError, match=r"search\.holdout: ") as caught:
        load_config(write_config(Path("s.yaml"), SEARCH), [f"search.holdout={value}"])
    assert expected in str(caught.value)


def test_the_command_refuses_a_share_of_too_few_images_and_leaves_nothing(cli: Cli) -> None:
    result = cli("plan", write_config(Path("s.yaml"), SEARCH), "search.holdout=0.1")
    assert result.exit_code == 2
    assert "search.holdout: 0.1 found, which holds out 1 of 6 normal test images" in " ".join(result.output.split())
    assert not Path("results/s").exists()


def test_the_default_depends_on_the_number_of_images() -> None:
    prepared, sentence = decided(SEARCH)
    assert share_of(prepared) == 0
    assert sentence.startswith("Held out: no test images, because a category has fewer than 40 test images of a class.")
    enough, sentence = decided(SEARCH, "data.good=40", "data.bad=20", "data.category=plate", "data.size=32")
    assert share_of(enough) == 0.3
    assert sentence.startswith("Held out: 30% of the test images (seed 0). No trial sees them")
    no_holdout, sentence = decided(SEARCH, "search.holdout=0")
    assert share_of(no_holdout) == 0
    assert sentence == "Held out: no test images. The metric of the best trial will be too good."
    # The stored config has the share, and reads back.
    assert load_config(write_config(Path("again.yaml"), as_yaml(enough.config))).search == enough.config.search


def test_the_validation_images_of_the_threshold_come_out_of_the_rest() -> None:
    with pytest.raises(ConfigError, match=r"threshold f1_on_val: .* too few for a validation set"):
        decided(SEARCH, "search.holdout=0.5", "threshold=f1_on_val", "data.bad=2", "data.good=4")
    prepared, _ = decided(SEARCH, "search.holdout=0.34", "threshold=f1_on_val")
    assert share_of(prepared) == 0.34


def test_a_run_has_another_identity_only_where_images_are_held_out() -> None:
    prepared, _ = decided(SEARCH, "search.holdout=0.5")
    plain, _ = decided(SEARCH, "search.holdout=0")
    (held, *_), (all_images, *_) = (
        Space(one.config, one.splits).runs({"power": 2.0}) for one in (prepared, plain)
    )  # fmt: skip
    assert "holdout" not in all_images.spec.as_dict()
    assert held.spec.as_dict()["holdout"] == {"share": 0.5, "seed": 0}
    assert RunSpec.from_dict(held.spec.as_dict()) == replace(held.spec, axes=())
    assert held.run_id != all_images.run_id
    assert run_id(replace(held.spec, holdout=()), held.split.fingerprint, None) == all_images.run_id


def test_intermediate_metrics_do_not_depend_on_the_held_out_images() -> None:
    samples = samples_of(good=10, crack=10)
    rng = np.random.default_rng(0)
    scores = rng.standard_normal(20)
    prepared, _ = decided(SEARCH, "search.holdout=0.5")
    (run, *_) = Space(prepared.config, prepared.splits).runs({"power": 2.0})
    out = holdout_part(samples, 0.5, 0)
    other = np.where(out, rng.standard_normal(20), scores)

    def metrics(spec: RunSpec, values: Any) -> Mapping[str, float | None]:
        test = Predictions(tuple(samples), values, None, None)
        return Detection().epoch_metrics(spec, EpochDetections(test, None))

    assert metrics(run.spec, scores) == metrics(run.spec, other)
    everything = replace(run.spec, holdout=())
    assert metrics(everything, scores) != metrics(everything, other)


@pytest.fixture
def searched(tmp_path: Path) -> tuple[Prepared, Space, History]:
    """Two completed trials on two categories and two seeds, with half of the images held out."""
    prepared, _ = decided(SEARCH, "search.holdout=0.5")
    return run_trials(prepared)


@pytest.fixture
def begun(tmp_path: Path) -> Prepared:
    """A search with one completed trial of one run, with half of the images held out."""
    prepared, _ = decided(SEARCH, "search.holdout=0.5", *SINGLE)
    completed: Prepared = run_trials(prepared, [{"power": 1.0}])[0]
    return completed


def run_trials(prepared: Prepared, points: Any = ({"power": 1.0}, {"power": 3.0})) -> Any:
    prepared.folder.create()
    space = Space(prepared.config, prepared.splits)
    history = History(prepared.folder, space, {})
    with SweepProgress(1, live=False) as progress:
        session = RunSession(prepared, progress)
        for point in points:
            runs = space.runs(point)
            trial = history.begin(point, [run.run_id for run in runs])
            for run in runs:
                for record in execute_job(Job(prepared.config, (run,), run.run_id), prepared.folder, lambda _: None):
                    session.writer.commit(record)
            trial.state = "done"
            trial.value = value_of([read(prepared, run.run_id) for run in runs], space.metric)
    history.save()
    return replace(prepared, records=prepared.folder.read_records().by_id), space, history


def read(prepared: Prepared, name: str) -> RunRecord:
    record = prepared.folder.read_record(name)
    assert record is not None
    assert record.status == "ok", record.error
    return record


def auroc(scores: Any) -> float:
    return float(measure("image", Ranking.of(scores.scores, scores.labels))["image_AUROC"])


def test_the_metrics_of_a_run_are_those_of_the_other_images(searched: tuple[Prepared, Space, History]) -> None:
    prepared, space, _ = searched
    for run in space.runs({"power": 1.0}):
        record = read(prepared, run.run_id)
        folder = prepared.folder.run_folder(run.run_id)
        test, held_out = read_scores(folder), read_scores(folder, HOLDOUT)
        assert test is not None
        assert held_out is not None
        assert not set(test.names) & set(held_out.names)
        assert set(test.names) | set(held_out.names) == {sample.name for sample in run.split.test}  # type: ignore[union-attr]
        assert record.metrics["image_AUROC"] == pytest.approx(auroc(test))
        assert (record.data["test"], record.data["holdout"]) == (len(test.names), len(held_out.names))
        details = json.loads((folder / "details.json").read_text())["holdout"]
        assert details["metrics"]["image_AUROC"] == pytest.approx(auroc(held_out))
        assert details["metrics"]["pixel_AUROC"] is not None
        roles = {row["role"] for row in csv.DictReader(StringIO((folder / "scores.csv").read_text()))}
        assert roles == {"test", "holdout"}
        plain = replace(record, spec={key: value for key, value in record.spec.items() if key != "holdout"})
        assert configurations.tested_on(record) != configurations.tested_on(plain)
        assert dataset(record) == f"{dataset(plain)}, without the 50% that the search held out (seed 0)"


def test_the_report_has_the_best_trial_on_the_held_out_images(searched: tuple[Prepared, Space, History]) -> None:
    prepared, space, history = searched
    best = history.best
    assert best is not None
    expected = np.mean(
        [auroc(read_scores(prepared.folder.run_folder(run.run_id), HOLDOUT)) for run in space.runs(best.point)]
    )
    results = Results.of(prepared.folder)
    report = SearchReport.of(results)
    assert report is not None
    sentences = report.sentences()[1:3]
    images = sum(read(prepared, run.run_id).data["holdout"] for run in space.runs(best.point)) // 2
    value = f"{best.value:.3f} on the images of the search; {expected:.3f} (95%: "
    assert sentences[0].startswith(f"The best is trial {best.number}, image_AUROC {value}")
    assert sentences[0].endswith(f" on the {images} held-out images that no trial saw.")
    assert sentences[1] == f"Its parameters: power {best.point['power']}."
    write_workbook(prepared.folder)
    write_report(prepared.folder)
    assert sentences[0] in read_me(prepared.folder.workbook)
    assert sentences[0] in prepared.folder.report.read_text()
    # The answer's headline is measured on the same images.
    (answer,) = answers(results)
    assert answer.configuration is not None
    leader = unseen(results, answer.configuration.records, "image_AUROC")
    assert leader is not None
    name, value, remark = key_figures(results, answer.configuration)[0]
    assert (name, value) == ("image AUROC", f"{leader.value:.3f}")
    assert remark.endswith(
        f"; on the {images} held-out images that no trial saw; {answer.configuration.metric('image_AUROC'):.3f} on the "
        "images of the search"
    )
    assert answer.reasons[0].startswith(f"Image AUROC {leader}. On the images of the search: image AUROC ")


def test_held_out_images_that_the_backend_validated_on_are_not_new(tmp_path: Path) -> None:
    prepared, _ = decided(SEARCH, "search.holdout=0.5", "data.val=0", *SINGLE)
    run_trials(prepared, [{"power": 1.0}])
    report = SearchReport.of(Results.of(prepared.folder))
    assert report is not None
    assert "Its backend validated on all test images, the held-out ones too." in " ".join(report.sentences())


def test_without_held_out_images_the_value_is_called_optimistic(tmp_path: Path) -> None:
    prepared, _ = decided(SEARCH, "search.holdout=0", *SINGLE)
    _, _, history = run_trials(prepared)
    report = SearchReport.of(Results.of(prepared.folder))
    assert report is not None
    text = " ".join(report.sentences())
    assert "This value is optimistic. The best of 2 trials was chosen by the same images" in text
    assert "(bootstrap bias correction, a lower bound)" in text
    assert "no trial saw" not in text
    # A trial that was stopped early took part in the choice.
    before = report.corrected
    stopped = history.begin({"power": 1.5}, ["gone"])
    stopped.state, stopped.value, stopped.looks = "stopped", 0.4, [(1, 0.4)]
    history.save()
    after = SearchReport.of(Results.of(prepared.folder))
    assert after is not None
    assert "The best of 3 trials was chosen" in " ".join(after.sentences())
    assert before is not None
    assert history.best is not None
    assert after.corrected == with_others(history.best.value, before, 2, 3)


def test_the_correction_grows_with_the_number_of_trials() -> None:
    rng = np.random.default_rng(0)
    for n in (2, 5, 30, 100):
        assert expected_maximum(n) == pytest.approx(rng.standard_normal((20_000, n)).max(axis=1).mean(), abs=0.04)
    assert with_others(0.9, 0.85, 10, 10) == pytest.approx(0.85)
    assert with_others(0.9, 0.85, 10, 30) == pytest.approx(0.9 - 0.05 * 1.33, abs=0.003)
    assert with_others(0.9, 0.91, 10, 30) == 0.91


def test_a_search_goes_on_with_the_images_that_it_began_with(begun: Prepared) -> None:
    content = json.loads(begun.folder.search.read_text())
    assert content["holdout"] == {"share": 0.5, "seed": 0}
    again, sentence = decided(SEARCH, *SINGLE)
    assert share_of(again) == 0.5
    assert sentence.startswith("Held out: 50% of the test images (seed 0).")
    history = History(again.folder, Space(again.config, again.splits), again.records)
    assert [trial.state for trial in history.finished] == ["done"]
    with pytest.raises(ConfigError, match=r"search.holdout: 0 found, but the trials in .*search.json have 0.5;"):
        decided(SEARCH, *SINGLE, "search.holdout=0")
    with pytest.raises(ConfigError, match=r"search.seed: 3 found, but .* hold out the images of seed 0; expected 0"):
        decided(SEARCH, *SINGLE, "search.seed=3")


def test_a_search_of_an_earlier_version_goes_on_without(cli: Cli, begun: Prepared) -> None:
    file = begun.folder.search
    content = json.loads(file.read_text())
    del content["holdout"]
    file.write_text(json.dumps(content))
    again, sentence = decided(SEARCH, *SINGLE, "search.seed=3")
    assert share_of(again) == 0
    assert "because the earlier trials of this search saw all test images" in sentence
    with pytest.raises(ConfigError, match=r"search.holdout: 0.3 found, but .* have 0; expected 0.*choose another name"):
        decided(SEARCH, *SINGLE, "search.holdout=0.3")
    plan = cli("plan", "s.yaml", *SINGLE)
    assert plan.exit_code == 0, plan.output
    assert "earlier trials of this search saw all test images" in " ".join(plan.output.split())


def test_a_search_does_not_know_the_runs_of_a_grid_on_all_images(cli: Cli) -> None:
    text = SEARCH.replace("search:", "grid: {backend: dummy, model: mean, power: [1.0, 2.0]}\nsearch:")
    assert cli("sweep", write_config(Path("s.yaml"), text), *SINGLE).exit_code == 0
    for share, known in ((0, 2), (0.5, 0)):
        prepared, sentence = decided(text, *SINGLE, f"search.holdout={share}")
        space = Space(prepared.config, prepared.splits)
        points = evaluated_points(space, prepared.records, History(prepared.folder, space, prepared.records))
        assert len(points) == known
        assert ("Runs of the grid saw these images" in sentence) == bool(share)


def test_a_model_of_a_search_does_not_replace_that_of_a_grid_on_all_images(begun: Prepared) -> None:
    (held,) = begun.records.values()
    plain = replace(held, run_id="plain", spec={key: value for key, value in held.spec.items() if key != "holdout"})
    models = BestModels(begun.folder, [])
    models.replace(plain)
    assert models.is_best(held)
    models.replace(held)
    assert models.is_best(plain)
    worse = replace(held, run_id="worse", metrics={**held.metrics, "image_AUROC": -1.0})
    assert not models.is_best(worse)


def test_a_plan_shows_the_held_out_images(cli: Cli) -> None:
    result = cli("plan", write_config(Path("s.yaml"), SEARCH), "search.holdout=0.5")
    assert result.exit_code == 0, result.output
    assert "Held out: 50% of the test images (seed 0)." in " ".join(result.output.split())


def test_a_classification_has_no_share(cli: Cli) -> None:
    prepared, sentence = decided(CLASSIFIERS)
    assert share_of(prepared) is None
    assert sentence == ""
    result = cli("plan", "s.yaml", "search.holdout=0.3")
    assert result.exit_code == 2
    output = " ".join(result.output.split())
    assert "search.holdout: 0.3 found, but the metrics of a classification are out of fold" in output
    assert "Remove it." in output


@pytest.fixture
def with_test_labels(tmp_path: Path) -> ResultFolder:
    """Two stored classifications, as if their test images had labels."""
    shutil.copytree(ROOT / "tests/stored/results/named", tmp_path / "named")
    folder, rng = ResultFolder(tmp_path / "named"), np.random.default_rng(0)
    for record in folder.records():
        stored = ClassPredictions.load(folder.run_folder(record.run_id))
        images, labels = len(stored.test_names), len(stored.labels)
        truth = np.where(np.arange(images) < 80, rng.integers(labels, size=images), -1)
        predictions = replace(stored, test_truth=truth, test_by_fold=rng.dirichlet(np.ones(labels), (1, images)))
        predictions.save(folder.run_folder(record.run_id))
        values = {**record.as_dict(), "metrics": metrics(predictions)}
        (folder.run_folder(record.run_id) / "record.json").write_text(json.dumps(values))
    return folder


def search_of(results: Results, metric: str) -> dict[str, Any]:
    """search.json of a search whose trials are the runs."""
    trials = [
        {"number": n, "point": {"lr": 0.1}, "runs": [run.run_id], "state": "done", "value": run.metrics[metric],
         "looks": [], "seconds": 1.0, "began": "", "ended": "", "why": ""}
        for n, run in enumerate(results.ok(), 1)
    ]  # fmt: skip
    return {"metric": metric, "mode": "max", "num_samples": 2, "axes": {"lr": {}}, "trials": trials}


def test_the_best_classification_is_reported_on_its_test_set(with_test_labels: ResultFolder) -> None:
    results = Results.of(with_test_labels)
    report = SearchReport(results, search_of(results, "macro_F1"))
    assert report.best is not None
    (best,) = (run for run in results.ok() if [run.run_id] == report.best["runs"])
    text = " ".join(report.sentences())
    assert f"on the images of the search; test_macro_F1 {best.metrics['test_macro_F1']:.3f} (95%: " in text
    assert "on the 80 test images that no trial saw." in text
    # A search for the metric of the test set itself has no other images.
    text = " ".join(SearchReport(results, search_of(results, "test_macro_F1")).sentences())
    assert "This value is optimistic." in text
    assert "Expect a worse value on other images." in text


def test_the_best_classification_without_a_labelled_test_set_is_called_optimistic() -> None:
    results = Results.of(ResultFolder(ROOT / "tests/stored/results/named"))
    text = " ".join(SearchReport(results, search_of(results, "macro_F1")).sentences())
    assert "This value is optimistic." in text
    assert "no trial saw" not in text
