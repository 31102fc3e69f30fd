"""Searches without a cluster: the space, what is proposed, what is remembered, what is shown; looks at trainings."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openpyxl import load_workbook

from harness import registry
from harness.common.errors import ConfigError, StoreError
from harness.config.load import load_config
from harness.config.search import Domain
from harness.config.stored import as_yaml
from harness.execution.jobs import Job, Rungs, execute_job
from harness.metrics.selection import auroc_draws, corrected, macro_f1_draws
from harness.planning.check import check
from harness.planning.prepare import Prepared, prepare
from harness.report.excel import write_workbook
from harness.report.html import write_report
from harness.report.results import Results
from harness.report.search import SearchReport
from harness.results.store import ResultFolder
from harness.search.history import History, evaluated_points
from harness.search.points import Space
from tests.classified import CONFIG as CLASSIFIED
from tests.conftest import Cli, read_me, write_config
from tests.fake_results import CONFIG

SEARCH = """
data: {kind: toy, category: plate, size: 64, train: 6, good: 4, bad: 2}
weights: random
search:
  num_samples: 5
  space:
    backend: native
    model: patchcore
    backbone: resnet18
    image_size: 64
    layers: {choice: [[layer1], [layer1, layer2]]}
    num_neighbors: {randint: [1, 10]}
    coreset_sampling_ratio: {loguniform: [0.01, 0.5]}
"""


def space_of(text: str, *overrides: str) -> Space:
    prepared = prepare(load_config(write_config(Path("s.yaml"), text), overrides))
    return Space(prepared.config, prepared.splits)


def test_the_block_is_read_and_written_as_it_is_meant() -> None:
    config = load_config(write_config(Path("s.yaml"), SEARCH), ["search.time_budget=1.5 h"])
    search = config.search
    assert search is not None
    assert search.time_budget == 5400
    assert search.domains["num_neighbors"] == Domain("randint", (1, 10))
    assert search.fixed["image_size"] == 64
    again = load_config(write_config(Path("again.yaml"), as_yaml(config)))
    assert again.search == search
    assert again.grid == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("search.space.num_neighbors=[1,3]", "num_neighbors: found [1, 3]; expected one value, or {choice: [1, 3]}"),
        ("search.space.num_neighbors={randint: [3]}", "expected [lower, upper] with lower < upper"),
        ("search.space.x={normal: [0, 1]}", "x: found normal; expected one of choice, uniform, loguniform, randint"),
        ("search.space.x={loguniform: [0, 1]}", "expected a lower end above 0"),
        ("search.space.x={randint: [0.5, 2]}", "expected whole numbers"),
        ("search.space.x={choice: [1, 1]}", "expected different values"),
        ("search.time_budget=soon", "expected seconds, or a time such as 30 min or 2 h; found 'soon'"),
        ("search.num_samples=0", "search.num_samples: found 0"),
        ("search.metrik=x", "Did you mean 'metric'?"),
        ("search.grace_epochs=20000", "search.grace_epochs: found 20000"),
        ("search.space.image_size={randint: [16, 64]}", "image_size: randint found; expected choice"),
        ("search.space.layers={uniform: [1, 8]}", "layers: uniform found; expected choice"),
        ("search.space.backend={uniform: [1, 8]}", "backend: uniform found; expected choice"),
        ("search.space.image_size={choice: [8, 64]}", "image_size: expected a number from 16 up"),
    ],
)
def test_what_is_wrong_with_the_block_is_said(change: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(write_config(Path("s.yaml"), SEARCH), [change])
    assert message in str(caught.value)


def test_of_an_error_rate_the_smallest_is_sought() -> None:
    from harness.config.search import Search

    space = {"model": "m", "x": {"uniform": [0, 1]}}
    assert Search(metric="image_FPR95", space=space).mode == "min"
    assert Search(metric="image_AUROC", space=space).mode == Search(space=space).mode == "max"
    assert Search(metric="image_FPR95", mode="max", space=space).mode == "max"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("coreset_ratio: {uniform: [0, 1]}", "patchcore has no such parameter. Did you mean 'coreset_sampling_ratio'?"),
        ("n_features: {randint: [1, 9]}", "search.space.n_features: patchcore has no such parameter."),
        ("precision: {choice: [1, 2]}", "precision: found 1, expected a name (the default is 'fp32')"),
    ],
)
def test_a_parameter_that_the_model_does_not_have_is_refused(change: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        space_of(SEARCH + f"    {change}\n").check()
    assert message in str(caught.value)


def test_keys_for_lightning_are_taken_where_it_trains_and_refused_where_not() -> None:
    with pytest.raises(ConfigError, match=r"trainer.gradient_clip_val: found, but no run is trained by Lightning"):
        space_of(SEARCH, "trainer.gradient_clip_val=1.0").check()
    text = CLASSIFIED.format(name="c").split("grid:", maxsplit=1)[0]
    text += "search: {space: {model: baseline, backbone: test_resnet, lr: {uniform: [0.001, 0.1]}}}"
    assert space_of(text, "trainer.gradient_clip_val=1.0").check()


def test_an_address_of_rays_client_is_refused(cli: Cli) -> None:
    pytest.importorskip("ray", reason="needs Ray: pip install 'harness[ray]'")
    result = cli("tune", write_config(Path("s.yaml"), SEARCH), "--address", "ray://127.0.0.1:1")
    assert result.exit_code == 2
    assert "expected auto or host:port" in result.output
    assert not Path("results/s").exists()


def test_any_number_for_a_parameter_of_whole_ones_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"num_neighbors: uniform found, but patchcore takes whole numbers"):
        space_of(SEARCH.replace("randint: [1, 10]", "uniform: [1, 10]")).check()


def test_a_metric_that_is_none_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"search.metric: 'AUROC' found; expected one of image_AUROC, image_AP"):
        space_of(SEARCH, "search.metric=AUROC").check()


def test_a_layer_that_one_of_the_choices_lacks_is_found_before_any_work() -> None:
    text = SEARCH.replace("backbone: resnet18", "backbone: {choice: [resnet18, mobilenetv2_100]}")
    with pytest.raises(ConfigError, match=r"mobilenetv2_100 has no layer '?layer1"):
        check(space_of(text).check(), "cpu")


def test_sweep_and_tune_point_to_each_other(cli: Cli) -> None:
    result = cli("sweep", write_config(Path("s.yaml"), SEARCH))
    assert result.exit_code == 2
    assert "`search:` is for `python -m harness tune`" in result.output
    grid = "data: {kind: toy}\ngrid: {backend: native, model: padim}"
    result = cli("tune", write_config(Path("g.yaml"), grid))
    assert result.exit_code == 2
    assert "search: missing; expected one, or `python -m harness sweep` for a grid" in result.output


def test_what_has_no_effect_beside_one_choice_may_have_beside_another() -> None:
    text = CLASSIFIED.format(name="c").split("grid:", maxsplit=1)[0]
    text += "search: {space: {model: baseline, backbone: test_resnet, image_size: 32, focal_gamma: {uniform: [1, 3]}, "
    good = space_of(text + "loss: {choice: [focal, cross_entropy]}}}")
    assert good.check()
    # Beside cross entropy it makes no run of its own.
    first, second = (good.runs({"loss": "cross_entropy", "focal_gamma": gamma}) for gamma in (1.5, 2.5))
    assert [run.run_id for run in first] == [run.run_id for run in second]
    with pytest.raises(ConfigError, match=r"focal_gamma: .*which has no effect here"):
        space_of(text + "loss: cross_entropy}}").check()


POINT = {"layers": ["layer1"], "num_neighbors": 3, "coreset_sampling_ratio": 0.1}


def test_a_point_is_a_run_for_each_category_and_seed() -> None:
    space = space_of(SEARCH.replace("category: plate", "category: [plate, fabric]"), "seeds=[0,1]")
    runs = space.runs(POINT)
    assert [(run.spec.category, run.spec.seed) for run in runs] == [
        ("plate", 0), ("plate", 1), ("fabric", 0), ("fabric", 1)
    ]  # fmt: skip
    assert {run.spec.layers for run in runs} == {("layer1",)}
    assert len({run.run_id for run in runs}) == 4


@given(st.floats(0.01, 0.5), st.integers(1, 9))
@settings(max_examples=30, deadline=None)
def test_points_survive_the_way_to_optuna_and_back(ratio: float, neighbours: int) -> None:
    sampler = pytest.importorskip("harness.search.sampler", reason="needs Ray: pip install 'harness[ray]'")
    domains = {
        "layers": Domain("choice", (["layer1"], ["layer1", "layer2"])),
        "num_neighbors": Domain("randint", (1, 10)),
        "coreset_sampling_ratio": Domain("loguniform", (0.01, 0.5)),
    }
    point = {"layers": ["layer1", "layer2"], "num_neighbors": neighbours, "coreset_sampling_ratio": ratio}
    decoded = sampler.decoded(sampler.encoded(point, domains), domains)
    assert decoded["coreset_sampling_ratio"] == pytest.approx(ratio, rel=1e-3)
    assert 0.01 <= decoded["coreset_sampling_ratio"] <= 0.5
    assert {**decoded, "coreset_sampling_ratio": ratio} == point
    for name, one in domains.items():
        assert one.holds(decoded[name])
        assert sampler.distribution(one)._contains(
            sampler.distribution(one).to_internal_repr(sampler.encoded(point, domains)[name])
        )


def propose(count: int, known: Mapping[float, float] | None = None, **changes: Any) -> list[float]:
    """What is tried when the metric is -(x - 0.3)**2 and the space is 0 ... 1; of choices four."""
    sampler = pytest.importorskip("harness.search.sampler", reason="needs Ray: pip install 'harness[ray]'")
    from harness.config.search import Search
    from harness.search.history import Trial

    domain = changes.pop("domain", {"uniform": [0, 1]})
    search = Search(num_samples=count, space={"model": "m", "x": domain}, **changes)
    tried: dict[str, float] = {}
    known = dict(known or {})

    def begin(trial_id: str, point: Mapping[str, Any]) -> dict[str, Any] | None:
        if point["x"] in known or point["x"] in tried.values():
            return None
        tried[trial_id] = point["x"]
        return {}

    def end(trial_id: str, result: Mapping[str, Any]) -> Trial:
        return Trial(1, {}, [], "done", result["value"])

    searcher = sampler.Sampler(search, search.domains, begin, end, 0)
    for x, value in known.items():
        searcher.add({"x": x}, "done", value)
    for number in range(count):
        if searcher.suggest(str(number)) == "FINISHED":
            break
        sign = 1 if search.mode == "min" else -1
        searcher.on_trial_complete(str(number), {"value": sign * (tried[str(number)] - 0.3) ** 2})
    return list(tried.values())


def test_proposals_gather_where_the_metric_is_good() -> None:
    for mode in ("max", "min"):
        late = propose(30, mode=mode)[15:]
        assert len(late) == 15
        # Drawn blindly, half of them would lie within 0.25.
        assert np.median(np.abs(np.array(late) - 0.3)) < 0.1


def test_what_is_known_is_not_tried_again_and_is_learnt_from() -> None:
    known = {float(x): -((x - 0.3) ** 2) for x in np.linspace(0, 1, 21).round(3)}
    assert np.median(np.abs(np.array(propose(10, known)) - 0.3)) < 0.1
    assert sorted(propose(9, {2: 0.0}, domain={"choice": [1, 2, 3, 4]})) == [1, 3, 4]


def test_a_space_that_can_be_counted_is_tried_to_its_last_point() -> None:
    assert sorted(propose(60, domain={"randint": [0, 40]})) == list(range(40))
    assert sorted(propose(40, domain={"randint": [0, 40]}, mode="min")) == list(range(40))


def test_numbers_are_short_but_tell_narrow_ranges_apart() -> None:
    for domain in ({"uniform": [0.9999, 0.99999]}, {"loguniform": [0.9999, 0.99999]}, {"uniform": [0, 5000]}):
        values = propose(8, domain=domain)
        assert len(set(values)) == 8
        assert max(len(repr(x)) for x in values) <= 12


def test_no_more_than_the_limit_are_proposed_at_once() -> None:
    sampler = pytest.importorskip("harness.search.sampler", reason="needs Ray: pip install 'harness[ray]'")
    from harness.config.search import Search
    from harness.search.history import Trial

    search = Search(space={"model": "m", "x": {"uniform": [0, 1]}})
    searcher = sampler.Sampler(search, search.domains, lambda name, point: {}, lambda name, result: None, 0, limit=2)
    assert searcher.suggest("a") == searcher.suggest("b") == {}
    assert searcher.suggest("c") is None
    searcher.on_trial_complete("a", error=True)
    assert searcher.suggest("c") == {}
    assert Trial(1, {}, []).state == "running"


@pytest.fixture
def searched(sweep_folder: ResultFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Prepared, Space]:
    """A search whose points are those of a finished grid."""
    monkeypatch.setitem(registry.BACKENDS, "dummy", "tests.dummy:DummyBackend")
    shutil.copytree(sweep_folder.root.parent, tmp_path / "results")
    text = CONFIG.format(name="demo").split("grid:", maxsplit=1)[0]
    text += "search: {num_samples: 6, space: {backend: dummy, model: mean, power: {choice: [1.0, 2.0, 3.0, 1.5]}}}"
    prepared = prepare(load_config(write_config(tmp_path / "s.yaml", text), ["output=results"]))
    return prepared, Space(prepared.config, prepared.splits)


def test_runs_of_a_grid_are_known_to_a_search(searched: tuple[Prepared, Space]) -> None:
    prepared, space = searched
    history = History(prepared.folder, space, prepared.records)
    known = evaluated_points(space, prepared.records, history)
    assert sorted(point["power"] for point, _ in known) == [1.0, 2.0, 3.0]
    for point, value in known:
        own = [prepared.records[run.run_id].metrics["image_AUROC"] for run in space.runs(point)]
        assert value == pytest.approx(np.mean([v for v in own if v is not None]))


def test_a_setting_that_lacks_a_run_is_not_known(searched: tuple[Prepared, Space]) -> None:
    prepared, space = searched
    records = dict(prepared.records)
    del records[space.runs({"power": 2.0})[3].run_id]
    known = evaluated_points(space, records, History(prepared.folder, space, records))
    assert sorted(point["power"] for point, _ in known) == [1.0, 3.0]


def test_what_was_tried_is_remembered_as_far_as_it_means_something(searched: tuple[Prepared, Space]) -> None:
    prepared, space = searched
    history = History(prepared.folder, space, prepared.records)
    names = [run.run_id for run in space.runs({"power": 1.0})]
    for power, state, runs in ((1.0, "done", names), (2.0, "stopped", ["gone"]), (3.0, "running", ["begun"])):
        trial = history.begin({"power": power}, runs)
        trial.state, trial.value, trial.looks = state, 0.25, [(3, 0.25)]  # type: ignore[assignment]
    history.save()
    again = History(prepared.folder, space, prepared.records)
    assert [(trial.number, trial.state) for trial in again.finished] == [(1, "done"), (2, "stopped")]
    # The records have the value.
    assert again.finished[0].value == again.best.value != 0.25  # type: ignore[union-attr]
    assert again.interrupted == [{"power": 3.0}]
    # Also if the next call is stopped before it comes to that.
    again.save()
    again = History(prepared.folder, space, prepared.records)
    assert again.interrupted == [{"power": 3.0}]
    assert again.begin({"power": 3.0}, []).number == 3
    # By another metric, what a stopped one had reached says nothing.
    other = Space(prepared.config.model_copy(update={"search": space.search.model_copy(update={"metric": "image_AP"})}),
                  prepared.splits)  # fmt: skip
    assert [trial.number for trial in History(prepared.folder, other, prepared.records).finished] == [1]
    # Without its records, a trial is to be made again.
    assert [trial.number for trial in History(prepared.folder, space, {}).finished] == [2]
    narrower = space.search.model_copy(update={"space": {**space.search.space, "power": {"choice": [2.0, 3.0]}}})
    fewer = Space(prepared.config.model_copy(update={"search": narrower}), prepared.splits)
    assert [trial.number for trial in History(prepared.folder, fewer, prepared.records).finished] == [2]


def test_what_failed_is_known_unless_it_is_to_be_tried_again_or_has_been_made(
    searched: tuple[Prepared, Space],
) -> None:
    prepared, space = searched
    history = History(prepared.folder, space, prepared.records)
    run_ids = [run.run_id for run in space.runs({"power": 3.0})]
    for power, runs, why in (
        (1.0, ["a"], "ValueError: no"),
        (2.0, ["b"], "WorkerLostError: died"),
        (3.0, run_ids, "x"),
    ):
        trial = history.begin({"power": power}, runs)
        trial.state, trial.why = "failed", why
    history.begin({"power": 1.0}, run_ids)
    history.save()
    again = History(prepared.folder, space, prepared.records)
    # Those whose runs are there are done: a sweep made them, or a kill came just after the last one.
    assert [(trial.number, trial.state) for trial in again.finished] == [(1, "failed"), (3, "done"), (4, "done")]
    assert again.interrupted == [{"power": 2.0}]
    retried = History(prepared.folder, space, prepared.records, retry_failed=True)
    assert [trial.number for trial in retried.finished] == [3, 4]
    assert retried.interrupted == [{"power": 1.0}, {"power": 2.0}]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "damaged"),
        ("[]", "damaged"),
        ('{"trials": [{"what": 1}], "metric": "image_AUROC"}', "damaged"),
        ('{"schema": 99, "trials": [], "metric": "image_AUROC"}', "A newer version of harness wrote the file"),
    ],
)
def test_a_damaged_history_is_said(searched: tuple[Prepared, Space], text: str, message: str) -> None:
    prepared, space = searched
    prepared.folder.search.write_text(text)
    with pytest.raises(StoreError, match=message):
        History(prepared.folder, space, prepared.records)
    if message == "damaged":
        write_workbook(prepared.folder)
        sentences = read_me(prepared.folder.workbook)
        assert any(f"LEFT OUT: {prepared.folder.search}: damaged" in sentence for sentence in sentences)


def test_the_sheet_and_the_page_tell_of_a_search(searched: tuple[Prepared, Space]) -> None:
    prepared, space = searched
    history = History(prepared.folder, space, prepared.records)
    for power in (1.0, 3.0, 2.0):
        trial = history.begin({"power": power}, [run.run_id for run in space.runs({"power": power})])
        trial.state, trial.seconds = "done", 2.5
        own = [prepared.records[run].metrics["image_AUROC"] for run in trial.runs]
        trial.value = float(np.mean([v for v in own if v is not None]))
    stopped = history.begin({"power": 1.5}, ["gone"])
    stopped.state, stopped.value, stopped.looks = "stopped", 0.4, [(1, 0.3), (3, 0.4)]
    outside = history.begin({"power": 7.0}, ["elsewhere"])
    outside.state, outside.value, outside.looks = "stopped", 0.9, [(3, 0.9)]
    history.begin({"power": 1.5}, ["under-way"])
    history.importance = {"power": 1.0}
    history.save()
    folder = prepared.folder
    write_workbook(folder)
    header, *rows = load_workbook(folder.workbook)["Search"].iter_rows(values_only=True)
    text = " ".join(read_me(folder.workbook))
    assert "A search for the largest image_AUROC: 4 of 6 trials (3 completed, 1 stopped early)." in text
    assert "(functional ANOVA): power 100%" in text
    assert "The best of 4 trials was chosen by the same images" in text
    assert "(bootstrap bias correction, a lower bound)" in text
    table = [dict(zip(header, row, strict=True)) for row in rows]
    assert [row["trial"] for row in table] == [1, 2, 3, 4]
    best = [row["best_so_far"] for row in table]
    values = [row["image_AUROC"] for row in table[:3]]
    assert best == [values[0], max(values[:2]), max(values), max(values)]
    assert (table[3]["stopped_after_epoch"], table[3]["image_AUROC_by_then"]) == (3, 0.4)
    write_report(folder)
    page = folder.report.read_text()
    data = json.loads(page.split('type="application/json">', maxsplit=1)[1].split("</script>", maxsplit=1)[0])
    assert [trial["number"] for trial in data["search"]["trials"]] == [1, 2, 3, 4]
    assert 'id="plot-parallel"' in page
    assert 'href="#search"' in page


def test_a_grid_has_no_sheet_of_a_search(sweep_folder: ResultFolder) -> None:
    assert SearchReport.of(Results.of(sweep_folder)) is None
    assert "Search" not in load_workbook(sweep_folder.workbook).sheetnames


def test_the_best_of_many_that_know_nothing_is_corrected_to_chance() -> None:
    rng = np.random.default_rng(0)
    labels = np.arange(60) < 25
    claimed, honest = [], []
    for _ in range(12):
        scores = list(rng.normal(size=(40, 60)))
        draws = auroc_draws(labels, scores)
        assert draws is not None
        pairs = [(one[labels][:, None] > one[~labels]).mean() for one in scores]
        claimed.append(max(pairs))
        honest.append(corrected(*draws))
    assert np.mean(claimed) > 0.64
    assert np.mean(honest) == pytest.approx(0.5, abs=0.06)


def test_where_many_are_perfect_on_few_images_the_best_is_not_taken_at_its_word() -> None:
    """Ties on what is drawn must not go to the one that is the best on what is left out too."""
    rng = np.random.default_rng(3)
    labels = np.arange(12) < 6
    honest, true = [], []
    for _ in range(40):
        # 40 trials, worth 0.9 each: some are perfect on these images.
        scores = sorted(rng.normal(size=(40, 12)) + 1.81 * labels, key=lambda one: -wins(one, labels))
        draws = auroc_draws(labels, list(scores))
        assert draws is not None
        honest.append(corrected(*draws))
        true.append(0.9)
        assert wins(scores[0], labels) > 0.97
    assert np.mean(honest) == pytest.approx(np.mean(true), abs=0.02)


def wins(scores: Any, labels: Any) -> float:
    return float((scores[labels][:, None] > scores[~labels]).mean())


def test_one_that_is_better_than_all_others_keeps_its_figure() -> None:
    rng = np.random.default_rng(1)
    labels = np.arange(80) < 40
    scores = [rng.normal(size=80) + 3 * labels, *rng.normal(size=(9, 80))]
    draws = auroc_draws(labels, scores)
    assert draws is not None
    value = (scores[0][labels][:, None] > scores[0][~labels]).mean()
    assert corrected(*draws) == pytest.approx(value, abs=0.02)
    truth = rng.integers(4, size=200)
    predicted = [truth.copy(), *rng.integers(4, size=(9, 200))]
    predicted[0][:20] = (truth[:20] + 1) % 4
    assert corrected(*macro_f1_draws(truth, predicted, 4)) == pytest.approx(0.9, abs=0.02)
    guesses = rng.integers(4, size=(60, 200))
    assert corrected(*macro_f1_draws(truth, list(guesses), 4)) == pytest.approx(0.25, abs=0.05)


def test_of_too_many_images_nothing_is_drawn() -> None:
    assert auroc_draws(np.arange(5000) < 2500, [np.zeros(5000)]) is None


TRAINED = {
    "native cflow": "{backend: native, model: cflow, backbone: resnet18, layers: [layer1], coupling_blocks: 2, "
    "image_size: 64, max_epochs: 3}",
    "anomalib's stfpm": "{backend: anomalib, model: stfpm, backbone: resnet18, layers: [layer1], image_size: 64}",
}


@pytest.mark.parametrize("grid", TRAINED.values(), ids=list(TRAINED))
@pytest.mark.slow
def test_looking_at_a_training_changes_nothing(grid: str, toy_tree: Path, tmp_path: Path) -> None:
    trainer = "{max_epochs: 3}" if "anomalib" in grid else "{}"
    text = f"""
name: x
data: {{kind: mvtec, root: {toy_tree}, val: 0.25}}
weights: random
device: cpu
latency: false
save_models: none
trainer: {trainer}
grid: {grid}
"""
    prepared = prepare(load_config(write_config(Path("c.yaml"), text)))
    epoch_metrics: list[tuple[int, Mapping[str, float | None]]] = []
    results = {}
    for rungs in (None, Rungs({1, 2, 3}, lambda epoch, metrics: epoch_metrics.append((epoch, metrics)))):
        folder = ResultFolder(tmp_path / "work")
        (record,) = execute_job(Job(prepared.config, prepared.runs, "key"), folder, lambda _: None, rungs)
        assert record.status == "ok", record.error
        assert not [text for text in record.warnings if "looked at" in text]
        results[rungs is None] = (folder.staged(record.run_id) / "scores.csv").read_text(), record.metrics
    assert results[True] == results[False]
    # Not after the last one: that is the run itself.
    assert [epoch for epoch, _ in epoch_metrics] == [1, 2]
    for _, metrics in epoch_metrics:
        assert metrics["image_AUROC"] is not None
        assert metrics["image_F1Score"] is not None
        assert metrics["pixel_AUROC"] is not None


def test_of_a_classification_the_first_fold_is_looked_at(tmp_path: Path) -> None:
    config = load_config(write_config(Path("c.yaml"), CLASSIFIED.format(name="c")), ["trainer.max_epochs=3"])
    prepared = prepare(config)
    epoch_metrics: list[tuple[int, Mapping[str, float | None]]] = []
    rungs = Rungs({1, 2, 3}, lambda epoch, metrics: epoch_metrics.append((epoch, metrics)))
    (record,) = execute_job(
        Job(prepared.config, prepared.runs[:1], "key"), ResultFolder(tmp_path), lambda _: None, rungs
    )
    assert [epoch for epoch, _ in epoch_metrics] == [1, 2]
    curve = json.loads((ResultFolder(tmp_path).staged(record.run_id) / "details.json").read_text())["epochs"]["fold0"]
    for (_, metrics), entry in zip(epoch_metrics, curve, strict=False):
        assert metrics["macro_F1"] == pytest.approx(entry["val_macro_F1"])
        assert metrics["accuracy"] is not None


def test_a_look_may_end_the_training_and_nothing_is_left_behind(tmp_path: Path) -> None:
    from harness.execution.launchers.node import home_of, records_of_job, work_folder

    prepared = prepare(load_config(write_config(Path("c.yaml"), CLASSIFIED.format(name="c"))))

    def stop(epoch: int, metrics: Mapping[str, float | None]) -> None:
        raise SystemExit(0)

    class Queue(list[Any]):
        put = list.append

    home = home_of(tmp_path / str(random.random()))
    job = Job(prepared.config, prepared.runs[:1], "key")
    with pytest.raises(SystemExit):
        list(records_of_job(1, job, Queue(), home, str(tmp_path), None, Rungs({1}, stop)))
    folder = ResultFolder(work_folder() / home)
    assert not folder.unfinished("key").exists()
    assert not list((folder.root / ".work").iterdir())
    shutil.rmtree(folder.root)
