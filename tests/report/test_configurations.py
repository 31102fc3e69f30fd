"""What is compared with what: configurations, ties and the recommendation, on made-up runs of every awkward kind."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.report.comparisons import pivot_table, summary_table
from harness.report.configurations import key_without
from harness.report.detection_page import _data
from harness.report.recommend import Recommendation, answers
from harness.report.results import Results
from harness.report.tables import notices, runs_table
from harness.results.record import RunRecord
from harness.results.store import ResultFolder
from tests.conftest import Cli
from tests.fake_results import fake_run

LABELS = [0] * 20 + [1] * 20
RNG = np.random.default_rng(0)
NOISE = RNG.standard_normal(40)


def scores(shift: float, noise: float = 0.0) -> list[float]:
    """Scores that are the better the larger the shift; with much noise of another kind than the others' have."""
    found: list[float] = (NOISE + noise * RNG.standard_normal(40) + shift * np.array(LABELS)).tolist()
    return found


GOOD, FAIR, POOR = scores(3.0), scores(2.0), scores(0.2)


@pytest.fixture
def folder(tmp_path: Path) -> ResultFolder:
    found = ResultFolder(tmp_path / "made-up")
    found.create()
    return found


Run = Callable[..., RunRecord]


@pytest.fixture
def run(folder: ResultFolder) -> Run:
    numbers = iter(range(1000))

    def make(values: list[float], labels: list[int] = LABELS, **changes: Any) -> RunRecord:
        return fake_run(folder, f"run-{next(numbers)}", values, labels, **changes)

    return make


def answer(folder: ResultFolder) -> Recommendation:
    (found,) = answers(Results.of(folder))
    return found


def names(folder: ResultFolder) -> list[str]:
    return [
        configuration.name for of_dataset in Results.of(folder).configurations.values() for configuration in of_dataset
    ]


def test_another_share_of_held_out_images_is_another_setting_on_the_same_test_images(
    folder: ResultFolder, run: Run, cli: Cli
) -> None:
    run(GOOD)
    run(FAIR, data={"fingerprint": "other roles", "held_out": [0.0, 0]}, provenance={"began": "2026-02-01"})
    assert names(folder) == ["patchcore val 0.1", "patchcore val 0.0"]
    assert notices(Results.of(folder)) == []
    assert runs_table(Results.of(folder))["vs_best"].tolist()[0] == "best"
    compared = cli("compare", folder.run_folder("run-0"), folder.run_folder("run-1"))
    assert compared.exit_code == 0, compared.output


def test_runs_on_changed_test_images_are_left_out_and_that_is_said(folder: ResultFolder, run: Run) -> None:
    run(GOOD, data={"test_fingerprint": "old"}, params={"k": 1})
    run(FAIR, provenance={"began": "2026-02-01"}, params={"k": 2})
    assert len(names(folder)) == 1
    (notice,) = notices(Results.of(folder))
    assert notice.startswith("1 of 2 runs are shown in Runs only: their test images were changed since")


def test_of_the_same_setting_run_again_the_later_counts(folder: ResultFolder, run: Run) -> None:
    run(GOOD)
    run(FAIR, data={"fingerprint": "more training images"}, provenance={"began": "2026-02-01"})
    ((configuration,),) = Results.of(folder).configurations.values()
    assert [record.run_id for record in configuration.records] == ["run-1"]
    assert len(notices(Results.of(folder))) == 1


def test_what_tells_settings_apart_is_named_whatever_it_is(folder: ResultFolder, run: Run) -> None:
    for size in (8, 16):
        run(GOOD, spec={"eval_batch_size": size})
    run(GOOD, spec={"threshold": {"method": "fixed", "image": 3.5}})
    assert sorted(names(folder)) == [
        "patchcore eval_batch_size 16 threshold.method none",
        "patchcore eval_batch_size 32 threshold.method fixed",
        "patchcore eval_batch_size 8 threshold.method none",
    ]


def test_a_parameter_with_one_value_is_named_only_where_nothing_else_tells(folder: ResultFolder, run: Run) -> None:
    run(GOOD, params={"coreset_sampling_ratio": 0.1})
    run(GOOD, spec={"model": "padim"})
    assert sorted(names(folder)) == ["padim", "patchcore"]
    run(GOOD)
    assert "patchcore coreset_sampling_ratio 0.1" in names(folder)


def test_lines_join_what_differs_in_the_axis_only(folder: ResultFolder, run: Run) -> None:
    one = run(GOOD, params={"ratio": 0.1}, spec={"trainer": {"max_epochs": 1}})
    same = run(GOOD, params={"ratio": 0.2}, spec={"trainer": {"max_epochs": 1}})
    other = run(GOOD, params={"ratio": 0.2}, spec={"trainer": {"max_epochs": 2}})
    assert key_without(one, "ratio") == key_without(same, "ratio")
    assert key_without(one, "ratio") != key_without(other, "ratio")


def test_the_answer_warns_of_choosing_on_the_test_images(folder: ResultFolder, run: Run) -> None:
    run(GOOD, params={"k": 1})
    assert answer(folder).reasons[1] == "It is the only configuration."
    run(POOR, params={"k": 2})
    assert answer(folder).reasons[1] == (
        "It has the highest mean image AUROC of 2 configurations. All others that could be tested are significantly "
        "worse at 5% (DeLong's paired test). It is the best of 2 on these very images: expect a somewhat lower image "
        "AUROC on new ones."
    )


def test_what_could_not_be_tested_is_not_called_worse(folder: ResultFolder, run: Run) -> None:
    run(GOOD, params={"k": 1})
    run(FAIR, params={"k": 2})
    (folder.run_folder("run-1") / "scores.csv").unlink()
    why = answer(folder).reasons[1]
    assert "1 could not be tested: too few images of a class, or no scores.csv." in why
    assert "worse" not in why


def test_nobody_is_marked_where_the_best_can_not_be_tested(folder: ResultFolder, run: Run) -> None:
    for number, values in enumerate((GOOD, FAIR, POOR)):
        run(values, params={"k": number})
    (folder.run_folder("run-0") / "scores.csv").unlink()
    assert runs_table(Results.of(folder))["vs_best"].isna().all()


def test_a_model_without_maps_is_not_as_good_in_pixels(folder: ResultFolder, run: Run) -> None:
    run(GOOD, metrics={"pixel_AUROC": 0.9, "pixel_AUPRO": 0.9})
    run(GOOD, spec={"model": "dfkde"}, cost={"seconds_p50": 0.001})
    chosen = answer(folder).configuration
    assert chosen is not None
    assert chosen.name == "patchcore"


def test_a_faster_setting_is_taken_only_on_the_same_machine(folder: ResultFolder, run: Run) -> None:
    run(GOOD, params={"k": 1}, metrics={"image_AUROC": 0.999})
    run(GOOD, params={"k": 2}, metrics={"image_AUROC": 0.998}, cost={"seconds_p50": 0.001}, device="cuda:0, H100")
    chosen = answer(folder).configuration
    assert chosen is not None
    assert chosen.name == "patchcore k 1"
    run(GOOD, params={"k": 3}, metrics={"image_AUROC": 0.998}, cost={"seconds_p50": 0.005})
    chosen = answer(folder).configuration
    assert chosen is not None
    assert chosen.name == "patchcore k 3"
    assert "instead of 10.0" in answer(folder).reasons[1]


def test_a_category_of_one_class_does_not_take_the_answer_away(folder: ResultFolder, run: Run) -> None:
    for model in ("patchcore", "padim"):
        run(GOOD if model == "padim" else FAIR, spec={"model": model})
        run(NOISE.tolist(), [0] * 40, spec={"model": model, "category": "cable"})
    found = answer(folder)
    assert found.configuration is not None
    assert found.configuration.name == "padim"
    assert "Image AUROC is undefined on cable (one class only): left out of the mean." in found.reasons
    assert found.tied or "worse at 5%" in found.reasons[1]


def test_settings_without_all_categories_are_left_out_by_name(folder: ResultFolder, run: Run) -> None:
    for category in ("bottle", "cable"):
        run(FAIR, spec={"category": category}, params={"k": 1})
    run(GOOD, params={"k": 2})
    found = answer(folder)
    assert found.configuration is not None
    assert found.configuration.name == "patchcore k 1"
    assert found.reasons[1] == "It is the only configuration."
    assert "1 configurations lack runs on some categories and are left out." in found.reasons


def two_datasets(run: Run) -> None:
    for root, backbone in (("/one", "resnet18"), ("/two", "wide_resnet50_2")):
        for ratio in (0.1, 0.2):
            data = {"root": f"{root}/bottle", "fingerprint": root, "test_fingerprint": root}
            run(GOOD, data=data, spec={"backbone": backbone}, params={"ratio": ratio})


def test_two_data_sets_are_two_comparisons(folder: ResultFolder, run: Run) -> None:
    two_datasets(run)
    results = Results.of(folder)
    assert [one.dataset for one in answers(results)] == ["mvtec /one", "mvtec /two"]
    table = pivot_table(results, ["image_AUROC"])
    assert table["data"].tolist() == ["mvtec one", "mvtec two"]
    # Nobody's figure stands in the column of another configuration.
    assert table.iloc[0, 3:].notna().tolist() == [True, True, False, False]
    assert table.iloc[1, 3:].notna().tolist() == [False, False, True, True]
    data = _data(results)
    assert data["datasets"] == ["mvtec one", "mvtec two"]
    assert [one["dataset"] for one in data["settings"]] == [0, 0, 1, 1]
    assert summary_table(results)["recommended"].tolist() == ["yes", "yes"]


def test_the_recommended_setting_is_in_the_summary(folder: ResultFolder, run: Run) -> None:
    run(GOOD, params={"k": 1}, metrics={"image_AUROC": 0.999})
    run(GOOD, params={"k": 2}, metrics={"image_AUROC": 0.998}, cost={"seconds_p50": 0.005})
    table = summary_table(Results.of(folder))
    assert table["k"].tolist() == [1, 2]
    assert table["vs_best"].tolist() == ["best", "tied"]
    assert table["recommended"].fillna("").tolist() == ["", "yes"]


def test_a_leader_that_nothing_speaks_for_is_not_recommended(folder: ResultFolder, run: Run) -> None:
    run(POOR)
    assert "not significantly better than guessing" in answer(folder).doubts[0]


def test_doubts_of_few_images_and_random_weights_are_told(folder: ResultFolder, run: Run) -> None:
    run([0.0, 1.0, 2.0, 3.0], [0, 0, 1, 1], weights={"source": "random", "sha256": None})
    assert answer(folder).doubts[-2:] == [
        "A category has only 2 test images of a class: too few for a reliable choice.",
        "Its weights are random.",
    ]
    (notice,) = notices(Results.of(folder))
    assert notice.startswith("RANDOM WEIGHTS in 1 of 1 runs: as the config asks.")


def test_a_sure_answer_has_no_doubts(folder: ResultFolder, run: Run) -> None:
    run(GOOD)
    assert answer(folder).doubts == []


def test_images_that_fixed_a_threshold_make_another_test_set(folder: ResultFolder, run: Run) -> None:
    run(GOOD)
    run(FAIR, spec={"threshold": {"method": "f1_on_val", "share": 0.3, "seed": 0}}, provenance={"began": "2026-02-01"})
    found = answers(Results.of(folder))
    assert [one.dataset for one in found] == [
        "mvtec /data",
        "mvtec /data, without the 30% that fixed the threshold (seed 0)",
    ]
    assert notices(Results.of(folder)) == []
    # Nor do two such sets of equal size mix.
    run(FAIR, spec={"threshold": {"method": "f1_on_val", "share": 0.3, "seed": 1}}, provenance={"began": "2026-02-02"})
    assert runs_table(Results.of(folder))["vs_best"].tolist() == ["best"] * 3


@pytest.mark.parametrize(
    ("val", "part"), [(0, "NO THRESHOLD in 1 of 1 runs"), (3, "are the highest of 3 held-out normal"), (200, "")]
)
def test_thresholds_that_rest_on_little_are_told(folder: ResultFolder, run: Run, val: int, part: str) -> None:
    run(GOOD, data={"val": val}, spec={"threshold": {"method": "normal_quantile", "quantile": 0.99}})
    found = notices(Results.of(folder))
    assert len(found) == (1 if part else 0)
    assert part in " ".join(found)
