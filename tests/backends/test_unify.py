"""`data.unify`: one model of all categories, the same as a model of one folder with the images of all categories."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from anomalib.engine import Engine

from harness.analysis.results import load_results
from harness.backends.base import AnySplit, Detected, RunContext
from harness.config.load import load_config
from harness.config.spec import RunSpec
from harness.data.samples import Split
from harness.data.toy_images import write_toy
from harness.execution.launchers.shipping import files_of, laid_out, read_files
from harness.planning.prepare import PlannedRun, backend, prepare
from tests.conftest import Cli, write_config

COMMON = "backbone: resnet18, layers: [layer2], image_size: 64"
PADIM = f"{{backend: native, model: padim, n_features: 10, {COMMON}}}"
PATCHCORE = f"{{backend: native, model: patchcore, coreset_sampling_ratio: 0.3, {COMMON}}}"
ANOMALIB = f"{{backend: anomalib, model: padim, n_features: 10, {COMMON}}}"


def planned(tmp_path: Path, root: Path, grid: str, more: str = "", **data: object) -> tuple[PlannedRun, ...]:
    keys = "".join(f", {key}: {value}" for key, value in data.items())
    text = f"data: {{kind: mvtec, root: {root}{keys}}}\nweights: random\ndevice: cpu\nlatency: false\n{more}"
    return prepare(
        load_config(write_config(tmp_path / "u.yaml", f"{text}grid: {grid}\n"), [f"output={tmp_path}/o"])
    ).runs


def results(specs: list[RunSpec], split: AnySplit, scratch: Path) -> list[Detected]:
    outcomes = list(backend(specs[0].backend).run(specs, split, RunContext(scratch, "cpu", 0, lambda _: None)))
    assert all(isinstance(outcome, Detected) for outcome in outcomes), outcomes
    return [outcome for outcome in outcomes if isinstance(outcome, Detected)]


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("two")
    write_toy(root, categories=["fabric", "plate"], size=64, train=6, good=3, bad=2)
    return root


@pytest.fixture(scope="module")
def one_folder(tmp_path_factory: pytest.TempPathFactory, tree: Path) -> Path:
    """One category with the images of all categories; its names keep their order."""
    root = tmp_path_factory.mktemp("unified")
    for file in tree.rglob("*.png"):
        category, *folders, name = file.relative_to(tree).parts
        target = root / "all" / Path(*folders) / f"{category}-{name}"
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, target)
    return root


def test_beside_each_configuration_there_is_one_model_for_all_categories(tmp_path: Path, tree: Path) -> None:
    runs = planned(tmp_path, tree, PADIM, unify="true")
    assert [(run.spec.category, run.spec.unify) for run in runs] == [
        (category, unify) for category in sorted({run.spec.category for run in runs}) for unify in (False, True)
    ]
    plain = planned(tmp_path, tree, PADIM)
    assert [run.run_id for run in runs if not run.spec.unify] == [run.run_id for run in plain]
    assert "unify" not in plain[0].spec.as_dict()
    (split,) = {id(run.split): run.split for run in runs if run.spec.unify}.values()
    assert isinstance(split, Split)
    for run in runs:
        own, of_category = run.own_split, next(one for one in plain if one.spec.category == run.spec.category).split
        assert isinstance(own, Split)
        assert isinstance(of_category, Split)
        assert (own.test, own.fingerprint) == (of_category.test, of_category.fingerprint)
        assert own.train == (split.train if run.spec.unify else of_category.train)
        assert RunSpec.from_dict(run.spec.as_dict()) == run.spec


@pytest.mark.parametrize("grid", [PADIM, PATCHCORE])
@pytest.mark.parametrize("more", ["", "threshold: held_out\n"])
def test_a_native_model_is_that_of_a_folder_of_all_images(
    tmp_path: Path, tree: Path, one_folder: Path, grid: str, more: str
) -> None:
    val = {"val": 0.3} if more else {}
    unified = [run for run in planned(tmp_path, tree, f"[{grid}]", more, unify="true", **val) if run.spec.unify]
    (alone,) = planned(tmp_path, one_folder, grid, more, **val)
    split = unified[0].split
    outcomes = results([run.spec for run in unified], split, tmp_path)
    if more:
        # Which images are held out depends on the folder, so only the number of the outcomes' images is fixed.
        for run, outcome in zip(unified, outcomes, strict=True):
            assert isinstance(run.own_split, Split)
            assert outcome.calibration is not None
            assert outcome.calibration.samples == run.own_split.val
            assert outcome.test.samples == run.own_split.test
        return
    (expected,) = results([alone.spec], alone.split, tmp_path)
    scores = {
        "/".join(Path(sample.path).parts[-3:]): score
        for sample, score in zip(expected.test.samples, expected.test.scores, strict=True)
    }
    for run, outcome in zip(unified, outcomes, strict=True):
        assert isinstance(run.own_split, Split)
        assert outcome.test.samples == run.own_split.test
        for sample, score in zip(outcome.test.samples, outcome.test.scores, strict=True):
            *folders, name = Path(sample.path).parts[-3:]
            assert score == pytest.approx(scores["/".join([*folders, f"{run.spec.category}-{name}"])], rel=1e-4)
        # The threshold of a category comes from its own images, out of fold of all images.
        assert outcome.calibration is not None
        assert {Path(sample.path).parts[-4] for sample in outcome.calibration.samples} == {run.spec.category}
        assert len(outcome.calibration.samples) < len(run.own_split.train)


def test_a_node_knows_the_images_of_each_category(tmp_path: Path, tree: Path) -> None:
    """A cluster may send the images, which then have other paths on the node."""
    run = next(run for run in planned(tmp_path, tree, PADIM, unify="true") if run.spec.unify)
    sent = laid_out(run.split, read_files(files_of(run.split)), tmp_path / "node")
    (here,), (there,) = (results([run.spec], split, tmp_path) for split in (run.split, sent))
    assert here.calibration is not None
    assert there.calibration is not None
    assert there.calibration.scores.tolist() == here.calibration.scores.tolist()
    assert there.test.scores.tolist() == here.test.scores.tolist()
    assert {Path(sample.path).parent for sample in there.test.samples} == {tmp_path / "node"}


def test_anomalib_trains_one_model(tmp_path: Path, tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trainings = []
    fit = Engine.fit
    monkeypatch.setattr(Engine, "fit", lambda self, **options: (trainings.append(1), fit(self, **options)))
    runs = [run for run in planned(tmp_path, tree, ANOMALIB, unify="true", val=0.3) if run.spec.unify]
    outcomes = results([run.spec for run in runs], runs[0].split, tmp_path)
    assert (len(trainings), len(outcomes)) == (1, len(runs))
    # The training counts once in the time that the runs took.
    spent = sum(outcome.seconds["spent"] for outcome in outcomes)
    assert spent < 2 * outcomes[0].seconds["fit"] + sum(outcome.seconds["test"] for outcome in outcomes)
    for run, outcome in zip(runs, outcomes, strict=True):
        assert isinstance(run.own_split, Split)
        assert (outcome.spec, outcome.own_metrics) == (run.spec, {})
        assert outcome.seconds["alone"] == outcome.seconds["fit"] + outcome.seconds["test"]
        assert outcome.test.samples == run.own_split.test
        assert outcome.calibration is not None
        assert outcome.calibration.samples == run.own_split.val
        # The same model as on a split of the category with all training images.
        (expected,) = results([run.spec], run.own_split, tmp_path)
        np.testing.assert_allclose(outcome.test.scores, expected.test.scores, rtol=1e-5)


@pytest.mark.slow
def test_sheet_and_commands_have_both_models(cli: Cli, tmp_path: Path, tree: Path) -> None:
    text = f"name: both\ndata: {{kind: mvtec, root: {tree}, unify: true}}\nweights: random\nlatency: false\n"
    config = write_config(tmp_path / "both.yaml", f"{text}save_models: all\ngrid: {PATCHCORE}\n")
    result = cli("sweep", config, "--output", tmp_path)
    assert result.exit_code == 0, result.output
    runs = load_results(tmp_path / "both").runs
    categories = sorted(runs["category"].unique())
    assert sorted(zip(runs["category"], runs["unify"], strict=True)) == [
        (category, unify) for category in categories for unify in (False, True)
    ]
    counts = runs.groupby("unify")["train_images"].sum()
    assert counts[True] == len(categories) * counts[False]
    # Both models of a category are compared on the same images.
    assert sorted(runs["vs_best"]).count("best") == len(categories)
    folder = next(path for path in (tmp_path / "both" / "runs").iterdir() if "unified" in path.name)
    image = next((tree / folder.name.split("-")[0] / "test" / "good").iterdir())
    predicted = cli("predict", folder, image, "--csv", tmp_path / "out.csv")
    assert predicted.exit_code == 0, predicted.output
    # A second call has nothing to do.
    assert "0 to run now" in cli("sweep", config, "--output", tmp_path).output


@pytest.mark.parametrize(
    ("data", "more", "message"),
    [
        ("category: plate, unify: true", "grid: {model: padim}", "unify: true found, but the data has one category"),
        ("category: plate", "grid: {model: padim, unify: [false, true]}", "but the data has one category"),
        ("unify: some", "grid: {model: padim}", "data.unify"),
        ("", "grid: {model: padim, unify: some}", "unify: expected true or false; found 'some'"),
        ("unify: true", "n_train: [4, all]\ngrid: {model: padim}", "data.unify: found with n_train"),
        (
            "unify: true",
            "search: {num_samples: 2, space: {model: padim, n_features: {choice: [5, 9]}}}",
            "data.unify: found with `search`",
        ),
        (
            "",
            "search: {num_samples: 2, space: {model: padim, unify: {choice: [true, false]}}}",
            "search.space.unify: found with `search`",
        ),
    ],
)
def test_what_can_not_be_unified_is_refused(
    cli: Cli, tmp_path: Path, tree: Path, data: str, more: str, message: str
) -> None:
    text = f"data: {{kind: mvtec, root: {tree}{', ' if data else ''}{data}}}\nweights: random\n{more}\n"
    result = cli("plan", write_config(tmp_path / "c.yaml", text))
    assert result.exit_code == 2
    assert message in " ".join(result.output.split())
